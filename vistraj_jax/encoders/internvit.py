"""InternViT-300M: the vision transformer of InternVL3.5-1B, with and without "Flash".

Source: InternVL (arXiv 2312.14238, 2508.18265). Class token, exact GELU, learned layer scale, no
final norm. Tokens and the mean are of the patches; the class token is left out.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.encoders import base
from vistraj_jax.encoders.preprocess import Preprocess
from vistraj_jax.nn import resample, vit


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternVit(base.Encoder):
  """InternViT; the defaults are the 300M model at 448 pixels: 304,012,288 parameters.

  Attributes:
    hidden_size: C.
    depth: number of layers.
    num_heads: attention heads.
    mlp_width: width of the feed-forward layers.
    image_size: pixels a side of the square image the position table belongs to; for other sizes
      the table is resized as PyTorch's bicubic does.
    patch: pixels a side of a patch.
  """

  POOLS = ("mean",)

  hidden_size: int = 1024
  depth: int = 24
  num_heads: int = 16
  mlp_width: int = 4096
  image_size: int = 448
  patch: int = 14

  @property
  def state_widths(self):
    """C of every state."""
    return (self.hidden_size,) * (self.depth + 1)

  def preprocesses(self):
    """imagenet: the published one. seed: bilinear without antialiasing."""
    size = (self.image_size, self.image_size)
    return {"imagenet": Preprocess(size), "seed": Preprocess(size, "bilinear", antialias=False)}

  def network(self, dtype):
    """Returns the Linen module."""
    return Network(self, dtype)


class Network(nn.Module):
  """The network of `InternVit`.

  Attributes:
    sizes: the encoder.
    dtype: compute dtype.
  """

  sizes: InternVit
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, pixels, mask=None, keys=None):
    """pixels [B, H, W, 3] -> base.Hidden."""
    base.no_mask(mask, "internvit_300m")
    sizes = self.sizes
    embed = vit.PatchEmbedding(sizes.hidden_size, sizes.patch, self.dtype, name="patch_embedding")
    x = embed(pixels)
    batch, rows, columns, width = grid = x.shape
    first = self.param("class_embedding", nn.initializers.normal(0.02), (1, 1, width))
    first = jnp.broadcast_to(first.astype(self.dtype), (batch, 1, width))
    x = jnp.concatenate([first, x.reshape(batch, -1, width)], 1) + self._positions(rows, columns)
    states = [x]
    block = nn.remat(vit.Block) if sizes.remat else vit.Block
    for i in range(sizes.depth):
      layer = block(
        sizes.num_heads,
        sizes.mlp_width,
        layer_scale=True,
        dtype=self.dtype,
        branch_dropout=sizes.lora_dropout,
        name=f"layer{i}",
      )
      x = layer(x, None, keys)
      states.append(x)
    return base.Hidden([x[:, 1:].reshape(grid) for x in states])

  def _positions(self, rows, columns):
    """Returns [1, 1 + rows * columns, C]."""
    side = self.sizes.image_size // self.sizes.patch
    shape = (1 + side * side, self.sizes.hidden_size)
    table = self.param("position_embedding", nn.initializers.normal(0.02), shape)
    if (rows, columns) != (side, side):
      axes = [resample.matrix(side, n, "bicubic", False) for n in (rows, columns)]
      patches = resample.resize(table[1:].reshape(1, side, side, -1), *axes)
      table = jnp.concatenate([table[:1], patches.reshape(rows * columns, -1)])
    return table[None].astype(self.dtype)
