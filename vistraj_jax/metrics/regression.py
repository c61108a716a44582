"""How well vectors are predicted: R2, mean squared error, direction. NumPy, float64."""

import numpy as np

from vistraj_jax.core import checks


def scores(predicted, target, groups=None):
  """Scores of predictions over a whole split.

  Args:
    predicted, target: [N, K].
    groups: {name: columns} whose R2 is given singly, or None.

  Returns:
    {"r2": 1 - SSE / SST pooled over all columns, "mse", "cosine": mean cosine of rows (a row of
    zeros counts 0), "r2/<group>": ...}. R2 is NaN where the target does not vary.

  Raises:
    InputError: no rows, or shapes that differ.
  """
  predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
  checks.shape("regression scores: predictions", predicted, target.shape)
  checks.require(len(target) > 0, "regression scores: there is no row to score.")
  sse = ((predicted - target) ** 2).sum(0)
  sst = ((target - target.mean(0)) ** 2).sum(0)
  norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(target, axis=1)
  cosine = (predicted * target).sum(1) / np.where(norms > 0, norms, 1)
  named = {f"r2/{name}": _r2(sse[c], sst[c]) for name, c in (groups or {}).items()}
  return {
    "r2": _r2(sse, sst),
    "mse": float(sse.mean() / len(target)),
    "cosine": float(cosine.mean()),
    **named,
  }


def row_sums(predicted, target):
  """What each row adds to the sums of `r2_of_sums`: [N, K] twice -> [N, K + 3]."""
  predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
  error, square = ((predicted - target) ** 2).sum(1), (target**2).sum(1)
  return np.concatenate([np.stack([np.ones(len(target)), error, square], 1), target], 1)


def r2_of_sums(sums):
  """Pooled R2 from summed rows of `row_sums`: [S, K + 3] -> [S]; NaN where nothing varies."""
  count, error, square, total = sums[:, 0], sums[:, 1], sums[:, 2], sums[:, 3:]
  spread = square - (total**2).sum(1) / np.maximum(count, 1)
  return 1 - error / np.where(spread > 0, spread, np.nan)


def _r2(sse, sst):
  return float(1 - sse.sum() / sst.sum()) if sst.sum() > 0 else float("nan")
