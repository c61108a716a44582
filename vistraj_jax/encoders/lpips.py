"""LPIPS: how different two images look, by the features of VGG-16 (Zhang et al., arXiv 1801.03924).

Version 0.1 of the public package with its "vgg" network; 14,716,160 parameters, all of them frozen
when they are used.
"""

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.core import checks, weights
from vistraj_jax.nn import image_layers

SYSTEM = "lpips"  # of its weights file
WIDTHS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
  """Two sets of images [N, H, W, 3] in -1..1 -> distance float32 [N], 0 for equal ones."""

  @nn.compact
  def __call__(self, a, b):
    x = jnp.concatenate([a, b])
    x = (x - jnp.asarray(_SHIFT)) / jnp.asarray(_SCALE)
    distance = 0.0
    for i, widths in enumerate(WIDTHS):
      if i:
        x = nn.max_pool(x, (2, 2), (2, 2))
      for j, width in enumerate(widths):
        x = nn.relu(image_layers.Conv(width, name=f"conv_{i}_{j}")(x))
      unit = x / (jnp.sqrt(jnp.sum(x**2, -1, keepdims=True)) + 1e-10)
      squared = (unit[: len(a)] - unit[len(a) :]) ** 2
      share = self.param(f"share_{i}", nn.initializers.ones_init(), (widths[-1],))
      distance = distance + jnp.mean(squared @ share, (1, 2))
    return distance


def load(path):
  """Reads the parameters of a weights file of `launch.convert lpips`.

  Raises:
    InputError: nothing there, another network, or any missing, extra or misshapen tensor.
  """
  params, _, _ = weights.load_weights(path, SYSTEM)
  found = {name: array.shape for name, array in weights.flatten(params).items()}
  wanted = shapes()
  faults = sorted(name for name in {**found, **wanted} if found.get(name) != wanted.get(name))
  checks.require(
    not faults,
    f"{path}: {len(faults)} tensors are missing, extra or misshapen, first {faults[:3]}; convert "
    "it again.",
  )
  return params


def shapes():
  """Returns {"/"-joined name: shape} of the parameters."""
  out, before = {}, 3
  for i, widths in enumerate(WIDTHS):
    for j, width in enumerate(widths):
      out[f"conv_{i}_{j}/kernel"] = (3, 3, before, width)
      out[f"conv_{i}_{j}/bias"] = (width,)
      before = width
    out[f"share_{i}"] = (before,)
  return out
