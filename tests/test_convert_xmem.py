"""XMem checkpoints to our tree and back: all variants, all wrappers, and refusals."""

import numpy as np
import pytest
import xmem_cases

from launch import convert
from vistraj_jax.convert import read_torch, write_torch, xmem
from vistraj_jax.core import checks, weights

STEM = "value_encoder.conv1.weight"
COUNTER = "num_batches_tracked"


def _small(hidden=8, changes=()):
  """A state dict with narrow keys and values; trunks have their one size."""
  config = {"key_dim": 8, "value_dim": 16, "hidden_dim": hidden}
  flat = {}
  for i, (name, shape) in enumerate(xmem.tree_shapes(config).items()):
    flat[name] = np.full(shape, i % 97, np.float32)
    flat[name].reshape(-1)[:: max(1, flat[name].size // 50)] += 0.5
  return config, {**xmem.to_torch(weights.unflatten(flat), config, "small"), **dict(changes)}


def test_published_checkpoint_there_and_back(tmp_path, capsys):
  state = xmem_cases.load("clip").checkpoint()
  tree, config, key = xmem.from_torch(state, "in.pth")
  assert config == {"key_dim": 64, "value_dim": 512, "hidden_dim": 64} and key == ""
  counts = xmem.parameter_counts(tree)
  assert counts == {
    "key_encoder": 8_543_296,
    "key_proj": 1_188_993,
    "value_encoder": 22_694_915,
    "decoder": 29_758_020,
  }
  assert sum(counts.values()) == 62_185_224
  back = xmem.to_torch(tree, config, "back")
  assert set(back) == set(state) and len(back) == 412
  for name, array in state.items():
    if not name.endswith(COUNTER):
      np.testing.assert_array_equal(back[name], array, err_msg=name)


@pytest.mark.parametrize("wrapper", ["", "network", "state_dict", "model_state_dict"])
def test_wrappers_and_prefixes(wrapper):
  config, state = _small()
  named = {f"module.{name}": array for name, array in state.items()}
  tree, found, key = xmem.from_torch({wrapper: named, "it": 3} if wrapper else named, "in.pth")
  assert (found, key) == (config, wrapper)
  back = xmem.to_torch(tree, found, "back")
  assert all((back[name] == state[name]).all() for name in state)


def test_single_object_and_no_sensory_variants():
  config, state = _small(hidden=0)
  assert not any("hidden" in name for name in state)
  assert state["decoder.fuser.block1.conv1.weight"].shape[1] == 1024 + 16
  state[STEM] = state[STEM][:, :4]
  tree, found, _ = xmem.from_torch(state, "in.pth")
  assert found == config
  kernel = tree["value_encoder"]["trunk"]["conv1"]["kernel"]
  assert kernel.shape == (7, 7, 5, 64) and not kernel[:, :, 4].any()
  back = xmem.to_torch(tree, config, "back", single_object=True)
  np.testing.assert_array_equal(back[STEM], state[STEM])
  kernel[0, 0, 4, 0] = 1
  with pytest.raises(checks.InputError, match="a single-object checkpoint has no channel"):
    xmem.to_torch(tree, config, "back", single_object=True)


def test_refusals():
  _, state = _small()
  name = "decoder.up_8_4.skip_conv.bias"
  without = {n: a for n, a in state.items() if n != name}
  with pytest.raises(checks.InputError, match=rf"in.pth: .*1 missing: {name} \(256,\)"):
    xmem.from_torch(without, "in.pth")
  with pytest.raises(checks.InputError, match=r"1 extra: extra.weight \(3,\)"):
    xmem.from_torch({**state, "extra.weight": np.zeros(3)}, "in.pth")
  with pytest.raises(checks.InputError, match=rf"{name} \(2,\) where \(256,\) is wanted"):
    xmem.from_torch({**state, name: np.zeros(2)}, "in.pth")
  with pytest.raises(checks.InputError, match="so this is no XMem checkpoint"):
    xmem.from_torch({"fc.weight": np.zeros((2, 2))}, "in.pth")
  with pytest.raises(checks.InputError, match="no state dict under one of"):
    xmem.from_torch({"epoch": 3}, "in.pth")


def test_command(tmp_path, capsys):
  _, state = _small()
  source, middle, out = (tmp_path / n for n in ("in.pth", "w.safetensors", "out.pth"))
  write_torch.write_checkpoint(source, {"network": state, "it": 5})
  assert convert.main(["xmem", "--checkpoint", str(source), "--out", str(middle)]) == 0
  printed = capsys.readouterr().out
  assert "state dict under 'network'; key 8, value 16, hidden 8;" in printed
  assert (
    convert.main(["xmem", "--to", "torch", "--checkpoint", str(middle), "--out", str(out)]) == 0
  )
  back = read_torch.read_checkpoint(out)
  assert list(back) == list(state)
  for name, array in state.items():
    np.testing.assert_array_equal(back[name], array, err_msg=name)
  with pytest.raises(
    checks.InputError, match="--preset: given with xmem, but it is of trackssm alone"
  ):
    convert.main(["xmem", "--checkpoint", str(source), "--out", str(middle), "--preset", "mot17"])
