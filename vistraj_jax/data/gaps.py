"""The gap between two frames of a pair: how often each is drawn and how much its loss counts."""

import numpy as np

from vistraj_jax.core import checks

DISTRIBUTIONS = ("exp", "uniform", "linear", "triangular")
_LEAST = 0.01  # of the peak: no gap of a triangle is impossible


def probabilities(dist, max_gap, decay=0.3, center=0):
  """Returns the probability of every gap 1..max_gap, float64 [max_gap].

  Args:
    dist: "exp": proportional to exp(-decay (k - 1)); "uniform"; "linear": proportional to k;
      "triangular": rises to `center` and falls again, at least 1 % of its peak.
    max_gap: largest gap, in frames.
    decay: of "exp".
    center: of "triangular", in frames.

  Raises:
    InputError: unknown distribution, or numbers that give none.
  """
  checks.choice("config.data.gap.dist", dist, DISTRIBUTIONS)
  checks.require(
    max_gap >= 1, f"config.data.gap.max: {max_gap} received, 1 or more frames allowed."
  )
  gap = np.arange(1, max_gap + 1, dtype=np.float64)
  if dist == "triangular":
    checks.require(
      1 <= center <= max_gap,
      f"config.data.gap.center: {center} received, 1 to gap.max ({max_gap}) allowed.",
    )
    weight = np.maximum(1 - np.abs(gap - center) / center, _LEAST)
  else:
    weight = {"exp": np.exp(-decay * (gap - 1)), "uniform": np.ones(max_gap), "linear": gap}[dist]
  return weight / weight.sum()


def loss_weights(gap, decay):
  """Returns exp(-decay (gap - 1)), float64 of gap's shape; decay 0 weighs all gaps alike."""
  return np.exp(-decay * (np.asarray(gap, np.float64) - 1))
