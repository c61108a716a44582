"""Waypoint heads, losses and scores against the public code and the official metric."""

import dataclasses
import functools

import golden_cases
import jax
import numpy as np
import optax
import pytest

from vistraj_jax.convert import apply
from vistraj_jax.convert import encoders as encoder_tables
from vistraj_jax.convert import vlm_waypoint as converter
from vistraj_jax.core import weights
from vistraj_jax.encoders import preprocess
from vistraj_jax.losses import trajectory
from vistraj_jax.metrics import displacement, rater_feedback
from vistraj_jax.models.vlm_waypoint import attention, inputs, mlp, network, proposals

KEY = jax.random.PRNGKey(0)


def _load(name, module, head, features):
  """Returns case, features and parameters of `module`, read through the converter."""
  case = golden_cases.load("vlm_waypoint", name)
  example = (features, case.input("past"), case.input("intent"))
  want = jax.eval_shape(module.init, KEY, *example)["params"]
  shapes = {name: leaf.shape for name, leaf in _flat_shapes(want).items()}
  params = converter.from_torch(case.checkpoint(), head, shapes, name)
  back = converter.to_torch(params, head, name)["state_dict"]
  assert {name.removeprefix("model.") for name in back} == set(case.checkpoint())
  return case, example, params


def _flat_shapes(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def _tokens(case):
  """NCHW feature map -> tokens [B, N, C]."""
  grid = np.moveaxis(case.input("features"), 1, -1)
  return grid.reshape(grid.shape[0], -1, grid.shape[-1])


def test_waypoint_head():
  features = golden_cases.load("vlm_waypoint", "waypoint_head").input("visual")
  module = mlp.WaypointHead()
  case, example, params = _load("waypoint_head", module, "mlp", features)
  assert sum(leaf.size for leaf in weights.flatten(params).values()) == 926_248
  out = module.apply({"params": params}, *example)
  case.check("output", out.selected.reshape(5, -1))


def test_waypoint_head_training():
  features = golden_cases.load("vlm_waypoint", "waypoint_head_train").input("visual")
  module = mlp.WaypointHead(width=64)
  case, example, params = _load("waypoint_head_train", module, "mlp", features)
  future = case.input("future")

  def loss(params):
    out = module.apply({"params": params}, *example)
    return trajectory.displacement(out.selected, future).mean()

  config = case.config
  tx = optax.adam(config["lr"], *config["betas"], config["eps"])

  @jax.jit
  def step(params, state):
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state)
    return optax.apply_updates(params, updates), state, value, grads

  state, losses = tx.init(params), []
  for i in range(config["steps"]):
    params, state, value, grads = step(params, state)
    losses.append(value)
    if i == 0:
      _check_tensors(case, "grad0", grads)
  case.check("losses", losses)
  _check_tensors(case, "final", params)


def _check_tensors(case, prefix, tree):
  named = converter.to_torch(jax.tree.map(np.asarray, tree), "mlp", prefix)["state_dict"]
  for name, value in named.items():
    case.check(f"{prefix}:{name.removeprefix('model.')}", value)


def test_monocular_head():
  tokens = _tokens(golden_cases.load("vlm_waypoint", "monocular_head"))
  module = attention.MonocularHead()
  case, example, params = _load("monocular_head", module, "attention", tokens)
  out = module.apply({"params": params}, *example)
  case.check("output", out.selected.reshape(3, -1))


def test_deep_monocular_head():
  tokens = _tokens(golden_cases.load("vlm_waypoint", "deep_monocular_head"))
  module = proposals.ProposalHead(depth=True)
  case, example, params = _load("deep_monocular_head", module, "proposals", tokens)
  apply = jax.jit(functools.partial(module.apply, mutable=["intermediates"]))
  out, seen = apply({"params": params}, *example)
  case.check("trajectory", out.xy)
  case.check("scores", out.scores)
  case.check("controls", seen["intermediates"]["controls"][0])
  case.check("depth", seen["intermediates"]["depth"][0])


def test_single_mode_loss():
  case = golden_cases.load("vlm_waypoint", "losses")
  pred, future = case.input("pred"), case.input("future")
  ade = trajectory.displacement(pred[:, 0], future).mean(-1)
  for name in ("single_loss_ade", "single_loss", "single_ade_pred", "single_ade_oracle"):
    case.check(name, ade.mean()[None])


