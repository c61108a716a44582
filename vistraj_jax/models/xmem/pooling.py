"""One feature vector per frame from the sensory memory."""

import jax.numpy as jnp

from vistraj_jax.models.xmem import clip


def mean_over_objects(hidden):
  """hidden [..., K, h, w, C] -> [..., C], mean over objects and space."""
  return hidden.mean((-4, -3, -2))


def over_target(hidden, probability):
  """Mean of one object's hidden state, weighted with its probability.

  Args:
    hidden: [..., h, w, C].
    probability: [..., H, W] of the object, unpadded; H and W belong to h and w.

  Returns:
    [..., C]; zeros where the object is nowhere.
  """
  h, w, _ = hidden.shape[-3:]
  padded = clip.pad(probability[..., None])[..., 0]
  lead = padded.shape[:-2]
  cells = padded.reshape(*lead, h, clip.STRIDE, w, clip.STRIDE)
  # Bilinear sampling at a cell's centre is the mean of the four pixels around it.
  middle = slice(clip.STRIDE // 2 - 1, clip.STRIDE // 2 + 1)
  weight = cells[..., middle, :, middle].mean((-3, -1))
  total = weight.sum((-2, -1))[..., None]
  return (hidden * weight[..., None]).sum((-3, -2)) / jnp.maximum(total, 1e-6)
