"""Video backbones against the public ones: maps after every block, pooled vectors, logits."""

import functools

import golden_cases
import jax
import numpy as np
import pytest

from launch import convert
from vistraj_jax.convert import video_resnet as converter
from vistraj_jax.convert import write_torch
from vistraj_jax.core import checks, weights
from vistraj_jax.encoders import i3d_inception, video_resnet, video_shapes

QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
shapes = functools.cache(video_shapes.shapes)


def jit(function):
  """jax.jit with XLA's options for large programs that run once."""
  return jax.jit(function, compiler_options=QUICK if jax.default_backend() == "cpu" else None)


def run(case, network, name):
  video = golden_cases.fill.tensor(f"input:{name}", case.manifest["inputs"]["video"]["shape"])
  video = np.moveaxis(300 * np.tanh(video) if network == "i3d_inception" else video, 1, -1)
  params = converter.from_torch(case.checkpoint(), network, shapes(network), case.folder.name)
  model = video_shapes.NETWORKS[network](400)
  count = sum(
    leaf.size
    for name, leaf in weights.flatten(params).items()
    if not name.endswith(("/mean", "/var"))
  )
  assert count == case.config["params"]
  return jit(lambda params, video: model.apply({"params": params}, video))(params, video)


def first(x):
  return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.slow
def test_i3d_r50():
  case = golden_cases.load("magvit", "i3d_r50")
  maps, pooled, logits = run(case, "i3d", "magvit_i3d_video")
  for number, map_ in enumerate(maps):
    case.check(f"block{number}", first(map_))
  case.check("pooled", pooled)
  case.check("logits", logits)


@pytest.mark.slow
def test_slowfast_r50():
  case = golden_cases.load("magvit", "slowfast_r50")
  np.testing.assert_array_equal(video_resnet.spread(32, 8), case.arrays["slow_index"])
  maps, pooled, logits = run(case, "slowfast", "magvit_sf_video")
  for number, pair in enumerate(maps):
    for path, map_ in zip(("slow", "fast"), pair, strict=True):
      case.check(f"block{number}_{path}", first(map_))
  case.check("pooled", pooled)
  case.check("logits", logits)


@pytest.mark.slow
@pytest.mark.parametrize("name, key", [("i3d_inception", "inc"), ("i3d_inception_logits", "incl")])
def test_i3d_inception(name, key):
  case = golden_cases.load("magvit", name)
  maps, logits = run(case, "i3d_inception", f"magvit_{key}_video")
  for layer in case.manifest["outputs"]:
    if layer != "logits":
      case.check(layer, first(maps[layer]))
  if name.endswith("logits"):
    case.check("logits", logits)
  else:
    assert logits is None


def test_files_without_the_classification_layer_and_with_a_missing_tensor():
  case = golden_cases.load("magvit", "i3d_r50")
  tensors = {
    n: np.broadcast_to(np.float32(0), t["shape"]) for n, t in case.manifest["tensors"].items()
  }
  file = {"model_state": tensors}
  tree = converter.from_torch(file, "i3d", shapes("i3d", 0), "file")
  assert "classes" not in tree and weights.flatten(tree).keys() == shapes("i3d", 0).keys()
  del tensors["blocks.3.res_blocks.0.branch1_conv.weight"]
  with pytest.raises(checks.InputError, match=r"1 missing: blocks.3.res_blocks.0.branch1_conv"):
    converter.from_torch(file, "i3d", shapes("i3d", 0), "file")
  with pytest.raises(checks.InputError, match="'i3D'"):
    converter.from_torch(file, "i3D", {}, "file")


def test_frames_are_spread_as_the_public_samplers_do():
  assert video_resnet.spread(25, 32)[[0, 1, 2, 30, 31]].tolist() == [0, 0, 1, 23, 24]
  assert video_resnet.spread(4, 1).tolist() == [0]


def test_fvd_clips():
  video = np.random.default_rng(0).integers(0, 256, (1, 9, 6, 8, 3), np.uint8)
  x = np.asarray(i3d_inception.preprocess(video))
  assert x.shape == (1, 9, 224, 224, 3)
  np.testing.assert_allclose(x[:, :, 0, 0], video[:, :, 0, 0] * (2 / 255) - 1, atol=1e-6)
  with pytest.raises(checks.InputError, match="clips of 8 frames"):
    i3d_inception.preprocess(video[:, :8])


def test_weights_files(tmp_path):
  """From a public file to the tree that a motion network starts with; another width is refused."""
  small = video_shapes.shapes("i3d", 0, width=8)
  tree = weights.unflatten({n: np.full(s, 0.5, np.float32) for n, s in small.items()})
  weights.save_weights(tmp_path / "i3d.safetensors", tree, "i3d", {})
  found = video_shapes.load(tmp_path / "i3d.safetensors", "i3d", width=8)
  assert weights.flatten(found).keys() == small.keys()
  with pytest.raises(checks.InputError, match="tensors of i3d are missing, extra or misshapen"):
    video_shapes.load(tmp_path / "i3d.safetensors", "i3d", width=16)
  with pytest.raises(checks.InputError, match="holds weights of 'i3d', wanted are 'slowfast'"):
    video_shapes.load(tmp_path / "i3d.safetensors", "slowfast", width=8)


@pytest.mark.slow
def test_command(tmp_path, capsys):
  case = golden_cases.load("magvit", "slowfast_r50")
  checkpoint = {"model_state": case.checkpoint()}
  write_torch.write_checkpoint(tmp_path / "slowfast.pth", checkpoint)
  files = ["--checkpoint", str(tmp_path / "slowfast.pth"), "--out", str(tmp_path / "w.safetensors")]
  assert convert.main(["slowfast", *files]) == 0
  assert "slowfast, 34,566,488 parameters" in capsys.readouterr().out
  assert "slow_stem" in video_shapes.load(tmp_path / "w.safetensors", "slowfast")
