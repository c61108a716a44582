"""The train loop on tiny data: freezing, exact resume after stops and kills, and its sentences."""

import errno
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import tiny_run

from launch import command_line, train
from vistraj_jax.core import checks, trained, weights
from vistraj_jax.data import pipeline
from vistraj_jax.train import checkpoint, loop

REPO = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return tiny_run.write_tracks(tmp_path_factory.mktemp("tracks"))


@pytest.fixture(scope="module")
def uninterrupted(root, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  summary = train.train(tiny_run.config(root), workdir)
  return workdir, summary


def _best(workdir, phase):
  return weights.flatten(trained.load_best(workdir / phase))


def _rows(workdir):
  return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def _assert_equal(first, second):
  for phase in ("decoder", "full"):
    a, b = _best(first, phase), _best(second, phase)
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)
  timed = ("time", "steps/s", "examples/s")
  strip = lambda rows: [{k: v for k, v in r.items() if k not in timed} for r in rows]  # noqa: E731
  assert strip(_rows(first)) == strip(_rows(second))


def test_two_phases(root, uninterrupted, tmp_path):
  workdir, summary = uninterrupted
  assert list(summary) == ["decoder", "full"]
  assert summary["full"]["offset"] == summary["decoder"]["step"] == 12
  start = tiny_run.config(root)
  from vistraj_jax.tasks import base

  first = weights.flatten(base.make(start).init(jax.random.PRNGKey(start.seed))["params"])
  after, last = _best(workdir, "decoder"), _best(workdir, "full")
  for name in first:
    if name.startswith("encoder/"):
      np.testing.assert_array_equal(after[name], np.asarray(first[name]), err_msg=name)
  assert any((after[n] != np.asarray(first[n])).any() for n in first if n.startswith("decoder/"))
  assert any((last[n] != after[n]).any() for n in first if n.startswith("encoder/"))
  rows = _rows(workdir)
  assert [r["phase"] for r in rows if "loss/val" in r] == ["decoder"] * 3 + ["full"] * 3
  trained_rows = [r for r in rows if "loss/train" in r]
  assert [r["step"] for r in trained_rows] == [4, 8, 12, 16, 20, 24]
  wanted = {"lr/encoder", "lr/decoder", "steps/s", "examples/s", "grad_norm"}
  assert wanted <= trained_rows[-1].keys()
  assert {"iou/val", "iou/identity", "iou/constant_velocity"} <= rows[0].keys()
  assert json.loads((workdir / "config.json").read_text())["model"]["width"] == 16


def test_tensorboard_has_the_same_scalars(uninterrupted):
  accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
  workdir, _ = uninterrupted
  seen = {}
  for file in sorted((workdir / "tensorboard").iterdir()):
    events = accumulator.EventAccumulator(str(file)).Reload()
    if "loss/val" in events.Tags()["scalars"]:
      seen |= {e.step: e.value for e in events.Scalars("loss/val")}
  logged = {r["step"]: r["loss/val"] for r in _rows(workdir) if "loss/val" in r}
  assert seen.keys() == logged.keys()
  np.testing.assert_allclose([seen[k] for k in logged], list(logged.values()), rtol=1e-6)


def test_a_finished_run_is_left_alone(root, uninterrupted):
  workdir, summary = uninterrupted
  before = _rows(workdir)
  again = train.train(tiny_run.config(root), workdir)
  assert _rows(workdir) == before
  assert again["full"]["best_step"] == summary["full"]["best_step"]
  assert again["full"]["loss/val"] == summary["full"]["loss/val"]


def _interrupt(monkeypatch, at, how):
  """Calls `how` when training batch number `at` of a process is read."""
  original, counter = pipeline.batches, [0]

  def batches(*args, **kwargs):
    dataset = original(*args, **kwargs)
    return _Counted(dataset, counter, at, how) if kwargs["train"] else dataset

  monkeypatch.setattr(pipeline, "batches", batches)