@pytest.mark.parametrize("kind", ["mse", "reinforce", "margin"])
def test_multi_mode_losses(kind):
  case = golden_cases.load("vlm_waypoint", "losses")
  config = case.config
  past, future, pred, scores = (case.input(n) for n in ("past", "future", "pred", "scores"))
  ade = trajectory.ade_of_proposals(pred, future)
  distance = trajectory.displacement(pred, future[:, None])
  case.check("ade_per_mode", ade)
  case.check("fde_per_mode", distance[..., -1])
  case.check("ade3_per_mode", distance[..., :12].mean(-1))

  best = trajectory.best_of(ade, config["loss_top_n"]).mean()
  if kind == "mse":
    scorer = trajectory.scorer_mse(scores, ade).mean()
  elif kind == "reinforce":
    temperature = max(0.1, config["tau_base"] * config["tau_decay"] ** config["epoch"])
    scorer = trajectory.scorer_reinforce(scores, ade, temperature).mean()
  else:
    total, weight = trajectory.scorer_margin(scores, ade)
    scorer = total.sum() / weight.sum()
  chosen = inputs.Proposals(pred, scores).selected
  speed = np.linalg.norm(past[:, -1, 2:4], axis=-1)
  rfs = 1 - trajectory.rater_feedback_proxy(chosen, future, speed).mean()
  selected = displacement.ade(chosen, future, 5.0).mean()
  for name, value in {
    "loss_ade": best,
    "loss_score": scorer,
    "rfs_unweighted": rfs,
    "loss_rfs": config["rfs_weight"] * rfs,
    "loss": best + scorer + config["rfs_weight"] * rfs,
    "ade_pred": selected,
    "ade_oracle": np.asarray(ade).min(1).mean(),
    "ade_regret": selected - np.asarray(ade).min(1).mean(),
  }.items():
    case.check(f"multi_{kind}_{name}", np.asarray(value)[None])
  for name, value in displacement.scorer_agreement(scores, np.asarray(ade)).items():
    case.check(f"multi_{kind}_scorer_{name}", value.mean()[None])


def test_rater_feedback_score():
  case = golden_cases.load("vlm_waypoint", "rfs")
  names = ("prediction", "rater_traj", "rater_len", "rater_score", "init_speed", "probability")
  prediction, xy, length, label, speed, probability = (case.input(n) for n in names)
  rated = (xy, length, label, speed)
  exact = dict(rtol=1e-12, atol=1e-12)
  case.check("score", rater_feedback.score(prediction, *rated, probability), **exact)
  case.check("score_floor0", rater_feedback.score(prediction, *rated, probability, 0.0), **exact)
  for p in range(prediction.shape[1]):
    case.check(f"score_pred{p}", rater_feedback.score(prediction[:, p], *rated), **exact)
  raters, labels = rater_feedback.first_raters(xy, length, label)
  case.check("rater_processed", raters, **exact)
  case.check("label_processed", labels, **exact)
  lateral, longitudinal = rater_feedback.thresholds(speed)
  case.check("threshold_lateral", lateral, **exact)
  case.check("threshold_longitudinal", longitudinal, **exact)


@pytest.mark.parametrize("kind", ["imagenet", "siglip"])
def test_from_image_to_waypoints(kind):
  """uint8 images through resize, tower, mean and head; both normalisations of the case."""
  case = golden_cases.load("vlm_waypoint", "vlm_waypoint_tiny")
  config, checkpoint = case.config, case.checkpoint()
  size = (config["image_size"],) * 2
  spec = preprocess.Preprocess(size, "bilinear", antialias=False)
  if kind == "siglip":
    spec = dataclasses.replace(spec, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
  model = {
    "head": {"name": "mlp", "width": config["head_hidden"]},
    "encoder": {
      "name": "smolvlm_tower",
      "fields": {
        "hidden_size": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_width": config["intermediate_size"],
        "image_size": config["image_size"],
        "patch": config["patch_size"],
        "preprocess": spec,
      },
      "checkpoint": "",
      "sha256": "",
      "dtype": "float32",
      "layer": -1,
      "seed": 0,
      "frozen": False,
    },
  }
  images = case.input("images")
  net = network.Network(model, {"train": {"shapes": {"image": images.shape[1:]}}})
  want = {name: leaf.shape for name, leaf in _flat_shapes(jax.eval_shape(net.init, KEY)).items()}
  head = {name.removeprefix("head/"): s for name, s in want.items() if name.startswith("head/")}
  tower = {n: tensor for n, tensor in checkpoint.items() if not n.startswith("waypoint_head")}
  source, part = encoder_tables.choose("smolvlm_tower", tower, "case")
  named = {short: tower[full] for short, full in part.items()}
  flat = apply.to_tree(source.table, source.unpack(named), net.encoder.shapes(), "case")
  params = {
    "head": converter.from_torch(checkpoint, "mlp", head, "case"),
    "encoder": weights.unflatten(flat),
  }
  np.testing.assert_allclose(
    np.moveaxis(preprocess.resized(spec, images) / 255, -1, 1),
    case.arrays["resized"],
    atol=1e-5,
  )
  batch = {"image": images, "past": case.input("past"), "intent": case.input("intent")}
  pooled = net.encoder.encode(params["encoder"], images).pooled[:, 0]
  case.check(f"{kind}_pooled", pooled)
  out = jax.jit(net)(params, {}, batch)
  case.check(f"{kind}_output", out.selected.reshape(2, -1))
