"""Waypoint training on tiny data: cached features, images, LoRA, several proposals, resuming."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import test_configs
import tiny_waypoints as tiny

from launch import convert, train
from vistraj_jax.core import checks, trained, weights
from vistraj_jax.models.vlm_waypoint import network
from vistraj_jax.tasks import base
from vistraj_jax.train import loop

REPO = pathlib.Path(__file__).parents[1]
TOWER = dict(hidden_size=16, depth=2, num_heads=2, mlp_width=16, image_size=28, processor_edge=0)
IMAGES = {
  **tiny.TINY,
  "model.encoder.fields": TOWER,
  "model.encoder.dtype": "float32",
  "eval_batch_size": 8,
}


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
  return tiny.write_features(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
  return tiny.write_images(tmp_path_factory.mktemp("images"))


def _best(workdir, phase="head"):
  return weights.flatten(trained.load_best(workdir / phase))


def _assert_equal(first, second):
  assert first.keys() == second.keys()
  for name in first:
    np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture(scope="module")
def resident_run(cached, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "resident"
  return workdir, train.train(tiny.config("features", cached, **tiny.TINY), workdir)


def test_resident_data_gives_the_same_bits(cached, resident_run, tmp_path):
  workdir, summary = resident_run
  changes = {**tiny.TINY, "data.resident": False}
  other = train.train(tiny.config("features", cached, **changes), tmp_path / "run")
  _assert_equal(_best(workdir), _best(tmp_path / "run"))
  assert summary == other
  keep = lambda rows: [  # noqa: E731
    {k: v for k, v in json.loads(r).items() if k not in ("time", "steps/s", "examples/s")}
    for r in rows.splitlines()
  ]
  logs = [(folder / "log.jsonl").read_text() for folder in (workdir, tmp_path / "run")]
  assert keep(logs[0]) == keep(logs[1])


def test_metrics_are_those_of_numpy(cached, resident_run):
  """The whole chain once more by hand: weights from disk, features from files, float64 means."""
  workdir, summary = resident_run
  columns, _ = tiny.states(19, 1)
  config = tiny.config("features", cached, **tiny.TINY)
  from vistraj_jax.data import waymo_e2e
  from vistraj_jax.metrics import displacement, ego_motion

  batch = waymo_e2e.load(config.data, "val", config.model).gather(np.arange(19))
  predict = network.make_predict(*network.load(workdir))
  xy = predict({name: batch[name] for name in ("features", "past", "intent")}).selected
  kept = columns["has_future"] > 0
  assert kept.sum() == 18
  wanted = {
    "loss/val": displacement.ade(xy, columns["future"], 5.0)[kept].mean(),
    "ade_3s/val": displacement.ade(xy, columns["future"], 3.0)[kept].mean(),
    "fde_5s/val": displacement.fde(xy, columns["future"])[kept].mean(),
    "ade_5s/constant_velocity": displacement.ade(
      ego_motion.constant_velocity(columns["past"]), columns["future"], 5.0
    )[kept].mean(),
    "ade_5s_by_intent/left": displacement.ade(xy, columns["future"], 5.0)[
      kept & (columns["intent"] == 2)
    ].mean(),
  }
  for name, value in wanted.items():
    np.testing.assert_allclose(summary["head"][name], value, rtol=1e-5, err_msg=name)
  assert "ade_5s_by_intent/unknown" not in summary["head"]  # no such frame


def test_the_start_is_constant_velocity(resident_run):
  workdir, _ = resident_run
  first = json.loads((workdir / "log.jsonl").read_text().splitlines()[0])
  np.testing.assert_allclose(first["ade_5s/val"], first["ade_5s/constant_velocity"], rtol=1e-6)


def test_vision_beats_ego_where_the_future_is_seen(cached, tmp_path):
  """The first feature says how the future bends: only a head that reads it can know."""
  changes = {
    **tiny.TINY,
    "phases.head.steps": 300,
    "eval_every": {"steps": 100},
    "steps_per_call": 50,
    "phases.head.lr.head": 1e-2,
    "model.head.width": 32,
    "model.head.dropout": 0.0,
    "optimizer.weight_decay": 0.0,
  }
  scores = {}
  for name in (0, -1):
    config = tiny.config("features", cached, **changes, **{"data.layer": name})
    scores[name] = train.train(config, tmp_path / str(name))["head"]["ade_5s/val"]
  baseline = json.loads((tmp_path / "0" / "log.jsonl").read_text().splitlines()[0])
  # Layer 0 is noise.
  assert scores[-1] < 0.75 * baseline["ade_5s/constant_velocity"] < scores[0]


def test_interrupted_training_goes_on_bit_equal(cached, resident_run, tmp_path, monkeypatch):
  calls = []
  original = loop._check_finite

  def stop_once(*args):
    original(*args)
    calls.append(1)
    if len(calls) == 3:
      os.kill(os.getpid(), 15)

  monkeypatch.setattr(loop, "_check_finite", stop_once)
  config = tiny.config("features", cached, **tiny.TINY)
  with pytest.raises(loop.Interrupted):
    train.train(config, tmp_path / "run")
  train.train(config, tmp_path / "run")
  assert len(calls) == 4
  _assert_equal(_best(resident_run[0]), _best(tmp_path / "run"))


@pytest.mark.parametrize("head", ["linear", "anchors"])
def test_other_heads_on_vectors(cached, tmp_path, head):
  changes = dict(tiny.TINY)
  if head == "linear":
    del changes["model.head.width"]
  else:
    np.save(tmp_path / "anchors.npy", tiny.states(30, 0)[0]["future"])
    changes |= {"model.head.anchors": str(tmp_path / "anchors.npy"), "model.head.num_anchors": 30}
  summary = train.train(tiny.config(f"features,{head}", cached, **changes), tmp_path / "run")
  assert np.isfinite(summary["head"]["loss/val"])
  if head == "anchors":
    assert summary["head"]["ade_5s/oracle"] < summary["head"]["ade_5s/val"]


def test_ego_only_reads_no_features(images, tmp_path):
  config = tiny.config("ego_only", images, **tiny.TINY)
  train.train(config, tmp_path / "run")
  assert _best(tmp_path / "run")["head/fc0/kernel"].shape == (99, 16)


def test_images_with_a_frozen_encoder(images, tmp_path):
  config = tiny.config("image", images, **IMAGES)
  summary = train.train(config, tmp_path / "run")
  params = _best(tmp_path / "run")
  assert all(name.startswith("head/") for name in params)  # checkpoints do not hold the encoder
  assert params["head/fc0/kernel"].shape == (16 + 96 + 3, 16)
  # The prediction from the run folder needs no more than the batch.
  about = json.loads((tmp_path / "run" / "data_set.json").read_text())
  net, params = network.load(tmp_path / "run")
  from vistraj_jax.data import waymo_e2e

  batch = waymo_e2e.load(config.data, "val", config.model).gather(np.arange(9))
  batch = {name: batch[name] for name in ("image", "past", "intent")}
  assert network.make_predict(net, params)(batch).selected.shape == (9, 20, 2)
  assert about["train"]["shapes"]["image"] == [28, 28, 3]
  assert summary["head"]["step"] == 16


@pytest.mark.parametrize("head", ["attention", "proposals"])
def test_heads_on_tokens(images, tmp_path, head):
  changes = {**IMAGES, "phases.head.steps": 4}
  del changes["model.head.width"]
  if head == "proposals":
    changes |= {
      "model.head.num_proposals": 6,
      "model.head.num_blocks": 1,
      "model.head.num_heads": 2,
      "loss.scorer": "margin",
      "loss.rater_feedback": 0.5,
    }
  config = tiny.config(f"image,{head}", images, **changes)
  summary = train.train(config, tmp_path / "run")["head"]
  if head == "proposals":
    assert summary["ade_5s/oracle"] < summary["ade_5s/val"]
    rows = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    terms = {"loss/ade/train", "loss/scorer/train", "loss/rater_feedback/train"}
    assert terms <= json.loads(rows[1]).keys()


def test_every_setting_of_cached_features_is_read(cached, tmp_path):
  config = tiny.config("features", cached, **{**tiny.TINY, "phases.head.steps": 4})
  read = set()
  train.train(test_configs._Watched(config, "", read), tmp_path / "run")
  # The encoder's folder is all there is to read; the data set itself is not needed.
  assert set(test_configs._leaves(config)) - read == set()


@pytest.fixture(scope="module")
def lora_run(images, tmp_path_factory):
  """A run of both phases, and the settings that it did not read."""
  workdir = tmp_path_factory.mktemp("runs") / "lora"
  changes = {
    **IMAGES,
    "model.lora.rank": 2,
    "model.lora.last_n": 1,
    "phases.lora.epochs": None,
    "phases.lora.steps": 8,
    "phases.lora.batch_size": 8,
    "phases.lora.warmup_steps": 1,
    "phases.lora.lr": dict(head=1e-3, lora=1e-2),
  }
  config = tiny.config("lora", images, **changes)
  read = set()
  summary = train.train(test_configs._Watched(config, "", read), workdir)
  return config, workdir, summary, set(test_configs._leaves(config)) - read


def test_lora_trains_the_update_and_the_head_alone(lora_run):
  config, workdir, summary, unread = lora_run
  assert unread == set()
  task = base.make(config, json.loads((workdir / "data_set.json").read_text()))
  first = weights.flatten(task.init(jax.random.PRNGKey(config.seed))["params"])
  after, last = _best(workdir, "head"), _best(workdir, "lora")
  adapted = [name for name in first if name.startswith("lora/")]
  assert {name.split("/")[1] for name in adapted} == {"layer1"} and len(adapted) == 8
  for name in adapted:
    np.testing.assert_array_equal(after[name], np.asarray(first[name]), err_msg=name)
  assert all((last[name] != after[name]).any() for name in adapted)
  assert any((last[n] != after[n]).any() for n in last if n.startswith("head/"))
  assert set(last) == set(adapted) | {n for n in first if n.startswith("head/")}
  assert summary["lora"]["offset"] == 16


def test_adapter_out_and_in_again(lora_run, images, tmp_path):
  """The public format: a run's update leaves, and another run starts from it."""
  _, workdir, _, _ = lora_run
  folder = tmp_path / "adapter"
  arguments = ["vlm_waypoint", "--to", "adapter", "--checkpoint", str(workdir)]
  assert convert.main([*arguments, "--out", str(folder)]) == 0
  start = {**IMAGES, "model.lora.rank": 2, "model.lora.adapter": str(folder)}
  config = tiny.config("lora", images, **start)
  about = json.loads((workdir / "data_set.json").read_text())
  params = base.make(config, about).init(jax.random.PRNGKey(0))["params"]
  trained_update = trained.load_best(workdir / "lora")["lora"]
  _assert_equal(weights.flatten(params["lora"]), weights.flatten(trained_update))
  for changes, sentence in (
    ({"model.lora.rank": 4}, "an adapter of rank 2, wanted is rank 4"),
    ({"model.lora.alpha": 9.0}, "alpha: 9 received, .* was trained with 4; set it"),
  ):
    other = tiny.config("lora", images, **{**start, **changes})
    with pytest.raises(checks.InputError, match=sentence):
      base.make(other, about).init(jax.random.PRNGKey(0))


