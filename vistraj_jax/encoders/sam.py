"""SAM's image encoder: a ViT with windowed attention, relative positions and a convolutional neck.

Source: Segment Anything (arXiv 2304.02643). The published preparation keeps the aspect ratio and
pads; here the image is brought to the square, so that no patch is padding.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.encoders import base
from vistraj_jax.encoders.preprocess import Preprocess
from vistraj_jax.nn import attention, vit, windows
from vistraj_jax.nn.lora import Dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamVit(base.Encoder):
  """SAM's image encoder; the defaults are ViT-B at 1024 pixels: 89,670,912 parameters.

  Attributes:
    hidden_size: C of the layers.
    depth: number of layers.
    num_heads: attention heads.
    mlp_width: width of the feed-forward layers.
    image_size: pixels a side; other sizes are refused.
    patch: pixels a side of a patch.
    window: patches a side of an attention window.
    global_layers: layers that attend over the whole image.
    neck_width: C of the neck's output, the last state; None leaves the neck away.
  """

  POOLS = ("mean",)

  hidden_size: int = 768
  depth: int = 12
  num_heads: int = 12
  mlp_width: int = 3072
  image_size: int = 1024
  patch: int = 16
  window: int = 14
  global_layers: tuple[int, ...] = (2, 5, 8, 11)
  neck_width: int | None = 256

  @property
  def state_widths(self):
    """C of every state."""
    neck = () if self.neck_width is None else (self.neck_width,)
    return (self.hidden_size,) * (self.depth + 1) + neck

  def preprocesses(self):
    """imagenet: bilinear, ImageNet statistics. seed: the same without antialiasing."""
    size = (self.image_size, self.image_size)
    return {
      "imagenet": Preprocess(size, "bilinear"),
      "seed": Preprocess(size, "bilinear", antialias=False),
    }

  def network(self, dtype):
    """Returns the Linen module."""
    return Network(self, dtype)


class Network(nn.Module):
  """The network of `SamVit`.

  Attributes:
    sizes: the encoder.
    dtype: compute dtype.
  """

  sizes: SamVit
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, pixels, mask=None, keys=None):
    """pixels [B, H, W, 3] -> base.Hidden."""
    base.no_mask(mask, "sam_vit_b")
    sizes = self.sizes
    size = sizes.image_size
    checks.require(
      pixels.shape[1:3] == (size, size),
      f"sam_vit_b: images of {pixels.shape[1:3]}; its positions are for {size} x {size}, bring "
      "them to it with the encoder's own preprocess.",
    )
    side = size // sizes.patch
    embed = vit.PatchEmbedding(sizes.hidden_size, sizes.patch, self.dtype, name="patch_embedding")
    shape = (side, side, sizes.hidden_size)
    table = self.param("position_embedding", nn.initializers.normal(0.02), shape)
    x = embed(pixels) + table.astype(self.dtype)
    states = [x]
    block = nn.remat(Block) if sizes.remat else Block
    for i in range(sizes.depth):
      window = side if i in sizes.global_layers else sizes.window
      x = block(sizes, window, self.dtype, name=f"layer{i}")(x, keys)
      states.append(x)
    if sizes.neck_width is not None:
      states.append(Neck(sizes.neck_width, self.dtype, name="neck")(x))
    return base.Hidden(states)


class Block(nn.Module):
  """Pre-norm block whose attention goes over windows of `window` patches a side."""

  sizes: SamVit
  window: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, keys=None):
    """x [B, H, W, C] -> [B, H, W, C]."""
    sizes = self.sizes
    rest = {"dtype": self.dtype, "branch_dropout": sizes.lora_dropout}
    y = vit.LayerNorm(dtype=self.dtype, name="norm1")(x)
    y = windows.partition(y, self.window)
    y = Attention(sizes.num_heads, self.window, **rest, name="attention")(y, keys)
    x = x + windows.join(y, self.window, *x.shape[1:3])
    y = vit.LayerNorm(dtype=self.dtype, name="norm2")(x)
    return x + vit.Mlp(sizes.mlp_width, **rest, name="mlp")(y, keys)


class Attention(nn.Module):
  """Self-attention within windows, with relative positions by row and by column.

  The query, before it is scaled, meets one learned vector for each distance in rows and one for
  each distance in columns; both products are added to the scores.
  """

  num_heads: int
  window: int
  dtype: Any = jnp.float32
  branch_dropout: float = 0.05

  @nn.compact
  def __call__(self, x, keys=None):
    """x [B, windows, window * window, C] -> the same."""
    width, side = x.shape[-1], self.window
    dense = lambda name: Dense(  # noqa: E731
      width, dtype=self.dtype, branch_dropout=self.branch_dropout, name=name
    )
    heads = (-1, side * side, self.num_heads, width // self.num_heads)
    q, k, v = (dense(name)(x, keys).reshape(heads) for name in "qkv")
    distance = np.arange(side)[:, None] - np.arange(side)[None] + side - 1
    shape = (2 * side - 1, heads[-1])
    by_row, by_column = (
      self.param(name, nn.initializers.normal(0.02), shape).astype(self.dtype)[distance]
      for name in ("rows", "columns")
    )
    grid = q.reshape(-1, side, side, *heads[2:])
    relative = (
      jnp.einsum("brchd,rkd->brchk", grid, by_row).reshape(*q.shape[:3], side),
      jnp.einsum("brchd,ckd->brchk", grid, by_column).reshape(*q.shape[:3], side),
    )
    y = attention.attend(q, k, v, relative=relative)
    return dense("out")(y.reshape(x.shape), keys)


class Neck(nn.Module):
  """1 x 1 convolution, norm, 3 x 3 convolution, norm; no biases in the convolutions."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    """x [B, H, W, C] -> [B, H, W, width]."""
    x = Dense(self.width, use_bias=False, dtype=self.dtype, name="conv1")(x)
    x = vit.LayerNorm(dtype=self.dtype, name="norm1")(x)
    x = Conv3(self.width, self.dtype, name="conv2")(x)
    return vit.LayerNorm(dtype=self.dtype, name="norm2")(x)


class Conv3(nn.Module):
  """3 x 3 convolution without bias that keeps the size."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    """x [B, H, W, C] -> [B, H, W, width]."""
    initializer = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
    kernel = self.param("kernel", initializer, (3, 3, x.shape[-1], self.width))
    return jax.lax.conv_general_dilated(
      x, kernel.astype(self.dtype), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
