"""Images as an encoder wants them: uint8 camera image -> resized, normalised float32, on device.

Resizing with antialiasing equals Pillow's (which every published image processor uses): columns
first, each pass rounded to whole grey levels. Resizing without equals PyTorch's `interpolate`.
"""

import dataclasses

import jax.numpy as jnp

from vistraj_jax.nn import resample

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclasses.dataclass(frozen=True)
class Preprocess:
  """What is done to an image before an encoder; the aspect ratio is not kept.

  Attributes:
    size: (height, width) in pixels, or None for the image's own size.
    kernel: "bilinear", "bicubic" or "lanczos".
    antialias: True for Pillow's rule, False for PyTorch's.
    mean, std: per channel, of the values after the division.
    divide: what grey levels are divided by.
    longest_edge: if given, the image's longest edge is first brought to this many pixels with the
      same kernel, as the published Idefics3 processor does. Both resizes are done as one product
      per axis; the rounding between them is left out (up to 2 grey levels).
  """

  size: tuple[int, int] | None
  kernel: str = "bicubic"
  antialias: bool = True
  mean: tuple[float, float, float] = IMAGENET_MEAN
  std: tuple[float, float, float] = IMAGENET_STD
  divide: float = 255.0
  longest_edge: int | None = None

  def text(self):
    """Returns the settings in one line, as the header of a feature file pins them."""
    size = "own size" if self.size is None else f"{self.size[0]}x{self.size[1]}"
    numbers = lambda values: ",".join(f"{v:g}" for v in values)  # noqa: E731
    return (
      f"{size} {self.kernel}{' antialias' if self.antialias else ''}"
      f"{f' edge {self.longest_edge}' if self.longest_edge else ''} /{self.divide:g} "
      f"mean {numbers(self.mean)} std {numbers(self.std)}"
    )


def apply(spec, images):
  """images uint8 [B, H, W, 3] -> float32 [B, h, w, 3]; no resize where the size is right."""
  x = (resized(spec, images) / spec.divide - jnp.asarray(spec.mean)) / jnp.asarray(spec.std)
  return x.astype(jnp.float32)


def resized(spec, images):
  """images uint8 [B, H, W, 3] -> float32 [B, h, w, 3] grey levels, whole ones where antialiased."""
  x = jnp.asarray(images, jnp.float32)
  old = x.shape[1:3]
  if spec.size is None or tuple(spec.size) == old:
    return x
  between = _between(spec, old)
  rows, columns = (_axis(spec, old[i], between[i], spec.size[i]) for i in (0, 1))
  if not spec.antialias:
    return resample.resize(x, rows, columns)
  whole = lambda x: jnp.clip(jnp.floor(x + 0.5), 0, 255)  # noqa: E731
  return whole(resample.resize_rows(whole(resample.resize_columns(x, columns)), rows))


def _between(spec, size):
  """Size after the first of two resizes: the longest edge given, the other whole and even."""
  if spec.longest_edge is None:
    return size
  height, width = size
  edge = spec.longest_edge
  if width >= height:
    other = int(edge / (width / height))
    return other + other % 2, edge
  other = int(edge * (width / height))
  return edge, other + other % 2


def _axis(spec, size, between, new_size):
  weights = resample.matrix(between, new_size, spec.kernel, spec.antialias)
  if between == size:
    return weights
  return weights @ resample.matrix(size, between, spec.kernel, spec.antialias)
