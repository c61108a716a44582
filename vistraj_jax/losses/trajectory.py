"""Losses between predicted and driven trajectories; nothing is reduced over the batch.

Proposals are [B, K, T, 2], futures [B, T, 2], in m in the same frame, 0.25 s between steps. Scores
[B, K] are what a scorer expects the ADE of a proposal to be: the lower the better.
The regions of the rater feedback score are those of the Waymo end-to-end driving challenge.
"""

import jax
import jax.numpy as jnp

SCORERS = ("mse", "reinforce", "margin", "nearest")
ENTROPY_WEIGHT = 0.01
# Region around the driven trajectory: step, lateral half width (m) at full speed.
_REGIONS = ((11, 1.0), (19, 1.8))


def displacement(prediction, future):
  """Euclidean distances: [..., T, 2], [..., T, 2] -> [..., T] m.

  The root is taken of d2 + 1e-12: its gradient at a perfect prediction is 0, not NaN.
  """
  return jnp.sqrt(jnp.sum((prediction - future) ** 2, axis=-1) + 1e-12)


def ade_of_proposals(xy, future):
  """Average displacement error of each proposal: [B, K, T, 2], [B, T, 2] -> [B, K] m."""
  return displacement(xy, future[:, None]).mean(-1)


def best_of(ade, count):
  """Mean of the `count` smallest errors: ade [B, K] -> [B]."""
  return jnp.sort(ade, axis=-1)[:, :count].mean(-1)


def scorer_mse(scores, ade):
  """Squared error of the expected ADE, mean over proposals: [B, K], [B, K] -> [B]."""
  return jnp.mean((scores - ade) ** 2, axis=-1)


def scorer_reinforce(scores, ade, temperature):
  """Expected ADE if a proposal is drawn by softmax(-scores / temperature), less an entropy bonus.

  [B, K], [B, K] -> [B].
  """
  log_share = jax.nn.log_softmax(-scores / temperature, axis=-1)
  share = jnp.exp(log_share)
  return jnp.sum(share * (ade + ENTROPY_WEIGHT * log_share), axis=-1)


def scorer_margin(scores, ade):
  """Logistic loss on every pair of proposals, weighted by how much their ADEs differ.

  Returns:
    (losses, weights), each [B], sums over pairs; the loss of a batch is sum(losses) / sum(weights).
  """
  ade_gap = ade[:, :, None] - ade[:, None]
  score_gap = scores[:, :, None] - scores[:, None]
  weight = jnp.abs(ade_gap)
  loss = weight * jax.nn.softplus(-jnp.sign(ade_gap) * score_gap)
  return loss.sum((1, 2)), weight.sum((1, 2))


def scorer_nearest(scores, ade):
  """Cross-entropy of softmax(-scores) against the proposal of smallest ADE: [B, K] x 2 -> [B]."""
  log_share = jax.nn.log_softmax(-scores, axis=-1)
  best = jnp.argmin(ade, axis=-1)
  return -jnp.take_along_axis(log_share, best[:, None], axis=-1)[:, 0]


def rater_feedback_proxy(prediction, future, speed):
  """A differentiable rater feedback score in 0..1, the driven future as only rater.

  Args:
    prediction: [B, 20, 2].
    future: [B, 20, 2].
    speed: [B] m/s at t = 0.

  Returns:
    [B]: mean over 3 s and 5 s of 0.1 ** max(d - 1, 0), where d is the error over the size of the
    region along or across the driven direction, whichever is larger.
  """
  scale = jnp.clip(0.5 + 0.5 * (speed - 1.4) / 9.6, 0.5, 1.0)
  total = 0.0
  for step, lateral in _REGIONS:
    ahead = future[:, step] - future[:, step - 1]
    ahead = ahead / jnp.maximum(jnp.linalg.norm(ahead, axis=-1, keepdims=True), 1e-6)
    error = prediction[:, step] - future[:, step]
    along = jnp.abs(jnp.sum(error * ahead, axis=-1)) / (4 * lateral * scale)
    across = jnp.abs(error[:, 1] * ahead[:, 0] - error[:, 0] * ahead[:, 1]) / (lateral * scale)
    total = total + 0.1 ** jnp.maximum(jnp.maximum(along, across) - 1, 0)
  return total / len(_REGIONS)
