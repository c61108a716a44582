"""Whether the pixels of a video are numbers of the range that a network wants."""

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks

_SLACK = 1e-3


def check(video, value_range):
  """Raises InputError unless a video is float and, where its values are known, within the range.

  Inside a compiled function values are not known, only their type.
  """
  low, high = value_range
  checks.require(
    jnp.issubdtype(video.dtype, jnp.floating),
    f"video: {video.dtype} received, float in {low:g}..{high:g} wanted; `frozen.as_input` makes it "
    "of uint8.",
  )
  if isinstance(video, jax.core.Tracer) or not video.size:
    return
  least, most = float(video.min()), float(video.max())
  checks.require(
    low - _SLACK <= least and most <= high + _SLACK,
    f"video: values from {least:g} to {most:g} received, {low:g} to {high:g} wanted; scale them, "
    "or give uint8 to `frozen.as_input`.",
  )
