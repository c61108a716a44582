"""Displacement errors of trajectories, per frame, intent and cluster, and of proposals' scorers.

Trajectories are [B, T, 2] in m, 4 Hz, the first point at 0.25 s. All functions return one number a
frame; frames without a driven future (NaN) give NaN and are left out by `mean`.
"""

import numpy as np

from vistraj_jax.core import checks

RATE = 4.0  # Hz
INTENTS = ("unknown", "straight", "left", "right")


def distances(prediction, future):
  """Euclidean distances float64 [..., T] m between [..., T, 2] and [..., T, 2]."""
  prediction, future = np.asarray(prediction, np.float64), np.asarray(future, np.float64)
  checks.shape("displacement: prediction", prediction, (*future.shape[:-1], 2))
  return np.linalg.norm(prediction - future, axis=-1)


def ade(prediction, future, seconds):
  """Average displacement error up to `seconds`: [..., T, 2], [..., T, 2] -> [...] m."""
  return distances(prediction, future)[..., : round(seconds * RATE)].mean(-1)


def fde(prediction, future):
  """Displacement error of the last point: [..., T, 2], [..., T, 2] -> [...] m."""
  return distances(prediction, future)[..., -1]


def oracle_ade(proposals, future, seconds):
  """Smallest ADE of K proposals, known only afterwards: [B, K, T, 2], [B, T, 2] -> [B] m."""
  future = np.broadcast_to(np.asarray(future)[:, None], np.shape(proposals))
  return ade(proposals, future, seconds).min(1)


def mean(values):
  """Mean of the finite values [B], and their number; (NaN, 0) without any."""
  values = np.asarray(values, np.float64)
  kept = values[np.isfinite(values)]
  return (float(kept.mean()) if len(kept) else float("nan")), len(kept)


def by_group(values, groups, names):
  """{name: (mean, frames)} of the groups that have frames.

  Args:
    values: [B] of one of the functions above.
    groups: int [B], index into `names`; others (such as -1) are left out.
    names: names of the groups.
  """
  found = {name: mean(values[groups == i]) for i, name in enumerate(names)}
  return {name: pair for name, pair in found.items() if pair[1]}


def scorer_agreement(scores, ade_of_proposals):
  """How well scores order proposals; both [B, K], lower is better.

  Returns:
    Per frame [B]: "mean_rank" of the selected proposal by its true ADE (0 = best), whether that is
    among the true best 1, 5 and 10 ("top1_acc", ...), and "spearman" rank correlation.
  """
  by_score, by_ade = (np.argsort(np.argsort(x, axis=1), axis=1) for x in (scores, ade_of_proposals))
  frames = np.arange(len(by_ade))
  rank = by_ade[frames, np.argmin(scores, axis=1)]
  top = {f"top{k}_acc": (rank < k).astype(np.float64) for k in (1, 5, 10)}
  count = by_ade.shape[1]
  gap = ((by_score - by_ade) ** 2).sum(1)
  spearman = 1 - 6 * gap / (count * (count**2 - 1))
  return {"mean_rank": rank.astype(np.float64), **top, "spearman": spearman}
