"""Losses of masks: bootstrapped cross-entropy and dice over objects, and their two-class forms.

Everything is float32 and comes per example; nothing is averaged over the batch.
"""

import jax
import jax.numpy as jnp


def kept_share(iteration, start, end, lowest):
  """Share of pixels that the bootstrapped cross-entropy keeps.

  Args:
    iteration: optimizer steps done.
    start, end: all pixels before `start`; from there the share falls linearly until `end`.
    lowest: the share after `end`.
  """
  falling = (end - iteration) / (end - start)
  share = lowest + (1 - lowest) * jnp.clip(falling, 0.0, 1.0)
  return jnp.where(iteration < start, 1.0, share)


def bootstrapped_cross_entropy(logits, labels, present, share):
  """Mean cross-entropy of each image's worst pixels (the loss of XMem's training).

  Args:
    logits: [B, H, W, 1 + K], background first.
    labels: int [B, H, W], 0 for background, k for object k.
    present: bool [B, K]; classes of absent objects take no part.
    share: scalar in (0, 1], share of pixels that count, see `kept_share`.

  Returns:
    [B].
  """
  logits = logits.astype(jnp.float32)
  valid = jnp.concatenate([jnp.ones_like(present[:, :1]), present], 1)[:, None, None]
  log_p = jax.nn.log_softmax(logits, -1, where=valid)
  loss = -jnp.take_along_axis(log_p, labels[..., None].astype(jnp.int32), -1)
  loss = loss.reshape(loss.shape[0], -1)
  pixels = loss.shape[1]

  def worst():
    count = jnp.floor(pixels * share)
    kept = jnp.arange(pixels) < count
    return jnp.where(kept, -jnp.sort(-loss, -1), 0.0).sum(-1) / count

  return jax.lax.cond(share >= 1, lambda: loss.mean(-1), worst)


def dice(probability, labels):
  """1 - (2 overlap + 1) / (sum of both + 1), mean over all K objects, absent ones included.

  Args:
    probability: [B, H, W, K].
    labels: int [B, H, W], k for object k.

  Returns:
    [B].
  """
  truth = labels[..., None] == jnp.arange(1, probability.shape[-1] + 1)
  return _dice(probability.astype(jnp.float32), truth, (1, 2), 1.0).mean(-1)


def binary_cross_entropy(logits, target):
  """Mean over pixels: logits and target in [0, 1], both [..., H, W] -> [...]."""
  logits = logits.astype(jnp.float32)
  return (jnp.maximum(logits, 0) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))).mean(
    (-2, -1)
  )


def binary_dice(logits, target, smooth=1e-5):
  """1 - (2 overlap + smooth) / (sum of both + smooth) of the sigmoid: [..., H, W] -> [...]."""
  return _dice(jax.nn.sigmoid(logits.astype(jnp.float32)), target, (-2, -1), smooth)


def nearest(masks, size):
  """Masks [..., H, W] at (height, width), by nearest neighbour: row floor(i * H / height)."""
  rows, columns = (
    jnp.arange(new) * old // new for old, new in zip(masks.shape[-2:], size, strict=True)
  )
  return masks[..., rows[:, None], columns]


def _dice(probability, truth, axes, smooth):
  overlap = (probability * truth).sum(axes)
  return 1 - (2 * overlap + smooth) / (probability.sum(axes) + truth.sum(axes) + smooth)
