"""launch.encode: features of a small prepared data set, resumed, refused, on every device."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import waymo_shards

from launch import encode
from vistraj_jax import encoders
from vistraj_jax.convert import adapters, pretrained
from vistraj_jax.core import checks
from vistraj_jax.data import features, waymo_e2e
from vistraj_jax.encoders import weights
from vistraj_jax.nn import lora
from vistraj_jax.prepare.waymo_e2e import convert

FIELDS = {"hidden_size": 16, "depth": 2, "num_heads": 2, "mlp_width": 16, "image_size": 28}
SET = [f"{name}={value}" for name, value in FIELDS.items()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("waymo")
  frames = [waymo_shards.frame("a" * 32, i) for i in range(11)]
  payloads = [waymo_shards.payload(frame, i) for i, frame in enumerate(frames)]
  waymo_shards.write(folder / "source", "val", [payloads])
  convert.prepare(folder / "source", folder / "data", size=32)
  return folder / "data"


def _arguments(data, out, *more, checkpoint="random:3", dtype="float32"):
  fixed = ["--data", data, "--out", out, "--encoder", "smolvlm_tower", "--set", *SET]
  fixed += ["--checkpoint", checkpoint, "--split", "val", "--dtype", dtype, "--stored", "float32"]
  return [str(a) for a in (*fixed, "--batch_size", 4, "--shard_frames", 4, *more)]


def _expected(data, layers, params=None):
  encoder = encoders.make("smolvlm_tower", **FIELDS)
  if params is None:
    params = encoder.init(jax.random.PRNGKey(3))
  cfg = {"root": str(data), "visual": "image", "camera": "FRONT", "image_size": 0}
  images = waymo_e2e.load(cfg, "val", {}).gather(np.arange(11))["image"]
  assert images.shape == (11, 32, 32, 3)
  return encoder.encode(params, images, layers=layers)


def test_features_of_all_layers(data, tmp_path, capsys):
  encode.main(_arguments(data, tmp_path, "--layers", "all"))
  text = capsys.readouterr().out
  assert "val: 11 frames in" in text and f"written: {tmp_path}" in text
  header, found = features.read_features(tmp_path, "val", {"checkpoint": "random-3"})
  assert header.layers == (0, 1, -1) and header.pooling == "mean"
  assert header.encoder.startswith("smolvlm_tower depth=2 hidden_size=16")
  assert header.preprocess.startswith("28x28 lanczos antialias edge 1536 /255 mean 0.5,0.5,0.5")
  assert (header.images, header.position_rule, header.camera) == ("32x32", "exact", "FRONT")
  np.testing.assert_allclose(found["features"], _expected(data, (0, 1, 2)).pooled, atol=1e-5)
  # What training reads: the same frames, with their states.
  cfg = {"visual": "features", "features": str(tmp_path), "layer": -1}
  frames = waymo_e2e.load(cfg, "val", {"features": {"pooling": "mean"}})
  np.testing.assert_array_equal(frames.gather([10])["features"], found["features"][10:, 2])
  image = {"visual": "none", "root": str(data)}
  for name, value in waymo_e2e.load(image, "val", {}).resident().items():
    np.testing.assert_array_equal(frames.resident()[name], value, name)


def test_tokens(data, tmp_path):
  encode.main(_arguments(data, tmp_path, "--tokens", "--layers", "1"))
  header, found = features.read_features(tmp_path, "val", {})
  assert header.pooling == "tokens" and header.layers == (1,)
  np.testing.assert_allclose(found["tokens"], _expected(data, (1,)).tokens, atol=1e-5)


def test_devices_share_a_batch(data, tmp_path):
  """Four devices and a batch size that is no multiple of them: the same features."""
  encode.main(_arguments(data, tmp_path / "one"))
  environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
  arguments = _arguments(data, tmp_path / "four", "--batch_size", 3)
  command = [sys.executable, "-m", "launch.encode", *arguments]
  subprocess.run(command, env=environment, check=True, capture_output=True)
  one, four = (features.read_features(tmp_path / n, "val", {})[1] for n in ("one", "four"))
  np.testing.assert_array_equal(one["name"], four["name"])
  np.testing.assert_allclose(one["features"], four["features"], atol=1e-5)


def test_resumes_shard_by_shard(data, tmp_path, monkeypatch):
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  encode.main(_arguments(data, whole))
  gather, calls = waymo_e2e.Images.gather, []

  def fail_at_last(self, rows):
    calls.append(rows)
    checks.require(len(calls) != 3, "stop here")
    return gather(self, rows)

  with monkeypatch.context() as patch:
    patch.setattr(waymo_e2e.Images, "gather", fail_at_last)
    with pytest.raises(checks.InputError, match="stop here"):
      encode.main(_arguments(data, stopped))
  done = sorted(p.name for p in stopped.iterdir())
  assert len(done) == 2 and len(list(whole.iterdir())) == 3
  times = {name: (stopped / name).stat().st_mtime_ns for name in done}
  encode.main(_arguments(data, stopped))
  for path in whole.iterdir():
    assert (stopped / path.name).read_bytes() == path.read_bytes()
  assert all((stopped / name).stat().st_mtime_ns == t for name, t in times.items())


def test_workers_share_the_shards(data, tmp_path):
  for worker in (1, 0):
    encode.main(_arguments(data, tmp_path, "--worker", worker, "--workers", 2))
    assert len(list(tmp_path.iterdir())) == (1 if worker else 3)
  assert len(features.read_features(tmp_path, "val", {})[1]["name"]) == 11


def test_shards_of_another_making_are_refused(data, tmp_path):
  encode.main(_arguments(data, tmp_path))
  with pytest.raises(checks.InputError, match="was made otherwise.*random-3.*wanted is.*random-4"):
    encode.main(_arguments(data, tmp_path, checkpoint="random:4"))
  with pytest.raises(checks.InputError, match="of another number of shards"):
    encode.main([*_arguments(data, tmp_path), "--shard_frames", "11"])


def test_published_weights_and_an_adapter(data, tmp_path):
  encoder = encoders.make("smolvlm_tower", **FIELDS)
  params = encoder.init(jax.random.PRNGKey(8))
  path = tmp_path / "weights" / "model.safetensors"
  path.parent.mkdir()
  tensors = pretrained.export(params, "smolvlm_tower", encoder.shapes())
  safetensors.numpy.save_file({n: np.ascontiguousarray(t) for n, t in tensors.items()}, path)
  tree = jax.tree.map(lambda x: x + 0.1, lora.init(jax.random.key(0), params, 2))
  adapters.save_adapter(tmp_path / "adapter", tree, 4, "smolvlm_tower", encoder.shapes())
  out = tmp_path / "out"
  arguments = ("--adapter", tmp_path / "adapter")
  encode.main(_arguments(data, out, *arguments, checkpoint=path.parent))
  header, found = features.read_features(out, "val", {})
  sha256 = pretrained.fingerprint([path])
  assert header.checkpoint.startswith(f"{sha256}+")
  merged = lora.merge(params, tree, 4)
  expected = _expected(data, (-1,), merged).pooled
  np.testing.assert_allclose(found["features"], expected, atol=1e-5)
  with pytest.raises(checks.InputError, match=f"its sha256 is {sha256}, wanted abc"):
    encode.main(_arguments(data, out, "--sha256", "abc", checkpoint=path.parent))


def test_half_precision_is_near(data, tmp_path):
  encode.main(_arguments(data, tmp_path, dtype="bfloat16"))
  _, found = features.read_features(tmp_path, "val", {})
  expected = np.asarray(_expected(data, (-1,)).pooled)
  away = np.linalg.norm(found["features"] - expected) / np.linalg.norm(expected)
  assert 0 < away < 0.05


@pytest.mark.parametrize(
  ("more", "sentence"),
  [
    (("--layers", "3"), "--layers: '3'; smolvlm_tower has states 0 to 2"),
    (("--layers", "all", "--tokens"), "--tokens: one layer only, 3 received"),
    (("--set", "depht=2"), "field of encoder 'smolvlm_tower': 'depht' is not allowed"),
    (("--set", "depth"), "--set: 'depth'; give FIELD=VALUE"),
    (("--set", "preprocess=raw"), "encoder preprocess: 'raw' is not allowed"),
    (("--checkpoint", "random:x"), "give a whole number as seed"),
    (("--checkpoint", ""), "--checkpoint: name the encoder's weights"),
    (("--checkpoint", "no such"), "no such file or folder"),
    (("--camera", "SIDE_LEFT"), "config.data.camera: 'SIDE_LEFT' is not allowed"),
    (("--worker", "1"), "--worker: 1; with --workers 1 give 0 to 0"),
    (("--batch_size", "0"), "--batch_size: 0; give 1 or more"),
  ],
)
def test_bad_settings(data, tmp_path, more, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    encode.main([*_arguments(data, tmp_path / "out"), *more])
  assert not (tmp_path / "out").exists()


def test_weights_of_a_run(tmp_path, monkeypatch):
  """A run that adapted the encoder: its base and its low-rank update, merged."""
  encoder = encoders.make("smolvlm_tower", **FIELDS)
  base = encoder.init(jax.random.PRNGKey(5))
  tree = jax.tree.map(lambda x: np.asarray(x) + 0.1, lora.init(jax.random.key(0), base, 2))
  model = {
    "encoder": {"name": "smolvlm_tower", "checkpoint": "", "seed": 5, "sha256": ""},
    "lora": {"rank": 2, "alpha": 0.0},
  }
  (tmp_path / "config.json").write_text(json.dumps({"model": model, "phases": {}}))
  monkeypatch.setattr(weights.trained, "load", lambda path: ({"head": {}, "lora": tree}, model))
  found, identity = weights.load(encoder, "smolvlm_tower", str(tmp_path))
  wanted = lora.merge(base, tree, 4)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)
  assert len(identity) == 64
  sam = encoders.make("sam_vit_b", hidden_size=64, depth=1, num_heads=4, image_size=32)
  with pytest.raises(checks.InputError, match="trained no encoder 'sam_vit_b'"):
    weights.load(sam, "sam_vit_b", str(tmp_path))
  cast = weights.kernels_as(base, jnp.bfloat16)
  assert cast["layer0"]["mlp"]["fc1"]["kernel"].dtype == jnp.bfloat16
  assert cast["final_norm"]["scale"].dtype == jnp.float32
