"""Scores of predicted waypoints on a split: every frame alone, and the means that a table shows."""

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.metrics import displacement, ego_motion, rater_feedback

HORIZONS = np.arange(1, 21) / displacement.RATE  # s


def score_frames(prediction, frames, proposals=None):
  """Scores every frame.

  Args:
    prediction: selected futures [B, 20, 2] m, ego frame.
    frames: {"past" [B, 16, 6], "future" [B, 20, 2], "has_future" [B], "rated/xy" [B, 3, 21, 2],
      "rated/len" [B, 3], "rated/score" [B, 3]}.
    proposals: all proposals [B, K, 20, 2], where there are several; the best of them, chosen by
      looking at the future, is called oracle.

  Returns:
    {name: float64 [B]} "ade_3s", "ade_5s", "fde_5s" (m), "rfs" (0 to 10), and with proposals
    "oracle_ade_5s"; and "distance" [B, 20] (m). NaN where a frame has no future or no rating.

  Raises:
    InputError: a prediction that is not finite.
  """
  prediction = np.asarray(prediction, np.float64)
  finite = np.isfinite(prediction).all((1, 2))
  checks.require(
    finite.all(), f"waypoints: the prediction of frame {np.argmin(finite)} is not finite."
  )
  future = np.asarray(frames["future"], np.float64)
  future = np.where(np.asarray(frames["has_future"])[:, None, None] > 0, future, np.nan)
  speed = np.linalg.norm(np.asarray(frames["past"], np.float64)[:, -1, 2:4], axis=-1)
  rated = (frames["rated/xy"], frames["rated/len"], frames["rated/score"])
  found = {
    "ade_3s": displacement.ade(prediction, future, 3.0),
    "ade_5s": displacement.ade(prediction, future, 5.0),
    "fde_5s": displacement.fde(prediction, future),
    "rfs": rater_feedback.score(prediction, *rated, speed),
    "distance": displacement.distances(prediction, future),
  }
  if proposals is not None:
    found["oracle_ade_5s"] = displacement.oracle_ade(proposals, future, 5.0)
  return found


def score_baselines(frames):
  """{name of a motion model: `score_frames` of it}."""
  past = np.asarray(frames["past"], np.float64)
  return {name: score_frames(motion(past), frames) for name, motion in ego_motion.BASELINES.items()}


def summarize(scores, intent, cluster, clusters):
  """Means over frames of one run.

  Args:
    scores: of `score_frames`.
    intent: int [B]; cluster: int [B], index into `clusters` or -1.
    clusters: names.

  Returns:
    Plain dict: "ade_3s", "ade_5s", "fde_5s", "oracle_ade_5s" (m, None where absent); "frames" with
    a future; "by_intent" and "by_cluster" {name: {"ade_3s", "ade_5s", "frames"}}; "rfs" (the mean
    over clusters of the means over their frames, as in the challenge), "rfs_frames" (the mean over
    rated frames), "rated"; "by_horizon" [20] (m).
  """

  def mean(values):
    value, count = displacement.mean(values)
    return value if count else None

  groups = {}
  for key, index, names in (
    ("by_intent", intent, displacement.INTENTS),
    ("by_cluster", cluster, clusters),
  ):
    three, five = (displacement.by_group(scores[n], index, names) for n in ("ade_3s", "ade_5s"))
    groups[key] = {
      name: {"ade_3s": three[name][0], "ade_5s": five[name][0], "frames": five[name][1]}
      for name in five
    }
  by_cluster, _ = rater_feedback.by_cluster(scores["rfs"], cluster)
  rated_mean, rated = displacement.mean(scores["rfs"])
  result = {
    **{name: mean(scores[name]) for name in ("ade_3s", "ade_5s", "fde_5s")},
    "oracle_ade_5s": mean(scores["oracle_ade_5s"]) if "oracle_ade_5s" in scores else None,
    "frames": displacement.mean(scores["ade_5s"])[1],
    **groups,
    "rfs": by_cluster if rated else None,
    "rfs_frames": rated_mean if rated else None,
    "rated": rated,
    "by_horizon": [mean(column) for column in scores["distance"].T],
  }
  return result
