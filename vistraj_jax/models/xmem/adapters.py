"""What turns other sensors into the three-channel images that XMem reads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.nn.image_layers import Conv


class ConcatFusion(nn.Module):
  """Camera and LiDAR channels through a 1x1 convolution that starts as the camera's identity."""

  @nn.compact
  def __call__(self, camera, lidar):
    """camera [B, H, W, 3] normalised, lidar [B, H, W, C] -> [B, H, W, 3]."""
    x = jnp.concatenate([camera, lidar.astype(camera.dtype)], -1)
    return Conv(3, 1, kernel_init=_identity, dtype=camera.dtype, name="conv")(x)


class ProjectionFusion(nn.Module):
  """Camera plus a 1x1 projection of the LiDAR channels, which starts at zero."""

  @nn.compact
  def __call__(self, camera, lidar):
    """camera [B, H, W, 3] normalised, lidar [B, H, W, C] -> [B, H, W, 3]."""
    start = nn.initializers.zeros_init()
    return camera + Conv(3, 1, kernel_init=start, dtype=camera.dtype, name="projection")(lidar)


class BevAdapter(nn.Module):
  """Features seen from above -> a pseudo-image in (0, 1).

  Attributes:
    features: channels between the two 1x1 convolutions.
    groups: of the group norm.
  """

  features: int = 64
  groups: int = 8

  @nn.compact
  def __call__(self, x):
    """[B, H, W, C] -> [B, H, W, 3]."""
    x = nn.GroupNorm(self.groups, epsilon=1e-5, name="norm")(x.astype(jnp.float32))
    x = nn.relu(Conv(self.features, 1, use_bias=False, name="conv0")(x))
    return jax.nn.sigmoid(Conv(3, 1, use_bias=False, name="conv1")(x))


def _identity(rng, shape, dtype=jnp.float32):
  """[1, 1, C, 3]: the first three channels pass, the others are ignored."""
  return jnp.eye(shape[2], shape[3], dtype=dtype)[None, None]
