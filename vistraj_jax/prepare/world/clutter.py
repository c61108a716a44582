"""Things in a generated video that are not its target: persistent and transient objects, background
clutter, pixel noise and reddish flashes, at three levels."""

import numpy as np

from vistraj_jax.data import future_video
from vistraj_jax.prepare.world import shapes

USUAL = ("persistent", "transient", "background", "noise")
KINDS = (*USUAL, "flash")  # flashes look like the target for a moment
# Level -> fewest and most objects of a kind, density of the background, noise as a share of 255.
LEVELS = {
  "none": (0, 0, 0.0, 0.0),
  "light": (1, 2, 0.05, 0.02),
  "moderate": (2, 4, 0.10, 0.05),
  "heavy": (3, 8, 0.20, 0.10),
}
OPACITY = 0.6
_SIZE = 0.02  # radius of an object, as a share of the frame
_PERSISTENT, _TRANSIENT = 100, 150  # grey levels
_BACKGROUND = (80, 100, 120, 150)
_FLASH, _FLASH_SIZE, _FLASH_FRAMES = (230, 77, 77), 0.05, 3  # at most so many frames
_BACKGROUND_SIZE = (0.01, 0.03)
_BACKGROUND_COUNT = 20  # at density 1
_STAYS = 0.3  # share of the background's objects that never vanish


def objects(level, kinds, rng, frames, size):
  """Draws the objects of one video.

  Args:
    level: of LEVELS.
    kinds: those of KINDS that are wanted.
    rng: NumPy generator.
    frames: T.
    size: px, side of the frame.

  Returns:
    list of `shapes.Shape`, to be drawn over the target, and list of what `meta` tells of them.
  """
  fewest, most, density, _ = LEVELS[level]
  found = []
  if "background" in kinds:
    for _ in range(int(_BACKGROUND_COUNT * density)):
      first = int(rng.integers(0, max(frames // 2, 1)))
      stays = rng.random() < _STAYS
      last = None if stays else int(rng.integers(frames // 2, frames + 1))
      share = rng.uniform(*_BACKGROUND_SIZE)
      found.append(("background", (int(rng.choice(_BACKGROUND)),) * 3, share, first, last))
  for kind, grey in (("persistent", _PERSISTENT), ("transient", _TRANSIENT)):
    if kind not in kinds or not most:
      continue
    for _ in range(int(rng.integers(fewest, most + 1))):
      first, last = 0, None
      if kind == "transient":
        half = max(round(0.4 * frames), 1)
        first, last = int(rng.integers(half)), int(rng.integers(half, frames))
      found.append((kind, (grey,) * 3, _SIZE, first, last))
  if "flash" in kinds and most:
    for _ in range(int(rng.integers(fewest, most + 1))):
      first = int(rng.integers(frames))
      last = first + int(rng.integers(1, _FLASH_FRAMES + 1))
      found.append(("flash", _FLASH, _FLASH_SIZE * rng.uniform(0.7, 1.4), first, last))
  return _drawn(found, rng, size)


def noise(level, kinds):
  """Returns the noise of a level as a share of 255, 0 where it is not wanted."""
  return LEVELS[level][3] if "noise" in kinds else 0.0


def _drawn(found, rng, size):
  drawn, told = [], []
  for kind, colour, share, first, last in found:
    centre, form = rng.uniform(0.05, 0.95, 2) * size, str(rng.choice(shapes.KINDS))
    form = "circle" if kind == "flash" else form
    radius = max(share * size, 1.0)
    drawn.append(
      shapes.Shape(
        *(centre, radius, colour, form),
        first=first,
        last=last,
        opacity=1.0 if kind == "flash" else OPACITY,
        mask=future_video.OTHER,
        smooth=True,
      )
    )
    told.append(
      {
        "kind": kind,
        "shape": form,
        "colour": list(colour),
        "centre": np.round(centre, 2).tolist(),
        "radius": round(radius, 2),
        "first": first,
        "last": last,
      }
    )
  return drawn, told
