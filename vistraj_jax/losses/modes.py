"""Losses of several predicted futures of which one came true; nothing is reduced over the batch."""

import jax
import jax.numpy as jnp

from vistraj_jax.losses import trajectory


def errors(prediction, future):
  """Average and final displacement of every mode: [B, K, T, 2], [B, T, 2] -> [B, K] x 2, m."""
  distance = trajectory.displacement(prediction, future[:, None])
  return distance.mean(-1), distance[..., -1]


def best_of_modes(prediction, logits, future):
  """Terms of the original project's loss, of the mode with the smallest average error.

  Args:
    prediction: [B, K, T, 2], m.
    logits: [B, K].
    future: [B, T, 2], m.

  Returns:
    {"ade", "fde", "cross_entropy"}, each [B]; the original adds them with weights 1, 2 and 0.1.
  """
  ade, fde = errors(prediction, future)
  best = jnp.argmin(ade, -1)[:, None]
  log_p = jax.nn.log_softmax(logits, -1)
  ade, fde, chosen = (jnp.take_along_axis(x, best, -1)[:, 0] for x in (ade, fde, log_p))
  return {"ade": ade, "fde": fde, "cross_entropy": -chosen}
