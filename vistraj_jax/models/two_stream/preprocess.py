"""Two frames -> what the streams see: M, what changed between them, and P, the form of one.

Images are RGB [B, H, W, 3], float in 0..1 or uint8; nothing is normalised by data set statistics.
All arithmetic is float32, also under bfloat16 compute. Nothing here is learned.
"""

import jax.numpy as jnp

from vistraj_jax.core import checks

LUMINANCE = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709
M_CHANNELS = {"rgb4": 4, "luma3": 3, "luma1": 1}
P_CHANNELS = 5
_FLOOR = 1e-6


def as_float(image):
  """uint8 in 0..255 or float in 0..1 -> float32 in 0..1."""
  if image.dtype == jnp.uint8:
    return image.astype(jnp.float32) / 255
  return image.astype(jnp.float32)


def luminance(image):
  """image float [B, H, W, 3] -> [B, H, W, 1]."""
  return (image * jnp.array(LUMINANCE)).sum(-1, keepdims=True)


def motion(img_t, img_tk, channels="rgb4"):
  """The M input: the change from img_t to img_tk; exactly 0 where nothing changed.

  Args:
    img_t, img_tk: images [B, H, W, 3].
    channels: "rgb4": change of (Y, R, G, B); "luma3": change of Y and the Sobel gradients of it,
      divided by their largest magnitude in the image; "luma1": change of Y.

  Returns:
    float32 [B, H, W, M_CHANNELS[channels]].
  """
  checks.choice("config.model.m_channels", channels, M_CHANNELS)
  before, after = as_float(img_t), as_float(img_tk)
  if channels == "rgb4":
    joined = [jnp.concatenate([luminance(x), x], -1) for x in (before, after)]
    return jnp.clip(joined[1] - joined[0], -1, 1)
  change = luminance(after) - luminance(before)
  if channels == "luma1":
    return change
  return jnp.concatenate([change, _gradients(change)], -1)


def form(image):
  """The P input of one frame: Sobel gradients of its normalised luminance, then R, G, B.

  Luminance is brought to mean 0 and (unbiased) standard deviation 1 per image and cut at +-3;
  gradients are divided by their largest magnitude in the image. Beyond the border lies 0, so the
  border always gives a response.

  Args:
    image: [B, H, W, 3].

  Returns:
    float32 [B, H, W, 5].
  """
  image = as_float(image)
  y = luminance(image)
  mean = y.mean((1, 2, 3), keepdims=True)
  std = y.std((1, 2, 3), keepdims=True, ddof=1)
  y = jnp.clip((y - mean) / (std + _FLOOR), -3, 3)
  return jnp.concatenate([_gradients(y), image], -1)


def _gradients(y):
  """y [B, H, W, 1] -> (d/dx, d/dy) [B, H, W, 2] by Sobel, largest magnitude 1."""
  padded = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)))
  smooth_rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
  smooth_columns = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
  dx = smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2]
  dy = smooth_columns[:, 2:] - smooth_columns[:, :-2]
  largest = jnp.sqrt((dx * dx + dy * dy).max((1, 2, 3), keepdims=True))
  return jnp.concatenate([dx, dy], -1) / jnp.maximum(largest, _FLOOR)
