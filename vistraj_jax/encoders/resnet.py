"""ResNet trunks without their last stage: images -> feature maps at strides 4, 8 and 16.

Source: torchvision's resnet18 and resnet50 (arXiv 1512.03385), whose stride lies in the 3x3
convolution. Batch norms use fixed statistics.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.nn.image_layers import Conv, FrozenBatchNorm, he_normal, max_pool


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut: [B, H, W, C] -> [B, H/stride, W/stride, features]."""

  features: int
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    y = _conv(self, self.features, 3, self.stride, "conv1")(x)
    y = nn.relu(_norm(self, "bn1")(y))
    y = _norm(self, "bn2")(_conv(self, self.features, 3, 1, "conv2")(y))
    return nn.relu(y + _shortcut(self, x, self.features))


class Bottleneck(nn.Module):
  """1x1, 3x3, 1x1 and a shortcut: [B, H, W, C] -> [B, H/stride, W/stride, 4 * features]."""

  features: int
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    y = nn.relu(_norm(self, "bn1")(_conv(self, self.features, 1, 1, "conv1")(x)))
    y = nn.relu(_norm(self, "bn2")(_conv(self, self.features, 3, self.stride, "conv2")(y)))
    y = _norm(self, "bn3")(_conv(self, 4 * self.features, 1, 1, "conv3")(y))
    return nn.relu(y + _shortcut(self, x, 4 * self.features))


class ResNet(nn.Module):
  """[B, H, W, C] -> maps at strides 4, 8, 16 of 1, 2, 4 times `width` channels.

  Attributes:
    depths: blocks of the three stages: (2, 2, 2) in ResNet-18, (3, 4, 6) in ResNet-50.
    bottleneck: blocks are `BasicBlock` (ResNet-18) or `Bottleneck` (ResNet-50), whose maps have 4
      times as many channels.
    width: channels of the stem (published: 64).
    dtype: compute dtype.
  """

  depths: tuple[int, int, int]
  bottleneck: bool
  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    block = Bottleneck if self.bottleneck else BasicBlock
    x = _conv(self, self.width, 7, 2, "conv1")(x)
    x = max_pool(nn.relu(_norm(self, "bn1")(x)))
    maps = []
    for stage, depth in enumerate(self.depths):
      for i in range(depth):
        stride = 2 if stage and not i else 1
        x = block(self.width << stage, stride, self.dtype, name=f"layer{stage + 1}_{i}")(x)
      maps.append(x)
    return maps


def _conv(module, features, size, stride, name):
  return Conv(features, size, stride, False, module.dtype, he_normal, name=name)


def _norm(module, name):
  return FrozenBatchNorm(dtype=module.dtype, name=name)


def _shortcut(module, x, features):
  """The input itself, or projected where the block changes its size."""
  if module.stride == 1 and x.shape[-1] == features:
    return x
  x = _conv(module, features, 1, module.stride, "shortcut")(x)
  return _norm(module, "shortcut_bn")(x)
