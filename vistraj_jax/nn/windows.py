"""Cutting a map into square windows and putting it together again."""

import jax.numpy as jnp


def partition(x, size):
  """x [B, H, W, C] -> [B, windows, size * size, C]; zeros fill up the bottom and the right."""
  batch, height, width, channels = x.shape
  rows, columns = _count(height, size), _count(width, size)
  fill = ((0, 0), (0, rows * size - height), (0, columns * size - width), (0, 0))
  x = jnp.pad(x, fill).reshape(batch, rows, size, columns, size, channels)
  return x.swapaxes(2, 3).reshape(batch, rows * columns, size * size, channels)


def join(windows, size, height, width):
  """The inverse of `partition`: [B, windows, size * size, C] -> [B, height, width, C]."""
  batch, _, _, channels = windows.shape
  rows, columns = _count(height, size), _count(width, size)
  x = windows.reshape(batch, rows, columns, size, size, channels).swapaxes(2, 3)
  return x.reshape(batch, rows * size, columns * size, channels)[:, :height, :width]


def _count(length, size):
  return -(-length // size)
