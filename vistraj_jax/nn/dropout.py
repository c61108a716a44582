"""Dropout whose random numbers belong to the row of the global batch, not to the device."""

import jax
import jax.numpy as jnp


def row_keys(rng, position):
  """Returns one key a row: rng, position int32 [B] (row in the global batch) -> keys [B]."""
  return jax.vmap(lambda row: jax.random.fold_in(rng, row))(position)


def dropout(x, rate, keys, layer):
  """Sets a share `rate` of x [B, ...] to zero and scales the rest by 1 / (1 - rate).

  Args:
    x: float array with rows in front.
    rate: in 0..1.
    keys: of `row_keys`, [B]; None leaves x as it is (evaluation).
    layer: number of the layer, so that layers draw different numbers.
  """
  if keys is None or rate == 0:
    return x
  keep = jax.vmap(
    lambda key: jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - rate, x.shape[1:])
  )(keys)
  return jnp.where(keep, x / (1 - rate), 0)
