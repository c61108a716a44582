"""Paired bootstrap over sequences: is one run better than another, or were the frames kind to it?

Frames of a sequence are fractions of a second apart and nearly copies of one another: sequences
are drawn again, not frames.
"""

from typing import NamedTuple

import numpy as np

from vistraj_jax.core import checks

_AT_ONCE = 200  # resamples held in memory together


class Difference(NamedTuple):
  """Mean of second minus first over all frames, with its uncertainty.

  Attributes:
    mean: the difference.
    low, high: 95 % interval of the resampled means.
    sign: share of resamples in which the difference has the sign of `mean`.
    sequences: number of sequences.
  """

  mean: float
  low: float
  high: float
  sign: float
  sequences: int


def paired(first, second, sequence, samples=10_000, seed=0):
  """Compares two runs on the same frames.

  Args:
    first, second: one number a frame [B]; frames where either is NaN are left out.
    sequence: sequence of each frame [B], numbers or names.
    samples: resamples.
    seed: of the resampling.

  Returns:
    `Difference`.

  Raises:
    InputError: arrays of different lengths, or fewer than two sequences.
  """
  first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
  checks.require(
    len(first) == len(second) == len(sequence),
    f"paired bootstrap: {len(first)} and {len(second)} frames of {len(sequence)} received; both "
    "runs must be scored on the same frames.",
  )
  gap = second - first
  kept = np.isfinite(gap)
  names, owner = np.unique(np.asarray(sequence)[kept], return_inverse=True)
  checks.require(
    len(names) > 1, f"paired bootstrap: {len(names)} sequences have scores; two are wanted."
  )
  totals = np.bincount(owner, gap[kept])
  counts = np.bincount(owner).astype(np.float64)
  rng = np.random.default_rng(seed)
  share = np.full(len(names), 1 / len(names))
  means = []
  for start in range(0, samples, _AT_ONCE):
    drawn = rng.multinomial(len(names), share, size=min(_AT_ONCE, samples - start))
    means.append(drawn @ totals / (drawn @ counts))
  means = np.concatenate(means)
  mean = float(totals.sum() / counts.sum())
  low, high = np.quantile(means, [0.025, 0.975])
  return Difference(
    mean, float(low), float(high), float((np.sign(means) == np.sign(mean)).mean()), len(names)
  )
