"""The trajectory predictor: wrong settings, axes, gradients, freezing, training end to end."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xmem_cases
import xmem_clips
from test_configs import _leaves, _Watched

from configs import xmem as config_file
from launch import evaluate, predict, train
from vistraj_jax.core import checks, rules, trained, weights
from vistraj_jax.data import forecasts, pipeline, xmem
from vistraj_jax.models.xmem import network, trajectory, trajectory_head
from vistraj_jax.tasks import xmem as task_lib
from vistraj_jax.train import optim, partition, phases

REPO = pathlib.Path(__file__).parents[1]
VARIANTS = ("bev,full", "camera", "camera_fused", "seed", "smoke")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return xmem_clips.write(tmp_path_factory.mktemp("clips"))


def _shapes(module, rng, *inputs):
  return jax.eval_shape(module.init, rng, *inputs)["params"]


def _shapes_of(predictor, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(trajectory, "_init", _shapes)
    image, hidden = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 1, 1, 1, predictor.xmem.hidden_dim))
    first = functools.partial(_shapes, predictor.xmem, jax.random.key(0))
    patch.setattr(network, "init", lambda *_: first(image, image[..., :1], hidden))
    return predictor.init(jax.random.key(0))


def _tiny_params(predictor, monkeypatch):
  """Parameters drawn by NumPy: compiling the network's own start takes longer than the tests."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name in ("scale", "var"):
      return jnp.ones(leaf.shape)
    scale = np.prod(leaf.shape[:-1]) ** -0.5 if name.endswith("kernel") else 0.1
    return jnp.asarray(rng.normal(size=leaf.shape) * scale, jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, _shapes_of(predictor, monkeypatch))


@pytest.mark.parametrize("variant", VARIANTS)
def test_groups_cover_the_network(variant, monkeypatch):
  """Every pattern of every phase matches; what must stay fixed does."""
  config = config_file.get_config(variant)
  predictor = trajectory.Predictor(config.model, config.data)
  params = _shapes_of(predictor, monkeypatch)
  decays = rules.match(config.optimizer.decay, params, "decay")
  assert any(jax.tree.leaves(decays))
  for phase in phases.from_config(config, 1000):
    labels = weights.flatten(optim.labels_of(phase, params))
    assert set(phase.learning_rates) <= set(config.optimizer.weight_decay)
    assert all(labels[n] == "frozen" for n in labels if n.endswith(("/mean", "/var")))
    assert (labels["head/in_norm/scale"] == "frozen") == (phase.name == "masks")
    assert labels["xmem/key_proj/key/kernel"] == labels["xmem/decoder/pred/kernel"] == "decoder"
    if "pillars" in params:
      frozen = labels["pillars/pillars/kernel"] == "frozen"
      assert frozen == ("full" in variant or variant == "seed")
  if variant == "bev,full":
    counts = {part: sum(x.size for x in jax.tree.leaves(tree)) for part, tree in params.items()}
    assert counts["pillars"] == 3_880_320 + 2 * (64 + 3 * 64 + 5 * 128 + 5 * 256 + 64 + 2 * 96)


