"""Dropout: the share it drops, and that a row's numbers are its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax.nn import dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
def test_share_and_mean(rate):
  keys = dropout.row_keys(jax.random.PRNGKey(0), jnp.arange(4))
  found = dropout.dropout(jnp.ones((4, 199, 251)), rate, keys, 3)  # an odd number of values
  # Four deviations of the share of 199,796 values are 0.0045 at a half.
  assert abs(float((found == 0).mean()) - rate) < 0.005
  kept = np.unique(np.asarray(found)[np.asarray(found) > 0])
  np.testing.assert_allclose(kept, 1 / (1 - rate), rtol=2e-4)
  assert abs(float(found.mean()) - 1) < 0.02


def test_numbers_belong_to_row_and_layer():
  x = jnp.ones((6, 33))
  rng = jax.random.PRNGKey(1)
  whole = dropout.dropout(x, 0.5, dropout.row_keys(rng, jnp.arange(6)), 0)
  part = dropout.dropout(x[:2], 0.5, dropout.row_keys(rng, jnp.array([4, 1])), 0)
  np.testing.assert_array_equal(part, whole[jnp.array([4, 1])])
  assert len({tuple(row) for row in np.asarray(whole).tolist()}) == 6
  other = dropout.dropout(x, 0.5, dropout.row_keys(rng, jnp.arange(6)), 1)
  assert (np.asarray(other) != np.asarray(whole)).any(1).all()


def test_nothing_is_dropped_in_evaluation():
  x = jnp.ones((2, 3))
  assert dropout.dropout(x, 0.5, None, 0) is x
  assert dropout.dropout(x, 0, dropout.row_keys(jax.random.PRNGKey(0), jnp.arange(2)), 0) is x


def test_half_precision_stays():
  keys = dropout.row_keys(jax.random.PRNGKey(0), jnp.arange(2))
  assert dropout.dropout(jnp.ones((2, 8), jnp.bfloat16), 0.1, keys, 0).dtype == jnp.bfloat16
