"""Motion models: hand-computed boxes, the filter's convergence, and the fallback for networks."""

import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.tracking import kalman, motion_models

IMAGE = np.array([[1600.0, 900.0]])


def _observed(motion, boxes):
  """Returns the state of one track that was detected at `boxes`."""
  state = motion.start(np.array(boxes[:1], float))
  for box in boxes[1:]:
    state = motion.observe(state, np.array([box], float))
  return state


def test_identity_and_constant_velocity_by_hand():
  boxes = [[10, 10, 4, 8], [12, 11, 5, 8]]
  identity = motion_models.make("identity")
  velocity = motion_models.make("constant_velocity")
  np.testing.assert_array_equal(
    identity.predict(_observed(identity, boxes), IMAGE), [[12, 11, 5, 8]]
  )
  np.testing.assert_array_equal(
    velocity.predict(_observed(velocity, boxes), IMAGE), [[14, 12, 6, 8]]
  )
  np.testing.assert_array_equal(
    velocity.predict(_observed(velocity, boxes[:1]), IMAGE), [[10, 10, 4, 8]]
  )


def test_a_side_never_vanishes_under_constant_velocity():
  velocity = motion_models.make("constant_velocity")
  state = _observed(velocity, [[10, 10, 10, 8], [10, 10, 4, 8]])
  np.testing.assert_array_equal(velocity.predict(state, IMAGE), [[10, 10, 4, 8]])


def test_unknown_motion_names_the_choices():
  with pytest.raises(checks.InputError, match="motion: 'kalmann' is not allowed.*'kalman'"):
    motion_models.make("kalmann")


def test_a_network_gets_right_aligned_histories_with_counts():
  calls = []

  def predict(boxes, counts, image_size):
    calls.append((boxes, counts, image_size))
    return boxes[:, -1]

  motion = motion_models.learned(predict, history=3, name="net", frame_rate=12.0)
  state = _observed(motion, [[k, 0, 5, 5] for k in range(1, 7)])
  motion.predict(state, IMAGE)
  boxes, counts, image_size = calls[0]
  assert boxes.dtype == np.float32 and image_size.dtype == np.float32
  assert boxes.shape == (1, 4, 4) and boxes[0, :, 0].tolist() == [3, 4, 5, 6]
  assert counts.tolist() == [4]
  motion.predict(_observed(motion, [[1, 0, 5, 5], [2, 0, 5, 5]]), IMAGE)
  boxes, counts, _ = calls[1]
  assert boxes[0, -2:, 0].tolist() == [1, 2] and counts.tolist() == [2]
  assert motion.frame_rate == 12.0


@pytest.mark.parametrize(
  "bad", [[np.nan, 5, 5, 5], [5, 5, 0, 5], [5, 5, 5, -1], [5, 5, 3201, 5], [5, 5, 5, np.inf]]
)
def test_impossible_boxes_of_a_network_become_constant_velocity(bad):
  motion = motion_models.learned(lambda b, c, i: np.array([bad, [7, 7, 7, 7]]), 5, "net")
  both = _observed(motion, [[10, 10, 4, 8], [12, 11, 5, 8]])
  both = {name: np.repeat(rows, 2, axis=0) for name, rows in both.items()}
  predicted = motion.predict(both, np.repeat(IMAGE, 2, axis=0))
  np.testing.assert_array_equal(predicted, [[14, 12, 6, 8], [7, 7, 7, 7]])


def test_a_network_of_wrong_shape_is_an_error():
  motion = motion_models.learned(lambda b, c, i: np.zeros((1, 5)), 5, "net")
  with pytest.raises(checks.InputError, match=r"'net': shape \(1, 5\) received, \(1, 4\) wanted"):
    motion.predict(_observed(motion, [[1, 1, 1, 1]]), IMAGE)


