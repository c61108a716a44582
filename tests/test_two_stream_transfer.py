"""launch.probe, launch.policy and launch.report two_stream, end to end on tiny generated data."""

import argparse
import functools
import json

import jax
import numpy as np
import pytest
import two_stream_data

from configs import two_stream as config_file
from launch import (
  grid,
  policy,
  policy_rollout,
  policy_training,
  probe,
  report,
  two_stream_features,
  two_stream_report,
)
from vistraj_jax.core import checks, weights
from vistraj_jax.data import two_stream, two_stream_actions
from vistraj_jax.models.two_stream import policy as policies
from vistraj_jax.models.two_stream import settings
from vistraj_jax.prepare.world import manipulation, manipulation_libero, manipulation_writer
from vistraj_jax.viz import ablation

TASK = manipulation.TASKS[0]
MAIN = "patch_mean_concat"


def _config():
  """The smoke config made still smaller, as a run's config.json holds it."""
  config = json.loads(config_file.get_config("smoke").to_json_best_effort())
  config["model"].update(embed_dim=16, num_heads=1, depth=1, num_stages=1)
  config["model"]["decoder"].update(kind="per_stream_patch", width=16, depth=1, num_heads=1)
  return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Weights of an encoder, and prepared data of an arm and of a hand."""
  out = tmp_path_factory.mktemp("transfer")
  model = _config()["model"]
  params = jax.device_get(settings.init(settings.make(model), jax.random.PRNGKey(1))["params"])
  weights.save_weights(out / "encoder.safetensors", params, "two_stream", model)
  for kind in ("arm", "hand"):
    (out / kind).mkdir()
    two_stream_data.write_motions(out / kind, kind)
  return out


def _probe(folder, out, *more, data="arm"):
  arguments = ["--encoder", folder / "encoder.safetensors", "--data", folder / data, "--out", out]
  arguments += ["--epochs", "2", "--batch_size", "8", "--encode_batch", "16", "--samples", "50"]
  assert probe.main([str(a) for a in (*arguments, *more)]) == 0
  return json.loads((out / "probe.json").read_text())


def test_probe(folder, tmp_path, capsys, monkeypatch):
  small = ("--gaps", "2", "--probes", "linear", "attentive", "--readouts", "patch_mean_concat")
  found = _probe(folder, tmp_path, *small)
  one = found["gaps"]["2"]
  assert one["pairs"] == [36, 12] and one["videos"] == [6, 2]
  assert set(one["trained"]) == {"linear patch_mean_concat", "attentive patches"}
  assert one["trained"].keys() == one["random"].keys()
  linear = one["trained"]["linear patch_mean_concat"]
  assert {"r2", "mse", "cosine", "r2/position", "r2/rotation", "r2/gripper"} <= linear.keys()
  assert linear["interval"][0] <= linear["interval"][1] and linear["best_r2"] >= linear["r2"]
  assert one["mean_action"]["r2"] < 0.02  # 0 but for the difference between the videos
  printed = capsys.readouterr().out
  assert "target: position, rotation, gripper" in printed and "mean action" in printed
  monkeypatch.setattr(two_stream_features, "_encode", None)  # features are there
  again = _probe(folder, tmp_path, *small)["gaps"]["2"]
  assert again == one


def test_probe_of_one_split(folder, tmp_path, monkeypatch):
  """80/20 by video; a hand's numbers stand joint by joint."""

  def features(encoder, pairs, index, *_, **__):
    return {"m_patch_mean": np.random.default_rng(len(index)).normal(size=(len(index), 4))}

  monkeypatch.setattr(two_stream_features, "features", features)
  small = ("--gaps", "1", "--probes", "linear", "--readouts", "m_patch_mean", "--pairs", "20")
  found = _probe(folder, tmp_path, *small, "--split", "train", data="hand")["gaps"]["1"]
  assert sum(found["pairs"]) == 20 and found["videos"] == [4, 2]
  assert found["groups"] == {"rightHand": 3, "rightThumbTip": 3}


def _head(features, target, probe_name="linear x", **changes):
  """Scores of a head learned on the first three quarters of the rows."""
  settings_of = {"seed": 0, "epochs": 60, "batch_size": 32, "lr": 1e-2, "weight_decay": 0.01}
  args = argparse.Namespace(**{**settings_of, **changes})
  edge = 3 * len(target) // 4
  score = functools.partial(probe._scores, target[edge:], {}, np.arange(len(target) - edge), 20)
  seen = [features[:edge], features[edge:]]
  return probe._probe(probe_name, seen, target[:edge], target[edge:], score, args)