@pytest.mark.parametrize(
  ("variant", "changes"),
  [
    ("seed,small", {}),
    ("smoke", {"model.dtype": "bfloat16", "model.remat": True, "data.objects": 2}),
    ("camera_fused", {"model.fusion": "project", "model.head.t0_feature": "key"}),
  ],
)
def test_shapes_and_types_of_answers(variant, changes, monkeypatch):
  """Futures and masks are float32 in every compute type, whatever the head and the input."""
  config = xmem_clips.config("", variant, **{"data.t_in": 6, **changes})
  predictor = trajectory.Predictor(config.model, config.data)
  sizes = {**dict(config.data), "height": config.data.image_size[0]}
  sizes["width"] = config.data.image_size[1]
  batch = {
    name: jax.ShapeDtypeStruct((2, *(sizes.get(s, s) for s in shape)), dtype)
    for name, (dtype, shape) in xmem.ELEMENT[config.data.mode].items()
  }
  params = _shapes_of(predictor, monkeypatch)
  futures, shares, masks = jax.eval_shape(predictor.predict, params, batch)
  assert (futures.shape, shares.shape) == ((2, 6, 3, 2), (2, 6))
  assert masks.shape == (2, 6, *config.data.image_size)
  assert {x.dtype for x in (futures, shares, masks)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  ("changes", "sentence"),
  [
    ({"data.mode": "radar"}, "config.data.mode: 'radar' is not allowed"),
    ({"data.objects": 0}, "config.data.objects: 0 received, 1 or more wanted"),
    ({"data.image_size": (32, 40)}, r"image_size: \(32, 40\) received; .* square .* of 16"),
    ({"model.warmup_frames": 4}, "warmup_frames: 4 received, 1 to 3 allowed"),
    ({"model.memory.min_mid": 1}, "memory.min_mid: 1 is not allowed; choose 2 or more"),
    ({"model.memory.top_k": 17}, r"top_k: 17 received; .* clip of 4 frames holds 16 elements"),
    (
      {"model.memory.num_prototypes": 21, "model.memory.min_mid": 2, "model.memory.max_mid": 3},
      "num_prototypes: 21 is not allowed with images of 4",
    ),
    ({"model.memory.num_prototypes": 2000}, "choose at most memory.max_long 1024"),
    ({"model.xmem.hidden_dim": 0}, "hidden_dim: 0 received; the sensory memory is what the head"),
    ({"model.xmem.key_dim": 4, "model.head.t0_feature": "key"}, "keys have 4 channels and the"),
    (
      {
        "data.mode": "bev",
        "data.image_size": (32, 32),
        "model.pillars": {"checkpoint": "", "reach": 12.8, "points": 4},
        "model.adapter": {"features": 8},
        "phases.masks.groups": (("pillars/.*", "frozen"), (".*", "head")),
      },
      "pillars.checkpoint: '' received, but config.phases.masks.groups freezes",
    ),
    ({"model.head.t0_feature": "mean"}, "t0_feature: 'mean' is not allowed"),
    ({"model.head.kind": "seed"}, "head.use_ego_motion: True received, but the head 'seed'"),
    ({"model.head.kind": "big"}, "config.model.head.kind: 'big' is not allowed"),
    ({"model.head.modes": 0}, "config.model.head.modes: 0, config.data.t_out: 3 received"),
    ({"model.pillars.reach": 51.2}, "pillars.reach: 51.2 m received, .* the data reach 12.8 m"),
    ({"loss.relaxation": 1.0}, "config.loss: relaxation 1.0 and temperature"),
    ({"phases.masks.objective": "boxes"}, "phases.masks.objective: 'boxes' is not allowed"),
    ({"data.t_out": 12}, "config.data.t_out: 12 received, the data has 3 key frames; set it to"),
    ({"data.t_in": 9}, "config.data.t_in: 9 received, the data has 4 key frames"),
  ],
)
def test_wrong_settings(changes, sentence):
  about = {"shapes": {"past_xy": (4, 2), "future_xy": (3, 2)}, "layout": {"reach": 12.8}}
  with pytest.raises(checks.InputError, match=sentence):
    task_lib.XMemTask(xmem_clips.config("", **changes), {"train": about})


def test_horizon_of_the_data_rules(root, tmp_path):
  config = xmem_clips.config(root, **{"data.t_out": 12})
  with pytest.raises(checks.InputError, match="config.data.t_out: 12 received, but the clips of"):
    train.train(config, tmp_path / "run")


def test_missing_weight_decay():
  config = xmem_clips.config("", **{"optimizer.weight_decay": {"head": 0.1}})
  phase = phases.from_config(config, 8)[0]
  names = ("bn/mean", "head/kernel", "adapter/scale", "xmem/decoder/kernel")
  names += ("xmem/key_encoder/kernel", "xmem/value_encoder/kernel")
  params = weights.unflatten({name: np.zeros(2) for name in names})
  with pytest.raises(checks.InputError, match="weight_decay: nothing for group 'decoder'"):
    optim.build(phase, config.optimizer, params)


