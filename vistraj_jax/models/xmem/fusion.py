"""Fusing features of the image with features of each object: residual blocks and CBAM.

Objects lie in the batch axis, [B * K, h, w, C] with the object fastest. What a 3x3 convolution
makes of the image's channels is the same for all objects of an image, so those channels have a
kernel of their own, `..._image`, applied once per image.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.nn import torch_layers
from vistraj_jax.nn.image_layers import Conv


class ResidualBlock(nn.Module):
  """conv(relu(conv(relu(x)))) + x, the latter by a 3x3 convolution if the width changes."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    y = Conv(self.features, dtype=self.dtype, name="conv1")(nn.relu(x))
    y = Conv(self.features, dtype=self.dtype, name="conv2")(nn.relu(y))
    if x.shape[-1] != self.features:
      x = Conv(self.features, dtype=self.dtype, name="shortcut")(x)
    return x + y


class SharedResidualBlock(nn.Module):
  """`ResidualBlock` on the channels [image, object], in two steps."""

  features: int
  dtype: Any = jnp.float32

  def setup(self):
    def layer(use_bias):
      return Conv(self.features, use_bias=use_bias, dtype=self.dtype)

    self.conv1_image, self.conv1_object = layer(False), layer(True)
    self.shortcut_image, self.shortcut_object = layer(False), layer(True)
    self.conv2 = layer(True)

  def image_half(self, image):
    """[B, h, w, C] -> first convolution and shortcut of it, both [B, h, w, features]."""
    return self.conv1_image(nn.relu(image)), self.shortcut_image(image)

  def __call__(self, halves, x):
    """halves of `image_half`, x [B * K, h, w, C] -> [B * K, h, w, features]."""
    first, shortcut = halves
    y = add_per_image(self.conv1_object(nn.relu(x)), first)
    return self.conv2(nn.relu(y)) + add_per_image(self.shortcut_object(x), shortcut)


class CBAM(nn.Module):
  """Convolutional block attention (arXiv 1807.06521): gates over channels, then over space."""

  reduction: int = 16

  @nn.compact
  def __call__(self, x):
    """[B, h, w, C] -> the same."""
    width = x.shape[-1]
    squeeze = torch_layers.Linear(width // self.reduction, name="squeeze")
    excite = torch_layers.Linear(width, name="excite")
    pooled = [p.astype(jnp.float32) for p in (x.mean((1, 2)), x.max((1, 2)))]
    gate = nn.sigmoid(sum(excite(nn.relu(squeeze(p))) for p in pooled))
    x = x * gate[:, None, None].astype(x.dtype)
    pooled = jnp.stack([x.max(-1), x.mean(-1)], -1).astype(jnp.float32)
    return x * nn.sigmoid(Conv(1, 7, name="spatial")(pooled)).astype(x.dtype)


class FeatureFusion(nn.Module):
  """Channels of the image and of each object -> [B * K, h, w, features]."""

  features: int
  dtype: Any = jnp.float32

  def setup(self):
    self.block1 = SharedResidualBlock(self.features, self.dtype)
    self.attention = CBAM()
    self.block2 = ResidualBlock(self.features, self.dtype)

  def image_half(self, image):
    """See `SharedResidualBlock.image_half`."""
    return self.block1.image_half(image)

  def __call__(self, halves, x):
    """halves of `image_half`, x [B * K, h, w, C] -> [B * K, h, w, features]."""
    x = self.block1(halves, x)
    self.sow("intermediates", "joined", x)
    gated = self.attention(x)
    self.sow("intermediates", "gated", gated)
    return self.block2(x + gated)


def add_per_image(x, shared):
  """x [B * K, h, w, C] + shared [B, h, w, C], the same for the K objects of an image."""
  split = x.reshape(shared.shape[0], -1, *x.shape[1:])
  return (split + shared[:, None]).reshape(x.shape)
