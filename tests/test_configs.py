"""Every setting of a config is read by the code: none is dead, and the lock catches the rest."""

import pytest
import tiny_run
from ml_collections import ConfigDict

from configs import trackssm as trackssm_config
from launch import train


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
