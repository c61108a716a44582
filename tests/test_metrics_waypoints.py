"""Displacement, rater feedback, ego-motion baselines and the bootstrap, computed by hand."""

import numpy as np
import pytest
import real_data

from vistraj_jax.core import checks
from vistraj_jax.metrics import bootstrap, displacement, ego_motion, rater_feedback, waypoints


def _frames(count=3, **changes):
  past = np.zeros((count, 16, 6))
  past[:, -1, 2] = 12.0
  future = np.zeros((count, 20, 2))
  future[..., 0] = 3.0 * np.arange(1, 21)
  values = {
    "past": past,
    "future": future,
    "has_future": np.ones(count),
    "rated/xy": np.concatenate([future, future[:, -1:]], 1)[:, None].repeat(3, 1),
    "rated/len": np.full((count, 3), 21),
    "rated/score": np.tile([9.0, 5.0, -1.0], (count, 1)),
  }
  return {**values, **changes}


def test_horizons():
  future = np.zeros((1, 20, 2))
  prediction = future.copy()
  prediction[0, 12:] = [3, 4]  # right up to 3 s, then 5 m off
  assert displacement.ade(prediction, future, 3.0) == 0
  assert displacement.ade(prediction, future, 5.0) == 8 * 5 / 20
  assert displacement.fde(prediction, future) == 5
  proposals = np.stack([prediction, future], 1)
  assert displacement.oracle_ade(proposals, future, 5.0) == 0


def test_groups_and_absent_values():
  values = np.array([1.0, 3.0, np.nan, 5.0])
  assert displacement.mean(values) == (3.0, 3)
  assert displacement.by_group(values, np.array([1, 1, 2, -1]), displacement.INTENTS) == {
    "straight": (2.0, 2)
  }
  assert np.isnan(displacement.mean(values[2:3])[0])


def test_scorer_agreement_by_hand():
  ade = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
  found = displacement.scorer_agreement(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), ade)
  np.testing.assert_array_equal(found["mean_rank"], [0, 2])
  np.testing.assert_array_equal(found["top1_acc"], [1, 0])
  np.testing.assert_allclose(found["spearman"], [1, -1])


@pytest.mark.parametrize(
  "across, along, speed, wanted",
  [
    (0, 0, 12, 9.0),
    (1.0, 0, 12, 9.0),  # on the edge at 3 s
    (2.0, 0, 12, 9 * (0.1**1 + 0.1 ** (2 / 1.8 - 1)) / 2),  # above the floor
    (5.0, 0, 12, 4.0),  # the floor
    (0, 4.0, 12, 9.0),
    (0.5, 0, 0, 9.0),  # half the region for a car at rest
  ],
)
def test_rater_feedback_by_hand(across, along, speed, wanted):
  frames = _frames(1)
  prediction = frames["future"] + [along, across]
  rated = [frames[f"rated/{name}"] for name in ("xy", "len", "score")]
  found = rater_feedback.score(prediction, *rated, np.array([speed]))
  np.testing.assert_allclose(found, [max(wanted, 4.0)], rtol=1e-12)


def test_the_floor_is_not_for_those_inside_one_region():
  frames = _frames(1)
  frames["rated/score"] = np.array([[1.0, 0.5, -1.0]])
  rated = [frames[f"rated/{name}"] for name in ("xy", "len", "score")]
  assert rater_feedback.score(frames["future"], *rated, np.array([12.0])) == 1.0


def test_frames_without_ratings_are_left_out():
  frames = _frames(3)
  frames["rated/score"][1] = -1
  rated = [frames[f"rated/{name}"] for name in ("xy", "len", "score")]
  scores = rater_feedback.score(frames["future"], *rated, np.full(3, 12.0))
  np.testing.assert_array_equal(scores, [9.0, np.nan, 9.0])
  mean, found = rater_feedback.by_cluster([9.0, np.nan, 3.0, 3.0], np.array([0, 0, 1, 1]))
  assert mean == 6.0 and found == {0: (9.0, 1), 1: (3.0, 2)}  # clusters weigh the same
  assert np.isnan(rater_feedback.by_cluster([np.nan], np.array([0]))[0])


def test_a_standing_rater_has_the_direction_ahead():
  frames = _frames(1)
  frames["rated/xy"] = np.zeros((1, 3, 21, 2))
  rated = [frames[f"rated/{name}"] for name in ("xy", "len", "score")]
  prediction = np.zeros((1, 20, 2))
  prediction[..., 0] = 4.0  # 4 m ahead is within the longitudinal region
  assert rater_feedback.score(prediction, *rated, np.array([12.0])) == 9.0
  assert rater_feedback.score(prediction[..., ::-1], *rated, np.array([12.0])) == 4.0


