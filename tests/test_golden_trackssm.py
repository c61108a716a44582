"""TrackSSM against the public model: features, boxes, loss, gradients, steps and tracker calls."""

import functools

import golden_cases
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from vistraj_jax.convert import trackssm as converter
from vistraj_jax.core import weights
from vistraj_jax.losses import boxes as box_losses
from vistraj_jax.models.trackssm import network, predict, windows
from vistraj_jax.train import optim, phases

FORWARD = ("forward", "forward_mot17", "forward_seed_2layer", "forward_history20")


def _load(name):
  """Returns case, model and parameters, read through the converter."""
  case = golden_cases.load("trackssm", name)
  sigmoid = case.config.get("box_sigmoid", True)
  tree, config, _ = converter.from_torch(
    case.checkpoint(), "nuscenes" if sigmoid else "mot17", name
  )
  fields = {k: v for k, v in config.items() if k != "history"}
  return case, network.TrackSSM(**fields), tree


@pytest.mark.parametrize("name", FORWARD)
def test_forward(name):
  case, model, params = _load(name)
  tolerance = case.manifest["tolerance"]["per_output"]
  condition = case.input("condition")

  @jax.jit
  def run(params, condition):
    flow, seen = model.apply(
      {"params": params}, condition, method="encode", mutable=["intermediates"]
    )
    (boxes, states), decoded = model.apply(
      {"params": params}, condition[:, -1, :4], flow, method="decode", mutable=["intermediates"]
    )
    return flow, boxes, states, {**seen["intermediates"], **decoded["intermediates"]}

  flow, boxes, states, seen = run(params, condition)
  case.check("flow", flow, atol=tolerance["flow"])
  inside = {"embedded": seen["encoder"]["embedded"][0]}
  for name in case.arrays:
    if name.startswith("layer") and name != "layer0_scan_gated":
      layer, _, what = name.partition("_")
      block = seen["encoder"][layer]
      inside[name] = (block if what in block else block["mixer"])[what][0]
  inside["layer0_scan_gated"] = seen["encoder"]["layer0"]["mixer"]["scan_gated"][0]
  inside["sine_embedding"] = seen["decoder"]["sine_embedding"][0]
  for name, value in inside.items():
    case.check(name, value, atol=tolerance["layers"])
  for k, atol in enumerate(tolerance["flow_steps"]):
    np.testing.assert_allclose(boxes[k], case.arrays["flow_steps"][k], rtol=1e-3, atol=atol)
  case.check("pred", boxes[-1], atol=tolerance["pred"])
  if not case.config["box_sigmoid"]:
    # A linear head doubles errors at every step: each head alone, from the stored step before.
    before = (condition[:, -1, :4], *case.arrays["flow_steps"])
    for k in range(6):
      one = network.flow_decoder.FlowHead(256, 16, False, jnp.float32)
      state = None if k == 0 else np.swapaxes(case.arrays["state_steps"][k - 1], 1, 2)
      box, _ = one.apply({"params": params["decoder"][f"head{k}"]}, before[k], flow, state)
      atol = tolerance["teacher_forced_steps"]
      np.testing.assert_allclose(box, case.arrays["flow_steps"][k], rtol=1e-3, atol=atol)
  else:
    case.check("state_steps", states, atol=1e-3)


def _loss(model, params, condition, target, weights=(1.0, 1.0)):
  boxes = model.apply({"params": params}, condition)
  terms = box_losses.flow_terms(boxes, condition[:, -1, :4], target)
  parts = {name: value.mean() for name, value in terms.items()}
  return weights[0] * parts["smooth_l1"] + weights[1] * parts["giou"], parts


def test_loss_and_gradients():
  case, model, params = _load("loss_grad")
  config = {"num_layers": 6, "num_heads": 6, "width": 256, "state_size": 16, "history": 5}
  inputs = (case.input("condition"), case.input("cur_bbox"))
  grad = jax.jit(
    jax.value_and_grad(functools.partial(_loss, model), has_aux=True), static_argnums=3
  )
  (total, parts), grads = grad(params, *inputs, (1.0, 1.0))
  case.check("loss_total", total)
  case.check("loss_smooth_l1", parts["smooth_l1"])
  case.check("loss_giou", parts["giou"])
  named = converter.to_torch(jax.tree.map(np.asarray, grads), {**config, "box_sigmoid": True}, "g")
  named = {name.removeprefix("module."): g for name, g in named["ddpm"].items()}
  norms = np.array([np.linalg.norm(named[n]) for n in case.config["grad_names"]])
  case.check("grad_l2", norms)
  case.check("grad_global_l2", np.linalg.norm(norms))
  (_, _), grads = grad(params, *inputs, (1.0, 0.0))
  flat = converter.to_torch(jax.tree.map(np.asarray, grads), {**config, "box_sigmoid": True}, "g")
  flat = {name.removeprefix("module."): g for name, g in flat["ddpm"].items()}
  case.check("grad_l2_l1_only", [np.linalg.norm(flat[n]) for n in case.config["grad_names"]])
  layer, head = "encoder.mamba_net.layers.0.mixer.", "ssm_decoder.head_series."
  for stored, name in (
    ("grad_embedding", "encoder.mamba_net.embedding.weight"),
    ("grad_layer0_A_log", layer + "A_log"),
    ("grad_layer0_conv", layer + "conv1d.weight"),
    ("grad_head0_box", head + "0.normal_bboxes.weight"),
    ("grad_head5_A_log", head + "5.A_log"),
    ("grad_head5_x_proj", head + "5.x_proj.weight"),
  ):
    share = case.manifest["tolerance"]["per_output"]["grad_elements_over_max"]
    case.check(stored, named[name], rtol=0, atol=share * np.abs(named[name]).max())


