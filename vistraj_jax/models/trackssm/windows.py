"""Track windows on device: boxes -> condition rows and target, and their augmentation.

A window is T + 2 boxes of one track at consecutive frames. Condition row j is box j + 1 with its
step from box j; the target is the last box, which never appears in the condition.
"""

import jax
import jax.numpy as jnp

AUGMENTATIONS = ("none", "default", "seed_doc", "seed_code")


def condition_and_target(boxes):
  """boxes [B, T + 2, 4] -> condition [B, T, 8], target [B, 4]."""
  return condition(boxes[:, :-1]), boxes[:, -1]


def condition(boxes):
  """boxes [B, T + 1, 4], oldest first -> rows (box, step from the row before) [B, T, 8]."""
  return jnp.concatenate([boxes[:, 1:], boxes[:, 1:] - boxes[:, :-1]], -1)


def condition_of_history(boxes, counts, pad):
  """Condition of tracks that may be too young for a full one.

  Args:
    boxes: [B, T + 1, 4], oldest first; the last counts[b] rows are valid.
    counts: int [B], 1 to T + 1.
    pad: "first": the oldest box is repeated in front (how training pads); "last": the newest row,
      with its step, is repeated behind (the published tracker).

  Returns:
    condition [B, T, 8].
  """
  length = boxes.shape[1]
  index = jnp.maximum(jnp.arange(length), length - counts[:, None])
  rows = condition(jnp.take_along_axis(boxes, index[..., None], axis=1))
  if pad == "first":
    return rows
  valid = jnp.minimum(counts, length - 1)
  oldest_first = (jnp.arange(length - 1) - valid[:, None]) % (length - 1)
  return repeat_newest(jnp.take_along_axis(rows, oldest_first[..., None], axis=1), valid)


def repeat_newest(rows, counts):
  """rows [B, T, 8], the first counts[b] of them valid -> the last valid one repeated behind."""
  index = jnp.minimum(jnp.arange(rows.shape[1]), counts[:, None] - 1)
  return jnp.take_along_axis(rows, index[..., None], axis=1)


def augment(rng, boxes, position, kind, flip_prob, pad_prob):
  """Random changes to training windows; steps are taken afterwards, so they always fit.

  Args:
    rng: key.
    boxes: [B, T + 2, 4], cx, cy, w, h / image size.
    position: int32 [B], row in the global batch: a row's numbers do not depend on how the batch
      is spread over devices.
    kind: "default": jitter of 1 % of the box size on centre and size; "seed_doc" and
      "seed_code": the far larger jitter of the original project's document (normal, 0.05 of the
      image, clipped to 0..1) and of its code (centre +-0.02 of the image, size x 0.95..1.05);
      "none". The target is never jittered.
    flip_prob: probability of mirroring a window left-right.
    pad_prob: probability of making a window a young track, whose oldest 1 to T rows hold the
      first box that is left, with zero steps (what the tracker feeds for young tracks).

  Returns:
    boxes [B, T + 2, 4].
  """
  if kind not in AUGMENTATIONS:
    raise ValueError(f"augment: kind {kind!r}; known: {AUGMENTATIONS}")
  one = lambda i, window: _augment_one(  # noqa: E731
    jax.random.fold_in(rng, i), window, kind, flip_prob, pad_prob
  )
  return jax.vmap(one)(position, boxes)


def _augment_one(rng, boxes, kind, flip_prob, pad_prob):
  flip, young, amount, noise = jax.random.split(rng, 4)
  mirrored = boxes.at[:, 0].set(1 - boxes[:, 0])
  boxes = jnp.where(jax.random.bernoulli(flip, flip_prob), mirrored, boxes)

  history, length = boxes[:-1], boxes.shape[0] - 1
  if kind == "default":
    size = jnp.tile(history[:, 2:], 2)
    history = history + 0.01 * size * jax.random.normal(noise, history.shape)
  elif kind == "seed_doc":
    history = jnp.clip(history + 0.05 * jax.random.normal(noise, history.shape), 0, 1)
  elif kind == "seed_code":
    shift = jax.random.uniform(noise, history.shape, minval=-1, maxval=1)
    centre = history[:, :2] + 0.02 * shift[:, :2]
    history = jnp.concatenate([centre, history[:, 2:] * (1 + 0.05 * shift[:, 2:])], -1)

  # m padded rows: boxes 0..m all equal box m (row j is box j + 1 and its step).
  m = jax.random.randint(amount, (), 1, length)
  m = jnp.where(jax.random.bernoulli(young, pad_prob), m, 0)
  history = history[jnp.maximum(jnp.arange(length), m)]
  return jnp.concatenate([history, boxes[-1:]])