def test_predictions_that_are_not_finite():
  frames = _frames(2)
  frames["future"][1, 3] = np.nan
  with pytest.raises(checks.InputError, match="prediction of frame 1 is not finite"):
    waypoints.score_frames(frames["future"], _frames(2))


def _past(velocity, acceleration=(0, 0)):
  past = np.zeros((1, 16, 6))
  past[0, -1] = [0, 0, *velocity, *acceleration]
  return past


def test_constant_velocity_and_standing_still():
  future = ego_motion.constant_velocity(_past((4, -2)))[0]
  np.testing.assert_allclose(future[[0, 19]], [[1, -0.5], [20, -10]])
  assert not ego_motion.stand_still(_past((4, -2))).any()


def test_constant_acceleration_stops():
  future = ego_motion.constant_acceleration(_past((4, 0), (2, 0)))[0]
  np.testing.assert_allclose(future[19], [4 * 5 + 25, 0])
  future = ego_motion.constant_acceleration(_past((4, 0), (-2, 0)))[0]
  np.testing.assert_allclose(future[[3, 7, 19]], [[3, 0], [4, 0], [4, 0]])  # at rest after 2 s


def test_constant_turn_rate_drives_a_circle():
  speed, rate = 10.0, 0.2
  future = ego_motion.constant_turn_rate(_past((speed, 0), (0, speed * rate)))[0]
  angle = rate * np.arange(1, 21) / 4
  circle = speed / rate * np.stack([np.sin(angle), 1 - np.cos(angle)], -1)
  np.testing.assert_allclose(future, circle, atol=0.01)
  slow = ego_motion.constant_turn_rate(_past((0.1, 0), (0, 3.0)))[0]
  assert np.abs(slow[:, 1]).max() < 1e-9  # the direction of a crawling car is noise


def test_summary_by_intent_and_cluster():
  frames = _frames(4)
  frames["has_future"][3] = 0
  prediction = frames["future"] + np.array([[[1.0, 0]], [[2.0, 0]], [[3.0, 0]], [[9.0, 0]]])
  scores = waypoints.score_frames(prediction, frames, prediction[:, None])
  found = waypoints.summarize(scores, np.array([1, 1, 2, 3]), np.array([0, 0, 1, -1]), ("a", "b"))
  assert found["ade_5s"] == 2.0 and found["frames"] == 3 and found["oracle_ade_5s"] == 2.0
  assert found["by_intent"] == {
    "straight": {"ade_3s": 1.5, "ade_5s": 1.5, "frames": 2},
    "left": {"ade_3s": 3.0, "ade_5s": 3.0, "frames": 1},
  }
  assert list(found["by_cluster"]) == ["a", "b"] and found["rated"] == 4
  np.testing.assert_allclose(found["by_horizon"], np.full(20, 2.0))


def test_bootstrap_draws_sequences():
  rng = np.random.default_rng(0)
  sequence = np.repeat(np.arange(30), 10)
  offset = rng.normal(size=30)[sequence]
  first = rng.normal(size=300)
  gap = bootstrap.paired(first, first + 0.5 + offset, sequence, samples=2000)
  np.testing.assert_allclose(gap.mean, 0.5 + offset.mean())
  # The interval is that of 30 independent sequences, not of 300 frames.
  half = 1.96 * rng.normal(size=30).std() / np.sqrt(30)
  assert 0.6 * half < (gap.high - gap.low) / 2 < 1.6 * half
  same = bootstrap.paired(first, first - 1, sequence, samples=100)
  assert same == (-1.0, -1.0, -1.0, 1.0, 30) or abs(same.mean + 1) < 1e-9
  first[0] = np.nan  # a frame without future
  assert np.isfinite(bootstrap.paired(first, first + 1, sequence, samples=100).mean)
  with pytest.raises(checks.InputError, match="1 sequences have scores; two are wanted"):
    bootstrap.paired(first, first, np.zeros(300))


def test_vocabulary_of_real_futures():
  """8,192 cluster centres of real futures: metres and forward, as the heads and metrics expect."""
  from vistraj_jax.models.vlm_waypoint import anchors

  futures = anchors.read(real_data.folder("waymo/futures") / "vocab_8192.npy")
  assert futures.shape == (8192, 20, 2)
  end = np.linalg.norm(futures[:, -1], axis=-1)
  assert abs(np.median(end) - 27.7) < 0.1
  # Driven distances: constant velocity from the first step is a fair guess, standing still is not.
  past = np.zeros((8192, 16, 6), np.float32)
  past[:, -1, 2:4] = futures[:, 0] / 0.25
  still = displacement.ade(ego_motion.stand_still(past), futures, 5.0).mean()
  moving = displacement.ade(ego_motion.constant_velocity(past), futures, 5.0).mean()
  assert moving < 0.5 * still
