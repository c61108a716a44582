"""Future frames from two: pixel losses, and image scores beside predictors that learn nothing."""

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, mean
from vistraj_jax.losses import video
from vistraj_jax.metrics import video as scores
from vistraj_jax.models.two_stream import preprocess, settings
from vistraj_jax.nn import dropout
from vistraj_jax.tasks import base

# Seed of the masks in evaluation, which also depend on the row within the batch: the same in every
# run with one eval_batch_size.
_EVALUATION_MASKS = 0
_FUSED_CLS = "fusion/fc_cls/.*"


class TwoStreamTask(base.Task):
  """Predicts frame t + k from frame t and what changed; what counts is the encoder.

  Reads config.model, config.loss, config.augment, config.data.gap and config.parallel. The loss of
  an example is its mean squared pixel error times the weight of its gap; networks with a decoder a
  stream sum both errors. The masked autoencoder (streams="videomae") has the mean squared error of
  masked patches of both frames instead.
  """

  SUMMARY = (
    ("PSNR dB", "psnr/val"),
    ("copy img_t", "psnr/copy"),
    ("img_t + M", "psnr/add_motion"),
    ("SSIM", "ssim/val"),
    ("copy", "ssim/copy"),
  )

  def __init__(self, config, data_set=None):
    del data_set
    model = config.model
    _check_groups(config)
    self.is_masked_autoencoder = model.streams == "videomae"
    self.network = settings.make(model, "data" if config.parallel == "pmap" else None)
    self.m_channels = model.m_channels
    self.is_random = any(
      model[name] for name in ("dropout", "attn_dropout", "mask_ratio_m", "mask_ratio_p")
    )
    self.ssim_weight = config.loss.ssim_weight
    self.rot90 = (config.augment.rot90_prob, config.augment.rot90_independent)
    self.buckets = scores.gap_buckets(config.data.gap.max)

  def init(self, rng):
    """-> {"params": {"encoder": ..., "fusion": ..., "decoder": ...}, "batch_stats": ...}."""
    return settings.init(self.network, rng)

  def losses(self, variables, batch, rng, *, train):
    """batch: "img_t", "img_tk" [B, S, S, 3], "weight", "valid", "mask", "position" [B]."""
    img_t, img_tk = batch["img_t"], batch["img_tk"]
    keys = None
    if train:
      img_t, img_tk = turned(img_t, img_tk, rng, batch["position"], *self.rot90)
      if self.is_random:
        keys = dropout.row_keys(jax.random.fold_in(rng, 1), batch["position"])
    mask = batch["mask"] * batch["valid"]
    if self.is_masked_autoencoder:
      noise = self._noise(jax.random.fold_in(rng, 2), batch["position"])
      pixels, target, *_ = self.network.apply(_own(variables), img_t, img_tk, noise, keys=keys)
      return {"masked_mse": (1.0, mean.Mean.of(video.masked_patch_mse(pixels, target), mask))}, {}
    has_statistics = train and "batch_stats" in variables
    (images, _), new = self.network.apply(
      _own(variables),
      img_t,
      img_tk,
      keys=keys,
      train=train,
      mutable=["batch_stats"] if has_statistics else [],
    )
    target = preprocess.as_float(img_tk)
    weighted = lambda loss: mean.Mean.of(  # noqa: E731
      batch["weight"] * sum(loss(image, target) for image in images), mask
    )
    terms = {"mse": (1.0, weighted(video.frame_mse))}
    if self.ssim_weight:
      terms["ssim"] = (self.ssim_weight, weighted(video.ssim_loss))
    return terms, dict(new)

  def metrics(self, variables, batch):
    """-> "loss/val" (not weighted by gap) and image scores, in all and by gap; see `SUMMARY`."""
    mask = batch["mask"] * batch["valid"]
    of = lambda values, mask=mask: mean.Mean.of(values, mask)  # noqa: E731
    img_t, target = (preprocess.as_float(batch[name]) for name in ("img_t", "img_tk"))
    if self.is_masked_autoencoder:
      return self._masked_metrics(variables, img_t, target, batch["position"], of)
    images, _ = self.network.apply(_own(variables), img_t, target)
    loss = sum(video.frame_mse(image, target) for image in images) / len(images)
    found = {"loss/val": of(loss), "mse_weighted/val": of(batch["weight"] * loss)}
    motion = preprocess.motion(img_t, target, self.m_channels)
    predictions = {"val": sum(images) / len(images), **scores.trivial_predictions(img_t, motion)}
    for name, image in predictions.items():
      for score, values in scores.scores(image, target).items():
        found[f"{score}/{name}"] = of(values)
        if name == "add_motion":
          continue
        by_gap = f"{score}_by_gap" if name == "val" else f"{score}_{name}_by_gap"
        for bucket, low, high in self.buckets:
          inside = mask * (batch["gap"] >= low) * (batch["gap"] <= high)
          found[f"{by_gap}/{bucket}"] = of(values, inside)
    return found

  def _masked_metrics(self, variables, img_t, img_tk, position, of):
    noise = self._noise(jax.random.PRNGKey(_EVALUATION_MASKS), position)
    pixels, target, *_ = self.network.apply(_own(variables), img_t, img_tk, noise)
    colours = target.reshape(*target.shape[:2], -1, 3)
    flat = jnp.broadcast_to(colours.mean((1, 2), keepdims=True), colours.shape)
    loss = of(video.masked_patch_mse(pixels, target))
    trivial = of(video.masked_patch_mse(flat.reshape(target.shape), target))
    return {"loss/val": loss, "masked_mse/val": loss, "masked_mse/mean_colour": trivial}

  def _noise(self, rng, position):
    count = (self.network.num_patches,)
    return jax.vmap(lambda key: jax.random.uniform(key, count))(dropout.row_keys(rng, position))


