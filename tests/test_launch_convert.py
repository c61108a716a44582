"""`launch.convert` from file to file: what it prints, what it refuses, what is left behind."""

import numpy as np
import pytest

from launch import convert
from vistraj_jax.convert import read_torch, trackssm, write_torch
from vistraj_jax.core import checks, weights

CONFIG = {
  "num_layers": 1,
  "num_heads": 2,
  "width": 32,
  "state_size": 4,
  "history": 5,
  "box_sigmoid": False,
}


def _checkpoint(path, box=None):
  """Writes a small released-style file; with `box`, its linear head always answers that box."""
  rng = np.random.default_rng(1)
  flat = {}
  for name, shape in trackssm.tree_shapes(CONFIG).items():
    flat[name] = rng.normal(size=shape).astype(np.float32)
    if box is not None and "normal_bboxes" in name:
      flat[name] = np.full(shape, 0 if "kernel" in name else box, np.float32)
  content = trackssm.to_torch(weights.unflatten(flat), CONFIG, "test")
  write_torch.write_checkpoint(path, content)
  return content["ddpm"]


def _run(*arguments):
  assert convert.main(["trackssm", *map(str, arguments)]) == 0


def test_there_and_back(tmp_path, capsys):
  state = _checkpoint(tmp_path / "in.pth")
  middle, back = tmp_path / "w.safetensors", tmp_path / "back.pth"
  _run("--checkpoint", tmp_path / "in.pth", "--preset", "mot17", "--out", middle)
  tree, system, config = weights.load_weights(middle)
  assert (system, config) == ("trackssm", CONFIG)
  counts = trackssm.parameter_counts(tree)
  printed, warned = capsys.readouterr()
  assert "in.pth: predicts far worse than repeating the last box" in warned  # random weights
  assert "state dict under 'ddpm'; encoder 1 layers" in printed and "linear box head" in printed
  assert f"{counts['encoder']:,} parameters" in printed and "mean IoU" in printed
  _run("--to", "torch", "--checkpoint", middle, "--out", back)
  got = read_torch.read_checkpoint(back)
  assert got["epoch"] == 0 and list(got["ddpm"]) == list(state)
  for name, array in state.items():
    np.testing.assert_array_equal(got["ddpm"][name], array)


def test_linear_weights_behind_a_sigmoid_are_refused(tmp_path):
  _checkpoint(tmp_path / "in.pth", box=(0.3, 0.6, 0.1, 0.2))
  out = tmp_path / "w.safetensors"
  with pytest.raises(checks.InputError) as error:
    _run("--checkpoint", tmp_path / "in.pth", "--preset", "dancetrack", "--out", out)
  # sigmoid(0.3) = 0.574, sigmoid(0.6) = 0.646.
  assert "preset 'dancetrack'" in str(error.value) and "[0.574, 0.646]" in str(error.value)
  assert not out.exists()
  _run("--checkpoint", tmp_path / "in.pth", "--preset", "mot17", "--out", out)
  assert out.exists()


def test_synthetic_boxes_stay_in_the_image():
  boxes = convert._moving_boxes(5)
  assert boxes.shape == (36, 7, 4)
  assert (boxes[..., :2] - boxes[..., 2:] / 2 > 0).all()
  assert (boxes[..., :2] + boxes[..., 2:] / 2 < 1).all()
  assert boxes[:, :, 0].min() < 0.15 and boxes[:, :, 0].max() > 0.85


@pytest.mark.parametrize(
  ("arguments", "sentence"),
  [
    ([], "--preset: name the data set"),
    (["--to", "torch", "--preset", "mot17"], "--preset: our weights say how"),
    (["--to", "torch"], r"in\.pth: a weights file ends in '\.safetensors'"),
    (["--preset", "mot17", "--checkpoint", "none.pth"], r"none\.pth: there is no such checkpoint"),
  ],
)
def test_sentences(tmp_path, arguments, sentence):
  _checkpoint(tmp_path / "in.pth")
  out = tmp_path / "out"
  with pytest.raises(checks.InputError, match=sentence):
    _run("--checkpoint", tmp_path / "in.pth", "--out", out, *arguments)
  assert not out.exists()


def test_weights_file_must_end_in_safetensors(tmp_path):
  _checkpoint(tmp_path / "in.pth")
  with pytest.raises(checks.InputError, match=r"w\.npz: a weights file ends in '\.safetensors'"):
    _run("--checkpoint", tmp_path / "in.pth", "--preset", "mot17", "--out", tmp_path / "w.npz")


def test_unknown_preset_is_refused_by_the_parser(capsys):
  with pytest.raises(SystemExit):
    _run("--checkpoint", "a", "--out", "b", "--preset", "mot71")
  assert "invalid choice: 'mot71'" in capsys.readouterr().err


def test_help_names_presets(capsys):
  with pytest.raises(SystemExit):
    convert.main(["--help"])
  printed = capsys.readouterr().out
  assert all(name in printed for name in trackssm.PRESETS) and "example" in printed
