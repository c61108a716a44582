"""Parts of vision transformers: patch embedding, layer norm, attention, feed-forward, block.

Parameter names, shared by all encoders: `patch_embedding/{kernel [p, p, 3, C], bias}`,
`layer#/norm1`, `layer#/attention/{q,k,v,out}`, `layer#/norm2`, `layer#/mlp/{fc1,fc2}`. Queries,
keys and values are three matrices, also where a checkpoint packs them: adapters name them singly.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.nn import attention
from vistraj_jax.nn.lora import Dense

ACTIVATIONS = {
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


class PatchEmbedding(nn.Module):
  """Convolution with kernel = stride = `patch` and no padding, written as one matrix product.

  Rows and columns beyond the last whole patch are left out.
  """

  width: int
  patch: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, pixels):
    """pixels [B, H, W, 3] -> [B, H // patch, W // patch, width]."""
    p = self.patch
    batch, height, width, channels = pixels.shape
    rows, columns = height // p, width // p
    initializer = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
    kernel = self.param("kernel", initializer, (p, p, channels, self.width))
    bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
    x = pixels[:, : rows * p, : columns * p].astype(self.dtype)
    x = x.reshape(batch, rows, p, columns, p, channels).swapaxes(2, 3)
    x = x.reshape(batch, rows, columns, p * p * channels)
    return x @ kernel.reshape(-1, self.width).astype(self.dtype) + bias.astype(self.dtype)


class LayerNorm(nn.Module):
  """Layer norm over the last axis; statistics in float32, result in `dtype`."""

  eps: float = 1e-6
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    """[..., C] -> [..., C]."""
    scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
    bias = self.param("bias", nn.initializers.zeros_init(), (x.shape[-1],))
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + self.eps)
    return (x * scale + bias).astype(self.dtype)


class Attention(nn.Module):
  """Multi-head self-attention with biases, over all tokens."""

  num_heads: int
  dtype: Any = jnp.float32
  branch_dropout: float = 0.05

  @nn.compact
  def __call__(self, x, key_mask=None, keys=None):
    """x [B, N, C], key_mask bool [B, N] or None, keys of the rows' dropout -> [B, N, C]."""
    dense = lambda name: Dense(  # noqa: E731
      x.shape[-1], dtype=self.dtype, branch_dropout=self.branch_dropout, name=name
    )
    q, k, v = (dense(name)(x, keys).reshape(*x.shape[:2], self.num_heads, -1) for name in "qkv")
    return dense("out")(attention.attend(q, k, v, key_mask).reshape(x.shape), keys)


class Mlp(nn.Module):
  """fc1, activation, fc2."""

  hidden: int
  activation: str = "gelu"
  dtype: Any = jnp.float32
  branch_dropout: float = 0.05

  @nn.compact
  def __call__(self, x, keys=None):
    """[B, ..., C] -> [B, ..., C]."""
    dense = lambda features, name: Dense(  # noqa: E731
      features, dtype=self.dtype, branch_dropout=self.branch_dropout, name=name
    )
    hidden = ACTIVATIONS[self.activation](dense(self.hidden, "fc1")(x, keys))
    return dense(x.shape[-1], "fc2")(hidden, keys)


class Block(nn.Module):
  """Pre-norm block: x += s1 attention(norm1 x); x += s2 mlp(norm2 x).

  Attributes:
    layer_scale: whether s1, s2 are learned vectors; otherwise they are 1.
  """

  num_heads: int
  hidden: int
  activation: str = "gelu"
  layer_scale: bool = False
  dtype: Any = jnp.float32
  branch_dropout: float = 0.05

  @nn.compact
  def __call__(self, x, key_mask=None, keys=None):
    """x [B, N, C] -> [B, N, C]; key_mask and keys as in `Attention`."""
    rest = {"dtype": self.dtype, "branch_dropout": self.branch_dropout}
    attended = LayerNorm(dtype=self.dtype, name="norm1")(x)
    attended = Attention(self.num_heads, **rest, name="attention")(attended, key_mask, keys)
    x = x + self._scaled("scale1", attended)
    y = LayerNorm(dtype=self.dtype, name="norm2")(x)
    y = Mlp(self.hidden, self.activation, **rest, name="mlp")(y, keys)
    return x + self._scaled("scale2", y)

  def _scaled(self, name, x):
    if not self.layer_scale:
      return x
    scale = self.param(name, nn.initializers.constant(0.1), (x.shape[-1],))
    return x * scale.astype(self.dtype)
