"""launch.report, launch.plot waypoints and launch.convert vlm_waypoint, from files to files."""

import json
import sys

import cv2
import numpy as np
import pytest
import tiny_waypoints as tiny

from launch import convert, grid, plot, report, train
from vistraj_jax.convert import read_torch
from vistraj_jax.core import checks, trained, weights
from vistraj_jax.models.vlm_waypoint import network
from vistraj_jax.viz import trajectories

PLAIN = {
  "model.head.residual": False,
  "model.head.standardize": False,
  "model.head.normalize_features": False,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Features, and two runs on them."""
  folder = tmp_path_factory.mktemp("report")
  tiny.write_features(folder / "features")
  for name, changes in (("a", {}), ("b", {"seed": 1, **PLAIN})):
    config = tiny.config("features", folder / "features", **tiny.TINY, **changes)
    train.train(config, folder / name)
  return folder


def test_table_of_runs(runs, capsys):
  out = runs / "out"
  arguments = ["waypoints", "--runs", f"{runs / 'a'}:first", f"{runs / 'b'}", "--samples", "200"]
  assert report.main([*arguments, "--out", str(out)]) == 0
  printed = capsys.readouterr().out
  assert "19 frames of 4 sequences, 18 with a driven future, 5 rated" in printed
  text = (out / "report.md").read_text()
  for word in ("constant velocity", "stand still", "first", "2,712", "ADE@5s less that of first"):
    assert word in text, word
  found = json.loads((out / "report.json").read_text())
  logged = [json.loads(line) for line in (runs / "a" / "log.jsonl").read_text().splitlines()]
  best = min((r for r in logged if "loss/val" in r), key=lambda r: r["loss/val"])
  first = found["runs"]["first"]
  np.testing.assert_allclose(first["ade_5s"], best["ade_5s/val"], rtol=1e-5)
  np.testing.assert_allclose(
    found["runs"]["constant_turn_rate"]["ade_3s"], best["ade_3s/constant_turn_rate"], rtol=1e-5
  )
  assert first["peak_memory_gib"] > 0.05 and first["epoch_seconds"] > 0
  assert set(first["by_cluster"]) == {"Cyclist", "Others"} and 4 <= first["rfs"] <= 9
  gap = found["differences"]["b"]
  np.testing.assert_allclose(gap["mean"], found["runs"]["b"]["ade_5s"] - first["ade_5s"], rtol=1e-9)
  assert gap["low"] <= gap["mean"] <= gap["high"]
  with np.load(out / "frames.npz") as frames:
    assert frames["first/ade_5s"].shape == frames["name"].shape == (19,)
    np.testing.assert_allclose(np.nanmean(frames["first/ade_5s"]), first["ade_5s"])
  for name in ("horizon", "intents"):
    assert cv2.imread(str(out / f"{name}.png")).std() > 5


def test_grid_trains_what_is_missing(runs, tmp_path, monkeypatch, capsys):
  calls = []

  def training(command):
    calls.append(command)
    workdir = command[-1].removeprefix("--workdir=")
    changes = {"seed": len(calls)}
    train.train(tiny.config("features", runs / "features", **tiny.TINY, **changes), workdir)
    return type("Done", (), {"returncode": 0})

  monkeypatch.setattr(grid.subprocess, "run", training)
  rows = [{"label": "one, r16", "arguments": ["--config.x=1"]}, {"label": "two", "arguments": []}]
  (tmp_path / "grid.json").write_text(json.dumps(rows))
  arguments = ["grid", "--grid", tmp_path / "grid.json", "--out", tmp_path / "out"]
  arguments = [str(a) for a in (*arguments, "--samples", 50)]
  assert report.main(arguments) == 0 and len(calls) == 2
  assert calls[0][:4] == [sys.executable, "-m", "launch.train", "--config.x=1"]
  assert (tmp_path / "out" / "runs" / "one_r16" / "log.jsonl").is_file()
  capsys.readouterr()
  assert report.main(arguments) == 0 and len(calls) == 2
  assert "two: finished before" in capsys.readouterr().out
  rows[0]["arguments"] = ["--config.x=2"]
  (tmp_path / "grid.json").write_text(json.dumps(rows))
  with pytest.raises(checks.InputError, match="made with --config.x=1, now --config.x=2 is wanted"):
    report.main(arguments)


def test_layers(runs, tmp_path, monkeypatch, capsys):
  def training(command):
    layer = next(a for a in command if a.startswith("--config.data.layer=")).split("=")[1]
    assert "--config.seed=3" in command
    changes = {**tiny.TINY, "phases.head.steps": 8, "data.layer": int(layer)}
    config = tiny.config("features", runs / "features", **changes)
    train.train(config, command[-1].removeprefix("--workdir="))
    return type("Done", (), {"returncode": 0})

  monkeypatch.setattr(grid.subprocess, "run", training)
  arguments = ["layers", "--features", str(runs / "features"), "--out", str(tmp_path)]
  assert report.main([*arguments, "--", "--config.seed=3"]) == 0
  found = json.loads((tmp_path / "report.json").read_text())
  assert {"0", "1", "constant_velocity"} < set(found)
  # The second state holds the bend of the future, the first noise.
  assert found["1"]["ade_5s"] != found["0"]["ade_5s"]
  assert "constant velocity" in capsys.readouterr().out
  assert cv2.imread(str(tmp_path / "layers.png")).std() > 5


@pytest.mark.parametrize(
  "text, sentence",
  [("{", "no JSON"), ("{}", "a list of"), ('[{"label": "a", "arguments": []}]' * 1, None)],
)
def test_bad_grids(tmp_path, text, sentence):
  path = tmp_path / "grid.json"
  path.write_text(text)
  if sentence is None:
    assert grid.read(path)[0]["label"] == "a"
    path.write_text(json.dumps(json.loads(text) * 2))
    sentence = "labels repeat"
  with pytest.raises(checks.InputError, match=sentence):
    grid.read(path)


def test_runs_on_other_frames(runs, tmp_path):
  tiny.write_features(tmp_path / "features")
  (runs / "other").mkdir()
  with pytest.raises(checks.InputError, match="neither the folder of a run"):
    report.main(["waypoints", "--runs", str(runs / "other"), "--out", str(tmp_path / "out")])
  with pytest.raises(checks.InputError, match="empty label or one that is taken"):
    report.main(["waypoints", "--runs", str(runs / "a"), str(runs / "a"), "--out", str(tmp_path)])


def test_plot_of_waypoints(tmp_path, capsys):
  data = tiny.write_images(tmp_path)
  head = {k: v for k, v in tiny.TINY.items() if k != "eval_batch_size"}
  train.train(tiny.config("ego_only", data, **head), tmp_path / "run")
  arguments = ["waypoints", "--data", data, "--runs", f"{tmp_path / 'run'}:ego", "--count", 2]
  assert plot.main([str(a) for a in (*arguments, "--out", tmp_path / "w.png")]) == 0
  picture = cv2.imread(str(tmp_path / "w.png"))
  assert picture.shape[0] > 800 and picture.std() > 10
  assert "(2 frames, 1 runs)" in capsys.readouterr().out
  with pytest.raises(checks.InputError, match="'x-1'. are not in split 'val'"):
    plot.main([str(a) for a in (*arguments, "--out", tmp_path / "w.png", "--names", "x-1")])


def test_projection_by_hand():
  """A camera 2 m above the ground that looks along the ego's +x."""
  pose = np.eye(4)
  pose[:3, 3] = 1, 0, 2
  calibration = np.concatenate([[1000, 1000, 500, 400, 0, 0, 0, 0, 0], pose.ravel()])
  pixels, in_front = trajectories.project([[11, 0], [11, 1], [0, 0]], calibration)
  np.testing.assert_allclose(pixels[:2], [[500, 600], [400, 600]])
  assert in_front.tolist() == [True, True, False]
  calibration[4] = 0.1  # radial distortion: 1 + 0.1 r2
  pixels, _ = trajectories.project([[11, 1]], calibration)
  scale = 1 + 0.1 * (0.1**2 + 0.2**2)
  np.testing.assert_allclose(pixels, [[500 - 100 * scale, 400 + 200 * scale]])


def test_head_to_torch_and_back(runs, tmp_path, capsys):
  out = tmp_path / "head.ckpt"
  arguments = ["vlm_waypoint", "--checkpoint", str(runs / "b")]
  assert convert.main([*arguments, "--to", "torch", "--out", str(out)]) == 0
  state = read_torch.read_checkpoint(out)["state_dict"]
  assert state["model.waypoint_head.0.weight"].shape == (16, 6 + 99)
  assert set(state) == {
    f"model.waypoint_head.{i}.{kind}" for i in (0, 1, 4, 5, 8) for kind in ("weight", "bias")
  }
  back = tmp_path / "head.safetensors"
  convert.main(["vlm_waypoint", "--checkpoint", str(out), "--out", str(back)])
  assert "head 'mlp', 2,712 parameters" in capsys.readouterr().out
  first, second = trained.load(runs / "b")[0], trained.load(back)[0]
  for name, value in weights.flatten(first).items():
    np.testing.assert_array_equal(weights.flatten(second)[name], value)
  batch = {
    "features": np.ones((3, 6), np.float32),
    "past": np.ones((3, 16, 6), np.float32),
    "intent": np.array([0, 1, 3]),
  }
  ours, again = (network.make_predict(*network.load(p))(batch).xy for p in (runs / "b", back))
  np.testing.assert_array_equal(ours, again)


def test_heads_that_torch_does_not_know(runs, tmp_path):
  with pytest.raises(checks.InputError, match="trained with .'residual', 'standardize'"):
    convert.main(
      [
        "vlm_waypoint",
        "--to",
        "torch",
        "--checkpoint",
        str(runs / "a"),
        "--out",
        str(tmp_path / "x"),
      ]
    )
  with pytest.raises(checks.InputError, match="holds no low-rank update"):
    convert.main(
      ["vlm_waypoint", "--to", "adapter", "--checkpoint", str(runs / "a"), "--out", str(tmp_path)]
    )
