"""Losses of several predicted futures of which one came true; nothing is reduced over the batch."""

import jax
import jax.numpy as jnp

from vistraj_jax.losses import trajectory


def errors(prediction, future, valid=None):
  """Average and final displacement of every mode.

  Args:
    prediction: [B, K, T, 2], m.
    future: [B, T, 2], m.
    valid: [B, T] of 0 and 1, steps that count; the final one is the last of them. None: all.

  Returns:
    [B, K] and [B, K], m; 0 where no step is valid.
  """
  distance = trajectory.displacement(prediction, future[:, None])
  if valid is None:
    return distance.mean(-1), distance[..., -1]
  valid = valid[:, None]
  ade = jnp.where(valid > 0, distance, 0.0).sum(-1) / jnp.maximum(valid.sum(-1), 1.0)
  steps = jnp.arange(1, valid.shape[-1] + 1)
  last = valid * (steps == (valid * steps).max(-1, keepdims=True))
  return ade, jnp.where(last > 0, distance, 0.0).sum(-1)


def relaxed_best(ade, relaxation):
  """Weights of the modes in a relaxed winner-takes-all loss.

  Args:
    ade: [B, K], m.
    relaxation: share that the losers have together; 0 leaves everything to the winner.

  Returns:
    [B, K], sum 1, without gradient.
  """
  modes = ade.shape[-1]
  best = jax.nn.one_hot(jnp.argmin(ade, -1), modes)
  return best if modes == 1 else best * (1 - relaxation) + (1 - best) * relaxation / (modes - 1)


def soft_targets(ade, temperature):
  """Mode probabilities to learn: exp(-ADE / temperature), normalised; 0: the best mode alone.

  ade [B, K] m, temperature in m -> [B, K], sum 1, without gradient.
  """
  if not temperature:
    return relaxed_best(ade, 0.0)
  return jax.nn.softmax(-jax.lax.stop_gradient(ade) / temperature, -1)


def relaxed_modes(prediction, logits, future, valid, *, relaxation, temperature):
  """Terms of the loss: errors of the modes by `relaxed_best`, scores against `soft_targets`.

  Args:
    prediction: [B, K, T, 2], m.
    logits: [B, K].
    future: [B, T, 2], m.
    valid: [B, T] of 0 and 1.
    relaxation, temperature: see there. With 0 and 0 these are the terms of `best_of_modes`.

  Returns:
    {"ade", "fde", "cross_entropy"}, each [B].
  """
  ade, fde = errors(prediction, future, valid)
  share = relaxed_best(ade, relaxation)
  target = soft_targets(ade, temperature)
  return {
    "ade": (share * ade).sum(-1),
    "fde": (share * fde).sum(-1),
    "cross_entropy": -(target * jax.nn.log_softmax(logits, -1)).sum(-1),
  }


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
