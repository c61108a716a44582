"""3-D PatchGAN: how real each patch of a video looks, for adversarial training of tokenizers.

Source: SEED-Voken's 3-D patch discriminator; its norms keep torch's running statistics, whose
variance is the unbiased one.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.nn.video_layers import Conv

_STRIDES = ((2, 2), (1, 2), (1, 1))  # in time and space, of the normalised convolutions
_SLOPE = 0.2
_start = nn.initializers.normal(0.02)


class PatchDiscriminator(nn.Module):
  """Video [B, T, H, W, 3] -> logits float32 [B, T/4, H/8, W/8, 1], sides rounded up.

  Attributes:
    channels: of the first convolution; they double three times.
    batch_axis: mapped axis over which batch statistics are joined under pmap, or None.
    dtype: compute dtype; parameters and statistics are float32.
  """

  channels: int = 64
  batch_axis: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, train):
    """train: whether statistics are the batch's, which then move the running ones."""
    conv = {"dtype": self.dtype, "kernel_init": _start}
    x = nn.leaky_relu(Conv(self.channels, stride=(2, 2), **conv, name="conv_0")(x), _SLOPE)
    for i, stride in enumerate(_STRIDES, 1):
      width = self.channels << i
      x = Conv(width, stride=stride, use_bias=False, **conv, name=f"conv_{i}")(x)
      x = nn.leaky_relu(BatchNorm(self.batch_axis, name=f"norm_{i}")(x, train), _SLOPE)
    return Conv(1, **conv, name="conv_4")(x).astype(jnp.float32)


class BatchNorm(nn.Module):
  """Batch norm over all axes but the last, running statistics as torch's: unbiased variance.

  Attributes:
    batch_axis: see `PatchDiscriminator`.
    momentum: share of the new statistics in the running ones.
  """

  batch_axis: str | None = None
  momentum: float = 0.1

  @nn.compact
  def __call__(self, x, train):
    width = x.shape[-1]
    scale = self.param("scale", lambda rng, shape: 1 + _start(rng, shape), (width,))
    bias = self.param("bias", nn.initializers.zeros_init(), (width,))
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, (width,))
    running_var = self.variable("batch_stats", "var", jnp.ones, (width,))
    mean, var = running_mean.value, running_var.value
    if train:
      x32, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
      count = x.size // width
      mean, square = jnp.mean(x32, axes), jnp.mean(x32**2, axes)
      if self.batch_axis is not None and not self.is_initializing():
        mean, square = jax.lax.pmean((mean, square), self.batch_axis)
        count *= jax.lax.axis_size(self.batch_axis)
      var = jnp.maximum(square - mean**2, 0)
      if not self.is_initializing():
        unbiased = var * count / max(count - 1, 1)
        running_mean.value += self.momentum * (mean - running_mean.value)
        running_var.value += self.momentum * (unbiased - running_var.value)
    factor = scale * jax.lax.rsqrt(var + 1e-5)
    return x * factor.astype(x.dtype) + (bias - mean * factor).astype(x.dtype)
