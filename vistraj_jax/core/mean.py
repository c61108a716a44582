"""Means over examples as (total, count), so that batches and devices add up exactly."""

from typing import Any, NamedTuple

import jax.numpy as jnp


class Mean(NamedTuple):
  """A sum over valid examples and their number, both scalars."""

  total: Any
  count: Any

  @classmethod
  def of(cls, values, mask):
    """values [B] float, mask [B] of 0 and 1 -> Mean; masked rows do not count, even if NaN."""
    return cls(jnp.sum(jnp.where(mask > 0, values, 0.0)), jnp.sum(mask))

  def __add__(self, other):
    return Mean(self.total + other.total, self.count + other.count)

  @property
  def value(self):
    """total / count; NaN if nothing was counted."""
    return self.total / self.count