def test_probes_find_what_is_there():
  """Features that hold the answer, in mm beside large numbers, give R2 near 1; others none."""
  rng = np.random.default_rng(0)
  target = (0.001 * rng.normal(size=(256, 3)) + 0.5).astype(np.float32)
  noise = rng.normal(size=(256, 14)).astype(np.float32)
  mixed = np.concatenate([300 * target @ rng.normal(size=(3, 6)), noise[:, 6:]], 1).astype(
    np.float32
  )
  assert _head(mixed, target)["r2"] > 0.98
  assert _head(noise, target)["r2"] < 0.1
  tokens = np.tile(noise[:, None, None, :3], (1, 1, 4, 1)) * 1
  tokens[:, 0, 2] = 1000 * (target - 0.5) + 4  # one of four patches knows
  assert _head(tokens.astype(np.float16), target, "attentive x")["r2"] > 0.4


def test_policy(folder, tmp_path, capsys):
  """What is saved acts as what was scored; the errors of what needs no learning stand beside."""
  common = ["--encoder", folder / "encoder.safetensors", "--data", folder / "arm", "--epochs", 2]
  arguments = [str(a) for a in ("train", *common, "--encode_batch", 16, "--out", tmp_path)]
  assert policy.main(arguments) == 0
  assert "14 steps of 2 held-out demonstrations" in capsys.readouterr().out
  found = json.loads((tmp_path / "policy.json").read_text())
  source = two_stream.Trajectories(folder / "arm", "val")
  steps = two_stream_actions.demonstration_steps(two_stream_actions.read_motions(source))
  copied = ((steps.previous - steps.action) ** 2).mean()
  assert found["scores"]["copy_last_action"]["mse"] == pytest.approx(copied, rel=1e-5)
  robot = policies.load(tmp_path / policy.FILE)
  pairs = two_stream_actions.FramePairs(source, steps.index, 32)
  batch = pairs.gather(np.arange(14))
  acts = [robot.act(*pair) for pair in zip(batch["img_prev"], batch["img_curr"], strict=True)]
  mse = ((np.stack(acts) - steps.action) ** 2).mean()
  assert mse == pytest.approx(found["scores"]["policy"]["mse"], rel=1e-3)
  assert robot.about["instructions"] == ["push"] and robot.about["frame_rate"] == 20
  assert robot.about["camera"] == found["camera"] == "eye_in_hand"
  seen = two_stream_features.load_encoder(tmp_path / policy.FILE)  # a policy's file holds one
  assert seen.params.keys() == robot.arrays["encoder"].keys()
  with pytest.raises(checks.InputError, match="its head gives actions of 7 numbers, 4 are wanted"):
    policies.load(tmp_path / policy.FILE, actions=4)
  with pytest.raises(checks.InputError, match="holds weights of 'two_stream', wanted are 'two_s"):
    policies.load(folder / "encoder.safetensors")
  with pytest.raises(checks.InputError, match=r"policy: a frame: shape \(8, 8, 3\) received"):
    robot.act(np.zeros((8, 8, 3)), np.zeros((8, 8, 3)))


def test_cloning_learns():
  """A head learns actions that are a function of the features."""
  from vistraj_jax.train import fit

  rng = np.random.default_rng(0)
  x = rng.normal(size=(128, 6)).astype(np.float32)
  action = (np.tanh(x[:, :2]) * [5, 0.01] + [1, 2]).astype(np.float32)
  common = {"mean": action.mean(0), "scale": action.std(0)}
  data, held = ({"x": x[p], "action": action[p], **common} for p in (slice(96), slice(96, None)))
  head = policies.ActionHead(2, hidden=32, dropout=0.0)
  params = head.init(jax.random.PRNGKey(0), x[:1])["params"]
  found = fit.fit(
    policies.Cloning(head), params, data, held,
    count=96, epochs=40, batch_size=16, optimizer=fit.AdamW(3e-3, 0.01, cosine=True),
  )  # fmt: skip
  error = ((found.outputs - held["action"]) ** 2).mean(0) / held["action"].var(0)
  assert (error < 0.3).all()


@pytest.mark.slow
def test_unfrozen_policy_from_scratch(folder, tmp_path):
  """The encoder changes too, and finds the motion that the actions cause."""
  common = ["--encoder", folder / "encoder.safetensors", "--data", folder / "arm", "--lr", 1e-3]
  more = ["--weights", "random", "--unfrozen", "--epochs", 30, "--batch_size", 8]
  arguments = [str(a) for a in ("train", *common, *more, "--out", tmp_path)]
  assert policy.main(arguments) == 0
  found = json.loads((tmp_path / "policy.json").read_text())
  assert found["losses"][-1] < 0.8 * found["losses"][0]
  start = two_stream_features.randomized(
    two_stream_features.load_encoder(folder / "encoder.safetensors"), 0
  )
  first = weights.flatten(start.params)
  last = weights.flatten(policies.load(tmp_path / policy.FILE).arrays["encoder"])
  assert all((last[name] != first[name]).any() for name in ("encoder/cls_token",))


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory):
  """A task's HDF5 file, which names its environment."""
  out = tmp_path_factory.mktemp("demos")
  settings_of = manipulation_writer.usual("libero", {"episodes": 1, "size": 32})
  manipulation_libero.write_unit(out, settings_of, 0)
  return out


