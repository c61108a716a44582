"""Square convolutions with torch's symmetric padding, frozen batch norm, pooling, enlarging.

Images are [B, H, W, C]. Flax's "SAME" pads a strided convolution on one side only; published
weights want both.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def uniform_by_fan_in(rng, shape, dtype=jnp.float32):
  """torch.nn's first weights: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), the last axis being outputs."""
  bound = math.prod(shape[:-1]) ** -0.5
  return jax.random.uniform(rng, shape, dtype, -bound, bound)


he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
  """[B, H, W, in] -> [B, ceil(H / stride), ceil(W / stride), features].

  Attributes:
    features: output channels.
    size: odd side of the kernel; (size - 1) / 2 zeros are laid around the image.
    stride: step of the output grid.
    use_bias: whether a bias is added.
    dtype: compute dtype; parameters are float32.
    kernel_init: first kernel [size, size, in, features].
  """

  features: int
  size: int = 3
  stride: int = 1
  use_bias: bool = True
  dtype: Any = jnp.float32
  kernel_init: Any = uniform_by_fan_in

  @nn.compact
  def __call__(self, x):
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape).astype(self.dtype)
    x = convolve(x.astype(self.dtype), kernel, self.stride)
    if self.use_bias:
      x = x + self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(self.dtype)
    return x


class FrozenBatchNorm(nn.Module):
  """Batch norm with fixed statistics: (x - mean) / sqrt(var + eps) * scale + bias.

  `scale` and `bias` train. `mean` and `var` are parameters too, so that weights files and
  checkpoints carry them, but no gradient reaches them; a config's groups call them "frozen", which
  keeps weight decay away.

  Attributes:
    eps: added to the variance.
    dtype: compute dtype.
  """

  eps: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    width = (x.shape[-1],)
    scale = self.param("scale", nn.initializers.ones_init(), width)
    bias = self.param("bias", nn.initializers.zeros_init(), width)
    mean = jax.lax.stop_gradient(self.param("mean", nn.initializers.zeros_init(), width))
    var = jax.lax.stop_gradient(self.param("var", nn.initializers.ones_init(), width))
    factor = scale * jax.lax.rsqrt(var + self.eps)
    return x * factor.astype(self.dtype) + (bias - mean * factor).astype(self.dtype)


def convolve(x, kernel, stride=1):
  """x [B, H, W, in], kernel [size, size, in, out] -> [B, ceil(H/stride), ceil(W/stride), out]."""
  size = kernel.shape[0]
  if size == 1:  # a matrix product, which runs at twice the speed of a convolution on a CPU
    return x[:, ::stride, ::stride] @ kernel[0, 0]
  around = ((size // 2, size // 2),) * 2
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), around, dimension_numbers=_LAYOUT
  )


def max_pool(x):
  """3x3 windows, stride 2, -inf around: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C]."""
  return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def average_pool(x, factor):
  """Means of factor x factor blocks: [B, H, W, C] -> [B, H/factor, W/factor, C]."""
  B, H, W, C = x.shape
  return x.reshape(B, H // factor, factor, W // factor, factor, C).mean((2, 4))


def enlarge(x, factor):
  """Bilinear, half-pixel centres, borders repeated: [B, H, W, C] -> [B, H*factor, W*factor, C]."""
  return _enlarge_axis(_enlarge_axis(x, factor, 1), factor, 2)


def _enlarge_axis(x, factor, axis):
  """Output i * factor + phase lies between its own old sample and one neighbour."""
  size = x.shape[axis]
  before = jnp.concatenate([_slice(x, axis, 0, 1), _slice(x, axis, 0, size - 1)], axis)
  after = jnp.concatenate([_slice(x, axis, 1, size), _slice(x, axis, size - 1, size)], axis)
  phases = []
  for phase in range(factor):
    offset = (phase + 0.5) / factor - 0.5
    other = before if offset < 0 else after
    phases.append((1 - abs(offset)) * x + abs(offset) * other)
  shape = [*x.shape[:axis], size * factor, *x.shape[axis + 1 :]]
  return jnp.stack(phases, axis + 1).reshape(shape)


def _slice(x, axis, start, stop):
  return jax.lax.slice_in_dim(x, start, stop, axis=axis)
