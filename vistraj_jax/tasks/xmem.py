"""Futures of agents with XMem: losses of masks and futures, scores beside simple motion."""

import copy

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, mean
from vistraj_jax.losses import masks as mask_losses
from vistraj_jax.losses import modes
from vistraj_jax.metrics import agent_motion, prediction
from vistraj_jax.models.xmem import trajectory
from vistraj_jax.nn import dropout
from vistraj_jax.tasks import base

OBJECTIVES = ("masks", "trajectory")
PILLARS_FROZEN = ("pillars/.*", "frozen")


class XMemTask(base.Task):
  """Follows the masks of agents, and predicts the target's future from its memory.

  Reads config.model, config.loss, config.data's lengths and the "objective" of every phase:
    masks       binary cross-entropy plus dice of every object on the frames that memory segments.
    trajectory  error of the best future, twice its final error, scores; and the masks' loss.
  "loss/val" is the masks' loss, or minADE_5 in m.
  """

  SUMMARY = (
    ("mask IoU", "mask_iou/val"),
    ("first mask", "mask_iou/first_mask"),
    ("ADE m", "min_ade_1/val"),
    ("minADE_5", "min_ade_5/val"),
    ("miss rate_5", "miss_rate_5/val"),
    ("constant velocity ADE", "min_ade_1/constant_velocity"),
    ("turn rate ADE", "min_ade_1/constant_turn_rate"),
  )

  def __init__(self, config, data_set=None):
    known = (data_set or {}).get("train", {})
    _check_lengths(config.data, known.get("shapes", {}))
    self.predictor = trajectory.Predictor(config.model, config.data)
    if "layout" in known:
      self.predictor.check_reach(known["layout"]["reach"])
    self.t_out = config.data.t_out
    self.weights = dict(config.loss)
    checks.require(
      0 <= self.weights["relaxation"] < 1 and self.weights["temperature"] >= 0,
      f"config.loss: relaxation {self.weights['relaxation']} and temperature "
      f"{self.weights['temperature']} received; 0 to below 1, and 0 or more m, are allowed.",
    )
    self.objectives = {
      name: checks.choice(
        f"config.phases.{name}.objective", config.phases[name].objective, OBJECTIVES
      )
      for name in config.phases
    }
    self.objective = "trajectory"
    if self.predictor.mode == "bev" and not config.init.checkpoint:
      for name, phase in config.phases.items():
        checks.require(
          config.model.pillars.checkpoint or PILLARS_FROZEN not in map(tuple, phase.groups),
          f"config.model.pillars.checkpoint: '' received, but config.phases.{name}.groups freezes "
          "PointPillars, which would stay random; give weights of `launch.convert pointpillars`, "
          "or put 'pillars/.*' into a group that trains.",
        )

  def for_phase(self, name):
    """-> the task with the losses and the "loss/val" of a phase."""
    task = copy.copy(self)
    task.objective = self.objectives[name]
    return task

  def init(self, rng):
    """-> {"params": tree of `trajectory.Predictor.init`}."""
    return {"params": self.predictor.init(rng)}

  def losses(self, variables, batch, rng, *, train):
    """batch: as `data.xmem.ELEMENT` says, "mask" and "position" [B]."""
    params, weights = variables["params"], self.weights
    frames = self.predictor.masks(params, batch)
    mask_weight = 1.0 if self.objective == "masks" else weights["mask"]
    terms = {}
    if mask_weight:
      terms["mask"] = (mask_weight, self._mask_loss(frames, batch))
    if self.objective == "masks":
      return terms, {}
    keys = dropout.row_keys(rng, batch["position"]) if train else None
    found = self.predictor.futures(params, frames, batch, keys)
    parts = modes.relaxed_modes(
      found.futures,
      found.logits,
      batch["future_xy"],
      batch["future_valid"],
      relaxation=weights["relaxation"],
      temperature=weights["temperature"],
    )
    known = batch["mask"] * (batch["future_valid"].sum(-1) > 0)
    for name, values in parts.items():
      terms[name] = (weights[name], mean.Mean.of(values, known))
    return terms, {}

  def metrics(self, variables, batch):
    """-> scores of masks and futures, and of baselines: the first mask again, simple motion."""
    frames = self.predictor.masks(variables["params"], batch)
    found = {"mask_loss/val": self._mask_loss(frames, batch), **self._mask_scores(frames, batch)}
    if self.objective == "masks":
      return {"loss/val": found["mask_loss/val"], **found}
    answer = self.predictor.futures(variables["params"], frames, batch)
    future, valid = batch["future_xy"], batch["future_valid"]
    known = batch["mask"] * (valid.sum(-1) > 0)
    arguments = {"val": (answer.futures, jax.nn.softmax(answer.logits, -1))}
    for name, goes_on in agent_motion.BASELINES.items():
      one = goes_on(batch["past_xy"], batch["past_valid"], self.t_out)[:, None]
      arguments[name] = (one, jnp.ones(one.shape[:2]))
    for name, pair in arguments.items():
      for score, values in prediction.scores(*pair, future, valid).items():
        found[f"{score}/{name}"] = mean.Mean.of(values, known)
    return {"loss/val": found["min_ade_5/val"], **found}

  def _segmented(self, frames, batch):
    """What memory segmented: log-odds and masks [B, T', K, H, W], and which count [B, T', K]."""
    later = slice(self.predictor.warmup_frames, None)
    logits = frames.logits[:, later]
    odds = []
    for k in range(1, logits.shape[-1]):
      others = jnp.concatenate([logits[..., :k], logits[..., k + 1 :]], -1)
      odds.append(logits[..., k] - jax.nn.logsumexp(others, -1))
    counts = batch["object_valid"][:, None] * batch["mask_valid"][:, later]
    truth = batch["masks"][:, later].astype(jnp.float32)
    return jnp.stack(odds, 2), truth, counts * batch["mask"][:, None, None]

  def _mask_loss(self, frames, batch):
    odds, truth, counts = self._segmented(frames, batch)
    loss = mask_losses.binary_cross_entropy(odds, truth) + mask_losses.binary_dice(odds, truth)
    return mean.Mean.of(loss, counts)

  def _mask_scores(self, frames, batch):
    """Overlap of the target's mask with the truth, where there is any truth to find."""
    odds, truth, counts = self._segmented(frames, batch)
    truth, counts = truth[:, :, 0] > 0, counts[:, :, 0]
    counts = counts * truth.any((-2, -1))
    last_given = batch["masks"][:, self.predictor.warmup_frames - 1, 0] > 0
    found = {}
    for name, guess in (("val", odds[:, :, 0] > 0), ("first_mask", last_given[:, None])):
      overlap, union = (guess & truth).sum((-2, -1)), (guess | truth).sum((-2, -1))
      found[f"mask_iou/{name}"] = mean.Mean.of(overlap / jnp.maximum(union, 1), counts)
    return found


def _check_lengths(data, shapes):
  """Raises InputError unless the data's clips are as long as config.data says."""
  for field, axis, name in (("past_xy", 0, "t_in"), ("future_xy", 0, "t_out")):
    if field in shapes:
      checks.require(
        shapes[field][axis] == data[name],
        f"config.data.{name}: {data[name]} received, the data has {shapes[field][axis]} key "
        "frames; set it to that, or prepare the data again.",
      )
