"""Square convolutions with torch's symmetric padding, frozen batch norm, pooling, enlarging.

Images are [B, H, W, C]. Flax's "SAME" pads a strided convolution on one side only; published
weights want both.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.nn import winograd

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
  if kernel.shape[0] == 1:  # a matrix product, which runs at twice the speed of a convolution
    return x[:, ::stride, ::stride] @ kernel[0, 0]
  if jax.default_backend() == "cpu":
    return _convolve_on_cpu(x, kernel, stride)
  return _convolve(x, kernel, stride)


def _convolve(x, kernel, stride):
  around = ((kernel.shape[0] // 2,) * 2,) * 2
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), around, dimension_numbers=_LAYOUT
  )


def _direct_or_tiled(x, kernel, stride):
  if stride == 1 and kernel.shape[0] == 3 and winograd.pays(x.shape, kernel.shape, x.dtype):
    return winograd.convolve(x, kernel)
  return _convolve(x, kernel, stride)


# Inside loops XLA leaves the gradients of a convolution in layouts for which a CPU has only a slow
# path: 20 times slower. Here they are convolutions in the layout of the forward pass.
_convolve_on_cpu = jax.custom_vjp(_direct_or_tiled, nondiff_argnums=(2,))


def _forward(x, kernel, stride):
  return _direct_or_tiled(x, kernel, stride), (x, kernel)


def _backward(stride, saved, gradient):
  x, kernel = saved
  size, sides = kernel.shape[0], x.shape[1:3]
  before = size // 2
  # Rows and columns that the gradient spans in the input.
  spans = [stride * (n - 1) + 1 for n in gradient.shape[1:3]]
  of_x = jax.lax.conv_general_dilated(
    gradient,
    jnp.swapaxes(kernel[::-1, ::-1], 2, 3),
    (1, 1),
    [(before, side - span + before) for side, span in zip(sides, spans, strict=True)],
    lhs_dilation=(stride, stride),
    dimension_numbers=_LAYOUT,
  )
  # Channels take the place of the batch, the gradient that of the kernel.
  of_kernel = jax.lax.conv_general_dilated(
    jnp.transpose(x, (3, 1, 2, 0)),
    jnp.transpose(gradient, (1, 2, 0, 3)),
    (1, 1),
    [(before, size - 1 + span - side - before) for side, span in zip(sides, spans, strict=True)],
    rhs_dilation=(stride, stride),
    dimension_numbers=_LAYOUT,
  )
  return of_x, jnp.transpose(of_kernel, (1, 2, 0, 3))


_convolve_on_cpu.defvjp(_forward, _backward)


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
