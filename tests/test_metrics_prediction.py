"""Scores of futures by hand and by the devkit, baselines, files of forecasts and their command."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from launch import evaluate
from vistraj_jax.core import checks
from vistraj_jax.data import forecasts
from vistraj_jax.metrics import agent_motion, prediction
from vistraj_jax.metrics import forecasts as scoring
from vistraj_jax.prepare.nuscenes import challenge


def _run(seed=0, count=20, modes=6, noise=3.0):
  """Forecasts of agents at constant velocity, which noisy futures miss by some metres."""
  rng = np.random.default_rng(seed)
  agents = np.random.default_rng(1)  # the same in every run
  start, step = agents.normal(0, 20, (count, 1, 2)), agents.normal(0, 2, (count, 1, 2))
  truth = start + step * (1 + np.arange(12))[:, None] + agents.normal(0, 0.5, (count, 12, 2))
  shares = rng.dirichlet(np.ones(modes), count)
  pose = np.concatenate([agents.normal(0, 500, (count, 3)), agents.normal(0, 1, (count, 4))], 1)
  pose[:, 4:6] = 0  # turned about +z only
  return {
    "row": np.arange(count),
    "futures": truth[:, None] + rng.normal(0, noise, (count, modes, 1, 2)),
    "probabilities": shares,
    "future_xy": truth,
    "future_valid": np.ones((count, 12)),
    "past_xy": start + step * (np.arange(5) - 4)[:, None],
    "past_valid": np.ones((count, 5)),
    "anchor_pose": pose,
    "sample_id": [f"clip{i}" for i in range(count)],
    "scene": [f"scene{i % 4}" for i in range(count)],
    "instance_token": [f"agent{i}" for i in range(count)],
    "sample_token": [f"frame{i % 3}" for i in range(count)],
    "category": ["vehicle.car", "human.pedestrian.adult"] * (count // 2),
  }


def _write(folder, run):
  forecasts.save(folder / forecasts.NAME, run)
  challenge.write(folder / "challenge.json", forecasts.load(folder))
  return folder


def test_scores_by_hand():
  """Two futures; the better one has the smaller probability and a missing last step."""
  futures = np.zeros((1, 2, 3, 2))
  futures[0, 0, :, 0] = [1, 1, 4]  # mean 1 over two valid steps, last 1
  futures[0, 1, :, 0] = [0, 2, 9]  # mean 1.. and the last valid error 2: a miss
  futures[0, 1, 0, 0] = 0.5
  shares, valid = np.array([[0.3, 0.7]]), np.array([[1, 1, 0]])
  found = prediction.scores(futures, shares, np.zeros((1, 3, 2)), valid)
  expected = {
    "min_ade_1": 1.25, "min_ade_5": 1.0, "min_ade_10": 1.0,
    "min_fde_1": 2.0, "min_fde_5": 1.0, "min_fde_10": 1.0,
    "miss_rate_1": 1.0, "miss_rate_5": 0.0, "miss_rate_10": 0.0,
    "brier_min_fde": 1 + 0.7**2, "mode_accuracy": 0.0, "nll": -np.log(0.3),
  }  # fmt: skip
  assert found.keys() == expected.keys() == prediction.NAMES.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], [value], err_msg=name)
  on_device = prediction.scores(*map(jnp.asarray, (futures, shares, np.zeros((1, 3, 2)), valid)))
  for name, value in found.items():
    np.testing.assert_allclose(on_device[name], value, rtol=1e-6, err_msg=name)


def test_single_future_and_nothing_valid():
  one = prediction.scores(
    np.ones((1, 1, 2, 2)), np.ones((1, 1)), np.zeros((1, 2, 2)), np.ones((1, 2))
  )
  np.testing.assert_allclose(one["min_ade_5"], [np.sqrt(2)])
  assert one["mode_accuracy"] == 1 and one["nll"] == 0
  nothing = prediction.errors(np.ones((1, 1, 2, 2)), np.zeros((1, 2, 2)), np.zeros((1, 2)))
  np.testing.assert_array_equal(np.stack(nothing), np.zeros((3, 1, 1)))


def test_devkit_agrees(tmp_path):
  """All three metrics of the devkit, on the exported file, in global coordinates."""
  folder = _write(tmp_path / "a", _run())
  run = {
    name: value.astype(float) if value.dtype == np.float32 else value
    for name, value in forecasts.load(folder).items()
  }
  truth_xy = challenge.to_global(run["future_xy"], run["anchor_pose"])
  truth = dict(
    zip(zip(run["instance_token"], run["sample_token"], strict=True), truth_xy, strict=True)
  )
  theirs = challenge.devkit_scores(folder / "challenge.json", truth, (1, 5, 10), 2.0)
  ours = prediction.scores(
    run["futures"], run["probabilities"], run["future_xy"], run["future_valid"]
  )
  assert 0 < theirs["miss_rate_5"] < 1
  for name, value in theirs.items():
    assert abs(ours[name].mean() - value) < 1e-6, name


def test_global_coordinates_by_hand():
  """An ego at (100, 50) that looks along +y: ahead is +y, left is -x."""
  quarter = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
  found = challenge.to_global([[[10.0, 0.0], [0.0, 3.0]]], [[100.0, 50.0, 1.0, *quarter]])
  np.testing.assert_allclose(found, [[[100, 60], [97, 50]]])


def test_challenge_refuses():
  run = _run(modes=26)
  with pytest.raises(checks.InputError, match="26 futures an agent received, 25 allowed"):
    challenge.entries(run)
  run = _run() | {"instance_token": ["a"] * 20}
  with pytest.raises(checks.InputError, match="stands twice in the same key frame"):
    challenge.entries(run)


def test_baselines_by_hand():
  """A quarter turn in nine steps at 10 m a step is a circle; straight lines stay straight."""
  angle = np.pi / 18 * np.arange(20)
  circle = 100 * np.stack([np.sin(angle), 1 - np.cos(angle)], -1)
  past, valid = circle[None, :5], np.ones((1, 5))
  turning = agent_motion.constant_turn_rate(past, valid, 12)
  assert np.abs(turning[0] - circle[5:17]).max() < 1.5
  straight = agent_motion.constant_velocity(past, valid, 12)
  np.testing.assert_allclose(straight[0, 1] - straight[0, 0], circle[4] - circle[3])
  assert np.abs(straight[0] - circle[5:17]).max() > 60
  slow = np.array([[[20.4, 5.0], [20.2, 5.0], [20.0, 5.0]]])  # 0.4 m/s towards -x
  going = agent_motion.constant_turn_rate(slow, np.ones((1, 3)), 2)
  np.testing.assert_allclose(going, [[[19.8, 5.0], [19.6, 5.0]]])
  still = agent_motion.constant_position(past, valid, 12)
  np.testing.assert_array_equal(still[0], np.broadcast_to(circle[4], (12, 2)))


@pytest.mark.parametrize(
  "valid, step", [([1, 1, 1, 1], 4.0), ([1, 1, 0, 1], 3.5), ([1, 0, 0, 1], 3.0), ([0, 0, 0, 1], 0)]
)
def test_missing_past(valid, step):
  past = np.array([[[0.0, 0], [2, 0], [5, 0], [9, 0]]])
  valid = np.array([valid])
  assert agent_motion.constant_velocity(past, valid, 2)[0, 0, 0] == 9 + step
  if valid[0, 2] == 0:
    straight = agent_motion.constant_velocity(past, valid, 2)
    np.testing.assert_allclose(agent_motion.constant_turn_rate(past, valid, 2), straight)


def test_command(tmp_path, capsys):
  """Two runs, one worse than constant velocity; classes, warning, the devkit's word."""
  good = _write(tmp_path / "good" / "forecasts", _run(noise=0.2))
  bad = _write(tmp_path / "bad", _run(seed=3, noise=30.0))
  out = tmp_path / "scores"
  arguments = ["forecasts", "--forecasts", str(good.parent), f"{bad}:wild", "--devkit"]
  assert evaluate.main([*arguments, "--out", str(out)]) == 0
  printed = capsys.readouterr()
  assert "run 'wild' is worse than constant velocity on all" in printed.err
  assert "'good'" not in printed.err
  assert float(printed.out.split("differ by ")[1].split()[0]) < 1e-6
  scores = json.loads((out / "scores.json").read_text())
  assert scores["agents"] == 20 and len(scores["worse"]) == 3
  assert list(scores["classes"]) == ["all", "human.pedestrian.adult", "vehicle.car"]
  runs = scores["classes"]["vehicle.car"]["runs"]
  assert list(runs) == [*agent_motion.BASELINES, "good", "wild"]
  assert runs["good"]["min_ade_5"] < runs["constant_velocity"]["min_ade_1"]
  text = (out / "scores.md").read_text()
  assert "| all (20) | good |" in text and "| wild | 4 | +" in text
  found = scores["differences"]["wild"]
  overall = scores["classes"]["all"]["runs"]
  gap = overall["wild"]["min_ade_5"] - overall["good"]["min_ade_5"]
  np.testing.assert_allclose(found["mean"], gap)
  assert 0 < found["low"] < gap < found["high"] and found["sequences"] == 4


