"""The Open-MAGVIT2 video tokenizer: video -> tokens of D bits -> video.

370,547,349 parameters at the published size (128 channels, multipliers 1 2 2 4, 4 blocks a level,
18 bits), which turns 4k+1 frames of H x W pixels into (k+1) x H/8 x W/8 tokens; the first covers
one frame, the others four. Convolutions see no later frame, but the statistics of the group norms
are taken over all frames of a window: the latents of a window's start depend on its end. So a
past that must not know its future has to be encoded as a window of its own.
Source: Luo et al. (arXiv 2409.04410), SEED-Voken, video_128_262144.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.magvit import value_range
from vistraj_jax.nn import quantize
from vistraj_jax.nn.video_layers import Conv

_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class VideoTokenizer:
  """Encoder, lookup-free quantiser and decoder; parameters are {"encoder": ..., "decoder": ...}.

  Attributes:
    channels: of the first level.
    multipliers: channels of each level / `channels`. Each level but the last ends in a halving of
      height and width, and of the frames unless its multiplier is 1.
    num_blocks: residual blocks of each level.
    bits: channels of the latents, one bit of the token each.
    groups: of the group norms; divides the channels of all levels.
    dtype: compute dtype; parameters and latents are float32.
  """

  channels: int = 128
  multipliers: tuple = (1, 2, 2, 4)
  num_blocks: int = 4
  bits: int = 18
  groups: int = 32
  dtype: Any = jnp.float32

  value_range = (-1.0, 1.0)
  has_code_book = False

  def __post_init__(self):
    object.__setattr__(self, "multipliers", tuple(self.multipliers))
    uneven = [m * self.channels for m in self.multipliers if m * self.channels % self.groups]
    checks.require(
      not uneven,
      f"config.model.groups: {self.groups} received, which does not divide {uneven[:1]} channels; "
      "choose another number of groups or channels.",
    )

  @property
  def latent_dim(self):
    """Channels of the latents."""
    return self.bits

  @property
  def num_codes(self):
    """Number of different tokens."""
    return 2**self.bits

  @property
  def strides(self):
    """(frames, pixels) that a latent is apart from the next."""
    halved = [m != 1 for m in self.multipliers[:-1]]
    return 2 ** sum(halved), 2 ** len(halved)

  def latent_shape(self, frames, height, width):
    """Returns (t, h, w) of the latents of a window.

    Raises:
      InputError: a number of frames that is not a multiple of the time stride plus 1, sides that
        are no multiples of the pixel stride, or a single latent.
    """
    time, space = self.strides
    checks.require(
      frames >= 1 and (frames - 1) % time == 0,
      f"video: a window of {frames} frames received, {time}k+1 frames wanted (1, {time + 1}, "
      f"{2 * time + 1}, ...): {_nearest_lengths(frames, time)}.",
    )
    checks.require(
      height % space == 0 and width % space == 0 and height and width,
      f"video: frames of {height} x {width} px received, multiples of {space} wanted; crop or "
      "resize them.",
    )
    shape = (frames - 1) // time + 1, height // space, width // space
    checks.require(
      math.prod(shape) > 1,
      f"video: {frames} frames of {height} x {width} px give one latent, two or more are wanted "
      "(the decoder takes their variance); give a larger window.",
    )
    return shape

  def init(self, rng):
    """rng -> params."""
    of_encoder, of_decoder = jax.random.split(rng)
    time, space = self.strides
    video = jnp.zeros((1, time + 1, space, space, 3))
    latents = jnp.ones((1, 2, 1, 1, self.bits))
    return {
      "encoder": self._encoder().init(of_encoder, video)["params"],
      "decoder": self._decoder().init(of_decoder, latents)["params"],
    }

  def encode(self, params, video):
    """video float [B, T, H, W, 3] in -1..1 -> latents float32 [B, t, h, w, bits], any real number.

    Raises:
      InputError: see `latent_shape`; or other values.
    """
    self.latent_shape(*video.shape[1:4])
    value_range.check(video, self.value_range)
    return self._encoder().apply({"params": params["encoder"]}, video).astype(jnp.float32)

  def quantize(self, latents, params=None):
    """latents -> (+-1 of the same shape, with the gradient of `latents`; index int32 [B, t, h, w]).

    `params` is not read: there is no code book.
    """
    del params
    return (
      quantize.straight_through(latents, quantize.signs(latents)),
      quantize.bits_to_index(latents),
    )

  def from_indices(self, indices, params=None):
    """indices int [B, t, h, w] -> +-1 float32 [B, t, h, w, bits]; the inverse of `quantize`."""
    del params
    return quantize.index_to_bits(indices, self.bits)

  def decode(self, params, latents):
    """latents of +-1 [B, t, h, w, bits] -> video float32 [B, T, H, W, 3], clipped to 0..1."""
    return jnp.clip((self.decode_unclipped(params, latents) + 1) / 2, 0, 1)

  def decode_unclipped(self, params, latents):
    """As `decode`, in `value_range` and not clipped: what training compares with the video."""
    return self._decoder().apply({"params": params["decoder"]}, latents).astype(jnp.float32)

  def _encoder(self):
    return Encoder(
      self.channels, self.multipliers, self.num_blocks, self.bits, self.groups, self.dtype
    )

  def _decoder(self):
    return Decoder(self.channels, self.multipliers, self.num_blocks, self.groups, self.dtype)


class Encoder(nn.Module):
  """Video [B, T, H, W, 3] -> latents [B, t, h, w, bits]."""

  channels: int
  multipliers: tuple
  num_blocks: int
  bits: int
  groups: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    conv = {"causal": True, "dtype": self.dtype}
    x = Conv(self.channels, use_bias=False, **conv, name="conv_in")(x)
    last = len(self.multipliers) - 1
    for level, multiplier in enumerate(self.multipliers):
      width = self.channels * multiplier
      for i in range(self.num_blocks):
        x = ResidualBlock(width, self.groups, self.dtype, name=f"down_{level}_block_{i}")(x)
      if level < last:
        stride = (1 if multiplier == 1 else 2, 2)
        x = Conv(width, stride=stride, **conv, name=f"down_{level}_downsample")(x)
    for i in range(self.num_blocks):
      x = ResidualBlock(width, self.groups, self.dtype, name=f"mid_block_{i}")(x)
    x = nn.swish(_norm(self, "norm_out")(x))
    return Conv(self.bits, (1, 1), **conv, name="conv_out")(x)


class Decoder(nn.Module):
  """Latents of +-1 [B, t, h, w, bits] -> video [B, T, H, W, 3], no bounds."""

  channels: int
  multipliers: tuple
  num_blocks: int
  groups: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, latents):
    conv = {"causal": True, "dtype": self.dtype}
    width = self.channels * self.multipliers[-1]
    x = Conv(width, **conv, name="conv_in")(latents)
    for i in range(self.num_blocks):
      x = ResidualBlock(width, self.groups, self.dtype, name=f"mid_block_{i}")(x)
    for level in reversed(range(len(self.multipliers))):
      x = AdaptiveGroupNorm(self.groups, self.dtype, name=f"adaptive_{level}")(x, latents)
      width = self.channels * self.multipliers[level]
      for i in range(self.num_blocks):
        x = ResidualBlock(width, self.groups, self.dtype, name=f"up_{level}_block_{i}")(x)
      if level:
        frames = 1 if self.multipliers[level - 1] == 1 else 2
        x = Upsample(frames, self.dtype, name=f"up_{level}_upsample")(x)
    x = nn.swish(_norm(self, "norm_out")(x))
    return Conv(3, **conv, name="conv_out")(x)


class ResidualBlock(nn.Module):
  """[B, T, H, W, in] -> [B, T, H, W, features]: two normalised convolutions beside the input."""

  features: int
  groups: int = 32
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    conv = {"causal": True, "use_bias": False, "dtype": self.dtype}
    y = Conv(self.features, **conv, name="conv1")(nn.swish(_norm(self, "norm1")(x)))
    y = Conv(self.features, **conv, name="conv2")(nn.swish(_norm(self, "norm2")(y)))
    if x.shape[-1] != self.features:
      x = Conv(self.features, (1, 1), **conv, name="shortcut")(x)
    return x + y


class AdaptiveGroupNorm(nn.Module):
  """Group norm of x whose scale and shift are linear in the deviation and mean of the latents.

  The variance of a latent channel divides by n - 1, n being its t * h * w values.
  """

  groups: int = 32
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, latents):
    """x [B, T, H, W, C], latents [B, t, h, w, D] -> [B, T, H, W, C]."""
    latents = latents.astype(jnp.float32)
    deviation = jnp.sqrt(jnp.var(latents, (1, 2, 3), ddof=1) + _EPSILON)
    width = x.shape[-1]
    gamma = nn.Dense(width, bias_init=nn.initializers.ones_init(), name="gamma")(deviation)
    beta = nn.Dense(width, name="beta")(jnp.mean(latents, (1, 2, 3)))
    gamma, beta = (v[:, None, None, None].astype(self.dtype) for v in (gamma, beta))
    return _norm(self, "norm", use_scale=False, use_bias=False)(x) * gamma + beta


class Upsample(nn.Module):
  """[B, T, H, W, C] -> [B, T or 2T-1, 2H, 2W, C]: each place makes its block by a convolution.

  Attributes:
    frames: 1, or 2: frames double, and frame 1 is dropped, for the first latent has one frame.
  """

  frames: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    B, T, H, W, C = x.shape
    n = self.frames
    x = Conv(4 * n * C, causal=True, dtype=self.dtype, name="conv")(x)
    x = x.reshape(B, T, H, W, n, 2, 2, C).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    x = x.reshape(B, n * T, 2 * H, 2 * W, C)
    return x if n == 1 else jnp.concatenate([x[:, :1], x[:, 2:]], 1)


def _norm(module, name, **kwargs):
  """Group norm over T, H, W and the channels of a group; statistics in float32."""
  return nn.GroupNorm(
    module.groups,
    epsilon=_EPSILON,
    use_fast_variance=False,
    dtype=module.dtype,
    name=name,
    **kwargs,
  )


def _nearest_lengths(frames, time):
  below = (frames - 1) // time * time + 1
  return f"cut it to {below} or take {below + time}" if below >= 1 else f"take {time + 1}"
