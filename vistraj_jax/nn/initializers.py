"""Initial values as torch.nn draws them: uniform in +-1/sqrt(fan in), for weights and biases."""

import flax.linen as nn
import jax
import jax.numpy as jnp

truncated_normal = nn.initializers.truncated_normal(0.02)  # classification tokens and positions


def uniform(fan_in):
  """Returns an initialiser, uniform in +-1/sqrt(fan_in); torch's default for weight and bias."""
  bound = fan_in**-0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def dense(features, fan_in, dtype, name):
  """Returns a Flax Dense layer that starts as torch.nn.Linear(fan_in, features) does."""
  start = uniform(fan_in)
  return nn.Dense(features, dtype=dtype, kernel_init=start, bias_init=start, name=name)
