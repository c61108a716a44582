"""Rater Feedback Score of the Waymo end-to-end driving challenge, in float64.

Reference: `rater_feedback_score` in github.com/waymo-research/waymo-open-dataset. Trajectories are
m in the ego frame at t = 0 (x ahead, y left), 4 Hz, the first point at 0.25 s.
"""

import numpy as np

from vistraj_jax.core import checks

NUM_RATERS = 3
NUM_POINTS = 20
STEPS = (11, 19)  # 3 s and 5 s
BASE = np.array([1.0, 1.8])  # lateral thresholds at full speed, m
LONGITUDINAL = 4.0  # longitudinal / lateral threshold
DECAY = 0.1
FLOOR = 4.0


def score(prediction, rated_xy, rated_len, rated_score, speed, probability=None, floor=FLOOR):
  """Rater feedback score of each frame, 0 to 10.

  Args:
    prediction: [B, 20, 2], or [B, P, 20, 2] for several.
    rated_xy: [B, R, N, 2], padded.
    rated_len: int [B, R], points of each rated trajectory; 0 = absent.
    rated_score: [B, R]; negative or NaN = not rated.
    speed: [B] m/s at t = 0.
    probability: [B, P] of several predictions.
    floor: least score of a prediction outside the regions of all raters.

  Returns:
    float64 [B]; NaN where a frame has no rated trajectory. For several predictions the expectation.

  Raises:
    InputError: shapes that do not fit, or a prediction that is not finite.
  """
  prediction = np.asarray(prediction, np.float64)
  if prediction.ndim == 3:
    prediction, probability = prediction[:, None], np.ones((len(prediction), 1))
  checks.shape("rater feedback score: prediction", prediction, (None, None, NUM_POINTS, 2))
  checks.require(
    probability is not None,
    "rater feedback score: several predictions a frame need the probability of each.",
  )
  checks.shape("rater feedback score: probability", np.asarray(probability), prediction.shape[:2])
  finite = np.isfinite(prediction).all((1, 2, 3))
  checks.require(
    finite.all(),
    f"rater feedback score: the prediction of frame {np.argmin(finite)} is not finite.",
  )
  raters, labels = first_raters(rated_xy, rated_len, rated_score)
  values, _ = _by_prediction(prediction, raters, labels, speed, floor)
  return (values * np.asarray(probability, np.float64)).sum(-1)


def first_raters(rated_xy, rated_len, rated_score):
  """The first three rated trajectories with 20 points each; missing ones repeat the last.

  Returns:
    xy [B, 3, 20, 2] and label [B, 3]; NaN where a frame has none.
  """
  rated_xy = np.asarray(rated_xy, np.float64)
  rated_len, rated_score = np.asarray(rated_len), np.asarray(rated_score, np.float64)
  xy = np.full((len(rated_xy), NUM_RATERS, NUM_POINTS, 2), np.nan)
  labels = np.full((len(rated_xy), NUM_RATERS), np.nan)
  for b, (paths, lengths, scores) in enumerate(zip(rated_xy, rated_len, rated_score, strict=True)):
    kept = [r for r in range(len(paths)) if lengths[r] > 0 and scores[r] >= 0][:NUM_RATERS]
    for slot in range(NUM_RATERS if kept else 0):
      rater = kept[min(slot, len(kept) - 1)]
      points = np.minimum(np.arange(NUM_POINTS), lengths[rater] - 1)
      xy[b, slot], labels[b, slot] = paths[rater][points], scores[rater]
  return xy, labels


def thresholds(speed):
  """(lateral, longitudinal) thresholds in m at 3 s and 5 s, [B, 2] each, for speed [B] m/s."""
  scale = np.clip(0.5 + 0.5 * (np.asarray(speed, np.float64) - 1.4) / 9.6, 0.5, 1.0)
  lateral = BASE * scale[:, None]
  return lateral, LONGITUDINAL * lateral


def by_cluster(scores, clusters):
  """The challenge's number: mean over clusters of the mean over their frames.

  Args:
    scores: [B] of `score`; NaN = not rated, left out.
    clusters: int or str [B].

  Returns:
    (mean over clusters, {cluster: (mean, frames)}); NaN and {} without a rated frame.
  """
  scores, clusters = np.asarray(scores, np.float64), np.asarray(clusters)
  rated = np.isfinite(scores)
  found = {}
  for cluster in np.unique(clusters[rated]):
    mine = scores[rated & (clusters == cluster)]
    found[cluster.item()] = (float(mine.mean()), len(mine))
  mean = float(np.mean([value for value, _ in found.values()])) if found else np.nan
  return mean, found


def _by_prediction(prediction, raters, labels, speed, floor):
  """Returns scores [B, P], and whether a prediction is inside one rater's regions [B, P]."""
  directions = _directions(raters)[:, None, :, STEPS]  # [B, 1, 3, 2 times, 2]
  error = prediction[:, :, None, STEPS] - raters[:, None, :, STEPS]
  lateral, longitudinal = thresholds(speed)
  along = np.abs((error * directions).sum(-1)) / longitudinal[:, None, None]
  across = np.abs(error[..., 1] * directions[..., 0] - error[..., 0] * directions[..., 1])
  distance = np.maximum(along, across / lateral[:, None, None])  # [B, P, 3, 2]
  reached = labels[:, None, :, None] * DECAY ** np.maximum(distance - 1, 0)
  value = reached.max(2).mean(-1)
  inside = (distance <= 1).all(-1).any(-1)
  return np.where(inside, value, np.maximum(value, floor)), inside


def _directions(raters):
  """Unit direction of every step [B, 3, 20, 2]; a step of no length keeps the one before."""
  start = np.zeros_like(raters[:, :, :1])
  steps = np.diff(np.concatenate([start, raters], axis=2), axis=2)
  lengths = np.linalg.norm(steps, axis=-1, keepdims=True)
  directions = np.divide(steps, lengths, out=np.zeros_like(steps), where=lengths > 0)
  last = np.broadcast_to([1.0, 0.0], directions[:, :, 0].shape)
  for t in range(directions.shape[2]):
    last = np.where(lengths[:, :, t] > 0, directions[:, :, t], last)
    directions[:, :, t] = last
  return directions
