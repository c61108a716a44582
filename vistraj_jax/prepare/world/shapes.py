"""Flat shapes drawn into videos with NumPy: circle, square, triangle; sharp or anti-aliased.

Coordinates are row, column in px of pixel centres. All three shapes of one radius have the area of
the circle.
"""

import dataclasses
import math

import numpy as np

KINDS = ("circle", "square", "triangle")
_HALF_SIDE = math.sqrt(math.pi) / 2  # of the square, in radii of the circle
_INRADIUS = math.sqrt(math.pi / (3 * math.sqrt(3)))  # of the triangle
_REACH = {"circle": 1.0, "square": _HALF_SIDE * math.sqrt(2), "triangle": 2 * _INRADIUS}


@dataclasses.dataclass
class Shape:
  """What is drawn of one object.

  Attributes:
    centres: float [T, 2], or [2] of one that stands still.
    radius: px, [T] or one number.
    colour: 0..255, red, green, blue.
    kind: of KINDS.
    first, last: visible while first <= t < last; last None: to the end.
    opacity: 0..1.
    mask: value written into the masks; 0 leaves them.
    smooth: anti-aliased; else a pixel belongs to the shape if its centre does.
  """

  centres: np.ndarray
  radius: np.ndarray
  colour: tuple
  kind: str = "circle"
  first: int = 0
  last: int | None = None
  opacity: float = 1.0
  mask: int = 0
  smooth: bool = False


def coverage(kind, rows, columns, radius, smooth):
  """Returns float32, 0..1: how much of each pixel a shape covers.

  Args:
    kind: of KINDS.
    rows, columns: of the pixel centres, relative to the centre of the shape, broadcastable.
    radius: px, of the circle with the shape's area.
    smooth: 0 or 1 where False.
  """
  if kind == "circle" and not smooth:
    return (rows**2 + columns**2 <= radius**2).astype(np.float32)
  if kind == "circle":
    outside = np.sqrt(rows**2 + columns**2) - radius
  elif kind == "square":
    outside = np.maximum(abs(rows), abs(columns)) - _HALF_SIDE * radius
  else:  # its top is up; the other sides lean by 30 degrees
    slanted = abs(columns) * math.sqrt(0.75) - rows / 2
    outside = np.maximum(rows, slanted) - _INRADIUS * radius
  covered = np.clip(0.5 - outside, 0, 1) if smooth else outside <= 0
  return covered.astype(np.float32)


def draw(frames, masks, shape):
  """Draws one shape over a video, in place.

  Args:
    frames: uint8 [T, H, W, 3].
    masks: uint8 [T, H, W]; pixels covered by half or more get `shape.mask`.
    shape: `Shape`.
  """
  last = len(frames) if shape.last is None else min(shape.last, len(frames))
  if np.ndim(shape.centres) == 1:
    _stamp(
      frames[shape.first : last], masks[shape.first : last], shape, shape.centres, shape.radius
    )
    return
  radii = np.broadcast_to(shape.radius, len(frames))
  for t in range(shape.first, last):
    _stamp(frames[t : t + 1], masks[t : t + 1], shape, shape.centres[t], radii[t])


def add_noise(frames, level, rng):
  """Returns frames with Gaussian noise of every value, of standard deviation `level` x 255."""
  noise = rng.standard_normal(frames.shape, np.float32) * np.float32(level * 255)
  return np.clip(np.rint(frames + noise), 0, 255).astype(np.uint8)


def _stamp(frames, masks, shape, centre, radius):
  """Draws at one place into all frames."""
  reach = _REACH[shape.kind] * radius + 1
  height, width = frames.shape[1:3]
  top, bottom = max(math.floor(centre[0] - reach), 0), min(math.ceil(centre[0] + reach) + 1, height)
  left, right = max(math.floor(centre[1] - reach), 0), min(math.ceil(centre[1] + reach) + 1, width)
  if top >= bottom or left >= right:
    return
  rows = np.arange(top, bottom)[:, None] - centre[0]
  columns = np.arange(left, right) - centre[1]
  covered = coverage(shape.kind, rows, columns, radius, shape.smooth)
  share = (covered * np.float32(shape.opacity))[..., None]
  patch = frames[:, top:bottom, left:right]
  colour = np.asarray(shape.colour, np.float32)
  patch[:] = np.rint(patch + (colour - patch) * share).astype(np.uint8)
  if shape.mask:
    masks[:, top:bottom, left:right][:, covered >= 0.5] = shape.mask
