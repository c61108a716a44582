"""Points, masks and depth images of clips as bytes: fixed-point numbers and compressed bits."""

import zlib

import numpy as np

from vistraj_jax.core import checks

POINT_REACH = 127.0  # m; coordinates of points lie within
POINT_AGE = 1.9  # s; no point is older
# Units of points: 4 mm reach 128 m; intensity; 0.06 ms reach 2 s.
_POINT_UNITS = np.array([1 / 256, 1 / 256, 1 / 256, 1 / 32767, 1 / 16384])


def pack_points(points):
  """Returns the bytes of points [N, 5]: x, y, z (m), intensity 0..1, seconds."""
  units = np.round(np.asarray(points, np.float64) / _POINT_UNITS)
  return np.clip(units, -32768, 32767).astype("<i2").tobytes()


def unpack_points(data, where):
  """Returns float32 [N, 5] of `pack_points`."""
  row = 2 * len(_POINT_UNITS)
  checks.require(
    len(data) % row == 0, f"{where}: {len(data)} bytes of points, a multiple of {row} wanted."
  )
  return (np.frombuffer(data, "<i2").reshape(-1, 5) * _POINT_UNITS).astype(np.float32)


def pack_masks(masks):
  """Returns the bytes of masks bool [K, H, W]: one bit each, compressed by zlib."""
  return zlib.compress(np.packbits(masks).tobytes())


def unpack_masks(data, shape, where):
  """Returns uint8 0 or 1 of `shape` (K, H, W)."""
  bits = np.unpackbits(np.frombuffer(_inflated(data, where, "masks"), np.uint8))
  count = int(np.prod(shape))
  checks.require(
    len(bits) == -(-count // 8) * 8,
    f"{where}: {len(bits)} mask pixels received, {count} wanted for masks of {shape}.",
  )
  return bits[:count].reshape(shape)


def pack_depth(depth):
  """Returns the bytes of a depth image [H, W], m: float16, compressed by zlib."""
  return zlib.compress(np.asarray(depth, "<f2").tobytes())


def unpack_depth(data, size, where):
  """Returns float32 `size` (height, width), m."""
  values = np.frombuffer(_inflated(data, where, "depth"), "<f2")
  checks.require(
    len(values) == size[0] * size[1],
    f"{where}: {len(values)} depths received, {size[0]} x {size[1]} wanted.",
  )
  return values.reshape(size).astype(np.float32)


def resized_masks(masks, size):
  """Returns masks [..., H, W] at (height, width) `size`: of each pixel what lies at its centre."""
  rows, columns = (
    np.floor((np.arange(new) + 0.5) * old / new).astype(np.int64)
    for new, old in zip(size, masks.shape[-2:], strict=True)
  )
  return masks[..., rows[:, None], columns]


def _inflated(data, where, what):
  try:
    return zlib.decompress(data)
  except zlib.error as error:
    raise checks.InputError(
      f"{where}: the {what} are damaged ({error}); prepare the data again."
    ) from None