@pytest.mark.parametrize("number", [1, 2])
def test_training_steps(number):
  """Three AdamW steps: phase 1 with the encoder frozen, phase 2 with two learning rates."""
  case, model, params = _load("train_steps")
  config = case.config
  if number == 1:
    groups = (("encoder/.*", "frozen"), (".*", "decoder"))
    rates = {"decoder": config["phase1"]["lr"]}
  else:
    groups = (("encoder/.*", "encoder"), (".*", "decoder"))
    rates = {part: config["phase2"][f"lr_{part}"] for part in ("encoder", "decoder")}
  phase = phases.Phase(
    name="golden",
    groups=groups,
    learning_rates=rates,
    num_steps=3,
    warmup_steps=0,
    final_fraction=1.0,
    patience=0,
    start_from="init",
    batch_size=16,
    steps_per_epoch=1,
    call_steps=1,
    eval_steps=1,
  )
  adamw = {**config["adamw"], "clip_norm": config["clip_global_norm"], "decay": ((".*", True),)}
  tx = optim.build(phase, ml_collections.ConfigDict(adamw), params)
  labels = optim.labels_of(phase, params)
  inputs = (case.input("condition"), case.input("cur_bbox"))

  @jax.jit
  def step(params, opt_state):
    def loss(params):
      params = jax.tree.map(
        lambda p, label: jax.lax.stop_gradient(p) if label == "frozen" else p, params, labels
      )
      return _loss(model, params, *inputs)[0]

    value, grads = jax.value_and_grad(loss)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value, optax.tree.norm(grads)

  now, opt_state, losses, norms = params, tx.init(params), [], []
  for _ in range(4):
    after, opt_state, value, norm = step(now, opt_state)
    losses.append(value)
    norms.append(norm)
    if len(losses) < 4:
      now = after
  case.check(f"phase{number}_loss", losses)
  case.check(f"phase{number}_grad_norm", norms[:3])
  change = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), now, params)
  named = converter.to_torch(
    change,
    {"num_layers": 2, "num_heads": 6, "width": 256, "state_size": 16, "history": 5},
    "change",
  )["ddpm"]
  norms = [np.linalg.norm(named["module." + n]) for n in config["param_names"]]
  case.check(f"phase{number}_change_l2", norms)
  if number == 1:
    for name, value in weights.flatten(change["encoder"]).items():
      assert not value.any(), name


def test_motion_call_on_tracks_of_all_ages():
  case, model, params = _load("generate_ragged")
  config = case.config
  size = np.array([config["img_w"], config["img_h"]], np.float32)
  scale = np.tile(size, 2)
  lengths = np.array(config["lengths"])
  T = config["history_len"]

  rows = jnp.asarray(case.input("cond_px") / np.tile(scale, 2))
  condition = windows.repeat_newest(rows, lengths)
  case.check("condition_last_pad", condition)
  boxes = jax.jit(model.apply)({"params": params}, condition)
  case.check("pred_last_pad", boxes[-1])

  boxes = np.zeros((len(lengths), T + 1, 4), np.float32)
  for row, known, n in zip(boxes, case.input("boxes_px"), lengths, strict=True):
    row[T + 1 - n :] = known[:n]
  condition = windows.condition_of_history(boxes / scale, lengths, "first")
  case.check("condition_first_pad", condition)
  sizes = np.tile(size, (len(lengths), 1))
  first = predict.make_predict(model, params, T)(boxes, lengths, sizes)
  atol = case.manifest["tolerance"]["atol_px"]
  case.check("pred_first_pad_px", first, atol=atol)
  case.check("velocity_first_pad_px", first - boxes[:, -1], atol=atol)


def test_lost_tracks_roll_on():
  case, model, params = _load("rollout_lost")
  config = case.config
  T = config["history_len"]
  rows = case.input("cond_px")
  boxes = np.concatenate([rows[:, :1, :4] - rows[:, :1, 4:], rows[..., :4]], 1)
  sizes = np.tile(np.float32([config["img_w"], config["img_h"]]), (len(boxes), 1))
  motion = predict.make_predict(model, params, T)
  seen = []
  for _ in range(config["steps"]):
    box = motion(boxes, np.full(len(boxes), T + 1), sizes)
    boxes = np.concatenate([boxes[:, 1:], box[:, None]], 1)
    seen.append(box)
  case.check("boxes_px", np.stack(seen, 1))
