"""Waypoints from images and ego motion: displacement losses, and errors beside simple motion."""

import functools

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, mean
from vistraj_jax.losses import trajectory
from vistraj_jax.metrics import displacement, ego_motion
from vistraj_jax.models.vlm_waypoint import network
from vistraj_jax.tasks import base

# Beside every evaluation; launch.report has all.
BASELINES = ("constant_velocity", "constant_acceleration", "constant_turn_rate")


class VLMWaypointTask(base.Task):
  """Future ego positions from image features, past motion and intent.

  Reads config.model, config.loss and config.augment. The loss of a single future is its ADE over
  5 s; with several proposals it is the mean ADE of the best few, plus the scorer's loss, plus one
  minus a differentiable rater feedback score of the selected one.
  """

  SUMMARY = (
    ("ADE@3s", "ade_3s/val"),
    ("ADE@5s", "ade_5s/val"),
    ("constant velocity @5s", "ade_5s/constant_velocity"),
    ("acceleration @5s", "ade_5s/constant_acceleration"),
    ("turn rate @5s", "ade_5s/constant_turn_rate"),
  )

  def __init__(self, config, data_set=None):
    self.network = network.Network(dict(config.model), data_set)
    self.several = self.network.head_name in network.SEVERAL
    self.weights = dict(config.loss)
    if self.several:
      checks.choice("config.loss.scorer", self.weights["scorer"], trajectory.SCORERS)
    self.flip_prob = config.augment.flip_prob
    checks.require(
      not self.flip_prob or self.network.encoder is not None,
      "config.augment.flip_prob: cached features cannot be mirrored; set it to 0, or train from "
      "images.",
    )

  def init(self, rng):
    """-> {"params": {"head": ..., "lora": ..., "encoder": ...}}."""
    return {"params": self.network.init(rng)}

  def fixed(self):
    """-> {"encoder": frozen parameters, "anchors": vocabulary}, as far as there are any."""
    return self.network.fixed()

  def losses(self, variables, batch, rng, *, train):
    """batch: see `Network`; also "future" [B, 20, 2] m, "has_future" [B], "mask", "position"."""
    if train and self.flip_prob:
      batch = mirror(batch, jax.random.fold_in(rng, 1), self.flip_prob)
    proposals = self.network(variables["params"], variables["fixed"], batch, rng if train else None)
    mask = batch["mask"] * batch["has_future"]
    ade = trajectory.ade_of_proposals(proposals.xy, batch["future"])
    weights = self.weights
    if not self.several:
      return {"ade": (weights["ade"], mean.Mean.of(ade[:, 0], mask))}, {}
    terms = {
      "ade": (
        weights["ade"],
        lambda: mean.Mean.of(trajectory.best_of(ade, weights["best_of"]), mask),
      ),
      "scorer": (weights["scorer_weight"], functools.partial(self._scorer, proposals, ade, mask)),
      "rater_feedback": (
        weights["rater_feedback"],
        lambda: mean.Mean.of(self._feedback(proposals, batch), mask),
      ),
    }
    return {name: (weight, term()) for name, (weight, term) in terms.items() if weight}, {}

  def predict(self, variables, batch):
    """-> `Proposals` of one batch."""
    return self.network(variables["params"], variables["fixed"], batch)

  def metrics(self, variables, batch):
    """-> errors in m of the selected future, per intent, and of the ego-motion baselines."""
    proposals = self.predict(variables, batch)
    mask = batch["mask"] * batch["has_future"]
    selected = proposals.selected
    found = {}
    futures = {name: ego_motion.BASELINES[name](batch["past"]) for name in BASELINES}
    for name, xy in {"val": selected, **futures}.items():
      distance = trajectory.displacement(xy, batch["future"])
      found[f"ade_3s/{name}"] = mean.Mean.of(distance[:, :12].mean(-1), mask)
      found[f"ade_5s/{name}"] = mean.Mean.of(distance.mean(-1), mask)
    distance = trajectory.displacement(selected, batch["future"])
    found["fde_5s/val"] = mean.Mean.of(distance[:, -1], mask)
    for i, intent in enumerate(displacement.INTENTS):
      share = mask * (batch["intent"] == i)
      found[f"ade_5s_by_intent/{intent}"] = mean.Mean.of(distance.mean(-1), share)
    if self.several:
      oracle = trajectory.ade_of_proposals(proposals.xy, batch["future"]).min(-1)
      found["ade_5s/oracle"] = mean.Mean.of(oracle, mask)
    return {"loss/val": found["ade_5s/val"], **found}

  def _scorer(self, proposals, ade, mask):
    kind, scores = self.weights["scorer"], proposals.scores
    ade = jax.lax.stop_gradient(ade)  # the scorer judges proposals, it does not shape them
    if kind == "margin":
      loss, weight = trajectory.scorer_margin(scores, ade)
      return mean.Mean(mean.Mean.of(loss, mask).total, mean.Mean.of(weight, mask).total)
    if kind == "reinforce":
      loss = trajectory.scorer_reinforce(scores, ade, self.weights["temperature"])
    else:
      loss = {"mse": trajectory.scorer_mse, "nearest": trajectory.scorer_nearest}[kind](scores, ade)
    return mean.Mean.of(loss, mask)

  def _feedback(self, proposals, batch):
    speed = jnp.sqrt(jnp.sum(batch["past"][:, -1, 2:4] ** 2, axis=-1))
    return 1 - trajectory.rater_feedback_proxy(proposals.selected, batch["future"], speed)


def mirror(batch, rng, probability):
  """Mirrors a share of the examples left to right: image, motion, future and intent."""
  keys = jax.vmap(lambda row: jax.random.fold_in(rng, row))(batch["position"])
  flip = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)
  where = lambda a, b: jnp.where(flip.reshape(-1, *(1,) * (a.ndim - 1)), a, b)  # noqa: E731
  sign = jnp.array([1.0, -1.0])
  image, intent = batch["image"], batch["intent"]
  return {
    **batch,
    "image": where(image[:, :, ::-1], image),
    "past": where(batch["past"] * jnp.tile(sign, 3), batch["past"]),
    "future": where(batch["future"] * sign, batch["future"]),
    "intent": where(jnp.where(intent > 1, 5 - intent, intent), intent),
  }
