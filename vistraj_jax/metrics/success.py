"""How often something succeeds, with the uncertainty of few trials."""

from typing import NamedTuple

from vistraj_jax.core import checks

_Z = 1.959963984540054  # of a two-sided 95 % interval


class Rate(NamedTuple):
  """A share of trials.

  Attributes:
    rate: successes / trials.
    low, high: Wilson's 95 % interval.
    successes, trials: counts.
  """

  rate: float
  low: float
  high: float
  successes: int
  trials: int


def wilson(successes, trials):
  """Returns the `Rate` of a number of trials; its interval never leaves 0..1.

  Raises:
    InputError: no trial.
  """
  checks.require(trials > 0, "success rate: there is no trial to count.")
  rate, square = successes / trials, _Z**2 / trials
  middle = (rate + square / 2) / (1 + square)
  half = _Z / (1 + square) * (rate * (1 - rate) / trials + square / (4 * trials)) ** 0.5
  return Rate(rate, max(middle - half, 0.0), min(middle + half, 1.0), successes, trials)
