"""LPIPS by hand on one feature map, its weights from the public layouts, and refusals."""

import jax
import numpy as np
import pytest

from launch import convert
from vistraj_jax.convert import lpips as converter
from vistraj_jax.convert import write_torch
from vistraj_jax.core import checks
from vistraj_jax.encoders import lpips
from vistraj_jax.tasks import magvit_tokenizer


def _state():
  """A state dict of the public module: the first map counts, of its first two channels."""
  state = {}
  for row in converter.TABLE[:26]:
    shape = lpips.shapes()[row.target]
    state[row.source] = row.layout.to_source(np.zeros(shape, np.float32))
  for i, widths in enumerate(lpips.WIDTHS):
    state[f"lin{i}.model.1.weight"] = np.zeros((1, widths[-1], 1, 1), np.float32)
  return state


def test_distance_by_hand(tmp_path, capsys):
  """Channel c of the first map is colour c: unit vectors (1, 0) and (0, 1), shares 2 and 3."""
  state = _state()
  for name in ("net.slice1.0.weight", "net.slice1.2.weight"):
    for channel in range(3):
      state[name][channel, channel, 1, 1] = 1
  state["lin0.model.1.weight"][0, :2, 0, 0] = 2, 3
  source, out = str(tmp_path / "lpips.pth"), str(tmp_path / "lpips.safetensors")
  extra = {"scaling_layer.shift": np.zeros(3, np.float32)}
  write_torch.write_checkpoint(source, {**state, **extra})
  assert convert.main(["lpips", "--checkpoint", source, "--out", out]) == 0
  assert "LPIPS, 14,716,160 parameters" in capsys.readouterr().out
  # Scaled colours: (x - shift) / scale. Blue is below 0 for both, so that the map has none.
  red = np.array([1.0, -1.0, -1.0]) * np.ones((1, 16, 16, 3))
  green = np.array([-1.0, 1.0, -1.0]) * np.ones((1, 16, 16, 3))
  params = lpips.load(out)
  pairs = np.concatenate([red, red]), np.concatenate([green, red])
  found = jax.jit(lpips.LPIPS().apply)({"params": params}, *pairs)
  np.testing.assert_allclose(found, [2 + 3, 0], atol=1e-6)


def test_inside_a_training_file_and_refusals():
  state = {f"loss.perceptual_loss.{name}": tensor for name, tensor in _state().items()}
  whole = {"state_dict": {**state, "encoder.x": np.zeros(2)}}
  tree = converter.from_torch(whole, lpips.shapes(), "file.ckpt")
  assert tree["conv_4_2"]["kernel"].shape == (3, 3, 512, 512)
  del whole["state_dict"]["loss.perceptual_loss.lin3.model.1.weight"]
  with pytest.raises(checks.InputError, match="file.ckpt: .*1 missing: lin3.model.1.weight"):
    converter.from_torch(whole, lpips.shapes(), "file.ckpt")


def test_a_loss_without_weights_is_refused():
  from configs import magvit_tokenizer as config_file

  config = config_file.get_config("smoke")
  config.loss.lpips = 1.0
  with pytest.raises(checks.InputError, match="but there are no weights for it"):
    magvit_tokenizer.VideoTokenizerTask(config)
