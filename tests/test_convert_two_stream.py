"""Two-stream checkpoints to weights files and back by the command, and what it refuses."""

import golden_cases
import jax
import numpy as np
import pytest
import two_stream_cases as cases
import two_stream_data

from configs import two_stream as config_file
from launch import convert, train
from vistraj_jax.convert import read_torch, write_torch
from vistraj_jax.core import checks, trained, weights
from vistraj_jax.models.two_stream import policy, settings
from vistraj_jax.tasks import two_stream as task_lib
from vistraj_jax.train import checkpoint

CASES = {
  "predictor_small": ("num_heads", 3),
  "single_stream_6ch": ("num_heads", 3),
  "single_stream_9ch": ("num_heads", 3),
  "videomae_small": ("enc_heads", 6),
  "late_two_stream_v6": ("num_heads", 3),
  "libero_policy": ("num_heads", 3),
}


def _checkpoint(path, name, prefix="module."):
  case = golden_cases.load("two_stream", name)
  state = {prefix + n: x for n, x in case.checkpoint().items()}
  write_torch.write_checkpoint(path, {"epoch": 3, "model_state_dict": state, "train_loss": 0.1})
  return case


@pytest.mark.parametrize("name", CASES)
def test_there_and_back(name, tmp_path, capsys):
  case = _checkpoint(tmp_path / "in.pt", name)
  heads = str(case.config[CASES[name][0]])
  convert.main(
    ["two_stream", "--checkpoint", str(tmp_path / "in.pt"), "--num_heads", heads]
    + ["--out", str(tmp_path / "w.safetensors")]
  )
  assert "state dict under 'model_state_dict'" in capsys.readouterr().out
  convert.main(
    ["two_stream", "--to", "torch", "--checkpoint", str(tmp_path / "w.safetensors")]
    + ["--out", str(tmp_path / "out.pt")]
  )
  back = read_torch.read_checkpoint(tmp_path / "out.pt")["model_state_dict"]
  want = case.checkpoint()
  assert back.keys() | {n for n in want if n.endswith("_tracked")} == want.keys() | {
    n for n in back if n.endswith("_tracked")
  }
  for key, value in back.items():
    if not key.endswith("_tracked"):
      np.testing.assert_array_equal(value, want[key], err_msg=key)
  _, _, model = settings.load(tmp_path / "w.safetensors")
  assert model["embed_dim"] == want_width(case) and model["image_size"] in (64, 96, 224)


def want_width(case):
  return case.config.get("embed_dim", case.config.get("enc_dim"))


def test_a_policy_and_its_units(tmp_path):
  """It loads as a policy; back in the original layout the head itself gives the units."""
  case = _checkpoint(tmp_path / "in.pt", "libero_policy")
  path, out = tmp_path / "w.safetensors", tmp_path / "out.pt"
  there = ["two_stream", "--num_heads", "3", "--checkpoint", str(tmp_path / "in.pt")]
  convert.main([*there, "--out", str(path)])
  robot = policy.load(path, actions=7)
  assert robot.readout == "fused_patch_mean"
  arrays, system, config = weights.load_weights(path)
  arrays["mean"], arrays["scale"] = np.arange(7, dtype=np.float32), np.full(7, 2, np.float32)
  weights.save_weights(path, arrays, system, config)
  back = ["two_stream", "--to", "torch", "--checkpoint", str(path), "--out", str(out)]
  convert.main(back)
  state, want = read_torch.read_checkpoint(out)["model_state_dict"], case.checkpoint()
  name = "action_head.mlp.8"
  np.testing.assert_array_equal(state[f"{name}.weight"], 2 * want[f"{name}.weight"])
  np.testing.assert_allclose(state[f"{name}.bias"], 2 * want[f"{name}.bias"] + np.arange(7), 1e-6)
  weights.save_weights(path, arrays, system, {**config, "readout": "patch_mean_concat"})
  _refuse(back, "a policy of streams='two' that reads 'patch_mean_concat'; the original layout has")


