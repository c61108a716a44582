"""Hiera, the image trunk of SAM 2: four stages with windowed attention and pooled queries.

Sources: Hiera (arXiv 2306.00989), SAM 2 (arXiv 2408.00714). The first block of a stage doubles the
channels, halves the map by max-pooling its shortcut and its queries, and still attends within the
windows of the stage before.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.encoders import base
from vistraj_jax.encoders.preprocess import Preprocess
from vistraj_jax.nn import attention, resample, vit, windows
from vistraj_jax.nn.lora import Dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hiera(base.Encoder):
  """Hiera; the defaults are SAM 2.1's tiny trunk at 896 pixels: 26.8 M parameters.

  Attributes:
    embed_dim: channels of the first stage; each stage doubles them, and the heads.
    num_heads: heads of the first stage.
    stages: blocks of each stage.
    global_blocks: blocks that attend over the whole map.
    windows: patches a side of the windows of each stage.
    image_size: pixels a side.
    global_size: side of the position table that is stretched over the map.
  """

  POOLS = ("mean",)

  embed_dim: int = 96
  num_heads: int = 1
  stages: tuple[int, ...] = (1, 2, 7, 2)
  global_blocks: tuple[int, ...] = (5, 7, 9)
  windows: tuple[int, ...] = (8, 4, 14, 7)
  image_size: int = 896
  global_size: int = 7

  @property
  def block_stages(self):
    """The stage of every block."""
    return tuple(stage for stage, count in enumerate(self.stages) for _ in range(count))

  @property
  def state_widths(self):
    """C of every state: the embedded patches, then each block's output."""
    return (self.embed_dim, *(self.embed_dim * 2**stage for stage in self.block_stages))

  def preprocesses(self):
    """imagenet: the published one. seed: grey levels 0-255 into ImageNet statistics (a defect)."""
    size = (self.image_size, self.image_size)
    return {"imagenet": Preprocess(size), "seed": Preprocess(size, divide=1.0)}

  def network(self, dtype):
    """Returns the Linen module."""
    return Network(self, dtype)


