"""TrackSSM checkpoints: released and original-project files to our tree and back, and refusals."""

import collections

import golden_cases
import numpy as np
import pytest

from vistraj_jax.convert import apply, read_torch, trackssm, write_torch
from vistraj_jax.core import checks, weights

STYLES = {"released": ("forward_mot17", 6), "original project": ("forward_seed_2layer", 2)}


def _checkpoint(style):
  state = golden_cases.load("trackssm", STYLES[style][0]).checkpoint()
  if style == "released":
    return {"ddpm": state, "epoch": 30, "optimizer": {"state": {}}}
  return {"model_state_dict": state, "epoch": 3, "val_loss": 0.05, "config": {"batch_size": 8}}


def _bare(changes=()):
  """A small two-layer state dict without prefix: width 32, 3 heads."""
  config = {"num_layers": 2, "num_heads": 3, "width": 32, "state_size": 4}
  rng = np.random.default_rng(0)
  flat = {
    name: rng.normal(size=shape).astype(np.float32)
    for name, shape in trackssm.tree_shapes(config).items()
  }
  state = trackssm.to_torch(weights.unflatten(flat), config, "test")["ddpm"]
  return {name.removeprefix("module."): array for name, array in state.items()} | dict(changes)


@pytest.mark.parametrize("style", STYLES)
def test_round_trip(style, tmp_path):
  checkpoint, layers = _checkpoint(style), STYLES[style][1]
  tree, config, key = trackssm.from_torch(checkpoint, "mot17", "in.pth")
  assert key == next(iter(checkpoint))
  assert config == {
    "num_layers": layers,
    "num_heads": 6,
    "width": 256,
    "state_size": 16,
    "history": 5,
    "box_sigmoid": False,
  }
  counts = trackssm.parameter_counts(tree)
  assert counts == {"encoder": {6: 2_630_400, 2: 878_336}[layers], "decoder": 2_499_096}
  path = tmp_path / "out.pth"
  write_torch.write_checkpoint(path, trackssm.to_torch(tree, config, "out.pth"))
  back = read_torch.read_checkpoint(path)
  assert back["epoch"] == 0
  want = {name.removeprefix("module."): array for name, array in checkpoint[key].items()}
  assert {f"module.{name}" for name in want} == set(back["ddpm"])
  for name, array in want.items():
    np.testing.assert_array_equal(back["ddpm"][f"module.{name}"], array, err_msg=name)


def test_layouts_of_single_tensors():
  state = _bare()
  tree, _, key = trackssm.from_torch(state, "sportsmot", "bare.pt")
  assert key == ""
  layer, name = tree["encoder"]["layer1"]["mixer"], "encoder.mamba_net.layers.1.mixer."
  assert layer["in_proj"]["kernel"][3, 5] == state[name + "in_proj.weight"][5, 3]
  assert layer["conv1d"]["kernel"][2, 7] == state[name + "conv1d.weight"][7, 0, 2]
  assert layer["A_log"][7, 2] == state[name + "A_log"][7, 2]
  head, name = tree["decoder"]["head2"], "ssm_decoder.head_series.2."
  assert head["normal_bboxes"]["kernel"][9, 1] == state[name + "normal_bboxes.weight"][1, 9]
  assert head["norm2"]["scale"][4] == state[name + "norm2.weight"][4]
  # The embedding multiplies from the right already.
  embedding = state["encoder.mamba_net.embedding.weight"]
  np.testing.assert_array_equal(tree["encoder"]["embedding"]["kernel"], embedding)


def test_half_precision_checkpoint_becomes_float32():
  state = {name: array.astype(np.float16) for name, array in _bare().items()}
  tree, _, _ = trackssm.from_torch({"state_dict": state}, "nuscenes", "half.ckpt")
  leaves = weights.flatten(tree).values()
  assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}


@pytest.mark.parametrize("preset", trackssm.PRESETS)
def test_presets(preset):
  _, config, _ = trackssm.from_torch(_bare(), preset, "a.pt")
  assert config["box_sigmoid"] == (preset != "mot17")
  assert (trackssm.PRESETS[preset]["giou"] > 0) == (preset in ("sportsmot", "nuscenes"))


def test_one_missing_tensor():
  state = _bare()
  del state["ssm_decoder.head_series.1.linear1.weight"]
  with pytest.raises(checks.InputError) as error:
    trackssm.from_torch(state, "mot17", "a.pt")
  assert str(error.value) == (
    "a.pt: the tensors do not fit the network; 1 missing: "
    "ssm_decoder.head_series.1.linear1.weight (64, 32)."
  )


