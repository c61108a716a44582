"""J (region) and F (boundary) of masks, as the official DAVIS code computes them.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016.
"""

import numpy as np

BOUNDARY_TOLERANCE = 0.008  # of the image's diagonal


def region(mask, truth):
  """Intersection over union of two bool [H, W] masks; 1 if both are empty."""
  union = np.count_nonzero(mask | truth)
  return np.count_nonzero(mask & truth) / union if union else 1.0


def boundary(mask, truth, tolerance=BOUNDARY_TOLERANCE):
  """F measure of the masks' outlines.

  Args:
    mask, truth: bool [H, W].
    tolerance: how far apart outlines may lie, as a share of the diagonal.

  Returns:
    Harmonic mean of the shares of each outline that lies near the other; 1 if both are empty.
  """
  import cv2

  reach = int(np.ceil(tolerance * np.linalg.norm(mask.shape)))
  span = np.arange(-reach, reach + 1)
  disk = (span[:, None] ** 2 + span**2 <= reach**2).astype(np.uint8)
  ours, theirs = outline(mask), outline(truth)
  near = [cv2.dilate(line.astype(np.uint8), disk).astype(bool) for line in (ours, theirs)]
  if not ours.any() or not theirs.any():
    # An empty outline is perfectly precise, and finds all of nothing.
    return float(ours.any() == theirs.any())
  precision = (ours & near[1]).sum() / ours.sum()
  recall = (theirs & near[0]).sum() / theirs.sum()
  total = precision + recall
  return float(2 * precision * recall / total) if total else 0.0


def outline(mask):
  """Pixels of a bool [H, W] mask that differ from a neighbour to the right or below."""
  mask = np.asarray(mask, bool)
  edge = np.zeros_like(mask)
  edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
  edge[:-1] |= mask[:-1] ^ mask[1:]
  edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
  return edge


def summary(values):
  """Mean, recall and decay of one object's values over time.

  Args:
    values: [T] of `region` or `boundary`.

  Returns:
    {"mean", "recall": share above 0.5, "decay": mean of the first quarter less the last}.
  """
  values = np.asarray(values, np.float64)
  ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
  first, last = (values[ends[i] : ends[i + 1] + 1].mean() for i in (0, 3))
  return {
    "mean": float(values.mean()),
    "recall": float((values > 0.5).mean()),
    "decay": float(first - last),
  }