def test_scores_see_the_futures_and_leave_them_alone():
  head = trajectory_head.ScoredHead(3, 4, hidden=8, dropout=0.0)
  rng = np.random.default_rng(0)
  shapes = ((2, 5, 6), (2, 5, 3), (2, 2))
  features, motion, ahead = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)

  def scores(params, ahead):
    return head.apply({"params": params}, features, motion, ahead)[1].sum()

  params = xmem_cases.jit(head.init)(jax.random.key(0), features, motion, ahead)["params"]
  run = xmem_cases.jit(jax.value_and_grad(scores, (0, 1)))
  value, (of_params, of_ahead) = run(params, ahead)
  assert run(params, 5 * ahead)[0] != value
  assert not of_ahead.any() and not of_params["futures"]["kernel"].any()
  assert of_params["track"]["kernel"].any() and of_params["gru"]["input_kernel"].any()


def test_points_and_masks_share_axes(root, monkeypatch):
  """Points on the agent change the image where its mask is, and not where it would be mirrored."""
  config = xmem_clips.config(
    root, **{"data.image_size": (64, 64), "model.pillars.widths": (4,) * 3}
  )
  predictor = trajectory.Predictor(config.model, config.data)
  params = _tiny_params(predictor, monkeypatch)
  batch = pipeline.load(config.data, "train", config.model).gather(np.arange(2))
  empty = batch["num_points"] * 0
  batch["num_points"][:] = 30  # those on the agent; points are stored in their order
  run = xmem_cases.jit(predictor.images)
  change = np.abs(run(params, batch) - run(params, {**batch, "num_points": empty})).sum(-1)
  masks = batch["masks"][:, :, 0] > 0
  for turned in (masks[:, :, ::-1], masks[:, :, :, ::-1], np.swapaxes(masks, 2, 3)):
    assert change[masks].mean() > 1.5 * change[turned & ~masks].mean()
  assert change[masks].mean() > 3 * change[~masks].mean()


class _Tiny:
  """A camera task of three frames with random weights, its batch, and one gradient program."""

  def __init__(self, root, monkeypatch, **changes):
    config = xmem_clips.config(
      root, "camera", **{**_TINY_CAMERA, "data.image_size": (32, 32), **changes}
    )
    self.task = task_lib.XMemTask(config)
    self.params = _tiny_params(self.task.predictor, monkeypatch)
    self.batch = whole_batch(config, 2)


_TINY_CAMERA = {
  "model.xmem.key_dim": 8,
  "model.xmem.value_dim": 32,
  "model.xmem.hidden_dim": 8,
  "model.xmem.width": 4,
  "model.memory.num_prototypes": 4,
  "model.head.hidden": 32,
  "model.head.dropout": 0.0,
}


def whole_batch(config, count):
  batch = pipeline.load(config.data, "train", config.model).gather(np.arange(count))
  unread = ("depth", "intrinsics", "cam_from_ego", "anchor_pose", "row")
  batch = {name: array for name, array in batch.items() if name not in unread}
  return {**batch, "mask": np.ones(count, np.float32), "position": np.arange(count, dtype=np.int32)}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"model.remat": True, "model.head.modes": 1}])
def test_gradients(root, monkeypatch, changes):
  """Finite everywhere, and the future's loss reaches the pixels of the first frame; K = 1 too."""
  tiny = _Tiny(root, monkeypatch, **changes)

  def loss(params, frames):
    batch = {**tiny.batch, "frames": frames}
    terms, _ = tiny.task.losses({"params": params}, batch, jax.random.key(0), train=True)
    return sum(terms[n][1].value for n in ("ade", "fde", "cross_entropy")), terms["mask"][1].value

  frames = tiny.batch["frames"].astype(np.float32)
  run = xmem_cases.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
  (value, mask), (of_params, of_frames) = run(tiny.params, frames)
  assert np.isfinite(value) and np.isfinite(mask)
  assert (
    all(np.isfinite(x).all() for x in jax.tree.leaves(of_params)) and np.isfinite(of_frames).all()
  )
  assert np.abs(of_frames[:, 0]).max() > 0
  flat = weights.flatten(of_params)
  for name in ("value_encoder/fuser/block2/conv2/kernel", "key_proj/key/kernel"):
    assert flat[f"xmem/{name}"].any(), name


