"""KITTI's 3-D labels projected into the left colour camera, to be compared with its 2-D labels.

A label row holds, behind the 2-D box, height, width, length (m), the middle of the box's underside
(m, frame of camera 0: x right, y down, z forward) and its turn about y (rad). P2 in
`calib/{sequence}.txt` is the 3x4 projection of camera 0's frame into the colour camera's image.
"""

import dataclasses
import pathlib

import numpy as np

from vistraj_jax.core import checks, geometry

# Turns a box at rest (length along x, height along z) so that length lies along x, height along -y.
_UPRIGHT = (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Boxes:
  """The objects of one label file, DontCare regions left out.

  Attributes:
    frame: int64 [N], from 0.
    kind: str [N], KITTI's type.
    truncated, occluded: int64 [N], 0 to 2 and 0 to 3, larger is more.
    box_xyxy: float64 [N, 4], the 2-D label, left, top, right, bottom in px.
    corners: float64 [N, 8, 3], the 3-D label's corners, frame of camera 0, m.
  """

  frame: np.ndarray
  kind: np.ndarray
  truncated: np.ndarray
  occluded: np.ndarray
  box_xyxy: np.ndarray
  corners: np.ndarray


def read(path):
  """Reads label_02/{sequence}.txt.

  Raises:
    InputError: naming file, line and what is wrong.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"{path}: no such label file.")
  kinds, rows = [], []
  for line, text in enumerate(path.read_text().splitlines(), 1):
    cells = text.split()
    if not cells or cells[2:3] == ["DontCare"]:
      continue
    checks.require(len(cells) == 17, f"{path}:{line}: {len(cells)} columns; 17 are needed.")
    kinds.append(cells[2])
    rows.append(_numbers(f"{path}:{line}", cells[:2] + cells[3:]))
  values = np.array(rows, np.float64).reshape(-1, 16)
  height, width, length = values[:, 9:12].T
  bottom, turn = values[:, 12:15], values[:, 15]
  return Boxes(
    frame=values[:, 0].astype(np.int64),
    kind=np.array(kinds, np.str_),
    truncated=values[:, 2].astype(np.int64),
    occluded=values[:, 3].astype(np.int64),
    box_xyxy=values[:, 5:9],
    corners=corners(bottom, np.stack([width, length, height], -1), turn),
  )


def corners(bottom, size_wlh, turn):
  """Returns the corners [N, 8, 3] of 3-D labels in the frame of camera 0, m.

  Args:
    bottom: [N, 3], middle of the underside, m.
    size_wlh: [N, 3], width, length, height in m.
    turn: [N], about the camera's y axis (which points down), rad; 0 looks along +x.
  """
  size_wlh, turn = np.asarray(size_wlh, np.float64), np.asarray(turn, np.float64)
  zero = np.zeros_like(turn)
  about_y = np.stack([np.cos(turn / 2), zero, np.sin(turn / 2), zero], -1)
  rotation = geometry.multiply_quaternions(about_y, np.broadcast_to(_UPRIGHT, about_y.shape))
  center = np.array(bottom, np.float64)
  center[:, 1] -= size_wlh[:, 2] / 2
  return geometry.box_corners(center, size_wlh, rotation)


def read_projection(path):
  """Reads P2 of calib/{sequence}.txt as (intrinsic [3, 3], offset [3], m).

  A point of camera 0's frame plus the offset lies in the frame of the colour camera.

  Raises:
    InputError: naming the file, if P2 is missing or wrong.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"{path}: no such calibration file.")
  for line in path.read_text().splitlines():
    name, _, cells = line.partition(" ")
    if name.rstrip(":") == "P2":
      values = _numbers(f"{path}: P2", cells.split())
      checks.require(len(values) == 12, f"{path}: P2 has {len(values)} numbers; 12 are needed.")
      matrix = np.array(values).reshape(3, 4)
      return matrix[:, :3], np.linalg.solve(matrix[:, :3], matrix[:, 3])
  raise checks.InputError(f"{path}: holds no line P2; give a file of KITTI's calib folder.")


def project(corners, projection, image_size):
  """Bounds projected 3-D labels and cuts them to the image by the hull rule.

  KITTI's 2-D labels end at width - 1 and height - 1, and so do these.

  Args:
    corners: [N, 8, 3], frame of camera 0, m.
    projection: what `read_projection` returns.
    image_size: (width, height), px.

  Returns:
    (float64 [N, 4] left, top, right, bottom in px, nan where nothing lies in the image;
    bool [N], True where a corner lies behind the camera: then the bounds are too small).
  """
  intrinsic, offset = projection
  shifted = corners + offset
  depth = shifted[..., 2]
  limit = np.asarray(image_size) - 1
  box = geometry.visible_box(shifted, depth.mean(-1), intrinsic, limit, clip="hull")
  box = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], -1)
  return box, (depth <= 0).any(-1)


def compare(label_xyxy, projected_xyxy):
  """Measures how far projected boxes are from 2-D labels.

  Args:
    label_xyxy, projected_xyxy: [N, 4] left, top, right, bottom in px.

  Returns:
    (IoU [N], 0 where the projected box is nan; the farther one of the left and right edges [N] and
    of the top and bottom edges [N], px, nan where the projected box is nan).
  """
  low = np.maximum(label_xyxy[:, :2], projected_xyxy[:, :2])
  high = np.minimum(label_xyxy[:, 2:], projected_xyxy[:, 2:])
  both = np.maximum(high - low, 0).prod(-1)
  areas = [(box[:, 2:] - box[:, :2]).prod(-1) for box in (label_xyxy, projected_xyxy)]
  iou = np.nan_to_num(both / (sum(areas) - both))
  distance = np.abs(label_xyxy - projected_xyxy)
  return iou, distance[:, [0, 2]].max(-1), distance[:, [1, 3]].max(-1)


def _numbers(where, cells):
  try:
    values = [float(cell) for cell in cells]
  except ValueError as error:
    raise checks.InputError(f"{where}: {error}; write numbers.") from None
  checks.require(np.isfinite(values).all(), f"{where}: a number is nan or inf; write finite ones.")
  return values
