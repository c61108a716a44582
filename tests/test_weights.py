"""Weights files: what goes in comes out, and bad files are named."""

import ml_dtypes
import numpy as np
import pytest

from vistraj_jax.core import checks, weights

TREE = {
  "encoder": {"layer0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
  "decoder": {"scale": np.float32(2.5), "half": np.asarray([1.5, -2.0], ml_dtypes.bfloat16)},
}
CONFIG = {"num_layers": 6, "box_sigmoid": False}


def test_tree_and_config_come_back(tmp_path):
  path = tmp_path / "a.safetensors"
  weights.save_weights(path, TREE, "trackssm", CONFIG)
  tree, system, config = weights.load_weights(path)
  assert (system, config) == ("trackssm", CONFIG)
  got, want = weights.flatten(tree), weights.flatten(TREE)
  assert set(got) == set(want)
  for name in want:
    assert got[name].dtype == want[name].dtype and got[name].shape == want[name].shape
    np.testing.assert_array_equal(got[name], want[name])
  assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_transposed_leaf_keeps_its_values(tmp_path):
  path = tmp_path / "a.safetensors"
  kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
  weights.save_weights(path, {"kernel": kernel.T}, "trackssm", {})
  np.testing.assert_array_equal(weights.load_weights(path)[0]["kernel"], kernel.T)


def test_sentences(tmp_path):
  path = tmp_path / "a.safetensors"
  with pytest.raises(checks.InputError, match=r"a\.safetensors: there is no such"):
    weights.load_weights(path)
  with pytest.raises(checks.InputError, match=r"a\.pt: a weights file ends in '\.safetensors'"):
    weights.save_weights(tmp_path / "a.pt", TREE, "trackssm", {})
  with pytest.raises(checks.InputError, match="parameter tree is empty"):
    weights.save_weights(path, {}, "trackssm", {})
  with pytest.raises(checks.InputError, match="not plain JSON"):
    weights.save_weights(path, TREE, "trackssm", {"width": object()})
  with pytest.raises(checks.InputError, match="'/' separates"):
    weights.save_weights(path, {"a/b": np.zeros(1)}, "trackssm", {})
  assert not path.exists()
  weights.save_weights(path, TREE, "trackssm", {})
  with pytest.raises(checks.InputError, match="holds weights of 'trackssm', wanted are 'xmem'"):
    weights.load_weights(path, "xmem")
  path.write_bytes(path.read_bytes()[:-10])
  with pytest.raises(checks.InputError, match=r"a\.safetensors: not a whole safetensors file"):
    weights.load_weights(path)


def test_foreign_safetensors_is_refused(tmp_path):
  import safetensors.numpy

  path = tmp_path / "foreign.safetensors"
  safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, path)
  with pytest.raises(checks.InputError, match=r"foreign\.safetensors: its metadata has \[\]"):
    weights.load_weights(path)
