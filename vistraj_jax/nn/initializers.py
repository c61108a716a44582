"""Initial values as torch.nn draws them: uniform in +-1/sqrt(fan in), for weights and biases."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

truncated_normal = nn.initializers.truncated_normal(0.02)  # classification tokens and positions


def uniform(fan_in):
  """Returns an initialiser, uniform in +-1/sqrt(fan_in); torch's default for weight and bias."""
  bound = fan_in**-0.5
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def init(model, rng, *inputs, **kwargs):
  """Returns model.init(rng, *inputs), compiled in haste: it runs once.

  A large network draws hundreds of arrays; optimizing that program takes longer than running it.
  """
  program = jax.jit(functools.partial(model.init, **kwargs)).lower(rng, *inputs)
  return program.compile({"xla_backend_optimization_level": 0})(rng, *inputs)


def dense(features, fan_in, dtype, name):
  """Returns a Flax Dense layer that starts as torch.nn.Linear(fan_in, features) does."""
  start = uniform(fan_in)
  return nn.Dense(features, dtype=dtype, kernel_init=start, bias_init=start, name=name)
