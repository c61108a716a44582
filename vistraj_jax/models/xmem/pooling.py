"""One feature vector per frame from the sensory memory."""

import jax.numpy as jnp

from vistraj_jax.models.xmem import clip


def mean_over_objects(hidden):
  """hidden [..., K, h, w, C] -> [..., C], mean over objects and space."""
  return hidden.mean((-4, -3, -2))


def over_target(hidden, probability):
  """Mean of one object's hidden state, weighted with its probability in each cell.

  Args:
    hidden: [..., h, w, C].
    probability: [..., H, W] of the object, unpadded; H and W belong to h and w.

  Returns:
    [..., C]; zeros where the object is nowhere.
  """
  return _weighted(hidden, _cells(probability, hidden).mean((-3, -1)))


def over_target_sampled(hidden, probability):
  """As `over_target`, with the original project's weights: the probability at a cell's centre.

  They miss objects smaller than a cell: nine of ten that are seen from above.
  """
  # Bilinear sampling at a cell's centre is the mean of the four pixels around it.
  middle = slice(clip.STRIDE // 2 - 1, clip.STRIDE // 2 + 1)
  return _weighted(hidden, _cells(probability, hidden)[..., middle, :, middle].mean((-3, -1)))


def _cells(probability, hidden):
  """[..., H, W] -> [..., h, 16, w, 16]."""
  h, w, _ = hidden.shape[-3:]
  padded = clip.pad(probability[..., None])[..., 0]
  return padded.reshape(*padded.shape[:-2], h, clip.STRIDE, w, clip.STRIDE)


def _weighted(hidden, weight):
  total = weight.sum((-2, -1))[..., None]
  return (hidden * weight[..., None]).sum((-3, -2)) / jnp.maximum(total, 1e-6)
