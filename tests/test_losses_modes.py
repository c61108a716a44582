"""Losses of several futures by hand, and their gradients where they could be lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax.losses import modes


def _futures(*offsets):
  """Straight futures of two steps beside a truth at the origin: [1, K, 2, 2]."""
  return jnp.stack([jnp.full((2, 2), 1.0) * jnp.array([d, 0.0]) for d in offsets])[None]


def test_errors_count_valid_steps():
  futures = jnp.array([[[[1.0, 0], [3, 0], [100, 0]]]])
  ade, fde = modes.errors(futures, jnp.zeros((1, 3, 2)), jnp.array([[1.0, 1, 0]]))
  np.testing.assert_allclose([ade[0, 0], fde[0, 0]], [2, 3], rtol=1e-6)
  nothing = modes.errors(futures, jnp.zeros((1, 3, 2)), jnp.zeros((1, 3)))
  np.testing.assert_array_equal(np.stack(nothing), np.zeros((2, 1, 1)))


def test_relaxed_winner_and_soft_targets():
  ade = jnp.array([[2.0, 1.0, 4.0]])
  np.testing.assert_allclose(modes.relaxed_best(ade, 0.1), [[0.05, 0.9, 0.05]], rtol=1e-6)
  weights = np.exp([-2 / 0.5, -1 / 0.5, -4 / 0.5])
  np.testing.assert_allclose(modes.soft_targets(ade, 0.5), [weights / weights.sum()], rtol=1e-5)
  np.testing.assert_array_equal(modes.soft_targets(ade, 0.0), [[0, 1, 0]])
  np.testing.assert_array_equal(modes.relaxed_best(ade[:, :1], 0.1), [[1]])


def test_without_relaxation_it_is_the_original_loss():
  rng = np.random.default_rng(0)
  futures, logits = rng.normal(size=(4, 3, 5, 2)), rng.normal(size=(4, 3))
  future = rng.normal(size=(4, 5, 2))
  plain = modes.best_of_modes(futures, logits, future)
  found = modes.relaxed_modes(
    futures, logits, future, np.ones((4, 5)), relaxation=0.0, temperature=0.0
  )
  for name, value in plain.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("count", [1, 3])
def test_gradients_are_finite_when_the_prediction_is_right(count):
  """K = 1 too; relaxed, every future gets some gradient, and scores learn from futures."""

  def loss(futures, logits):
    terms = modes.relaxed_modes(
      futures, logits, jnp.zeros((1, 2, 2)), jnp.ones((1, 2)), relaxation=0.1, temperature=1.0
    )
    return sum(value.sum() for value in terms.values())

  futures = _futures(*range(count))
  value, (of_futures, of_logits) = jax.value_and_grad(loss, (0, 1))(futures, jnp.zeros((1, count)))
  assert np.isfinite(value) and np.isfinite(of_futures).all() and np.isfinite(of_logits).all()
  assert (of_futures[0, 0] == 0).all()
  for k in range(1, count):
    assert (of_futures[0, k, :, 0] > 0).all()
  if count > 1:
    assert of_logits[0, 0] < 0 < of_logits[0, 2]  # the right one's score goes up
