"""Losses of predicted latents and codes, one number an example."""

import jax
import jax.numpy as jnp


def latent_mse(predicted, target):
  """Mean squared error [B] over latents [B, ...]."""
  error = jnp.square(predicted.astype(jnp.float32) - target.astype(jnp.float32))
  return error.reshape(len(error), -1).mean(-1)


def bit_cross_entropy(logits, target):
  """Mean binary cross-entropy [B] in nats, of logits [B, ..., bits] that target's sign is +1.

  Args:
    logits: [B, ..., bits].
    target: latents of the same shape; a bit is whether they are above 0.
  """
  return bit_nats(logits, target).reshape(len(logits), -1).mean(-1)


def bit_nats(logits, target):
  """Binary cross-entropy in nats of every bit, float32 of the logits' shape."""
  sign = jnp.where(target > 0, 1.0, -1.0)
  return jax.nn.softplus(-sign * logits.astype(jnp.float32))


def masked_mean(values, mask):
  """Mean [B] of values [B, ...] where mask [B, ...] is 1; 0 where it is 0 everywhere."""
  values, mask = (x.reshape(len(x), -1).astype(jnp.float32) for x in (values, mask))
  return (values * mask).sum(-1) / jnp.maximum(mask.sum(-1), 1)