class _Counted:
  def __init__(self, dataset, counter, at, how):
    self.dataset, self.counter, self.at, self.how = dataset, counter, at, how

  def __iter__(self):
    self.iterator = iter(self.dataset)
    self.get_state, self.set_state = self.iterator.get_state, self.iterator.set_state
    return self

  def __next__(self):
    self.counter[0] += 1
    if self.counter[0] == self.at:
      self.how()
    return next(self.iterator)


class _Crash(BaseException):
  pass


def _crash():
  raise _Crash


@pytest.mark.parametrize("kind", ["sigterm", "crash"])
def test_interrupted_at_random_steps(root, uninterrupted, tmp_path, monkeypatch, kind):
  randomness = random.Random(kind)
  workdir, stops = tmp_path / "run", 0
  while True:
    with monkeypatch.context() as patch:
      if stops < 3:
        if kind == "sigterm":
          how = lambda: os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
        else:
          how = _crash
        _interrupt(patch, randomness.randint(1, 14), how)
      try:
        train.train(tiny_run.config(root), workdir)
        break
      except loop.Interrupted as interrupted:
        assert "the same command goes on from there" in str(interrupted)
      except _Crash:
        pass
    stops += 1
  assert stops >= 2
  _assert_equal(uninterrupted[0], workdir)


def test_killed_process_resumes_bit_equal(root, uninterrupted, tmp_path, compilation_cache):
  workdir = tmp_path / "run"
  command = [
    sys.executable,
    "-c",
    "import sys, jax; sys.path.insert(0, 'tests'); import tiny_run; from launch import train;"
    "jax.config.update('jax_default_matmul_precision', 'highest');"
    f"jax.config.update('jax_compilation_cache_dir', {str(compilation_cache)!r});"
    "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2);"
    f"train.train(tiny_run.config({str(root)!r}), {str(workdir)!r})",
  ]
  process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL)
  log, at = workdir / "log.jsonl", random.Random(1).randint(3, 6)
  while process.poll() is None and (not log.exists() or log.read_text().count("\n") < at):
    time.sleep(0.01)
  process.kill()
  process.wait()
  subprocess.run(command, cwd=REPO, check=True, stderr=subprocess.DEVNULL)
  _assert_equal(uninterrupted[0], workdir)


def test_loss_that_is_not_finite(root, tmp_path):
  with pytest.raises(checks.InputError, match=r"phase 'decoder', step \d+: \S+ is (nan|inf)"):
    changes = {"phases.decoder.lr.decoder": 1e30, "model.box_sigmoid": False}
    train.train(tiny_run.config(root, **changes), tmp_path / "run")
  assert trained.load_best(tmp_path / "run" / "decoder")  # the last good weights are there
  kept = [p.name for p in (tmp_path / "run" / "decoder" / "latest").iterdir()]
  assert kept == ["0"]


def test_second_phase_alone_needs_the_first(root, tmp_path):
  with pytest.raises(checks.InputError, match=r"start_from: 'best' received, but .*decoder has no"):
    train.train(tiny_run.config(root, run="full"), tmp_path / "run")


def test_phases_run_one_by_one_give_the_same_weights(root, uninterrupted, tmp_path):
  workdir = tmp_path / "run"
  train.train(tiny_run.config(root, run="decoder"), workdir)
  train.train(tiny_run.config(root, run="full"), workdir)
  a, b = _best(uninterrupted[0], "full"), _best(workdir, "full")
  for name in a:
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_folder_of_another_run(root, uninterrupted):
  with pytest.raises(checks.InputError, match=r"seed was 0, is 7\); choose another --workdir"):
    train.train(tiny_run.config(root, seed=7), uninterrupted[0])


def test_early_stop_keeps_the_start(root, tmp_path):
  """With a rate of 0 nothing improves: the phase stops when patience ends, and keeps step 0."""
  changes = {"phases.decoder.lr.decoder": 0.0, "phases.decoder.patience": 1, "run": "decoder"}
  summary = train.train(tiny_run.config(root, **changes), tmp_path / "run")
  assert summary["decoder"]["best_step"] == 0
  assert summary["decoder"]["step"] == 8


