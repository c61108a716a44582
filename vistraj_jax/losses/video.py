"""Losses of predicted frames, one number an example, float32."""

import jax.numpy as jnp

from vistraj_jax.core import images


def frame_mse(predicted, target):
  """Mean squared error: [B, H, W, 3] twice, values in 0..1 -> [B]."""
  return images.mse(predicted.astype(jnp.float32), target.astype(jnp.float32))


def ssim_loss(predicted, target):
  """1 - SSIM: [B, H, W, 3] twice, values in 0..1 -> [B]."""
  return 1 - images.ssim(predicted.astype(jnp.float32), target.astype(jnp.float32))


def masked_patch_mse(pixels, target):
  """Mean over masked patches and their pixels: [B, M, P] twice -> [B]."""
  return ((pixels - target) ** 2).mean((1, 2))