@pytest.mark.slow
def test_converted_weights_predict(tmp_path):
  """The weights file alone rebuilds the network, statistics included."""
  case = _checkpoint(tmp_path / "in.pt", "predictor_small", prefix="")
  convert.main(
    ["two_stream", "--checkpoint", str(tmp_path / "in.pt"), "--num_heads", "3"]
    + ["--out", str(tmp_path / "w.safetensors")]
  )
  variables, model = trained.load_variables(tmp_path / "w.safetensors")
  pair = cases.images(case, "ts_small")
  (image,), _ = settings.make(model).apply(variables, *pair)
  case.check("img_pred", cases.nchw(image), atol=5e-6)


def test_ablation_leaves_parts_out(tmp_path, capsys):
  """The original always creates skip path and CLS projections; variant a does without."""
  _checkpoint(tmp_path / "in.pt", "predictor_small")
  convert.main(
    ["two_stream", "--checkpoint", str(tmp_path / "in.pt"), "--variant", "a", "--num_heads", "3"]
    + ["--out", str(tmp_path / "w.safetensors")]
  )
  assert "left out, for this variant has no such part: " in capsys.readouterr().out
  params, model = trained.load(tmp_path / "w.safetensors")
  assert "skip0" not in params["decoder"] and model["decoder"]["cls"] == "none"


@pytest.mark.slow
def test_a_run_starts_from_another(tmp_path):
  """Weights and batch statistics, from a run's folder as from what the command makes of it."""
  root = two_stream_data.write(tmp_path / "data")
  config = config_file.get_config("smoke")
  config.data.root, config.ema_decay = str(root), 0.5
  config.phases.pretrain.steps = 2
  train.train(config, tmp_path / "run")
  state, converted = tmp_path / "run.pt", tmp_path / "w.safetensors"
  arguments = ["two_stream", "--checkpoint", str(tmp_path / "run"), "--out", str(state)]
  convert.main([*arguments, "--to", "torch"])
  arguments = ["two_stream", "--checkpoint", str(state), "--out", str(converted)]
  convert.main([*arguments, "--num_heads", str(config.model.num_heads)])
  best, _ = trained.load_variables(tmp_path / "run")
  start = task_lib.TwoStreamTask(config).init(jax.random.PRNGKey(5))
  start["batch_stats"] = jax.tree.map(lambda x: x + 1, start["batch_stats"])
  for source in (tmp_path / "run", converted):
    found = checkpoint.load_variables(source, start)
    for collection in ("params", "batch_stats"):
      assert not _differs(found, best, collection), (source.name, collection)
  found = checkpoint.load_variables(converted, start, skip=("decoder/.*",))
  np.testing.assert_array_equal(
    found["params"]["decoder"]["input"]["kernel"], start["params"]["decoder"]["input"]["kernel"]
  )


def _differs(a, b, collection):
  a, b = (weights.flatten(tree[collection]) for tree in (a, b))
  assert a.keys() == b.keys()
  return any((a[name] != b[name]).any() for name in a)


def _refuse(arguments, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    convert.main(arguments)


def test_refusals(tmp_path):
  path, out = tmp_path / "in.pt", str(tmp_path / "w.safetensors")
  state = golden_cases.load("two_stream", "single_stream_9ch").checkpoint()
  write_torch.write_checkpoint(path, {"norm.weight": state["norm.weight"]})
  base = ["two_stream", "--checkpoint", str(path), "--out", out]
  _refuse(base, "no two-stream checkpoint nor one of its baselines; its first names are")
  del state["norm.weight"]
  write_torch.write_checkpoint(path, state)
  _refuse([*base, "--num_heads", "3"], r"1 missing: norm.weight \(96,\)")
  _refuse([*base, "--variant", "e"], "--variant: 'e' is not allowed")
  _refuse(
    [*base, "--preset", "mot17"], "--preset: given with two_stream, but it is of trackssm alone"
  )
  _refuse([*base, "--to", "adapter"], "--to: 'adapter' is not allowed")
  _refuse([*base, "--to", "torch", "--variant", "a"], "our weights say what they are")
  _refuse(
    ["xmem", *base[1:], "--variant", "a"],
    "--variant, --num_heads: given with xmem, but it is of two_stream alone",
  )
