"""Gated recurrent units as torch.nn.GRU computes them, in one or both directions."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class GRU(nn.Module):
  """Runs over time: [B, T, in] -> outputs [B, T, features] and the last state [B, features].

  Attributes:
    features: width of the state.
    reverse: from the last step to the first; outputs stay at their steps.
  """

  features: int
  reverse: bool = False

  @nn.compact
  def __call__(self, x):
    width = 3 * self.features  # reset, update, new
    start = _uniform(self.features)
    of_input = self.param("input_kernel", start, (x.shape[-1], width))
    of_state = self.param("state_kernel", start, (self.features, width))
    input_bias = self.param("input_bias", start, (width,))
    state_bias = self.param("state_bias", start, (width,))
    inputs = x @ of_input + input_bias  # one product for all steps

    def step(state, own):
      reset, update, new = jnp.split(own, 3, -1)
      reset_h, update_h, new_h = jnp.split(state @ of_state + state_bias, 3, -1)
      update = jax.nn.sigmoid(update + update_h)
      new = jnp.tanh(new + jax.nn.sigmoid(reset + reset_h) * new_h)
      state = (1 - update) * new + update * state
      return state, state

    first = jnp.zeros((x.shape[0], self.features), inputs.dtype)
    last, states = jax.lax.scan(step, first, jnp.swapaxes(inputs, 0, 1), reverse=self.reverse)
    return jnp.swapaxes(states, 0, 1), last


def _uniform(features):
  bound = features**-0.5
  return lambda rng, shape: jax.random.uniform(rng, shape, jnp.float32, -bound, bound)