def _policy(folder, path, **about):
  """Writes a policy that always gives the mean action."""
  encoder = two_stream_features.load_encoder(folder / "encoder.safetensors")
  head = policies.ActionHead(7, hidden=4)
  params = head.init(jax.random.PRNGKey(0), np.zeros((1, 16)))["params"]
  made = policies.Policy(
    encoder.network, {"params": encoder.params}, head, params, "p_patch_mean", np.ones(7), 0.0
  )
  made.about = {"frame_rate": 20.0, "instructions": [TASK], **about}
  made.save(path / policy.FILE, encoder.model)
  return path


def test_closed_loop(folder, demonstrations, tmp_path, capsys):
  robot = _policy(folder, tmp_path)
  common = ["--source", demonstrations, "--episodes", 1, "--videos", 1, "--out", tmp_path]
  assert policy.main([str(a) for a in ("rollout", "--policy", robot, *common)]) == 0
  found = json.loads((tmp_path / "rollout.json").read_text())
  assert found["tasks"] == [TASK]
  outcome = found["success"]
  assert outcome["scripted_expert"]["rate"] == 1 and outcome["scripted_expert"]["mean_steps"] < 299
  assert outcome["policy"]["episodes"] == [False] == outcome["mean_action"]["episodes"]
  assert outcome["policy"]["mean_steps"] == outcome["random_actions"]["mean_steps"] == 300
  assert outcome["scripted_expert"]["mean_progress"] > 0.8  # within 2 cm of 10 or more
  assert len(outcome["policy"]["progress"]) == 1 and outcome["policy"]["progress"][0] < 0.8
  assert (tmp_path / "rollout.mp4").stat().st_size > 1000
  assert "scripted expert" in capsys.readouterr().out


def test_roll_outs_see_what_was_learned(demonstrations):
  """Through the camera that the records name; those that name none are of the room's."""
  known = {"frame_rate": 20.0, "instructions": [TASK]}
  for camera, about in (
    ("agentview", known),
    ("agentview", {**known, "camera": None}),
    ("eye_in_hand", {**known, "camera": "eye_in_hand"}),
  ):
    (world,) = policy_rollout._worlds("x", about, demonstrations)
    assert world.settings.camera == camera and world.settings.size == 32
  with pytest.raises(checks.InputError, match="x: does not say which tasks it has learned, nor"):
    policy_rollout._worlds("x", {}, demonstrations)


@pytest.mark.parametrize(
  "about, sentence",
  [
    ({"instructions": ["fly"]}, r"has the tasks .* not \['fly'\], which .* has learned"),
    ({"frame_rate": 5.0}, "learned at 5 steps a second, .* runs at 20"),
  ],
)
def test_another_world(folder, demonstrations, tmp_path, about, sentence):
  robot = _policy(folder, tmp_path, **about)
  common = ["--source", demonstrations, "--out", tmp_path]
  with pytest.raises(checks.InputError, match=sentence):
    policy.main([str(a) for a in ("rollout", "--policy", robot, *common)])
  with pytest.raises(checks.InputError, match="no file .*.hdf5; give the folder"):
    policy.main([str(a) for a in ("rollout", "--policy", robot, *common[2:], "--source", tmp_path)])


@pytest.mark.parametrize(
  "changes, sentence",
  [
    ({"readout": "nose"}, "--readout: 'nose' is not allowed"),
    ({"instruction": "fly"}, r"--instruction: 'fly' is not allowed; choose one of \['push'\]"),
    ({"data": "embedded:kuka"}, "embedded layout: 'kuka' is not allowed"),
    ({"data": "hand"}, "has no actions, so there is nothing to imitate"),
    ({"split": ["train", "val", "test"]}, "give one split, or two"),
  ],
)
def test_wrong_settings(folder, tmp_path, changes, sentence):
  args = policy._parser().parse_args(["train", "--encoder", "x", "--data", "x", "--out", "x"])
  data = changes.get("data", "arm")
  data = data if ":" in data else str(folder / data)
  values = {"encoder": folder / "encoder.safetensors", "out": tmp_path, **changes, "data": data}
  with pytest.raises(checks.InputError, match=sentence):
    policy_training.train(argparse.Namespace(**{**vars(args), **values}))


