"""Linear and convolution layers that start as torch's do: uniform weights and biases.

torch.nn draws both from U(-1/sqrt(fan_in), 1/sqrt(fan_in)); Flax's Dense starts wider and with zero
biases. Parameters are `kernel` and `bias`, float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Linear(nn.Module):
  """[..., in] -> [..., features].

  Attributes:
    features: output width.
    zero: whether it starts with zeros instead, so that its answer is 0.
  """

  features: int
  zero: bool = False

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    start = nn.initializers.zeros_init() if self.zero else _uniform(width)
    kernel = self.param("kernel", start, (width, self.features))
    return x @ kernel + self.param("bias", start, (self.features,))


class Conv(nn.Module):
  """Square convolution with stride 1 that keeps the size: [B, H, W, in] -> [B, H, W, features].

  Attributes:
    features: output channels.
    size: odd side of the kernel.
  """

  features: int
  size: int

  @nn.compact
  def __call__(self, x):
    fan_in = self.size**2 * x.shape[-1]
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", _uniform(fan_in), shape)
    x = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return x + self.param("bias", _uniform(fan_in), (self.features,))


def _uniform(fan_in):
  bound = fan_in**-0.5
  return lambda rng, shape: jax.random.uniform(rng, shape, jnp.float32, -bound, bound)
