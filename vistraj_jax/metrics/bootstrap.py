"""Bootstrap over sequences: is one run better than another, or were the frames kind to it?

Frames of a sequence are fractions of a second apart and nearly copies of one another: sequences
are drawn again, not frames.
"""

from typing import NamedTuple

import numpy as np

from vistraj_jax.core import checks

_AT_ONCE = 200  # resamples held in memory together


class Interval(NamedTuple):
  """A statistic over all rows, with its uncertainty.

  Attributes:
    value: of all rows.
    low, high: 95 % interval of the resampled values.
    sequences: number of sequences.
  """

  value: float
  low: float
  high: float
  sequences: int


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


def interval(sums, sequence, statistic, samples=10_000, seed=0):
  """The 95 % interval of anything that is computed from sums over rows.

  Args:
    sums: what a row adds to each sum, [B, K].
    sequence: sequence of each row [B], numbers or names.
    statistic: function of summed rows [S, K] -> [S].
    samples: resamples.
    seed: of the resampling; the same seed draws the same sequences, so that statistics of two runs
      can be set side by side, or their difference be one statistic.

  Returns:
    `Interval`.

  Raises:
    InputError: arrays of different lengths, or fewer than two sequences.
  """
  sums = np.asarray(sums, np.float64)
  checks.require(
    len(sums) == len(sequence),
    f"bootstrap: {len(sums)} rows of {len(sequence)} sequence names received.",
  )
  values, value, count = _resample(sums, sequence, statistic, samples, seed)
  return Interval(value, *_middle(values), count)


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
  sums = np.stack([gap[kept], np.ones(kept.sum())], 1)
  means, mean, count = _resample(
    sums, np.asarray(sequence)[kept], lambda total: total[:, 0] / total[:, 1], samples, seed
  )
  same = float((np.sign(means) == np.sign(mean)).mean())
  return Difference(mean, *_middle(means), same, count)


def table(differences):
  """Rows of strings of {label: `Difference` in m} for `metrics.report`, the header first."""
  rows = [["run", "sequences", "difference (m)", "95 % interval", "same sign"]]
  for label, gap in differences.items():
    rows.append(
      [
        label,
        str(gap.sequences),
        f"{gap.mean:+.3f}",
        f"{gap.low:+.3f} to {gap.high:+.3f}",
        f"{100 * gap.sign:.1f} %",
      ]
    )
  return rows


def _resample(sums, sequence, statistic, samples, seed):
  """Returns (statistic of every resample [samples], of all rows, number of sequences)."""
  names, owner = np.unique(np.asarray(sequence), return_inverse=True)
  checks.require(len(names) > 1, f"bootstrap: {len(names)} sequences have scores; two are wanted.")
  totals = np.zeros((len(names), sums.shape[1]))
  np.add.at(totals, owner, sums)
  rng = np.random.default_rng(seed)
  share = np.full(len(names), 1 / len(names))
  found = []
  for start in range(0, samples, _AT_ONCE):
    drawn = rng.multinomial(len(names), share, size=min(_AT_ONCE, samples - start))
    found.append(statistic(drawn @ totals))
  return np.concatenate(found), float(statistic(totals.sum(0, keepdims=True))[0]), len(names)


def _middle(values):
  low, high = np.quantile(values, [0.025, 0.975])
  return float(low), float(high)
