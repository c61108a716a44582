"""launch.report magvit: rows, seeds, training and test sets, tables; done work stays."""

import argparse
import json
import pathlib

import jax
import magvit_runs
import pytest

from configs import magvit as config_file
from launch import grid, report
from vistraj_jax.core import checks, weights
from vistraj_jax.models.magvit import frozen
from vistraj_jax.nn import initializers

SCORES = ("psnr", "iou", "centre_error", "mse_target")
PREDICTORS = ("predicted", "ceiling", "black", "copy_last", "straight_line")


def _finish(command, calls):
  """Stands for a process of the report: writes what its command would."""
  calls.append(command)
  out = pathlib.Path(command[-1].removeprefix("--workdir="))
  out.mkdir(parents=True, exist_ok=True)
  if command[2] == "launch.train":
    (out / "resources.json").write_text("{}")
    return argparse.Namespace(returncode=0)
  tests = [x.rpartition(":")[2] for x in command[command.index("--data") + 1 : -4]]
  for place, name in enumerate(tests):
    scores = {p: dict.fromkeys(SCORES, len(calls) + 10 * place) for p in PREDICTORS}
    scores["black"]["centre_error"] = None
    (out / f"{name}.json").write_text(json.dumps({"windows": 1234, "scores": scores}))
  (out / "scores.md").write_text("")
  return argparse.Namespace(returncode=0)


def test_report(tmp_path, monkeypatch, capsys):
  calls = []
  monkeypatch.setattr(grid.subprocess, "run", lambda command: _finish(command, calls))
  for name in ("clean", "heavy"):
    (tmp_path / name).mkdir()
  data = [f"{tmp_path}/clean", f"{tmp_path}/heavy:cluttered"]
  arguments = ["magvit", "--variants", "full", "tokens", "--seeds", "0", "1", "--train", data[0]]
  arguments += ["--test", *data, "--out", str(tmp_path / "out"), "--", "--config.x=1"]
  assert report.main(arguments) == 0
  # A tokenizer a seed; two rows of two seeds are trained and scored.
  assert len(calls) == 2 + 2 * 2 * 2
  tokenizer, first = calls[0], calls[1]
  assert tokenizer[3] == "--config=configs/magvit_tokenizer.py"
  assert f"--config.data.root={tmp_path}/clean" in tokenizer and "--config.seed=0" in tokenizer
  assert first[3] == "--config=configs/magvit.py:full" and "--config.x=1" in first
  workdir = tokenizer[-1].removeprefix("--workdir=")
  assert f"--config.model.tokenizer.checkpoint={workdir}" in first
  found = json.loads((tmp_path / "out" / "report.json").read_text())
  assert found["runs"]["clean"]["latents"]["cluttered"]["psnr"] == [13, 16]
  text = (tmp_path / "out" / "report.md").read_text()
  for word in (
    "| run | trained on | clean (n = 1,234) | cluttered (n = 1,234) |",
    "| codes, masked generation | clean | 9.00 ± 1.41 | 19.00 ± 1.41 |",
    "| straight line | - |",
    "| black | - | - | - |",
  ):
    assert word in text, word
  capsys.readouterr()
  assert report.main(arguments) == 0 and len(calls) == 10
  assert "latents, trained on clean, seed 1: finished before" in capsys.readouterr().out


def test_refusals(tmp_path):
  common = ["magvit", "--out", str(tmp_path)]
  with pytest.raises(checks.InputError, match=r"--seeds: \[1, 1\] repeat"):
    report.main([*common, "--seeds", "1", "1"])
  same = [str(tmp_path), str(tmp_path)]
  with pytest.raises(checks.InputError, match="--train: two data sets are called "):
    report.main([*common, "--train", *same])


@pytest.mark.slow
def test_report_by_real_processes(tmp_path):
  videos = magvit_runs.videos(tmp_path)
  settings = dict(config_file.get_config("smoke").model.tokenizer)
  params = initializers.init(frozen.make(settings), jax.random.PRNGKey(0))
  tokenizer = tmp_path / "w.safetensors"
  weights.save_weights(tokenizer, jax.device_get(params), frozen.SYSTEM, settings)
  row = {"label": "small", "arguments": ["--config=configs/magvit.py:smoke"]}
  (tmp_path / "grid.json").write_text(json.dumps([row]))
  arguments = ["--grid", tmp_path / "grid.json", "--tokenizer", tokenizer, "--split", "val"]
  arguments += ["--frames", 5, "--image_size", 16, "--out", tmp_path / "out"]
  for option in ("--train", "--test"):
    arguments += [option, f"{videos}:tiny"]
  assert report.main(["magvit", *map(str, arguments)]) == 0
  assert "| small | tiny | " in (tmp_path / "out" / "report.md").read_text()