class Network(nn.Module):
  """The network of `Hiera`.

  Attributes:
    sizes: the encoder.
    dtype: compute dtype.
  """

  sizes: Hiera
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, pixels, mask=None, keys=None):
    """pixels [B, H, W, 3] -> base.Hidden."""
    base.no_mask(mask, "sam2_hiera_tiny")
    sizes = self.sizes
    x = Stem(sizes.embed_dim, self.dtype, name="patch_embedding")(pixels)
    x = x + self._positions(*x.shape[1:3])
    states = [x]
    block = nn.remat(Block) if sizes.remat else Block
    before = 0  # the first block of a stage keeps the windows of the stage before
    for i, stage in enumerate(sizes.block_stages):
      layer = block(
        width=sizes.embed_dim * 2**stage,
        num_heads=sizes.num_heads * 2**stage,
        window=None if i in sizes.global_blocks else sizes.windows[before],
        pooled=stage != before,
        dtype=self.dtype,
        branch_dropout=sizes.lora_dropout,
        name=f"layer{i}",
      )
      x = layer(x, keys)
      before = stage
      states.append(x)
    return base.Hidden(states)

  def _positions(self, rows, columns):
    """Returns [1, rows, columns, C]: a stretched table plus one repeated in every window."""
    sizes = self.sizes
    side, window = sizes.global_size, sizes.windows[0]
    normal = nn.initializers.normal(0.02)
    table = self.param("position_embedding", normal, (side, side, sizes.embed_dim))
    repeated = self.param("window_embedding", normal, (window, window, sizes.embed_dim))
    checks.require(
      rows % window == 0 and columns % window == 0,
      f"sam2_hiera_tiny: a map of {rows} x {columns} patches is not made of windows of {window}; "
      f"image sides must be multiples of {4 * window} pixels.",
    )
    axes = [resample.matrix(side, n, "bicubic", False) for n in (rows, columns)]
    table = resample.resize(table[None], *axes)
    tiled = jnp.tile(repeated, (rows // window, columns // window, 1))
    return (table + tiled).astype(self.dtype)


class Stem(nn.Module):
  """7 x 7 convolution with stride 4."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, pixels):
    """pixels [B, H, W, 3] -> [B, H / 4, W / 4, width]."""
    initializer = nn.initializers.lecun_normal(in_axis=(0, 1, 2))
    kernel = self.param("kernel", initializer, (7, 7, pixels.shape[-1], self.width))
    bias = self.param("bias", nn.initializers.zeros_init(), (self.width,))
    x = jax.lax.conv_general_dilated(
      pixels.astype(self.dtype),
      kernel.astype(self.dtype),
      (4, 4),
      ((3, 3), (3, 3)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return x + bias.astype(self.dtype)


class Block(nn.Module):
  """One block; `pooled` blocks halve the map and change the width.

  Attributes:
    width: output channels.
    num_heads: attention heads.
    window: patches a side of a window on the incoming map; None attends over all of it.
    pooled: whether queries and shortcut are max-pooled 2 x 2.
  """

  width: int
  num_heads: int
  window: int | None
  pooled: bool
  dtype: Any = jnp.float32
  branch_dropout: float = 0.05

  @nn.compact
  def __call__(self, x, keys=None):
    """x [B, H, W, C] -> [B, H, W, width], or [B, H / 2, W / 2, width] where pooled."""
    dense = lambda name: Dense(  # noqa: E731
      self.width, dtype=self.dtype, branch_dropout=self.branch_dropout, name=name
    )
    y = vit.LayerNorm(dtype=self.dtype, name="norm1")(x)
    if self.pooled:
      x = _pool(dense("shortcut")(y, keys))
    batch, height, width, channels = y.shape
    if self.window is None:
      sides = (height, width)
      y = y.reshape(batch, 1, height * width, channels)
    else:
      sides = (self.window, self.window)
      y = windows.partition(y, self.window)
    attend = Attention(
      self.width,
      self.num_heads,
      sides,
      self.pooled,
      self.dtype,
      self.branch_dropout,
      name="attention",
    )
    y = attend(y, keys)
    if self.window is None:
      y = y.reshape(x.shape)
    else:
      y = windows.join(y, self.window // (2 if self.pooled else 1), *x.shape[1:3])
    x = x + y
    y = vit.LayerNorm(dtype=self.dtype, name="norm2")(x)
    y = vit.Mlp(4 * self.width, "gelu", self.dtype, self.branch_dropout, name="mlp")(y, keys)
    return x + y


class Attention(nn.Module):
  """Self-attention within windows of `sides` patches; queries max-pooled where `pooled`."""

  width: int
  num_heads: int
  sides: tuple[int, int]
  pooled: bool
  dtype: Any = jnp.float32
  branch_dropout: float = 0.05

  @nn.compact
  def __call__(self, x, keys=None):
    """x [B, windows, N, C] -> [B, windows, N or N / 4, width]."""
    dense = lambda name: Dense(  # noqa: E731
      self.width, dtype=self.dtype, branch_dropout=self.branch_dropout, name=name
    )
    q, k, v = (dense(name)(x, keys) for name in "qkv")
    if self.pooled:
      q = _pool(q.reshape(-1, *self.sides, self.width))
    heads = lambda y: y.reshape(  # noqa: E731
      x.shape[0] * x.shape[1], -1, self.num_heads, self.width // self.num_heads
    )
    y = attention.attend(heads(q), heads(k), heads(v))
    return dense("out")(y.reshape(*x.shape[:2], -1, self.width), keys)


def _pool(x):
  """Maximum over 2 x 2 patches: [B, H, W, C] -> [B, H / 2, W / 2, C]."""
  batch, height, width, channels = x.shape
  return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
