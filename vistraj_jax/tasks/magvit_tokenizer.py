"""Training of video tokenizers: pixels, code use, and optionally how things look to networks."""

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, mean
from vistraj_jax.encoders import lpips
from vistraj_jax.losses import latent
from vistraj_jax.metrics import future_video as scores
from vistraj_jax.models.magvit import discriminator, frozen
from vistraj_jax.nn import initializers, quantize
from vistraj_jax.tasks import base


class VideoTokenizerTask(base.Task):
  """Encodes, quantises and decodes windows: past and future of an example are a window each.

  Reads config.model, config.loss and config.data.past and future, which must be equal. With
  config.loss.adversarial a 3-D patch discriminator trains in the same step: its loss sees the
  reconstruction without gradient, the tokenizer's sees it without gradient of its parameters, so
  that one backward pass holds both gradients, taken at the same parameters as two passes would.
  Running means of its logits, for LeCAM, are the collection "averages". Under pmap the entropy is
  that of each device's own tokens.
  """

  SUMMARY = (
    ("PSNR dB", "psnr/val"),
    ("black", "psnr/black"),
    ("first frame", "psnr/copy_first"),
    ("foreground's PSNR", "psnr_foreground/val"),
    ("black", "psnr_foreground/black"),
  )

  def __init__(self, config, data_set=None):
    del data_set
    self.weights, data = dict(config.loss), config.data
    checks.require(
      config.model.kind == "magvit2",
      f"config.model.kind: {config.model.kind!r} received; 'magvit2' alone can be trained.",
    )
    checks.require(
      data.past == data.future,
      f"config.data.past, config.data.future: {data.past} and {data.future} received; windows of "
      "one length train a tokenizer: give the same number twice.",
    )
    self.tokenizer = frozen.make(config.model, config.model.dtype)
    self.tokenizer.latent_shape(data.past, data.image_size, data.image_size)
    self.frames = data.past
    self.lpips = None
    if self.weights["lpips"]:
      checks.require(
        self.weights["lpips_weights"],
        f"config.loss.lpips: {self.weights['lpips']} received, but there are no weights for it; "
        "give config.loss.lpips_weights, a file of `launch.convert lpips`, or lpips=0.",
      )
      self.lpips = lpips.load(self.weights["lpips_weights"])
    self.discriminator = None
    if self.weights["adversarial"]:
      axis = "data" if config.parallel == "pmap" else None
      self.discriminator = discriminator.PatchDiscriminator(
        config.model.patch_channels, axis, jnp.dtype(config.model.dtype)
      )

  def init(self, rng):
    """-> {"params": {"tokenizer": ..., and "discriminator": ...}, and its collections}."""
    params = {"tokenizer": initializers.init(self.tokenizer, rng)}
    if self.discriminator is None:
      return {"params": params}
    video = jnp.zeros((1, 5, 16, 16, 3))
    rng = jax.random.fold_in(rng, 1)
    found = initializers.init(self.discriminator, rng, video, train=False)
    averages = {name: jnp.zeros(()) for name in ("real", "fake")}
    params["discriminator"] = found["params"]
    return {"params": params, "batch_stats": found["batch_stats"], "averages": averages}

  def fixed(self):
    """-> {"lpips": parameters} where they are used."""
    return {} if self.lpips is None else {"lpips": self.lpips}

  def losses(self, variables, batch, rng, *, train):
    """batch: "video" uint8 [B, 2T, S, S, 3], "colours" uint8 [B, 2, 3], "mask" [B]."""
    del rng
    video, foreground, rows = self._windows(batch)
    params, weights = variables["params"], self.weights
    latents = self.tokenizer.encode(params["tokenizer"], video)
    quantized, _ = self.tokenizer.quantize(latents)
    found = self.tokenizer.decode_unclipped(params["tokenizer"], quantized)
    tokens = latents.reshape(-1, latents.shape[-1])
    counts = jnp.repeat(rows, len(tokens) // len(rows))
    of_token, of_all = quantize.code_entropies(tokens, weights["temperature"], counts)
    count = jnp.sum(rows)
    values = {
      "l1": latent.video_l1(found, video),
      "l2": latent.video_l2(found, video),
      # Cubed: strong where targets are missing, weak where they are there, so that in the end
      # their surroundings, which do not count in it, are not painted over.
      "foreground": latent.masked_l1(found, video, foreground) ** 3,
      "commitment": latent.commitment(latents, quantize.signs(latents)),
    }
    terms = {name: (weights[name], mean.Mean.of(values[name], rows)) for name in values}
    terms["entropy"] = (weights["entropy"], mean.Mean((of_token - of_all) * count, count))
    terms = {name: term for name, term in terms.items() if term[0]}
    if self.lpips is not None:
      frames = [x.reshape(-1, *x.shape[2:]) for x in (found, video)]
      distance = lpips.LPIPS().apply({"params": variables["fixed"]["lpips"]}, *frames)
      distance = distance.reshape(len(video), -1).mean(-1)
      terms["lpips"] = (weights["lpips"], mean.Mean.of(distance, rows))
    if self.discriminator is None:
      return terms, {}
    more, collections = self._adversarial(variables, video, found, rows, train)
    return {**terms, **more}, collections

  def metrics(self, variables, batch):
    """-> "loss/val", the mean squared error in 0..1; PSNR of windows beside trivial pictures."""
    video, foreground, rows = self._windows(batch)
    params = variables["params"]["tokenizer"]
    quantized, _ = self.tokenizer.quantize(self.tokenizer.encode(params, video))
    low, high = self.tokenizer.value_range
    truth = (video - low) / (high - low)
    pictures = {
      "val": self.tokenizer.decode(params, quantized),
      "black": jnp.zeros_like(truth),
      "copy_first": jnp.broadcast_to(truth[:, :1], truth.shape),
    }
    size = jnp.sum(foreground, (1, 2, 3))
    seen = rows * (size > 0)
    found = {}
    for name, picture in pictures.items():
      squared = jnp.mean((picture - truth) ** 2, -1)
      error = jnp.mean(squared, (1, 2, 3))
      inside = jnp.sum(squared * foreground, (1, 2, 3)) / jnp.maximum(size, 1)
      found[f"mse/{name}"] = mean.Mean.of(error, rows)
      found[f"psnr/{name}"] = mean.Mean.of(_psnr(error), rows)
      found[f"psnr_foreground/{name}"] = mean.Mean.of(_psnr(inside), seen)
    return {"loss/val": found["mse/val"], **found}

  def _windows(self, batch):
    """-> video [2B, T, S, S, 3] in the tokenizer's range, foreground [2B, T, S, S], rows [2B]."""
    video = batch["video"].reshape(-1, self.frames, *batch["video"].shape[2:])
    colours = jnp.repeat(batch["colours"], 2, 0)
    share = scores.matte(video.astype(jnp.float32) / 255, colours)
    foreground = (share > scores.THRESHOLD).astype(jnp.float32)
    return frozen.as_input(self.tokenizer, video), foreground, jnp.repeat(batch["mask"], 2)

  def _adversarial(self, variables, video, found, rows, train):
    """-> terms of both players, and the discriminator's new statistics."""
    params, weights = variables["params"]["discriminator"], self.weights

    def judged(params, video, statistics):
      logits, new = self.discriminator.apply(
        {"params": params, "batch_stats": statistics}, video, train, mutable=["batch_stats"]
      )
      return logits, new["batch_stats"]

    statistics = variables["batch_stats"]
    fooled, _ = judged(jax.lax.stop_gradient(params), found, statistics)
    real, statistics = judged(params, video, statistics)
    fake, statistics = judged(params, jax.lax.stop_gradient(found), statistics)
    averages = variables["averages"]
    averages = latent.moved_averages(averages, real, fake, weights["lecam_decay"])
    if self.discriminator.batch_axis is not None:
      averages = jax.lax.pmean(averages, self.discriminator.batch_axis)
    count = jnp.sum(rows)
    terms = {
      "adversarial": (
        weights["adversarial"],
        mean.Mean.of(latent.non_saturating(fooled), rows),
      ),
      "hinge": (1.0, mean.Mean.of(latent.hinge(real, fake), rows)),
      "lecam": (weights["lecam"], mean.Mean(latent.lecam(real, fake, averages) * count, count)),
    }
    return terms, {"batch_stats": statistics, "averages": averages}


def _psnr(error):
  return -10 * jnp.log10(jnp.maximum(error, 1e-10))