@pytest.mark.slow
def test_training_end_to_end(root, tmp_path, monkeypatch, capsys):
  """Both phases, every setting read, what is frozen, one compilation, prediction, scores."""
  programs = []
  compile_ = partition.JitPlan.compile

  def watched(self, *args, **kwargs):
    programs.append(compile_(self, *args, **kwargs))
    return programs[-1]

  monkeypatch.setattr(partition.JitPlan, "compile", watched)
  config, read = xmem_clips.config(root, "camera_fused", **_SHORT), set()
  summary = train.train(_Watched(config, "", read), tmp_path / "run")
  assert set(_leaves(config)) == read
  assert list(summary) == ["masks", "trajectory"]
  assert summary["masks"]["loss/val"] == summary["masks"]["mask_loss/val"]
  assert summary["trajectory"]["loss/val"] == summary["trajectory"]["min_ade_5/val"]
  assert [program._cache_size() for program in programs] == [1] * 4  # steps, evaluation

  first = weights.flatten(task_lib.XMemTask(config).init(jax.random.PRNGKey(0))["params"])
  masks = weights.flatten(trained.load_best(tmp_path / "run" / "masks"))
  last = weights.flatten(trained.load_best(tmp_path / "run" / "trajectory"))
  for name, value in first.items():
    if name.endswith(("/mean", "/var")):
      np.testing.assert_array_equal(last[name], value)
    if name.startswith("head/"):
      np.testing.assert_array_equal(masks[name], value)
  assert (masks["fusion/conv/kernel"] != first["fusion/conv/kernel"]).any()
  assert (last["head/futures/kernel"] != first["head/futures/kernel"]).any()

  alone, params = network.load(tmp_path / "run")  # XMem of a run, for launch.segment
  assert alone.key_dim == config.model.xmem.key_dim
  for name, value in weights.flatten(params).items():
    np.testing.assert_array_equal(value, last[f"xmem/{name}"])
  assert predict.main(["--run", str(tmp_path / "run"), "--batch_size", "4"]) == 0
  found = forecasts.load(tmp_path / "run", masks=True)
  assert found["futures"].shape == (6, 6, 3, 2)
  assert found[forecasts.MASKS].shape == (6, 4, 32, 32)
  np.testing.assert_allclose(found["probabilities"].sum(1), 1, rtol=1e-5)
  out = tmp_path / "scores"
  arguments = ["forecasts", "--forecasts", str(tmp_path / "run"), "--devkit", "--out", str(out)]
  assert evaluate.main(arguments) == 0
  scores = json.loads((out / "scores.json").read_text())["classes"]["all"]["runs"]["run"]
  assert scores["min_ade_5"] == pytest.approx(summary["trajectory"]["min_ade_5/val"], rel=1e-3)
  assert float(capsys.readouterr().out.split("differ by ")[1].split()[0]) < 1e-6


_SHORT = {
  **_TINY_CAMERA,
  "data.image_size": (32, 32),
  "steps_per_call": 2,
  "eval_batch_size": 4,
  "eval_every": {"steps": 4},
  **{
    f"phases.{name}.{key}": value
    for name in ("masks", "trajectory")
    for key, value in (("epochs", 4.0), ("batch_size", 8), ("warmup_steps", 1))
  },
}


@pytest.mark.slow
def test_two_devices_compute_what_one_does(root, tmp_path):
  """The gradient of a batch over two devices is that of one, to 1e-5 of its largest entry."""
  environment = {
    **os.environ,
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    "PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'tests'}",
    "JAX_PLATFORMS": "cpu",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
  }
  command = [sys.executable, "tests/xmem_two_devices.py", str(root), str(tmp_path / "out.json")]
  subprocess.run(command, cwd=REPO, env=environment, check=True, stderr=subprocess.DEVNULL)
  report = json.loads((tmp_path / "out.json").read_text())
  assert report["devices"] == 2
  assert report["difference"] < 1e-5 * report["largest"], report
