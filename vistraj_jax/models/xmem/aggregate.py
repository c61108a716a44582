"""Soft aggregation: probabilities of single objects -> one distribution with the background.

Always float32: with probabilities near 1 the odds p / (1 - p) lose digits.
"""

import jax.numpy as jnp

EPS = 1e-7


def aggregate(probability):
  """Logits of background and objects whose softmax gives the odds' shares.

  Args:
    probability: [..., K], each object's own; 0 for objects that are not there.

  Returns:
    float32 [..., 1 + K], background first: log(p / (1 - p)) with p_0 = prod(1 - p_k), every p
    clamped to [1e-7, 1 - 1e-7].
  """
  p = probability.astype(jnp.float32)
  background = jnp.prod(1 - p, -1, keepdims=True)
  p = jnp.clip(jnp.concatenate([background, p], -1), EPS, 1 - EPS)
  return jnp.log(p / (1 - p))
