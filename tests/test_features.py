"""Feature files: what is written is read, and features of another making are refused."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.data import example, features, records

HEADER = features.Header(
  encoder="tower",
  checkpoint="random-0",
  preprocess="8 bilinear",
  position_rule="exact",
  pooling="mean",
  layers=[0, 3],
  dtype="bfloat16",
  camera="FRONT",
  images="original",
)


def _frames(count, seed=0):
  rng = np.random.default_rng(seed)
  return {
    "name": np.array([f"{seed:032x}-{i:03d}" for i in range(count)]),
    "features": rng.normal(size=(count, 2, 5)).astype(np.float32),
    "past": rng.normal(size=(count, 16, 6)).astype(np.float32),
    "intent": np.arange(count, dtype=np.int32),
    "cluster": np.array(["", "Cyclist"] * count)[:count],
  }


def _batches(frames, size):
  for first in range(0, len(frames["name"]), size):
    yield {name: value[first : first + size] for name, value in frames.items()}


@pytest.mark.parametrize("block_bytes", [1, 4 * 2**20])
def test_what_is_written_is_read(tmp_path, monkeypatch, block_bytes):
  monkeypatch.setattr(features, "BLOCK_BYTES", block_bytes)
  parts = [_frames(7, 1), _frames(4, 2)]
  for index, part in enumerate(parts):
    written = features.write_features(
      tmp_path, "val", HEADER, _batches(part, 3), index=index, count=2
    )
    assert written == len(part["name"])
  header, found = features.read_features(tmp_path, "val", {"encoder": "tower", "layers": [0, 3]})
  assert header == HEADER == features.read_header(tmp_path, "val")
  for name, value in found.items():
    wanted = np.concatenate([part[name] for part in parts])
    if name == "features":
      wanted = wanted.astype(ml_dtypes.bfloat16)
    assert value.dtype.kind == wanted.dtype.kind
    np.testing.assert_array_equal(value, wanted)
  _, last = features.read_features(tmp_path, "val", {}, layer=3)
  np.testing.assert_array_equal(last["features"], found["features"][:, 1])


def test_tokens_of_one_layer(tmp_path):
  header = dataclasses.replace(HEADER, layers=(3,), pooling="tokens", dtype="float32")
  tokens = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
  features.write_features(tmp_path, "val", header, [{"name": ["a", "b", "c"], "tokens": tokens}])
  _, found = features.read_features(tmp_path, "val", {"pooling": "tokens"})
  np.testing.assert_array_equal(found["tokens"], tokens)
  assert list(found["name"]) == ["a", "b", "c"]


def test_features_of_another_making_are_refused(tmp_path):
  features.write_features(tmp_path, "val", HEADER, [_frames(2)])
  with pytest.raises(
    checks.InputError, match="checkpoint is 'random-0', wanted 'abc'; position_rule is 'exact'"
  ):
    features.read_features(tmp_path, "val", {"checkpoint": "abc", "position_rule": "hf"})
  with pytest.raises(checks.InputError, match=r"layer of the features: 2 is not allowed.*\[0, 3\]"):
    features.read_features(tmp_path, "val", {}, layer=2)
  with pytest.raises(checks.InputError, match="no file features-train"):
    features.read_features(tmp_path, "train", {})


def test_mixed_encoders_in_one_folder(tmp_path):
  features.write_features(tmp_path, "val", HEADER, [_frames(2)], index=0, count=2)
  other = dataclasses.replace(HEADER, encoder="other")
  features.write_features(tmp_path, "val", other, [_frames(2)], index=1, count=2)
  with pytest.raises(
    checks.InputError, match="00000-of-00002 has encoder 'tower', .*00001-of-00002 has 'other'"
  ):
    features.read_features(tmp_path, "val", {})


@pytest.mark.parametrize("payloads", [[], [b"\xff"], [b"[]"], [example.encode({}, {})]])
def test_files_without_a_header(tmp_path, payloads):
  records.write_records(features.shard_path(tmp_path, "val", 0, 1), payloads)
  with pytest.raises(checks.InputError, match="holds no frame features; encode"):
    features.read_features(tmp_path, "val", {})


def test_wrong_frames_are_not_written(tmp_path):
  frames = _frames(4)
  bad = {**frames, "features": np.full((4, 2, 5), np.nan)}
  with pytest.raises(checks.InputError, match="features of a batch are not finite"):
    features.write_features(tmp_path, "val", HEADER, [frames, bad])
  with pytest.raises(checks.InputError, match=r"features: shape \(4, 3, 5\) received"):
    features.write_features(tmp_path, "val", HEADER, [{**frames, "features": np.ones((4, 3, 5))}])
  with pytest.raises(checks.InputError, match="all must be alike"):
    features.write_features(
      tmp_path, "val", HEADER, [frames, {**frames, "past": frames["past"][:, 1:]}]
    )
  with pytest.raises(checks.InputError, match="shard 0 of 1 has no frame"):
    features.write_features(tmp_path, "val", HEADER, [])
  with pytest.raises(checks.InputError, match="dtype: 'float16' is not allowed"):
    dataclasses.replace(HEADER, dtype="float16")
  assert list(tmp_path.iterdir()) == []
