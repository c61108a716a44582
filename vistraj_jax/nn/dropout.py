"""Dropout whose random numbers belong to the row of the global batch, not to the device."""

import math

import jax
import jax.numpy as jnp


def row_keys(rng, position):
  """Returns one key a row: rng, position int32 [B] (row in the global batch) -> keys [B]."""
  return jax.vmap(lambda row: jax.random.fold_in(rng, row))(position)


def dropout(x, rate, keys, layer):
  """Sets a share `rate` of x [B, ...] to zero and scales the rest so that the mean stays.

  Args:
    x: float array with rows in front.
    rate: in 0..1, to 1/65536: a value takes 16 random bits, because drawing them is what dropout
      costs on a CPU (a fifth of a transformer's training step with a draw of 64 bits each).
    keys: of `row_keys`, [B]; None leaves x as it is (evaluation).
    layer: number of the layer, so that layers draw different numbers.
  """
  if keys is None or rate == 0:
    return x
  kept = round((1 - rate) * 2**16)
  size = math.prod(x.shape[1:])

  def keep(key):
    words = jax.random.bits(jax.random.fold_in(key, layer), (-(-size // 2),), jnp.uint32)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size]
    return (halves < kept).reshape(x.shape[1:])

  return jnp.where(jax.vmap(keep)(keys), x * (2**16 / kept), 0)
