"""Losses between boxes; nothing is reduced over the batch.

Boxes are (cx, cy, w, h) in any unit, the same for both arguments.
"""

import jax.numpy as jnp

EPSILON = 1e-9  # keeps 0/0 of two empty boxes finite; changes no normal value in float32


def smooth_l1(prediction, target):
  """Huber loss with beta 1 per coordinate: [..., 4], [..., 4] -> [..., 4]."""
  error = jnp.abs(prediction - target)
  return jnp.where(error < 1, 0.5 * error**2, error - 0.5)


def iou(a, b):
  """Intersection over union: [..., 4], [..., 4] -> [...] in 0..1."""
  return _overlap(a, b)[0]


def giou(a, b):
  """Generalised IoU (arXiv 1902.09630): [..., 4], [..., 4] -> [...] in -1..1."""
  value, union, enclosing = _overlap(a, b)
  return value - (enclosing - union) / (enclosing + EPSILON)


def flow_targets(last_box, target, steps):
  """Targets of the flow steps, on the line to the next box: [B, 4], [B, 4] -> [steps, B, 4]."""
  share = (jnp.arange(steps, dtype=jnp.float32) + 1) / steps
  return last_box + share[:, None, None] * (target - last_box)


def flow_terms(boxes, last_box, target):
  """TrackSSM's training loss, step by step towards the next box (arXiv 2409.00487).

  Args:
    boxes: boxes of the flow steps [K, B, 4].
    last_box: last known box [B, 4].
    target: next box [B, 4].

  Returns:
    {"smooth_l1": [B], "giou": [B]}: sums over the steps; smooth L1 is averaged over coordinates,
    "giou" is 1 - GIoU.
  """
  wanted = flow_targets(last_box, target, boxes.shape[0])
  return {
    "smooth_l1": smooth_l1(boxes, wanted).mean(-1).sum(0),
    "giou": (1 - giou(boxes, wanted)).sum(0),
  }


def _corners(box):
  half = box[..., 2:] / 2
  return box[..., :2] - half, box[..., :2] + half


def _overlap(a, b):
  """Returns IoU, union and the area of the enclosing box, each [...]."""
  (a_low, a_high), (b_low, b_high) = _corners(a), _corners(b)
  inside = jnp.prod(
    jnp.maximum(jnp.minimum(a_high, b_high) - jnp.maximum(a_low, b_low), 0), axis=-1
  )
  enclosing = jnp.prod(jnp.maximum(a_high, b_high) - jnp.minimum(a_low, b_low), axis=-1)
  union = jnp.prod(a_high - a_low, axis=-1) + jnp.prod(b_high - b_low, axis=-1) - inside
  return inside / (union + EPSILON), union, enclosing