def test_agents_without_future_are_left_out():
  run = {name: np.asarray(value) for name, value in _run().items()}
  run["future_valid"] = run["future_valid"].copy()
  run["future_valid"][0] = 0
  run["futures"] = run["futures"].copy()
  run["futures"][0] = 1e6
  worse = {**run, "futures": run["futures"] + [3.0, 4.0]}
  found = scoring.differences({"x": run, "y": worse, "same": run})
  assert found["same"].mean == found["same"].low == found["same"].high == 0
  assert 0 < found["y"].mean < 5 and found["y"].sequences == 4
  scores = scoring.score({"x": run})
  assert scores["all"]["agents"] == 19 and scores["all"]["runs"]["x"]["min_ade_1"] < 10


def test_wrong_files(tmp_path):
  with pytest.raises(checks.InputError, match=r"nothing: holds no predictions.npz; write it with"):
    forecasts.load(tmp_path / "nothing")
  run = _run()
  with pytest.raises(
    checks.InputError, match=r"probabilities: shape \(20, 5\) received, \(20, 6\)"
  ):
    forecasts.save(tmp_path / "x.npz", run | {"probabilities": run["probabilities"][:, :5]})
  with pytest.raises(checks.InputError, match="futures is not finite everywhere"):
    forecasts.save(tmp_path / "x.npz", run | {"futures": run["futures"] * np.nan})
  a, b = _write(tmp_path / "a", run), _write(tmp_path / "b", _run() | {"sample_token": ["s"] * 20})
  with pytest.raises(checks.InputError, match="'a' and 'b' predict other agents"):
    evaluate.main(["forecasts", "--forecasts", str(a), str(b), "--out", str(tmp_path)])
  with pytest.raises(checks.InputError, match="'constant_velocity'. is a baseline's name"):
    evaluate.main(["forecasts", "--forecasts", f"{a}:constant_velocity", "--out", str(tmp_path)])
