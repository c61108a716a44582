"""Sensory memory: a hidden state [B * K, h, w, C] per object, updated by gates of its own kind.

forget * hidden * (1 - update) + update * new: not quite the update of a GRU, but what the published
weights were trained with.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.nn.image_layers import Conv, average_pool


class DeepUpdate(nn.Module):
  """Update from a memory value, on memory frames.

  Attributes:
    width: C of the hidden state.
    dtype: compute dtype of the convolution.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, value, hidden):
    """value [B * K, h, w, C_v], hidden [B * K, h, w, C] -> hidden."""
    joined = jnp.concatenate([value, hidden.astype(value.dtype)], -1)
    return _gated(hidden, Conv(3 * self.width, dtype=self.dtype, name="transform")(joined))


class DecoderUpdate(nn.Module):
  """Update from the decoder's maps at strides 16, 8 and 4, the last with the mask logits.

  Attributes:
    width: C of the hidden state.
    middle: channels of the joined maps.
    dtype: compute dtype of the convolutions.
  """

  width: int
  middle: int = 256
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, g16, g8, g4, hidden):
    """g16 [B * K, h, w, C16], g8 at twice, g4 at four times the size -> hidden."""
    maps = {
      "g16": g16,
      "g8": average_pool(g8, 2),
      "g4": average_pool(g4, 4),
    }
    x = sum(
      Conv(self.middle, 1, dtype=self.dtype, name=f"{name}_conv")(map_)
      for name, map_ in maps.items()
    )
    joined = jnp.concatenate([x, hidden.astype(x.dtype)], -1)
    return _gated(hidden, Conv(3 * self.width, dtype=self.dtype, name="transform")(joined))


def _gated(hidden, values):
  """hidden [..., C] and values [..., 3 C] (forget, update, new) -> the next hidden, float32."""
  forget, update, new = jnp.split(values.astype(jnp.float32), 3, -1)
  forget, update = jax.nn.sigmoid(forget), jax.nn.sigmoid(update)
  return forget * hidden * (1 - update) + update * jnp.tanh(new)
