"""Decoders: encoder tokens -> the future frame. Pretraining only; transfer never builds them.

`ConvDecoder` is the common one: four upsampling levels, a skip path from the current frame, CLS
tokens added at several levels. `PatchDecoder` is a small transformer that predicts the pixels of
every patch from one stream alone.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.models.two_stream import blocks, preprocess
from vistraj_jax.nn import image_layers, initializers

# Which tap enters after which level; level 1 is the coarsest.
CLS = {
  "none": {},
  "final_first": {1: "final"},
  "final_all": {1: "final", 2: "final", 3: "final"},
  "multiscale": {1: "final", 2: "stage2", 3: "stage1"},
}
FILM = ("add", "scale_shift")
NORMS = ("batch", "group")
CHANNELS = (512, 256, 128, 64, 32)
_SKIP_CHANNELS = (32, 64)
_GROUPS = 8


class ConvDecoder(nn.Module):
  """Patches [B, N, D] -> image of 16 times the grid, pixels in 0..1.

  Attributes:
    skip: whether the current frame enters at a quarter of the image size.
    cls: a key of `CLS`.
    cls_film: "add" the projected CLS to every place, or let it "scale_shift" the features.
    norm: "batch" statistics (the original) or "group" norm with 8 groups.
    batch_axis: name of the mapped axis over which batch statistics are joined, or None.
    dtype: compute dtype; statistics and the result are float32.
  """

  skip: bool = True
  cls: str = "multiscale"
  cls_film: str = "add"
  norm: str = "batch"
  batch_axis: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, patches, taps, img_t, train=False):
    """Decodes one batch.

    Args:
      patches: [B, N, D] in raster order of a square grid.
      taps: {"stage1", "stage2", "final"} -> [B, D]; absent ones are left out.
      img_t: current frame [B, H, W, 3] for the skip path.
      train: whether batch statistics are taken from the batch, and the running ones updated.

    Returns:
      float32 [B, 16 * grid, 16 * grid, 3].
    """
    levels = CLS[checks.choice("config.model.decoder.cls", self.cls, CLS)]
    checks.choice("config.model.decoder.cls_film", self.cls_film, FILM)
    checks.choice("config.model.decoder.norm", self.norm, NORMS)
    batch, count, width = patches.shape
    side = int(count**0.5)
    x = initializers.dense(CHANNELS[0], width, self.dtype, "input")(patches)
    x = blocks.gelu(blocks.layer_norm(1e-5, self.dtype, "input_norm")(x))
    x = x.reshape(batch, side, side, CHANNELS[0])
    skip = self._skip(img_t, train) if self.skip else None
    for level in (1, 2, 3, 4):
      x = Upsample(CHANNELS[level], self.dtype, name=f"up{level}")(x)
      x = self._normalized(f"up{level}", x, train)
      if level in levels and levels[level] in taps:
        x = self._with_cls(level, x, taps[levels[level]])
      if level == 2 and self.skip:
        x = jnp.concatenate([x, skip], -1)
        x = self._conv("merge", x, CHANNELS[2], 1)
        x = self._normalized("merge", x, train)
    x = blocks.gelu(self._conv("output0", x, CHANNELS[4], 3))
    x = self._conv("output1", x, 3, 1)
    return nn.sigmoid(x.astype(jnp.float32))

  def _skip(self, img_t, train):
    """img_t [B, H, W, 3] -> [B, H/4, W/4, 64]."""
    x = preprocess.as_float(img_t)
    for i, (channels, size) in enumerate(zip(_SKIP_CHANNELS, (7, 3), strict=True)):
      x = self._normalized(f"skip{i}", self._conv(f"skip{i}", x, channels, size, 2), train)
    return x

  def _conv(self, name, x, channels, size, stride=1):
    return _Conv(channels, size, stride, self.dtype, name=name)(x)

  def _normalized(self, name, x, train):
    """Norm and GELU; keeps the result as intermediate `name`."""
    if self.norm == "group":
      x = nn.GroupNorm(_GROUPS, epsilon=1e-5, dtype=self.dtype, name=f"{name}_norm")(x)
    else:
      x = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=self.dtype,
        axis_name=self.batch_axis,
        use_fast_variance=False,
        name=f"{name}_norm",
      )(x)
    x = blocks.gelu(x)
    self.sow("intermediates", f"{name}_out", x)
    return x

  def _with_cls(self, level, x, cls):
    channels, width = x.shape[-1], cls.shape[-1]
    if self.cls_film == "add":
      return x + initializers.dense(channels, width, self.dtype, f"cls{level}")(cls)[:, None, None]
    y = initializers.dense(2 * channels, width, self.dtype, f"cls{level}")(cls)[:, None, None]
    return x * (1 + y[..., :channels]) + y[..., channels:]


class _Conv(nn.Module):
  """Convolution with a bias, both starting as torch's do; zeros of half a kernel lie around."""

  channels: int
  size: int
  stride: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    start = initializers.uniform(self.size * self.size * x.shape[-1])
    kernel = self.param("kernel", start, (self.size, self.size, x.shape[-1], self.channels))
    bias = self.param("bias", start, (self.channels,)).astype(self.dtype)
    return (
      image_layers.convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride) + bias
    )


