"""Every setting of a config is read by the code: none is dead, and the lock catches the rest."""

import jax
import numpy as np
import pytest
import tiny_run
from ml_collections import ConfigDict

from configs import trackssm as trackssm_config
from configs import two_stream as two_stream_config
from launch import train
from vistraj_jax.models.two_stream import settings


class _Watched:
  """A ConfigDict that remembers which leaves were read."""

  def __init__(self, config, prefix, read):
    object.__setattr__(self, "_parts", (config, prefix, read))

  def __getitem__(self, name):
    config, prefix, read = self._parts
    value, path = config[name], f"{prefix}.{name}" if prefix else name
    if isinstance(value, ConfigDict):
      return _Watched(value, path, read)
    read.add(path)
    return value

  def __getattr__(self, name):
    try:
      return self[name]
    except KeyError as error:
      raise AttributeError(name) from error

  def __setattr__(self, name, value):
    self._parts[0][name] = value

  def __contains__(self, name):
    return name in self._parts[0]

  def __iter__(self):
    return iter(self._parts[0])

  def __len__(self):
    return len(self._parts[0])

  def get(self, name, default=None):
    return self[name] if name in self else default

  def keys(self):
    return self._parts[0].keys()

  def to_json_best_effort(self):
    return self._parts[0].to_json_best_effort()


def _leaves(config, prefix=""):
  for name, value in config.items():
    path = f"{prefix}.{name}" if prefix else name
    if isinstance(value, ConfigDict):
      yield from _leaves(value, path)
    else:
      yield path


def test_every_setting_is_read(tmp_path):
  config = tiny_run.config(tiny_run.write_tracks(tmp_path / "tracks"))
  read = set()
  train.train(_Watched(config, "", read), tmp_path / "run")
  assert set(_leaves(config)) - read == set()


@pytest.mark.parametrize("variant", ["full", "quick", "pretrain", "smoke"])
def test_variants_have_the_same_settings(variant):
  config, full = trackssm_config.get_config(variant), trackssm_config.get_config()
  strip = lambda c: {p for p in _leaves(c) if not p.startswith(("phases", "eval_every"))}  # noqa: E731
  assert strip(config) == strip(full)
  for name, phase in config.phases.items():
    groups = {group for _, group in phase.groups} - {"frozen"}
    assert set(phase.lr) == groups, name


def test_phases_keep_their_order():
  assert list(trackssm_config.get_config("quick").phases) == ["pretrain", "decoder", "full"]


def test_unknown_variant():
  with pytest.raises(ValueError, match="variant 'huge'; known: 'full', 'quick'"):
    trackssm_config.get_config("huge")


@pytest.mark.parametrize("variant", two_stream_config.VARIANTS)
def test_two_stream_variants_come_in_two_sizes(variant):
  small = two_stream_config.get_config(f"{variant},small")
  assert set(_leaves(small)) == set(_leaves(two_stream_config.get_config(variant)))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["a", "v6", "single_stream", "videomae"])
def test_two_stream_small_networks(variant):
  net = settings.make(two_stream_config.get_config(f"{variant},small").model)
  image = np.zeros((1, 64, 64, 3), np.float32)
  inputs = (image, image, np.zeros((1, 16))) if variant == "videomae" else (image, image)
  variables = jax.eval_shape(net.init, jax.random.PRNGKey(0), *inputs)
  assert 3e5 < sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) < 6e6


def test_two_stream_small_alone_is_base():
  assert two_stream_config.get_config("small") == two_stream_config.get_config("base,small")
  with pytest.raises(ValueError, match="variant 'a', size 'tiny'; known: "):
    two_stream_config.get_config("a,tiny")
