"""Frechet distance of two sets of features, as in the Frechet video distance (FVD). NumPy, float64.

Two normal distributions are fitted, with unbiased covariances. The distance depends on the number
of clips and is stable from about 2,048 on: it is worth little without that number.

Source: Unterthiner et al., "Towards Accurate Generative Models of Video", 2018.
"""

import numpy as np

from vistraj_jax.core import checks

STABLE = 2048  # clips
_TINY = 1e-10  # singular values below stay as they are


def distance(a, b):
  """Frechet distance of features a [N, D] and b [M, D], two rows or more of each.

  |mean a - mean b|^2 + trace(A + B) - 2 trace sqrt(A^1/2 B A^1/2) of the covariances A, B.

  Raises:
    InputError: fewer rows, features of different sizes, or values that are not finite.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  for features in (a, b):
    checks.shape("Frechet distance: features", features, (None, a.shape[-1]))
    checks.require(
      len(features) >= 2,
      f"Frechet distance: {len(features)} clips received, two or more are needed of each set.",
    )
    checks.require(
      np.isfinite(features).all(), "Frechet distance: features hold values that are not finite."
    )
  cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
  root = _square_root(cov_a)
  cross = np.trace(_square_root(root @ cov_b @ root))
  apart = ((a.mean(0) - b.mean(0)) ** 2).sum()
  return float(apart + np.trace(cov_a + cov_b) - 2 * cross)


def summary(truth, predicted):
  """Returns {"frechet_distance", "n": clips of the smaller set, "stable": whether n is enough}."""
  n = min(len(truth), len(predicted))
  return {"frechet_distance": distance(truth, predicted), "n": n, "stable": n >= STABLE}


def _square_root(matrix):
  """Square root of a symmetric positive matrix."""
  u, s, v = np.linalg.svd(matrix)
  return (u * np.where(s < _TINY, s, np.sqrt(s))) @ v