def test_rates_that_differ(folder, tmp_path):
  two_stream_data.write_motions(tmp_path, "arm")
  path = tmp_path / two_stream.STATISTICS
  found = json.loads(path.read_text())
  found["splits"]["val"]["fps"] = [5.0, 5.0]
  path.write_text(json.dumps(found))
  with pytest.raises(checks.InputError, match=r"\[20.0, 5.0\] frames a second, so that a gap"):
    _probe(folder, tmp_path / "out", data=tmp_path)


def _write(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


def _finish(command, calls):
  """Stands for a process of the report: writes what its command would."""
  module, out = command[2], command[-1].removeprefix("--workdir=")
  number = len(calls) / 100
  calls.append(command)
  path = grid.pathlib.Path(out)
  if module == "launch.train":
    _write(path / "config.json", _config())
    row = {"loss/val": 0.1 + number, "psnr/val": 20.0, "psnr/copy": 25.0, "steps/s": 4.0}
    _write(path / "log.jsonl", row)
    _write(path / "resources.json", {})
  elif module == "launch.probe":
    names = [f"{kind} {name}" for kind in ("linear", "mlp") for name in ("cls_mean", MAIN)]
    of = lambda r2: {"r2": 0.9, "r2/position": r2, "r2/rotation": 0.4, "r2/gripper": None}  # noqa: E731
    every = lambda r2: dict.fromkeys([*names, "attentive patches"], of(r2))  # noqa: E731
    gap = {"trained": every(0.5 + number), "random": every(0.1), "mean_action": of(-0.01)}
    _write(path / "probe.json", {"gaps": {"3": gap}})
  elif command[3] == "train":
    names = ("policy", "mean_action", "copy_last_action")
    _write(path / "policy.json", {"scores": {name: {"mse": 0.2} for name in names}})
  else:
    names = ("policy", "mean_action", "random_actions", "scripted_expert")
    outcome = {"rate": 0.25, "mean_progress": 0.5}
    _write(path / "rollout.json", {"success": dict.fromkeys(names, outcome)})
  return argparse.Namespace(returncode=0)


def test_r2_of_the_table():
  """Of a hand all of the target are positions; without the usual readout the first one stands."""
  hand = {"r2": 0.3, "r2/rightHand": 0.4, "r2/rightThumbTip": 0.2}
  scores = {"linear cls_mean": hand, "linear m_patch_mean": {**hand, "r2": 0.1}}
  assert two_stream_report.r2(scores) == {"R2 position, linear cls_mean": 0.3}


def test_report(folder, tmp_path, monkeypatch, capsys):
  """Every row and seed once; means with deviations; baselines beside; done work stays."""
  calls = []
  monkeypatch.setattr(grid.subprocess, "run", lambda command: _finish(command, calls))
  rows = [{"label": name, "arguments": [f"--config=x:{name}"]} for name in ("A", "B")]
  _write(tmp_path / "grid.json", rows)
  arguments = ["two_stream", "--grid", tmp_path / "grid.json", "--seeds", 0, 1, "--gap", 3]
  arguments += ["--data", folder / "arm", "--out", tmp_path / "out", "--", "--config.x=1"]
  arguments = [str(a) for a in arguments]
  assert report.main(arguments) == 0
  assert len(calls) == 2 * (6 + 4)  # the first row also with random weights
  first = calls[0]
  assert first[3:6] == ["--config=x:A", "--config.x=1", "--config.seed=0"]
  found = json.loads((tmp_path / "out" / "report.json").read_text())
  assert found["runs"]["A"]["loss"] == [0.1, 0.16]
  random, mean = (found["runs"][name] for name in ("random weights", "mean action"))
  columns = [f"R2 position, {name}" for name in ("linear", "mlp", "attentive")]
  columns.append("R2 rotation, mlp")
  assert [name for name in random if name.startswith("R2")] == columns
  assert found["runs"]["B"]["R2 position, mlp, untrained"] == [0.1, 0.1]
  assert random[columns[0]] == [0.1, 0.1] and mean[columns[2]] == [-0.01, -0.01]
  assert found["runs"]["B"]["PSNR of copy"] == [25.0, 25.0]
  costs = found["costs"]["A"]
  assert costs["parameters"] > costs["encoder_parameters"] > 4000
  assert costs["step_seconds"] == 0.25 and found["instruction"] == "push"
  bars = ablation.read_rows(tmp_path / "out" / "bars.json")
  assert {"run": "B", "metric": found["runs"]["B"]} in bars
  text = (tmp_path / "out" / "report.md").read_text()
  for word in ("0.13000 ± 0.04243", "scripted expert", "25 ± 0", "copy last action"):
    assert word in text, word
  capsys.readouterr()
  assert report.main(arguments) == 0 and len(calls) == 20
  assert "B, seed 1: finished before" in capsys.readouterr().out
  with pytest.raises(checks.InputError, match=r"--seeds: \[1, 1\] repeat"):
    report.main([*arguments[:3], "--seeds", "1", "1", "--data", "x", "--out", "x"])