def test_coasting_appends_the_prediction():
  motion = motion_models.make("constant_velocity")
  state = _observed(motion, [[10, 10, 4, 8], [12, 11, 4, 8]])
  for k in range(3):
    predicted = motion.predict(state, IMAGE)
    np.testing.assert_array_equal(predicted, [[14 + 2 * k, 12 + k, 4, 8]])
    state = motion.coast(state, predicted)


def test_kalman_first_update_by_hand():
  motion = kalman.KalmanMotion()
  state = motion.start(np.array([[100.0, 50, 20, 40]]))
  # Along x (side 20): position deviation 2, velocity 10/160 * 20 = 1.25, at the start.
  assert state["covariance"][0, 0, 0] == pytest.approx(2.0**2)
  assert state["covariance"][0, 4, 4] == pytest.approx(1.25**2)
  state = motion.observe(state, np.array([[103.0, 50, 20, 40]]))
  # One step: 4 + 1.5625 + process 1^2 = 6.5625, with velocity 1.5625; measurement 1^2.
  gain = 6.5625 / 7.5625
  velocity_gain = 1.5625 / 7.5625
  np.testing.assert_allclose(state["mean"][0, 0], 100 + 3 * gain)
  np.testing.assert_allclose(state["mean"][0, 4], 3 * velocity_gain)
  np.testing.assert_allclose(state["mean"][0, [1, 2, 3, 5, 6, 7]], [50, 20, 40, 0, 0, 0])
  np.testing.assert_allclose(state["covariance"][0, 0, 0], 6.5625 * (1 - gain))
  np.testing.assert_allclose(state["covariance"][0, 0, 4], 1.5625 * (1 - gain))
  velocity = 1.5625 + (20 / 160) ** 2 - 1.5625 * velocity_gain
  np.testing.assert_allclose(state["covariance"][0, 4, 4], velocity)


def test_kalman_learns_a_constant_speed():
  motion = kalman.KalmanMotion()
  state = _observed(motion, [[100 + 7 * k, 50 - 2 * k, 20, 40] for k in range(60)])
  np.testing.assert_allclose(state["mean"][0, 4:], [7, -2, 0, 0], atol=1e-3)
  np.testing.assert_allclose(
    motion.predict(state, IMAGE), [[100 + 7 * 60, 50 - 120, 20, 40]], atol=0.05
  )


def test_kalman_coasting_keeps_the_size_and_grows_uncertain():
  motion = kalman.KalmanMotion()
  state = _observed(motion, [[100 + 7 * k, 50, 20 + k, 40] for k in range(30)])
  first = motion.coast(state, motion.predict(state, IMAGE))
  second = motion.coast(first, motion.predict(first, IMAGE))
  assert first["mean"][0, 2] > state["mean"][0, 2]  # the step into the first lost frame
  assert second["mean"][0, 2] == first["mean"][0, 2]
  assert second["mean"][0, 0] > first["mean"][0, 0] > state["mean"][0, 0]
  assert second["covariance"][0, 0, 0] > state["covariance"][0, 0, 0]


@pytest.mark.parametrize("name", motion_models.NAMES)
def test_a_moved_camera_commutes_with_the_prediction(name):
  turn = np.deg2rad(3.0)
  matrix = np.array(
    [
      [1.1 * np.cos(turn), -1.1 * np.sin(turn), 12.0],
      [1.1 * np.sin(turn), 1.1 * np.cos(turn), -5.0],
    ]
  )
  motion = motion_models.make(name)
  state = _observed(motion, [[100 + 7 * k, 50, 20, 40] for k in range(5)])
  before = motion_models.warp_boxes(motion.predict(state, IMAGE), matrix)
  after = motion.predict(motion.warp(state, matrix), IMAGE)
  np.testing.assert_allclose(after, before, rtol=1e-12)


def test_warped_box_by_hand():
  matrix = np.array([[2.0, 0, 10], [0, 2, -10]])
  np.testing.assert_array_equal(
    motion_models.warp_boxes(np.array([[5.0, 6, 3, 4]]), matrix), [[20, 2, 6, 8]]
  )