def test_start_from_weights_file(root, uninterrupted, tmp_path):
  config = tiny_run.config(root)
  params, settings = trained.load(uninterrupted[0])
  path = tmp_path / "w.safetensors"
  weights.save_weights(path, params, "trackssm", settings)
  changes = {"init.checkpoint": str(path), "run": "decoder", "phases.decoder.lr.decoder": 0.0}
  train.train(tiny_run.config(root, **changes), tmp_path / "run")
  got = _best(tmp_path / "run", "decoder")
  for name, value in weights.flatten(params).items():
    np.testing.assert_array_equal(got[name], value)
  changes["model.box_sigmoid"] = False
  with pytest.raises(checks.InputError, match="with box_sigmoid=True, .*set --config.model.box_s"):
    train.train(tiny_run.config(root, **changes), tmp_path / "linear")
  del params["encoder"]["norm_f"], changes["model.box_sigmoid"]
  params["encoder"]["layer0"]["norm"]["scale"] = np.ones(5, np.float32)
  params["extra"] = np.ones(1, np.float32)
  weights.save_weights(path, params, "trackssm", settings)
  sentence = (
    r"missing \['encoder/norm_f/scale'\], extra \['extra'\], misshapen "
    r"\['encoder/layer0/norm/scale \(5,\) instead of \(16,\)'\]"
  )
  with pytest.raises(checks.InputError, match=sentence):
    train.train(tiny_run.config(root, **changes), tmp_path / "other")
  del config


def test_a_refused_run_starts_again_with_other_settings(root, tmp_path):
  with pytest.raises(checks.InputError, match="nowhere"):
    train.train(tiny_run.config(root, **{"init.checkpoint": "nowhere"}), tmp_path / "run")
  assert (tmp_path / "run" / "config.json").is_file()
  train.train(tiny_run.config(root, run="decoder"), tmp_path / "run")


def test_moving_average(root, tmp_path):
  summary = train.train(tiny_run.config(root, ema_decay=0.5, run="decoder"), tmp_path / "run")
  assert np.isfinite(summary["decoder"]["loss/val"])
  plain = train.train(tiny_run.config(root, run="decoder"), tmp_path / "plain")
  a, b = _best(tmp_path / "run", "decoder"), _best(tmp_path / "plain", "decoder")
  name = "decoder/head0/normal_bboxes/kernel"
  assert (a[name] != b[name]).any()
  np.testing.assert_allclose(a[name], b[name], atol=0.05)
  del plain


@pytest.mark.parametrize(
  "arguments, sentence",
  [
    (["--config.phases.full.lr_encoder=1"], "no setting 'config.phases.full.lr_encoder'; nearest"),
    (
      ["--config.phases.fulll.steps=1"],
      "'config.phases.fulll.steps'; nearest: ['config.phases.",
    ),
    (["--config.seed=x"], "invalid literal"),
    (["--confg=3"], "Unknown command line flag 'confg'"),
  ],
)
def test_misspelt_flags(arguments, sentence):
  command = [sys.executable, "-m", "launch.train", "--config=configs/trackssm.py:smoke", *arguments]
  done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
  assert done.returncode == 1 and sentence in done.stderr.strip().splitlines()[-1]
  assert "Traceback" not in done.stderr


def test_full_disk_while_saving(root, uninterrupted, tmp_path, monkeypatch, capsys):
  original, calls = checkpoint.Checkpoints.save_latest, []

  def save(self, *args):
    calls.append(1)
    if len(calls) == 3:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "run"))
    return original(self, *args)

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint.Checkpoints, "save_latest", save)
    with pytest.raises(SystemExit) as exit_:
      command_line.run(lambda: train.train(tiny_run.config(root), tmp_path / "run"))
  assert exit_.value.code == f"error: {tmp_path / 'run'}: No space left on device."
  train.train(tiny_run.config(root), tmp_path / "run")
  _assert_equal(uninterrupted[0], tmp_path / "run")