def test_frozen_encoder_is_bit_identical_after_training(images, monkeypatch, tmp_path):
  """The arrays on the devices, taken out of the running loop."""
  seen = []
  original = loop._PhaseRun._train

  def keep(self, *args):
    seen.append(jax.tree.map(np.array, self.fixed["train"].task))
    original(self, *args)
    seen.append(jax.tree.map(np.array, self.fixed["train"].task))

  monkeypatch.setattr(loop._PhaseRun, "_train", keep)
  train.train(tiny.config("image", images, **IMAGES), tmp_path / "run")
  before, after = (weights.flatten(tree) for tree in seen)
  assert len(before) > 20
  _assert_equal(before, after)


def test_scratch_trains_the_encoder_and_others_can_use_it(images, tmp_path):
  train.train(tiny.config("smoke", images), tmp_path / "scratch")
  changes = {
    **IMAGES,
    "phases.head.steps": 4,
    "model.encoder.fields": dict(
      hidden_size=16, depth=1, num_heads=2, mlp_width=16, image_size=28, processor_edge=0
    ),
    "model.encoder.checkpoint": str(tmp_path / "scratch"),
  }
  config = tiny.config("image", images, **changes)
  train.train(config, tmp_path / "frozen")
  learned = trained.load_best(tmp_path / "scratch" / "head")["encoder"]
  fixed = network.load(tmp_path / "frozen")[0].fixed()["encoder"]
  _assert_equal(weights.flatten(learned), weights.flatten(fixed))


