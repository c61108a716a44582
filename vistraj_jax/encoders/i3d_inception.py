"""I3D on Inception-v1: clips -> the 400 numbers between whose distributions FVD is measured.

Source: the network of arXiv 1705.07750 as the public PyTorch port has it, whose weights files are
used for the Frechet video distance (arXiv 1812.01717). All paddings follow TensorFlow's "SAME".
Maxima there see zeros beyond the border, which changes nothing after a ReLU.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.nn import resample, video_layers
from vistraj_jax.nn.image_layers import FrozenBatchNorm, he_normal

SIDE, MIN_FRAMES = 224, 9  # px and frames that the last average needs
# Channels of a mixed block: 1x1 | 1x1 -> 3x3 | 1x1 -> 3x3 | maxima -> 1x1; "pool": (window, step).
_MIXED = {
  "Mixed_3b": (64, 96, 128, 16, 32, 32),
  "Mixed_3c": (128, 128, 192, 32, 96, 64),
  "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
  "Mixed_4b": (192, 96, 208, 16, 48, 64),
  "Mixed_4c": (160, 112, 224, 24, 64, 64),
  "Mixed_4d": (128, 128, 256, 24, 64, 64),
  "Mixed_4e": (112, 144, 288, 32, 64, 64),
  "Mixed_4f": (256, 160, 320, 32, 128, 128),
  "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
  "Mixed_5b": (256, 160, 320, 32, 128, 128),
  "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3DInception(nn.Module):
  """Clip [B, T, H, W, 3] in -1..1 -> ({layer: map}, logits [B, 400]).

  Logits are the mean over time of what 2 x 7 x 7 windows say. Clips too small for such a window
  (fewer than 9 frames or 193 px) have none: None.

  Attributes:
    num_classes: of the last layer.
    eps: of batch norms: 1e-5 in the public port, 1e-3 in the original.
    dtype: compute dtype.
  """

  num_classes: int = 400
  eps: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, video):
    maps = {}
    unit = lambda x, features, size, name, stride=1: Unit(  # noqa: E731
      features, size, stride, self.eps, self.dtype, name=name
    )(x)
    maps["Conv3d_1a_7x7"] = x = unit(video, 64, 7, "Conv3d_1a_7x7", 2)
    maps["MaxPool3d_2a_3x3"] = x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
    maps["Conv3d_2b_1x1"] = x = unit(x, 64, 1, "Conv3d_2b_1x1")
    maps["Conv3d_2c_3x3"] = x = unit(x, 192, 3, "Conv3d_2c_3x3")
    x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
    for name, sizes in _MIXED.items():
      if name.startswith("MaxPool"):
        x = nn.max_pool(x, *sizes, "SAME")
      else:
        x = Mixed(sizes, self.eps, self.dtype, name=name)(x)
      maps[name] = x
    is_enough = x.shape[1] >= 2 and min(x.shape[2:4]) >= 7
    x = x.astype(jnp.float32)
    x = nn.avg_pool(x, (2, 7, 7)).mean((1, 2, 3)) if is_enough else x.mean((1, 2, 3))
    logits = nn.Dense(self.num_classes, name="logits")(x)
    return maps, logits if is_enough else None


class Mixed(nn.Module):
  """Four branches side by side."""

  sizes: tuple
  eps: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    unit = lambda x, i, size, name: Unit(  # noqa: E731
      self.sizes[i], size, 1, self.eps, self.dtype, name=name
    )(x)
    branches = [
      unit(x, 0, 1, "b0"),
      unit(unit(x, 1, 1, "b1a"), 2, 3, "b1b"),
      unit(unit(x, 3, 1, "b2a"), 4, 3, "b2b"),
      unit(nn.max_pool(x, (3, 3, 3), (1, 1, 1), "SAME"), 5, 1, "b3b"),
    ]
    return jnp.concatenate(branches, -1)


class Unit(nn.Module):
  """size x size x size convolution, batch norm, ReLU."""

  features: int
  size: int
  stride: int
  eps: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    shape = (self.size,) * 3 + (x.shape[-1], self.features)
    kernel = self.param("kernel", he_normal, shape).astype(self.dtype)
    x = _convolve(x.astype(self.dtype), kernel, self.stride)
    return nn.relu(FrozenBatchNorm(self.eps, self.dtype, name="norm")(x))


def preprocess(video):
  """uint8 clip [B, T, H, W, 3] -> float32 [B, T, 224, 224, 3] in -1..1, bilinear, no antialias.

  Raises:
    InputError: fewer than 9 frames.
  """
  B, T, H, W, C = video.shape
  checks.require(
    T >= MIN_FRAMES,
    f"FVD: clips of {T} frames, the network needs at least {MIN_FRAMES} and is usually given 16.",
  )
  rows, columns = (resample.matrix(n, SIDE, "bilinear", False) for n in (H, W))
  x = resample.resize(video.reshape(-1, H, W, C).astype(jnp.float32), rows, columns)
  return x.reshape(B, T, SIDE, SIDE, C) * (2 / 255) - 1


def _convolve(x, kernel, stride):
  """Padded so that ceil(n / stride) outputs come out, an odd zero behind."""
  size = len(kernel)
  if stride == 1:
    return video_layers.convolve(x, kernel, (1, 1), (size // 2, size // 2))
  pads = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[1:4]]
  pads = [(pad // 2, pad - pad // 2) for pad in pads]
  if jax.default_backend() == "cpu":

    def one(images, taps):
      numbers = ("NHWC", "HWIO", "NHWC")
      return jax.lax.conv_general_dilated(
        images, taps, (stride,) * 2, pads[1:], dimension_numbers=numbers
      )

    return video_layers.by_images(one, x, kernel, stride, pads[0])
  numbers = ("NDHWC", "DHWIO", "NDHWC")
  return jax.lax.conv_general_dilated(x, kernel, (stride,) * 3, pads, dimension_numbers=numbers)
