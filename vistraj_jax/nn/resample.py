"""Resizing of images and position tables as products with one small matrix per axis.

The matrices reproduce PyTorch's `interpolate` (no antialiasing, half-pixel centres) and Pillow's
`resize` (antialiased when shrinking). `jax.image.resize` differs from both: its cubic has a = -0.5
where PyTorch has -0.75. A product also runs at full speed on every device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks

KERNELS = ("bilinear", "bicubic", "lanczos")
_EXACT = jax.lax.Precision.HIGHEST  # TF32 or bfloat16 products would cost grey levels
_RADIUS = {"bilinear": 1, "bicubic": 2, "lanczos": 3}


@functools.lru_cache(maxsize=256)
def matrix(size, new_size, kernel, antialias):
  """Returns float32 [new_size, size]: the weights of the old samples in each new one.

  Args:
    size, new_size: numbers of samples along the axis.
    kernel: one of KERNELS.
    antialias: True: Pillow's rule (the kernel widens when shrinking; cubic a = -0.5; taps outside
      are left out). False: PyTorch's rule (cubic a = -0.75; taps outside repeat the border).

  Raises:
    InputError: an unknown kernel, or Lanczos without antialiasing, which nobody defines.
  """
  checks.choice("resize kernel", kernel, KERNELS)
  checks.require(
    antialias or kernel != "lanczos", "resize kernel 'lanczos' exists with antialias only."
  )
  rule = _pillow if antialias else _torch
  return rule(size, new_size, kernel).astype(np.float32)


def resize(x, rows, columns):
  """x [B, H, W, C] float -> [B, h, w, C] by `rows` [h, H] and `columns` [w, W], columns first."""
  return resize_rows(resize_columns(x, columns), rows)


def resize_rows(x, rows):
  """x [B, H, W, C] -> [B, h, W, C]."""
  return jnp.einsum("hH,bHwc->bhwc", rows, x, precision=_EXACT)


def resize_columns(x, columns):
  """x [B, H, W, C] -> [B, H, w, C]."""
  return jnp.einsum("wW,bHWc->bHwc", columns, x, precision=_EXACT)


def _pillow(size, new_size, kernel):
  scale = size / new_size
  stretch = max(scale, 1.0)
  radius = _RADIUS[kernel] * stretch
  out = np.zeros((new_size, size))
  for i in range(new_size):
    centre = (i + 0.5) * scale
    taps = np.arange(max(int(centre - radius + 0.5), 0), min(int(centre + radius + 0.5), size))
    weights = _weights(kernel, (taps - centre + 0.5) / stretch, cubic_a=-0.5)
    out[i, taps] = weights / weights.sum()
  return out


def _torch(size, new_size, kernel):
  radius = _RADIUS[kernel]
  centre = (np.arange(new_size) + 0.5) * (size / new_size) - 0.5
  if kernel == "bilinear":
    centre = np.maximum(centre, 0)
  out = np.zeros((new_size, size))
  for i, at in enumerate(centre):
    taps = int(np.floor(at)) + np.arange(1 - radius, radius + 1)
    np.add.at(out[i], np.clip(taps, 0, size - 1), _weights(kernel, taps - at, cubic_a=-0.75))
  return out


def _weights(kernel, x, cubic_a):
  x = np.abs(x)
  if kernel == "bilinear":
    return np.maximum(1 - x, 0)
  if kernel == "lanczos":
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)
  near = ((cubic_a + 2) * x - (cubic_a + 3)) * x * x + 1
  far = cubic_a * (((x - 5) * x + 8) * x - 4)
  return np.where(x < 1, near, np.where(x < 2, far, 0))