@pytest.mark.slow
def test_devices_draw_the_same_dropout(cached, images, tmp_path):
  """jit over 8 devices, pmap and one device: dropout, resident data and a frozen encoder."""
  runs = [("features", str(cached), "jit"), ("features", str(cached), "pmap")]
  runs.append(("image", str(images), "pmap"))
  code = (
    "import sys; sys.path.insert(0, 'tests'); import test_vlm_waypoint as t\n"
    f"for run in {runs!r}: t.train_few_steps(*run, {str(tmp_path)!r})"
  )
  flags = "--xla_force_host_platform_device_count=8"
  environment = {
    **os.environ,
    "XLA_FLAGS": flags,
    "JAX_PLATFORMS": "cpu",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    "PYTHONPATH": str(REPO),
  }
  subprocess.run(
    [sys.executable, "-c", code], cwd=REPO, env=environment, check=True, stderr=subprocess.DEVNULL
  )
  for name, folder, parallel in runs:
    one = train_few_steps(name, folder, "jit", tmp_path / parallel)
    for leaf, value in _best(tmp_path / f"{parallel}_{name}").items():
      np.testing.assert_allclose(value, one[leaf], rtol=1e-4, atol=2e-5, err_msg=leaf)


def train_few_steps(name, folder, parallel, out):
  """Trains 8 steps in out/<parallel>_<name>; eps keeps Adam from dividing rounding noise."""
  changes = {
    **(IMAGES if name == "image" else tiny.TINY),
    "parallel": parallel,
    "phases.head.steps": 8,
    "optimizer.eps": 1e-2,
  }
  workdir = pathlib.Path(out) / f"{parallel}_{name}"
  train.train(tiny.config(name, folder, **changes), workdir)
  return _best(workdir)


