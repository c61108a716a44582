"""TrackSSM: flow losses, and next-box accuracy beside the trivial motion models."""

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, mean
from vistraj_jax.losses import boxes as box_losses
from vistraj_jax.models.trackssm import network, windows
from vistraj_jax.tasks import base


class TrackSSMTask(base.Task):
  """Next box of a track from its recent boxes (arXiv 2409.00487).

  Reads config.model, config.loss and config.augment.
  """

  SUMMARY = (
    ("loss/val", "loss/val"),
    ("IoU: model", "iou/val"),
    ("last box", "iou/identity"),
    ("constant velocity", "iou/constant_velocity"),
  )
  NOT_IN_SHAPES = ("box_sigmoid",)

  def __init__(self, config, data_set=None):
    del data_set
    fields = dict(config.model)
    self.history = fields.pop("history")
    checks.choice("config.augment.kind", config.augment.kind, windows.AUGMENTATIONS)
    checks.choice("config.model.dtype", fields["dtype"], ("float32", "bfloat16"))
    self.model = network.TrackSSM(**{**fields, "dtype": jnp.dtype(fields["dtype"])})
    self.weights = {"smooth_l1": config.loss.smooth_l1, "giou": config.loss.giou}
    self.augment = dict(config.augment)

  def init(self, rng):
    """-> {"params": {"encoder": ..., "decoder": ...}}."""
    return {"params": network.init(self.model, rng, self.history)}

  def losses(self, variables, batch, rng, *, train):
    """batch: "boxes" [B, history + 2, 4] cxcywh / image size, "mask" [B], "position" [B]."""
    boxes = batch["boxes"]
    if train:
      boxes = windows.augment(rng, boxes, batch["position"], **self.augment)
    condition, target = windows.condition_and_target(boxes)
    predicted = self.model.apply({"params": variables["params"]}, condition)
    terms = box_losses.flow_terms(predicted, condition[:, -1, :4], target)
    return {
      name: (weight, mean.Mean.of(terms[name], batch["mask"]))
      for name, weight in self.weights.items()
      if weight
    }, {}

  def metrics(self, variables, batch):
    """-> loss and mean IoU of the next box, for the network and for two baselines."""
    condition, target = windows.condition_and_target(batch["boxes"])
    predicted = self.model.apply({"params": variables["params"]}, condition)
    last, step = jnp.split(condition[:, -1], 2, axis=-1)
    terms = box_losses.flow_terms(predicted, last, target)
    per_example = {f"loss/{name}/val": terms[name] for name in terms}
    per_example["loss/val"] = sum(self.weights[name] * terms[name] for name in terms)
    for name, box in (
      ("val", predicted[-1]),
      ("identity", last),
      ("constant_velocity", last + step),
    ):
      per_example[f"iou/{name}"] = box_losses.iou(box, target)
    return jax.tree.map(lambda x: mean.Mean.of(x, batch["mask"]), per_example)
