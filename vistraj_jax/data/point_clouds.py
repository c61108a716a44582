"""LiDAR sweeps as nuScenes stores them: `.pcd.bin`, five little-endian float32 a point, no header.

The five are x, y, z (m, sensor frame: x right, y ahead, z up), intensity (0..255) and ring (0 is
the lowest beam).
"""

import pathlib

import numpy as np

from vistraj_jax.core import checks, files

_POINT_BYTES = 20


def read_points(path):
  """Returns the points of a `.pcd.bin` file: float32 [N, 5].

  Raises:
    InputError: the file is missing, is not a whole number of points, or holds nan or infinity.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"{path}: no such LiDAR file; check the path.")
  data = path.read_bytes()
  checks.require(
    len(data) % _POINT_BYTES == 0,
    f"{path}: {len(data)} bytes received, a multiple of {_POINT_BYTES} wanted (5 float32 a point); "
    "the file is cut off or of another format.",
  )
  points = np.frombuffer(data, "<f4").reshape(-1, 5).astype(np.float32)
  bad = np.flatnonzero(~np.isfinite(points).all(1))
  if len(bad):
    raise checks.InputError(
      f"{path}: point {bad[0]} is {points[bad[0]].tolist()}, finite numbers wanted; the file is "
      "damaged or of another format."
    )
  return points


def write_points(path, points):
  """Writes points [N, 5] to `path`, atomically.

  Raises:
    InputError: the shape is another, or a number is not finite.
  """
  points = np.asarray(points)
  checks.shape(str(path), points, (None, 5))
  checks.require(
    bool(np.isfinite(points).all()),
    f"{path}: points that are not finite cannot be written; remove them first.",
  )
  with files.atomic_path(path) as temporary:
    temporary.write_bytes(points.astype("<f4").tobytes())