@pytest.mark.parametrize(
  "variant, changes, sentence",
  [
    ("features", {"model.head.name": "mpl"}, "config.model.head.name: 'mpl' is not allowed"),
    ("features", {"model.head.name": "linear"}, "name 'linear'.: 'dropout' is not allowed"),
    ("features", {"augment.flip_prob": 0.5}, "cached features cannot be mirrored"),
    ("features", {"data.layer": 7}, "layer of the features: 7 is not allowed"),
    ("features", {"model.features.encoder": "other"}, "encoder is 'tiny', wanted 'other'"),
    ("features,attention", {}, "'attention' reads image tokens, and the data holds none"),
    ("features,anchors", {"model.head.anchors": "none.npy"}, "none.npy: no vocabulary of futures"),
  ],
)
def test_sentences(cached, tmp_path, variant, changes, sentence):
  base_changes = dict(tiny.TINY)
  if "attention" in variant:
    del base_changes["model.head.width"]
  with pytest.raises(checks.InputError, match=sentence):
    train.train(tiny.config(variant, cached, **base_changes, **changes), tmp_path / "run")


def test_lora_needs_a_frozen_encoder(images, tmp_path):
  config = tiny.config("lora", images, **IMAGES, **{"model.encoder.frozen": False})
  with pytest.raises(checks.InputError, match="LoRA adapts a frozen encoder"):
    train.train(config, tmp_path / "run")