class Upsample(nn.Module):
  """Transposed convolution, kernel 4, stride 2, padding 1: [B, H, W, C] -> [B, 2H, 2W, channels].

  Each of the four output places of a 2x2 cell sees 2x2 inputs, so the whole is one product of all
  2x2 neighbourhoods with a matrix, then interleaved. XLA's own transposed convolution has a
  backward pass that takes ten times as long on a CPU. The kernel is torch's, [4, 4, in, out].
  """

  channels: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    batch, height, width, inputs = x.shape
    start = initializers.uniform(16 * self.channels)  # torch counts the output side here
    kernel = self.param("kernel", start, (4, 4, inputs, self.channels))
    bias = self.param("bias", start, (self.channels,))
    # Output 2i (phase 0) sums inputs i-1, i with taps 3, 1; output 2i+1 inputs i, i+1 with 2, 0.
    taps = np.array([[3, 1], [2, 0]])
    kernel = kernel[taps][:, :, taps]  # [phase, tap, phase, tap, in, out]
    kernel = kernel.transpose(1, 3, 4, 0, 2, 5).astype(self.dtype)
    x = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
    cells = [x[:, i : i + height + 1, j : j + width + 1] for i in (0, 1) for j in (0, 1)]
    x = jnp.concatenate(cells, -1) @ kernel.reshape(4 * inputs, 4 * self.channels)
    x = x.reshape(batch, height + 1, width + 1, 2, 2, self.channels)
    x = jnp.stack([x[:, :-1, :, 0], x[:, 1:, :, 1]], 2)
    x = x.reshape(batch, 2 * height, width + 1, 2, self.channels)
    x = jnp.stack([x[:, :, :-1, 0], x[:, :, 1:, 1]], 3)
    return x.reshape(batch, 2 * height, 2 * width, self.channels) + bias.astype(self.dtype)


class PatchDecoder(nn.Module):
  """Patches of one stream and a CLS -> image, by a transformer with one output token a patch.

  Attributes:
    patch_size: px.
    side: patches along an edge of the image.
    width, depth, num_heads: of the transformer.
    masked: whether it must fill in patches that the encoder did not see (a mask token).
    block: further fields of `blocks.Block`.
    remat: see `blocks.Stack`.
    dtype: compute dtype; the result is float32.
  """

  patch_size: int
  side: int
  width: int = 512
  depth: int = 4
  num_heads: int = 8
  masked: bool = False
  block: dict | None = None
  remat: str = "none"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, cls, patches, kept=None, visible=None, keys=None):
    """cls [B, D], patches [B, K, D] (with `kept`, `visible` [B, K] as in `Streams`) -> image.

    Returns:
      float32 [B, side * patch_size, side * patch_size, 3], in 0..1.
    """
    count = self.side**2
    x = jnp.concatenate([cls[:, None], patches], 1)
    x = initializers.dense(self.width, x.shape[-1], self.dtype, "embed")(x)
    start = initializers.truncated_normal
    if self.masked:
      mask_token = self.param("mask_token", start, (self.width,))
    if kept is not None:
      x = jnp.concatenate([x[:, :1], self._filled(x[:, 1:], mask_token, kept, visible)], 1)
    x = x + self.param("pos_embed", start, (count + 1, self.width)).astype(self.dtype)
    block = {"num_heads": self.num_heads, **(self.block or {}), "dtype": self.dtype}
    x = blocks.Stack(self.depth, block, self.remat, name="stack")(x, first=1000, keys=keys)
    x = blocks.layer_norm(1e-5, self.dtype, "norm")(x[:, 1:])
    x = initializers.dense(self.patch_size**2 * 3, self.width, self.dtype, "head")(x)
    return nn.sigmoid(blocks.unpatch(x.astype(jnp.float32), self.patch_size, self.side))

  def _filled(self, x, mask_token, kept, visible):
    """Puts kept patches at their places and the mask token at all others: -> [B, N, width]."""
    full = jnp.broadcast_to(mask_token.astype(x.dtype), (x.shape[0], self.side**2, self.width))
    if visible is not None:
      x = jnp.where(visible[..., None], x, full[:, : x.shape[1]])
    return jax.vmap(lambda row, at, values: row.at[at].set(values))(full, kept, x)
