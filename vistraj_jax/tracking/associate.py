"""Costs between tracks and detections, and the assignment that makes the cheapest pairs.

Overlaps follow the pixel-count convention of ByteTrack and BoT-SORT: 1 is added to the width and
height of boxes and of their intersection. Boxes are left, top, width, height in px.
"""

import numpy as np
from scipy import optimize


def iou_pixels(a_xywh, b_xywh):
  """Returns the intersection over union [A, B] of boxes a [A, 4] and b [B, 4], in 0..1.

  Sides of `b` must not be negative.
  """
  common = _shared_sides(a_xywh, b_xywh, 0) * _shared_sides(a_xywh, b_xywh, 1)
  # A predicted side may be negative: it shares nothing and must not count as area either.
  a_area = np.maximum(a_xywh[:, 2:] + 1.0, 0.0).prod(1)
  b_area = np.maximum(b_xywh[:, 2:] + 1.0, 0.0).prod(1)
  return common / (a_area[:, None] + b_area[None, :] - common)


def cosine_cost(a, b):
  """Returns half the cosine distance [A, B] of unit vectors a [A, E] and b [B, E], from 0 to 1.

  A zero vector, the mark of a track that has no embedding yet, is 0.5 away from everything.
  """
  return np.maximum(0.0, 1.0 - a @ b.T) / 2.0


def unit_vectors(vectors):
  """Returns float64 `vectors` [N, E] scaled to length 1; zero vectors stay zero."""
  vectors = np.asarray(vectors, np.float64)
  length = np.linalg.norm(vectors, axis=-1, keepdims=True)
  return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def assign(cost, threshold):
  """Makes pairs of rows and columns so that the sum of min(cost, threshold) is least.

  Leaving a row and a column single costs as much as one pair at `threshold`, so pairs that reach it
  are dropped. The optimum is that of the extended assignment problem with a cost limit.

  Args:
    cost: [A, B], may hold inf for forbidden pairs.
    threshold: pairs need a cost below it.

  Returns:
    rows [P], columns [P] of the pairs by ascending row; single rows; single columns, all ascending.
  """
  rows, columns = optimize.linear_sum_assignment(np.minimum(cost, threshold))
  kept = cost[rows, columns] < threshold
  rows, columns = rows[kept], columns[kept]
  single_row = np.ones(cost.shape[0], bool)
  single_column = np.ones(cost.shape[1], bool)
  single_row[rows] = False
  single_column[columns] = False
  return rows, columns, np.flatnonzero(single_row), np.flatnonzero(single_column)


def _shared_sides(a_xywh, b_xywh, axis):
  """Returns the pixels [A, B] that boxes a and b share along x (axis 0) or y (axis 1)."""
  a_low, a_high = a_xywh[:, axis], a_xywh[:, axis] + a_xywh[:, axis + 2]
  b_low, b_high = b_xywh[:, axis], b_xywh[:, axis] + b_xywh[:, axis + 2]
  shared = np.minimum(a_high[:, None], b_high) - np.maximum(a_low[:, None], b_low) + 1.0
  return np.maximum(shared, 0.0, out=shared)
