"""The trajectory extension against the original project: LiDAR, adapters, head, losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xmem_cases
from xmem_cases import check, jit, last, unit

from launch import convert
from vistraj_jax.convert import write_torch
from vistraj_jax.convert import xmem_trajectory as converter
from vistraj_jax.core import checks, weights
from vistraj_jax.encoders import pointpillars
from vistraj_jax.losses import masks, modes
from vistraj_jax.models.xmem import adapters, trajectory_head


def _convert(tensors, part, model, *inputs):
  """Parameters of `model` from PyTorch tensors; the way back must give them again."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
  want = {name: leaf.shape for name, leaf in weights.flatten(zeros).items()}
  tree = converter.from_torch(tensors, part, want, part)
  for name, array in converter.to_torch(tree, part, part).items():
    np.testing.assert_array_equal(array, tensors[name])
  return tree


def _part(case, prefix):
  return {
    name.removeprefix(prefix): array
    for name, array in case.checkpoint().items()
    if name.startswith(prefix)
  }


def test_pointpillars(tmp_path):
  case = xmem_cases.load("pointpillars")
  grid = pointpillars.PillarGrid((-3.2, -3.2, -2.0), (3.2, 3.2, 2.0), 0.2, 10)
  model = pointpillars.PointPillars(grid, 16, (16, 32, 64), (2, 4, 4), (16, 24, 24))
  points = case.arrays["in/points"]
  # Padding at the origin, told apart by the mask.
  points = np.concatenate([points, np.zeros((2, 30, 5), np.float32)], 1)
  valid = np.broadcast_to(np.arange(430) < 400, (2, 430))
  params = _convert(case.checkpoint(), "pillars", model, points, valid)

  @jit
  def run(params, points, valid):
    return model.apply({"params": params}, points, valid, mutable=["intermediates"])

  # The same by the commands' way: a detector's checkpoint -> weights file -> parameters.
  state = {**case.checkpoint(), "pts_bbox_head.conv.weight": np.zeros((2, 2))}
  state["pts_neck.deblocks.0.1.num_batches_tracked"] = np.array(3)
  write_torch.write_checkpoint(tmp_path / "detector.pth", {"state_dict": state})
  arguments = [
    "--checkpoint",
    str(tmp_path / "detector.pth"),
    "--out",
    str(tmp_path / "w.safetensors"),
  ]
  assert convert.main(["pointpillars", *arguments]) == 0
  jax.tree.map(np.testing.assert_array_equal, pointpillars.load(arguments[-1], model), params)
  with pytest.raises(checks.InputError, match="widths.*wanted are"):
    pointpillars.load(arguments[-1], model.clone(widths=(16, 32, 32)))

  out, seen = run(params, points, valid)
  seen = seen["intermediates"]
  canvas = np.moveaxis(np.asarray(seen["pillars"]["canvas"][0]), -1, 1)
  check(case, "canvas", canvas)
  for i in range(3):
    check(case, f"stage{i}", np.moveaxis(seen[f"stage{i}"][0], -1, 1))
  check(case, "bev_features", np.moveaxis(out, -1, 1))
  cells, kept = pointpillars.pillar_of_points(points, jnp.asarray(valid), grid)
  count = [len(np.unique(c[k])) for c, k in zip(np.asarray(cells), np.asarray(kept), strict=True)]
  check(case, "pillar_count", np.array(count))
  nothing, _ = run(params, points, np.zeros_like(valid))
  assert np.isfinite(nothing).all()


def test_published_pillars_have_as_many_parameters():
  model = pointpillars.PointPillars()
  inputs = jnp.zeros((1, 4, 5)), jnp.ones((1, 4), bool)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  flat = jax.tree_util.tree_leaves_with_path(shapes)
  trained = [leaf.size for path, leaf in flat if path[-1].key not in ("mean", "var")]
  assert sum(trained) == 3_880_320


def test_seed_head_and_its_loss():
  case = xmem_cases.load("seed_head")
  head = trajectory_head.SeedHead()
  features = unit("features", 3, 9, 64)
  params = _convert(case.checkpoint(), "head", head, features)
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 68_054
  offsets, logits = jit(head.apply)({"params": params}, features)
  check(case, "trajectory", offsets)
  check(case, "mode_logits", logits)
  last_xy = 10 * unit("last_pos", 3, 2)
  future = last_xy[:, None] + np.cumsum(0.8 * unit("future_step", 3, 12, 2), 1)
  absolute = last_xy[:, None, None] + offsets
  ade, fde = modes.errors(absolute, future)
  check(case, "ade_per_mode", ade)
  check(case, "fde_per_mode", fde)
  check(case, "best_mode", ade.argmin(1))
  terms = modes.best_of_modes(absolute, logits, future)
  check(case, "ADE", terms["ade"].mean())
  check(case, "FDE", terms["fde"].mean())
  check(case, "miss_rate_2m", (terms["fde"] > 2).mean())
  loss = terms["ade"] + 2 * terms["fde"] + 0.1 * terms["cross_entropy"]
  check(case, "loss", loss.mean())


@pytest.mark.parametrize("K", [1, 3])
def test_a_perfect_prediction_has_a_finite_gradient(K):
  future = jnp.asarray(unit("future", 2, 4, 2))
  prediction = jnp.repeat(future[:, None], K, 1)

  def loss(prediction, logits):
    return sum(term.sum() for term in modes.best_of_modes(prediction, logits, future).values())

  value, grads = jax.value_and_grad(loss, (0, 1))(prediction, jnp.zeros((2, K)))
  assert np.isfinite(value) and all(np.isfinite(g).all() for g in grads)


def test_adapters_and_mask_loss():
  case = xmem_cases.load("seed_small")
  x = last(unit("camera_and_lidar", 2, 2, 5, 6, 8)).reshape(4, 6, 8, 5)
  fusion = adapters.ConcatFusion()
  params = _convert(_part(case, "early_fusion."), "concat_fusion", fusion, x[..., :3], x[..., 3:])
  fused = fusion.apply({"params": params}, x[..., :3], x[..., 3:])
  check(case, "early_fusion", np.moveaxis(fused.reshape(2, 2, 6, 8, 3), -1, 2))
  adapter = adapters.BevAdapter()
  features = last(unit("bev_features", 2, 64, 6, 8))
  params = _convert(_part(case, "pp_to_frames."), "bev_adapter", adapter, features)
  frames = adapter.apply({"params": params}, features)
  check(case, "pp_to_frames", np.moveaxis(frames, -1, 1))
  logits = 2 * unit("occ_logits", 2, 2, 1, 12, 16)
  target = masks.nearest((unit("target_masks", 2, 2, 1, 24, 32) > 0.8).astype(np.float32), (12, 16))
  bce, dice = masks.binary_cross_entropy(logits, target), masks.binary_dice(logits, target)
  check(case, "mask_loss_bce", bce.mean())
  check(case, "mask_loss_dice", dice.mean())
  check(case, "mask_loss_bce_dice", (bce + dice).mean())


@pytest.mark.parametrize("kind", [adapters.ConcatFusion, adapters.ProjectionFusion])
def test_fusions_start_as_the_camera(kind):
  camera, lidar = unit("a", 2, 4, 5, 3), unit("b", 2, 4, 5, 2)
  fusion = kind()
  params = fusion.init(jax.random.key(0), camera, lidar)
  np.testing.assert_allclose(fusion.apply(params, camera, lidar), camera, atol=1e-6)