def turned(img_t, img_tk, rng, position, probability, independent):
  """Turns a share of the pairs by a random multiple of 90 degrees.

  Args:
    img_t, img_tk: [B, S, S, 3].
    rng: key of the step.
    position: int32 [B], row in the global batch.
    probability: share of pairs that are turned.
    independent: share of those whose two frames turn by different draws.
  """
  if not probability:
    return img_t, img_tk

  def turns(key):
    turn, apart, first, second = jax.random.split(key, 4)
    first, second = (jax.random.randint(k, (), 0, 4) for k in (first, second))
    second = jnp.where(jax.random.bernoulli(apart, independent), second, first)
    return jnp.where(jax.random.bernoulli(turn, probability), jnp.stack([first, second]), 0)

  quarters = jax.vmap(turns)(dropout.row_keys(jax.random.fold_in(rng, 3), position))
  return rotated(img_t, quarters[:, 0]), rotated(img_tk, quarters[:, 1])


def rotated(image, quarters):
  """Turns images [B, S, S, C] counterclockwise by quarters int [B] of a full turn."""
  at = lambda condition: condition[:, None, None, None]  # noqa: E731
  image = jnp.where(at(quarters >= 2), image[:, ::-1, ::-1], image)
  return jnp.where(at(quarters % 2 == 1), jnp.swapaxes(image, 1, 2)[:, ::-1], image)


def _check_groups(config):
  """Raises InputError where the fused CLS is to be frozen and the network has none."""
  model = config.model
  has_fused_cls = (
    model.streams == "two" and model.fusion == "separate" and model.decoder.kind == "conv"
  )
  for name in config.phases:
    patterns = [pattern for pattern, _ in config.phases[name].groups]
    checks.require(
      has_fused_cls or _FUSED_CLS not in patterns,
      f"config.phases.{name}.groups: has the pattern {_FUSED_CLS!r}, a layer that only streams="
      "'two' with fusion='separate' and decoder.kind='conv' has; change the groups too: "
      f"""--config.phases.{name}.groups='((".*", "all"),)'.""",
    )


def _own(variables):
  """Returns the collections that the network reads."""
  return {name: variables[name] for name in ("params", "batch_stats") if name in variables}
