"""Video tokenizer checkpoints to our tree and back: both kinds of weights, and refusals."""

import golden_cases
import numpy as np
import pytest

from launch import convert
from vistraj_jax.convert import magvit, read_torch, write_torch
from vistraj_jax.core import checks, weights
from vistraj_jax.models.magvit import frozen

CONFIG = {"kind": "magvit2", "channels": 32, "multipliers": [1, 2], "num_blocks": 1, "bits": 6}
CONFIG["groups"] = 32


def _state(config=None):
  """A public file's content whose tensors all differ."""
  shapes = magvit.tree_shapes(config or CONFIG)
  flat = {
    name: np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7 + i
    for i, (name, shape) in enumerate(shapes.items())
  }
  return magvit.to_torch(weights.unflatten(flat), config or CONFIG, "made")


def _averaged(state, by=0.5):
  return {f"model_ema.{name.replace('.', '')}": tensor + by for name, tensor in state.items()}


def test_names_of_the_published_file():
  """Every tensor of the tiny public model is used, and written again as it was."""
  tensors = golden_cases.load("magvit", "video_tokenizer_tiny").checkpoint()
  plan = magvit.plan(tensors, "raw", "case")
  assert plan.config["multipliers"] == [1, 2, 2, 4] and plan.config["num_blocks"] == 1
  back = magvit.to_torch(plan.tree(), plan.config, "back")["state_dict"]
  assert set(back) == {name for name in tensors if not name.startswith("model_ema.")}
  for name, array in back.items():
    np.testing.assert_array_equal(array, tensors[name], err_msg=name)


def test_average_or_last_weights():
  state = _state()["state_dict"]
  extra = {
    "loss.perceptual_loss.lin0.weight": np.zeros(3),
    "model_ema.lossdiscriminatorx": np.ones(2),
  }
  numbers = {
    "model_ema.decay": np.float32(0.999) * np.ones(()),
    "model_ema.num_updates": np.ones(()),
  }
  whole = {"state_dict": {**state, **_averaged(state), **extra, **numbers}, "epoch": 3}
  raw, ema = (magvit.plan(whole, which, "file.ckpt") for which in ("raw", "ema"))
  assert (raw.weights, ema.weights) == ("raw", "ema")
  name = "decoder/adaptive_1/gamma/kernel"
  np.testing.assert_array_equal(ema.read(name), raw.read(name) + 0.5)
  assert magvit.plan(_state(), "ema", "file.ckpt").weights == "raw"


def test_refusals():
  state = _state()["state_dict"]
  gone = "decoder.up.1.upsample.conv1.conv_1.bias"
  without = {n: t for n, t in state.items() if n != gone}
  with pytest.raises(checks.InputError, match=rf"file.ckpt: .*1 missing: {gone} \(256,\)"):
    magvit.plan(without, "raw", "file.ckpt")
  average = _averaged(state)
  del average["model_ema." + gone.replace(".", "")]
  with pytest.raises(checks.InputError, match=rf"moving average: .*1 missing: {gone}"):
    magvit.plan({**state, **average}, "ema", "file.ckpt")
  with pytest.raises(checks.InputError, match=r"1 extra: encoder.attention.weight \(3,\)"):
    magvit.plan({**state, "encoder.attention.weight": np.zeros(3)}, "ema", "file.ckpt")
  with pytest.raises(checks.InputError, match=r"1 extra: model_ema.encoderx \(3,\)"):
    magvit.plan({**state, **_averaged(state), "model_ema.encoderx": np.zeros(3)}, "ema", "f")
  with pytest.raises(checks.InputError, match="so this is no video tokenizer checkpoint"):
    magvit.plan({"fc.weight": np.zeros((2, 2))}, "ema", "file.ckpt")
  with pytest.raises(checks.InputError, match="norms of 8 groups; the public layout has 32"):
    magvit.to_torch({}, {**CONFIG, "groups": 8}, "run")


@pytest.mark.parametrize("kind", ["magvit2", "seed"])
def test_command(tmp_path, capsys, kind):
  """There and back; what the command reads piece by piece is what the library loads."""
  made = _state(CONFIG if kind == "magvit2" else {"kind": "seed", "num_codes": 5, "latent_dim": 7})
  ((key, state),) = made.items()
  source, middle, out = (str(tmp_path / n) for n in ("in.ckpt", "w.safetensors", "out.ckpt"))
  write_torch.write_checkpoint(source, {key: state, "epoch": 5})
  assert convert.main(["magvit_tokenizer", "--checkpoint", source, "--out", middle]) == 0
  printed = capsys.readouterr()
  assert f"kind {kind}" in printed.out and "parameters" in printed.out
  assert ("has no moving average" in printed.err) == (kind == "magvit2")
  found = frozen.load(middle)
  assert found.config["kind"] == kind and len(found.fingerprint) == 16
  to_torch = ["magvit_tokenizer", "--to", "torch", "--checkpoint", middle, "--out", out]
  assert convert.main(to_torch) == 0
  back = read_torch.read_checkpoint(out)[key]
  assert list(back) == list(state)
  for name, array in state.items():
    np.testing.assert_array_equal(back[name], array, err_msg=name)
  tree, system, config = weights.load_weights(middle)
  last = list(weights.flatten(tree))[-1]
  *path, leaf = last.split("/")
  node = tree
  for part in path:
    node = node[part]
  node[leaf] = node[leaf] + 1
  assert frozen.fingerprint(tree, config) != found.fingerprint
  del node[leaf]
  weights.save_weights(middle, tree, system, config)
  with pytest.raises(checks.InputError, match="1 tensors are missing, extra or misshapen"):
    frozen.load(middle)


def test_lazy_reading_of_damaged_files(tmp_path):
  source = tmp_path / "in.ckpt"
  write_torch.write_checkpoint(source, _state())
  lazy = read_torch.read_checkpoint(source, lazy=True)["state_dict"]
  name = "encoder.conv_in.conv_1.weight"
  assert lazy[name].shape == (32, 3, 3, 3, 3)
  whole = lazy[name].read()
  raw = bytearray(source.read_bytes())
  place = raw.index(whole.tobytes())
  raw[place + 5] ^= 1
  source.write_bytes(raw)
  again = read_torch.read_checkpoint(source, lazy=True)["state_dict"]
  with pytest.raises(checks.InputError, match=r"in.ckpt: record archive/data/\d+ is damaged"):
    again[name].read()
