"""Trajectory losses by hand, the gradient of a perfect prediction, rows that do not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax.core import mean
from vistraj_jax.losses import trajectory


def test_displacement_and_ade_by_hand():
  xy = np.zeros((1, 2, 4, 2), np.float32)
  xy[0, 1] = [3, 4]
  future = np.zeros((1, 4, 2), np.float32)
  np.testing.assert_allclose(trajectory.ade_of_proposals(xy, future), [[0, 5]], atol=2e-6)
  np.testing.assert_allclose(trajectory.best_of(jnp.array([[5.0, 1.0, 3.0]]), 2), [2.0])


def test_gradient_of_a_perfect_prediction_is_zero():
  future = jnp.ones((2, 20, 2))
  grad = jax.grad(lambda xy: trajectory.displacement(xy, future).mean())(future)
  np.testing.assert_array_equal(grad, np.zeros_like(grad))


def test_scorers_by_hand():
  scores, ade = jnp.array([[1.0, 3.0]]), jnp.array([[2.0, 1.0]])
  np.testing.assert_allclose(trajectory.scorer_mse(scores, ade), [(1 + 4) / 2])
  share = 1 / (1 + np.exp(-2.0))  # of the first
  entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share))
  wanted = share * 2 + (1 - share) * 1 - 0.01 * entropy
  np.testing.assert_allclose(trajectory.scorer_reinforce(scores, ade, 1.0), [wanted], rtol=1e-6)
  # The better one has the worse score, by 2: both ordered pairs weigh |2 - 1|.
  loss, weight = trajectory.scorer_margin(scores, ade)
  np.testing.assert_allclose(loss, [2 * np.log1p(np.exp(2.0))], rtol=1e-6)
  np.testing.assert_allclose(weight, [2.0])
  np.testing.assert_allclose(
    trajectory.scorer_nearest(scores, ade), [-np.log(1 - share)], rtol=1e-6
  )


@pytest.mark.parametrize("error", [(0, 0), (4.0, 1.0), (8.5, 0), (0, 2.0)])
def test_rater_feedback_proxy_by_hand(error):
  """At full speed the region at 3 s is 4 m long and 1 m wide to each side, at 5 s 7.2 and 1.8."""
  future = np.stack([10.0 * np.arange(1, 21), np.zeros(20)], -1)[None].astype(np.float32)
  prediction = future + np.array(error, np.float32)
  terms = [0.1 ** max(error[0] / (4 * w) - 1, error[1] / w - 1, 0) for w in (1.0, 1.8)]
  found = trajectory.rater_feedback_proxy(prediction, future, jnp.array([12.0]))
  np.testing.assert_allclose(found, [np.mean(terms)], rtol=1e-5)
  slow = trajectory.rater_feedback_proxy(prediction, future, jnp.array([0.0]))
  assert slow[0] <= found[0]  # half the region


def test_masked_rows_do_not_count():
  ade = jnp.array([1.0, jnp.nan, 3.0])
  found = mean.Mean.of(ade, jnp.array([1.0, 0.0, 1.0]))
  assert float(found.value) == 2.0
