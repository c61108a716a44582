"""The transformer block that all encoders and decoders of this system share.

Pre-norm: x += attention(norm1 x); x += W2 GELU(W1 norm2 x), with exact GELU and one packed matrix
for queries, keys and values, as torch.nn.TransformerEncoderLayer has it. Dropout draws from the
keys of the rows of the global batch (`nn.dropout`).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.nn import attention, initializers
from vistraj_jax.nn.dropout import dropout

ATTENTION = ("auto", "xla", "cudnn")
REMAT = ("none", "block", "dots")
# Intermediate of a block: how the first token attends to all, float32 [B, heads, N].
FIRST_TOKEN_ATTENTION = "first_token_attention"
_SITES = 4  # places with dropout in a block


class Block(nn.Module):
  """One block.

  Attributes:
    num_heads: attention heads.
    mlp_ratio: hidden width / width.
    dropout: rate after attention, after GELU and after W2; 0 in evaluation.
    attn_dropout: rate on the attention weights; above 0 it rules fused attention out.
    epsilon: of both layer norms.
    key_bias: whether keys have a bias.
    attention: "xla", "cudnn", or "auto": as `nn.attention.implementation` says, but "xla" where
      keys are masked (cuDNN's backward pass takes no mask over an odd number of tokens).
    dtype: compute dtype; norms and the softmax are float32.
  """

  num_heads: int
  mlp_ratio: float = 4.0
  dropout: float = 0.0
  attn_dropout: float = 0.0
  epsilon: float = 1e-5
  key_bias: bool = True
  attention: str = "auto"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, layer=0, rotation=None, key_mask=None, keys=None):
    """One block.

    Args:
      x: tokens [B, N, D].
      layer: int scalar, tells the dropout of blocks apart.
      rotation: of `rotary_angles`, [B or 1, N, D / heads / 2], or None.
      key_mask: bool [B, N], False for tokens that nobody may attend to, or None.
      keys: one key a row [B] in training; None switches dropout off.

    Returns:
      [B, N, D].
    """
    width = x.shape[-1]
    hidden = int(width * self.mlp_ratio)
    drop = lambda x, site: dropout(x, self.dropout, keys, _SITES * layer + site)  # noqa: E731
    y = self._attend(
      layer_norm(self.epsilon, self.dtype, "norm1")(x), layer, rotation, key_mask, keys
    )
    y = output_projection(width, self.dtype)(y)
    x = x + drop(y, 1)
    y = layer_norm(self.epsilon, self.dtype, "norm2")(x)
    y = gelu(initializers.dense(hidden, width, self.dtype, "fc1")(y))
    y = initializers.dense(width, hidden, self.dtype, "fc2")(drop(y, 2))
    return x + drop(y, 3)

  def _attend(self, x, layer, rotation, key_mask, keys):
    """Multi-head attention without its output projection: [B, N, D] -> [B, N, D]."""
    batch, length, width = x.shape
    y = nn.Dense(
      3 * width,
      use_bias=self.key_bias,
      dtype=self.dtype,
      kernel_init=nn.initializers.xavier_uniform(),
      name="qkv",
    )(x)
    if not self.key_bias:
      q_bias, v_bias = (
        self.param(name, nn.initializers.zeros_init(), (width,)) for name in ("q_bias", "v_bias")
      )
      y = y + jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]).astype(self.dtype)
    y = y.reshape(batch, length, 3, self.num_heads, width // self.num_heads)
    q, k, v = y[:, :, 0], y[:, :, 1], y[:, :, 2]
    if rotation is not None:
      q, k = rotate(q, rotation), rotate(k, rotation)
    if self.is_mutable_collection("intermediates"):
      weights = jax.nn.softmax(_scores(q[:, :1], k, key_mask))
      self.sow("intermediates", FIRST_TOKEN_ATTENTION, weights[:, :, 0])
    if keys is not None and self.attn_dropout:
      y = self._explicit(q, k, v, layer, key_mask, keys)
    else:
      mask = None if key_mask is None else key_mask[:, None, None, :]
      name = self.attention
      if name == "auto":
        name = "xla" if mask is not None else attention.implementation(q.dtype.name, q.shape[-1])
      y = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=name)
    return y.reshape(batch, length, width)

  def _explicit(self, q, k, v, layer, key_mask, keys):
    """Softmax attention with dropout on its weights."""
    scores = _scores(q, k, key_mask)
    weights = dropout(jax.nn.softmax(scores), self.attn_dropout, keys, _SITES * layer)
    return jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)


class Stack(nn.Module):
  """Several blocks in a row, as one scan over stacked parameters [length, ...].

  Attributes:
    length: number of blocks.
    block: fields of `Block`.
    remat: "none" keeps all activations for the backward pass, "block" only the blocks' inputs,
      "dots" also the results of products with weights.
  """

  length: int
  block: dict
  remat: str = "none"

  @nn.compact
  def __call__(self, x, first=0, rotation=None, key_mask=None, keys=None):
    """x [B, N, D] -> [B, N, D]; `first` is the number of the first block, the rest as `Block`."""
    checks.choice("config.model.remat", self.remat, REMAT)
    block = Block
    if self.remat != "none":
      dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
      block = nn.remat(Block, policy=dots if self.remat == "dots" else None, prevent_cse=False)

    def body(block, x, layer, rotation, key_mask, keys):
      return block(x, layer, rotation, key_mask, keys), None

    scan = nn.scan(
      body,
      variable_axes={"params": 0, "intermediates": 0},
      split_rngs={"params": True},
      in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
      length=self.length,
    )
    layers = first + jnp.arange(self.length)
    return scan(block(**self.block, name="blocks"), x, layers, rotation, key_mask, keys)[0]


class PatchEmbedding(nn.Module):
  """Convolution with kernel = stride = `patch`, as one product: [B, H, W, C] -> [B, N, width].

  Patches come in raster order.
  """

  width: int
  patch: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    p, channels = self.patch, x.shape[-1]
    fan_in = p * p * channels
    start = initializers.uniform(fan_in)
    kernel = self.param("kernel", start, (p, p, channels, self.width))
    bias = self.param("bias", start, (self.width,))
    x = patches(x, p).astype(self.dtype)
    return x @ kernel.reshape(fan_in, self.width).astype(self.dtype) + bias.astype(self.dtype)


def layer_norm(epsilon, dtype, name):
  """Returns a layer norm with float32 statistics."""
  return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def output_projection(width, dtype):
  """Returns the output projection of the attention, as torch.nn.MultiheadAttention starts it."""
  return nn.Dense(width, dtype=dtype, kernel_init=initializers.uniform(width), name="out")


def gelu(x):
  """Exact GELU; erf instead of JAX's erfc, which takes three times as long on a CPU."""
  return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def patches(image, p):
  """[B, H, W, C] -> [B, H/p * W/p, p * p * C]: patches in raster order, (row, column, channel)."""
  batch, height, width, channels = image.shape
  x = image.reshape(batch, height // p, p, width // p, p, channels).swapaxes(2, 3)
  return x.reshape(batch, (height // p) * (width // p), p * p * channels)


def unpatch(x, p, side):
  """[B, side * side, p * p * C] -> [B, side * p, side * p, C]; the inverse of `patches`."""
  batch = x.shape[0]
  x = x.reshape(batch, side, side, p, p, -1).swapaxes(2, 3)
  return x.reshape(batch, side * p, side * p, -1)


def rotary_angles(side, head_width, theta=10000.0):
  """Returns the angles of 2-D rotary positions, float32 [1, 1 + side * side, head_width / 2].

  The first half of the pairs turns with the row, the second with the column; the classification
  token, first, is not turned.
  """
  quarter = head_width // 4
  speed = theta ** (-jnp.arange(quarter) / quarter)
  rows, columns = jnp.divmod(jnp.arange(side * side), side)
  angles = jnp.concatenate([rows[:, None] * speed, columns[:, None] * speed], -1)
  return jnp.pad(angles, ((1, 0), (0, 0)))[None]


def rotate(x, angles):
  """Turns neighbouring channel pairs of x [B, N, heads, d] by angles [B or 1, N, d / 2]."""
  pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
  cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
  a, b = pairs[..., 0], pairs[..., 1]
  turned = jnp.stack([a * cos - b * sin, a * sin + b * cos], -1)
  return turned.reshape(x.shape).astype(x.dtype)


def _scores(q, k, key_mask):
  """q [B, Q, heads, d], k [B, K, heads, d] -> logits of the attention float32 [B, heads, Q, K]."""
  scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
  scores = scores * q.shape[-1] ** -0.5
  return scores if key_mask is None else jnp.where(key_mask[:, None, None], scores, -jnp.inf)
