"""Sequences of the training split are set aside to choose the best evaluation by."""

import numpy as np
import pytest
import tiny_waypoints as tiny

from launch import train
from vistraj_jax.core import checks, shares
from vistraj_jax.data import waymo_e2e


@pytest.fixture(scope="module")
def features(tmp_path_factory):
  return tiny.write_features(tmp_path_factory.mktemp("features"))


def _load(config, split):
  return waymo_e2e.load(config.data, split, config.model)


def test_share_of_many_names():
  names = [f"sequence {i}" for i in range(2000)]
  kept = [shares.is_in_share(name, 0.1) for name in names]
  assert 160 < sum(kept) < 240
  assert all(shares.is_in_share(n, 0.3) for n, k in zip(names, kept, strict=True) if k)
  assert not any(shares.is_in_share(n, 0.0) for n in names)


def test_no_sequence_on_both_sides_and_no_frame_lost(features):
  config = tiny.config("features", features, **tiny.TINY | {"data.dev_share": 0.5})
  whole = _load(tiny.config("features", features, **tiny.TINY), "train")
  parts = [_load(config, split) for split in ("train", "dev")]
  assert sorted(sum((part.names.tolist() for part in parts), [])) == sorted(whole.names.tolist())
  sequences = [{waymo_e2e.sequence_of(name) for name in part.names} for part in parts]
  assert not sequences[0] & sequences[1]
  assert [part.about()["sequences"] for part in parts] == [len(names) for names in sequences]
  for part in parts:
    rows = [whole.names.tolist().index(name) for name in part.names]
    for name, value in part.gather(np.arange(len(part))).items():
      np.testing.assert_array_equal(value, whole.gather(np.array(rows))[name], err_msg=name)


def test_images_follow_their_frames(tmp_path):
  folder = tiny.write_images(tmp_path)
  config = tiny.config("image", folder, **{"data.image_size": 28, "data.dev_share": 0.0})
  whole = _load(config, "train")
  part = whole.take(np.array([7, 2]))
  np.testing.assert_array_equal(
    part.gather(np.array([1, 0]))["image"], whole.gather(np.array([2, 7]))["image"]
  )


def test_training_evaluates_on_dev_and_never_reads_val(features, tmp_path, monkeypatch):
  config = tiny.config("features", features, **tiny.TINY | {"data.dev_share": 0.5})
  read = []
  load = waymo_e2e.load
  monkeypatch.setattr(
    waymo_e2e, "load", lambda cfg, split, model: (read.append(split), load(cfg, split, model))[1]
  )
  train.train(config, tmp_path)
  assert set(read) == {"train", "dev"}


def test_a_share_that_leaves_nothing(features):
  config = tiny.config("features", features, **tiny.TINY | {"data.dev_share": 0.001})
  with pytest.raises(checks.InputError, match=r"config.data.dev_share: 0.001 of 4 training seq"):
    _load(config, "dev")
