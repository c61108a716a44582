"""Depth images of LiDAR points: inverse depth for a network, other sizes, intrinsics that fit.

A depth image is in m, 0 where no point was seen.
"""

import numpy as np


def inverse_depth(depth, nearest=0.3, farthest=80.0):
  """Turns depth [...], m, 0 for none, into (1/d scaled to [0, 1], 1 where there is a depth)."""
  valid = depth > 0
  with np.errstate(divide="ignore"):
    scaled = (1 / depth - 1 / farthest) / (1 / nearest - 1 / farthest)
  return np.where(valid, scaled, 0).clip(0, 1).astype(np.float32), valid.astype(np.float32)


def resized(depth, size):
  """Returns a depth image [H, W] at (height, width) `size`: of the points in a pixel, the nearest.

  Enlarged images have holes between the points, as if they had been projected at that size.
  """
  if depth.shape == tuple(size):
    return depth
  rows, columns = np.nonzero(depth)
  down, right = (new / old for new, old in zip(size, depth.shape, strict=True))
  cells = np.floor((rows + 0.5) * down).astype(np.int64) * size[1]
  cells += np.floor((columns + 0.5) * right).astype(np.int64)
  image = np.full(size[0] * size[1], np.inf, depth.dtype)
  np.minimum.at(image, cells, depth[rows, columns])
  return np.where(np.isinf(image), 0, image).astype(depth.dtype).reshape(size)


def scaled_intrinsic(intrinsic, size, new_size):
  """Returns float64 [..., 3, 3] for images resized from (height, width) `size` to `new_size`."""
  rows, columns = (new / old for old, new in zip(size, new_size, strict=True))
  return np.asarray(intrinsic, np.float64) * np.array([[columns], [rows], [1.0]])