def test_one_extra_tensor():
  state = _bare({"encoder.mamba_net.layers.0.mixer.gate": np.ones((2, 3))})
  with pytest.raises(checks.InputError) as error:
    trackssm.from_torch(state, "mot17", "a.pt")
  assert str(error.value) == (
    "a.pt: the tensors do not fit the network; 1 extra: "
    "encoder.mamba_net.layers.0.mixer.gate (2, 3)."
  )


@pytest.mark.parametrize(
  "name",
  [
    "encoder.mamba_net.layers.0.mixer.in_proj.weight",
    "encoder.mamba_net.layers.1.mixer.A_log",
    "encoder.mamba_net.embedding.weight",
    "ssm_decoder.head_series.0.normal_bboxes.weight",
  ],
)
def test_one_transposed_tensor(name):
  state = _bare()
  shape = state[name].shape
  state[name] = state[name].T
  with pytest.raises(checks.InputError) as error:
    trackssm.from_torch(state, "mot17", "a.pt")
  assert str(error.value) == (
    "a.pt: the tensors do not fit the network; "
    f"1 misshapen: {name} {shape[::-1]} where {shape} is wanted."
  )


def test_depthwise_kernel_without_its_middle_axis():
  name = "encoder.mamba_net.layers.0.mixer.conv1d.weight"
  state = _bare()
  state[name] = state[name][:, 0]
  with pytest.raises(checks.InputError, match=r"conv1d\.weight \(64, 4\) where \(64, 1, 4\)"):
    trackssm.from_torch(state, "mot17", "a.pt")


def test_faults_are_listed_together_and_cut_short():
  state = {n: a for n, a in _bare().items() if "head_series.0" not in n}
  with pytest.raises(checks.InputError, match=r"14 missing: ssm_decoder\.head_series\.0.* \.\.\."):
    trackssm.from_torch(state, "mot17", "a.pt")


def test_other_sentences():
  with pytest.raises(checks.InputError, match=r"preset: 'mot71' is not allowed; .*'mot17'"):
    trackssm.from_torch(_bare(), "mot71", "a.pt")
  with pytest.raises(checks.InputError, match=r"a\.pt: no tensor is named 'encoder.*'fc'"):
    trackssm.from_torch({"fc": np.ones(2)}, "mot17", "a.pt")
  with pytest.raises(
    checks.InputError, match=r"a\.pt: no state dict under one of \['ddpm', .*epoch"
  ):
    trackssm.from_torch({"epoch": 3}, "mot17", "a.pt")
  with pytest.raises(checks.InputError, match=r"a\.pt: holds \[1\], no dict"):
    trackssm.from_torch([1], "mot17", "a.pt")
  tree, config, _ = trackssm.from_torch(_bare(), "mot17", "a.pt")
  del tree["decoder"]["head0"]["D"]
  with pytest.raises(checks.InputError, match=r"out\.pth: .*1 missing: decoder/head0/D \(32,\)"):
    trackssm.to_torch(tree, config, "out.pth")


def test_dropped_rows_and_first_match():
  table = (
    apply.Row(r"fc#.weight", "first/kernel#", apply.LINEAR),
    apply.Row(r"fc#.count", None),
  )
  tensors = {"fc10.weight": np.ones((2, 3)), "fc10.count": np.zeros(())}
  tree = apply.to_tree(table, tensors, {"first/kernel10": (3, 2)}, "a.pt")
  assert {name: array.shape for name, array in tree.items()} == {"first/kernel10": (3, 2)}
  back = apply.to_source(table, tree, {"first/kernel10": (3, 2)}, "b.pt")
  np.testing.assert_array_equal(back["fc10.weight"], tensors["fc10.weight"])
  with pytest.raises(checks.InputError, match=r"no row of the conversion table names 'second'"):
    apply.to_tree(table, tensors, {"second": (1,)}, "a.pt")


def test_released_state_dict_is_ordered_as_written():
  state = trackssm.to_torch(
    trackssm.from_torch(_bare(), "mot17", "a.pt")[0],
    {"num_layers": 2, "num_heads": 3, "width": 32, "state_size": 4},
    "b.pth",
  )["ddpm"]
  assert isinstance(state, collections.OrderedDict)
  assert next(iter(state)).startswith("module.encoder.mamba_net.")
