"""Future video: a tokenizer, then a predictor of latents or codes, scored in pixels."""

import copy
import math
import types

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, mean
from vistraj_jax.encoders import video_shapes
from vistraj_jax.losses import bits, latent
from vistraj_jax.metrics import future_video as scores
from vistraj_jax.models.magvit import autoregressive, frozen, masked, motion, predictor, tokens
from vistraj_jax.nn import dropout, initializers
from vistraj_jax.tasks import base, magvit_settings
from vistraj_jax.tasks.magvit_tokenizer import VideoTokenizerTask

HEADS = (*predictor.HEADS, "masked", "autoregressive")
TOKENIZER_PHASE = magvit_settings.TOKENIZER_PHASE
_SAMPLES = 0  # seed of the futures drawn in evaluation: the same in every run


class FutureVideoTask(base.Task):
  """Predicts the second half of a window from the first; both are encoded by themselves.

  Reads config.model, config.loss, config.data and config.eval. In a phase called "tokenizer" the
  tokenizer alone trains (`VideoTokenizerTask`). In any other the predictor does: heads "mse" and
  "bits" predict latents in one pass, "masked" and "autoregressive" have a distribution over codes.
  With config.model.joint gradients reach the tokenizer too; targets never have any, weights of
  config.loss keep it a tokenizer, and "loss/val", which chooses the best, is the sum of all losses.
  What trains at which rate is said by the phase's groups: parameters are below "tokenizer",
  "predictor" and "motion".

  Batches hold videos (`data.future_video`), or codes that launch.tokenize wrote with the same
  tokenizer (`data.video_codes`): then nothing is encoded and nothing scored in pixels.
  """

  SUMMARY = (
    ("PSNR dB", "psnr/val"),
    ("black", "psnr/black"),
    ("copy last", "psnr/copy_last"),
    ("tokenizer's ceiling", "psnr/ceiling"),
    ("IoU", "iou/val"),
    ("copy last", "iou/copy_last"),
    ("right codes", "codes_right/val"),
    ("copy past", "codes_right/copy"),
  )

  def __init__(self, config, data_set=None):
    model, data = config.model, config.data
    self.head = checks.choice("config.model.head", model.head, HEADS)
    self.weights, self.eval = dict(config.loss), dict(config.eval)
    self.joint, self.flip_rate = model.joint, model.flip_rate
    checks.require(
      data.past == data.future,
      f"config.data.past, config.data.future: {data.past} and {data.future} received; the window "
      "that is predicted is as long as the past: give the same number twice.",
    )
    self.frames, self.phase = data.past, ""
    self.checkpoint, self.tokenizing = model.tokenizer.checkpoint, None
    self.allow_worse_than_black = model.tokenizer.allow_worse_than_black
    fingerprint = ""
    if self.checkpoint:
      found = frozen.load(self.checkpoint, model.tokenizer.dtype)
      self.tokenizer, fingerprint = found.tokenizer, found.fingerprint
    else:
      self.tokenizer = frozen.make(model.tokenizer, model.tokenizer.dtype)
    magvit_settings.check(config, self.tokenizer.has_code_book)
    if TOKENIZER_PHASE in config.phases and not self.checkpoint:
      settings = {"model": model.tokenizer, "loss": self.weights.pop("tokenizer")}
      self.tokenizing = VideoTokenizerTask(
        types.SimpleNamespace(**settings, data=data, parallel=config.parallel)
      )
    size = data.image_size
    self.grid = self.tokenizer.latent_shape(self.frames, size, size)
    if data.pipeline == "video_codes":
      magvit_settings.check_codes(config, data_set, fingerprint, self.grid)
      self._check_tokenizer(*data_set["train"]["psnr"])
    self.predictor = magvit_settings.make_predictor(model, self.tokenizer, self.grid)
    self.motion = None
    if model.motion.kind:
      fields = {name: model.motion[name] for name in ("kind", "width", "frames")}
      fields |= {"features": model.transformer.width, "dtype": jnp.dtype(model.dtype)}
      self.motion = motion.MotionNetwork(**fields)
      self.motion_checkpoint = model.motion.checkpoint

  def fixed(self):
    """-> what the tokenizer's losses read."""
    return {} if self.tokenizing is None else self.tokenizing.fixed()

  def for_phase(self, name):
    """-> the task of a phase: that of the tokenizer for a phase called "tokenizer"."""
    task = copy.copy(self)
    task.phase = name
    return task

  def init(self, rng):
    """-> {"params": {"tokenizer", "predictor", and "motion" if there is one}, ...}."""
    found = {"params": {}}
    if self.tokenizing is not None:
      found = self.tokenizing.init(jax.random.fold_in(rng, 0))
    params = found["params"]
    if self.checkpoint:
      params["tokenizer"] = frozen.load(self.checkpoint).params
    elif self.tokenizing is None:
      params["tokenizer"] = initializers.init(self.tokenizer, jax.random.fold_in(rng, 0))
    vector = None
    if self.motion is not None:
      clip = jnp.zeros((1, self.frames, 32, 32, 3))
      params["motion"] = initializers.init(self.motion, jax.random.fold_in(rng, 1), clip)["params"]
      if self.motion_checkpoint:
        kind, width = self.motion.kind, self.motion.width
        backbone = video_shapes.load(self.motion_checkpoint, kind, width=width)
        params["motion"]["backbone"] = backbone
      vector = jnp.zeros((1, self.motion.features))
    rng = jax.random.fold_in(rng, 2)
    if self.draws_codes:
      codes = jnp.zeros((1, *self._context), jnp.int32)
      made = initializers.init(self.predictor, rng, codes, codes > 0)
    else:
      latents = jnp.zeros((1, *self.grid, self.tokenizer.latent_dim))
      made = initializers.init(self.predictor, rng, latents, vector)
    return {**found, "params": {**params, "predictor": made["params"]}}

  def check_start(self, metrics):
    """Refuses to predict in the codes of a tokenizer that shows less than a black picture."""
    if "mse/ceiling" in metrics:
      # Of the mean error: a mean of decibels would be ruled by windows that are black.
      psnr = (-10 * math.log10(metrics[f"mse/{name}"] + 1e-10) for name in ("ceiling", "black"))
      self._check_tokenizer(*psnr)

  def losses(self, variables, batch, rng, *, train):
    """batch: as `data.future_video` or `data.video_codes` say, "mask" and "position" [B]."""
    if self.phase == TOKENIZER_PHASE:
      return self.tokenizing.losses(variables, batch, rng, train=train)
    params, rows = variables["params"], batch["mask"]
    keys = dropout.row_keys(rng, batch["position"]) if train else None
    video, latents, quantized, codes = self._encoded(params, batch, with_gradient=self.joint)
    past, target = quantized[0], jax.lax.stop_gradient(quantized[1])
    of = lambda values: mean.Mean.of(values, rows)  # noqa: E731
    if self.draws_codes:
      row_keys = dropout.row_keys(jax.random.fold_in(rng, 1), batch["position"])
      return {"nats": (1.0, of(self._nats(params, codes, row_keys, keys, train)))}, {}
    predicted = self._predict(params, past, video and self._pixels(video[0]), keys)
    terms = {"latent": (self.weights["latent"], of(self._latent_loss(predicted, target)))}
    if self.weights["pixel"]:
      soft = predictor.to_decode(predicted, self.head, "soft")
      shown = self._decoded(params, self.tokenizer.quantize(soft, params["tokenizer"])[0])
      terms["pixel"] = (self.weights["pixel"], of(latent.video_l2(shown, video[1])))
    if self.joint:
      shown = self._decoded(params, past)
      cost = latent.commitment(latents[0], past)
      again = of(latent.video_l2(shown, video[0]))
      terms["reconstruction"] = (self.weights["reconstruction"], again)
      terms["commitment"] = (self.weights["commitment"], of(cost))
      if self.tokenizer.has_code_book:  # moves to its latents: no other loss reaches it
        vectors = self.tokenizer.from_indices(codes[0], params["tokenizer"])
        terms["code_book"] = (1.0, of(latent.commitment(vectors, latents[0])))
    return terms, {}

  def metrics(self, variables, batch):
    """-> "loss/val" of latents or codes, right codes, scores of decoded frames; see `SUMMARY`."""
    if self.phase == TOKENIZER_PHASE:
      return self.tokenizing.metrics(variables, batch)
    params, rows = variables["params"], batch["mask"]
    of = lambda values: mean.Mean.of(values, rows)  # noqa: E731
    video, _, (past, target), codes = self._encoded(params, batch, with_gradient=False)
    seen, truth = (self._pixels(half) for half in video) if video else (None, None)
    rng = jax.random.PRNGKey(_SAMPLES)
    if self.draws_codes:
      keys = dropout.row_keys(rng, batch["row"])
      nats = self._nats(params, codes, keys, None, False)
      found = {"loss/val": of(nats)}
      found["bits_per_token/val"] = of(nats * self.predictor.parts / math.log(2))
      window = drawn = self._generate(params, codes[0], rng)
    else:
      predicted = self._predict(params, past, seen, None)
      found = {"loss/val": of(self._latent_loss(predicted, target))}
      if self.joint:
        # Codes that say nothing are predicted best, so that they alone cannot choose a tokenizer.
        terms = self.losses(variables, batch, rng, train=False)[0].values()
        every = sum(weight * term.total for weight, term in terms)
        found |= {"loss/latent/val": found["loss/val"], "loss/val": mean.Mean(every, rows.sum())}
      found["loss/zero"] = of(self._latent_loss(jnp.zeros_like(predicted), target))
      if self.head == "mse":
        found["loss/copy"] = of(self._latent_loss(past, target))
      window = self._to_decode(params, predicted)
      drawn = self.tokenizer.quantize(predicted, params["tokenizer"])[1]
    for name, guess in (("val", drawn), ("copy", codes[0])):
      found[f"codes_right/{name}"] = of((guess == codes[1]).mean((1, 2, 3)))
    if not video:
      return found
    known = {name: batch[name][:, self.frames :] for name in _KNOWN}
    known |= {name: batch[name] for name in ("foreground_valid", "colours")}
    pictures = {
      "val": self.decode(params, window),
      "ceiling": self.tokenizer.decode(params["tokenizer"], target),
      "black": jnp.zeros_like(truth),
      "copy_last": jnp.broadcast_to(seen[:, -1:], truth.shape),
    }
    for name, picture in pictures.items():
      for score, (value, weight) in scores.scores(picture, truth, known).items():
        weight = weight * rows[:, None]
        value = jnp.where(weight > 0, value, 0)
        found[f"{score}/{name}"] = mean.Mean(jnp.sum(value * weight), jnp.sum(weight))
      error = jnp.mean((picture - truth) ** 2, (1, 2, 3, 4))
      found[f"psnr/{name}"] = of(-10 * jnp.log10(error + 1e-10))
    return found

  @property
  def draws_codes(self):
    """Whether the head has a distribution over codes, from which several futures can be drawn."""
    return self.head not in predictor.HEADS

  def encode(self, params, video):
    """uint8 video [B, T, S, S, 3] -> a window: codes, or quantised latents [B, t, h, w, C]."""
    latents = self.tokenizer.encode(params["tokenizer"], frozen.as_input(self.tokenizer, video))
    quantized, codes = self.tokenizer.quantize(latents, params["tokenizer"])
    return codes if self.draws_codes else quantized

  def forecast(self, params, past, rng, seen=None):
    """Predicts the next window.

    Args:
      params: of `init`.
      past: a window, as of `encode`.
      rng: key of the draw, for heads over codes.
      seen: its frames [B, T, S, S, 3] in 0..1, for networks with motion; None: decoded from it.

    Returns:
      the window that follows, ready for `decode`; `as_past` makes a past of it.
    """
    if self.draws_codes:
      return self._generate(params, past, rng)
    if self.motion is not None and seen is None:
      seen = self.decode(params, past)
    return self._to_decode(params, self._predict(params, past, seen, None))

  def as_past(self, params, window):
    """A predicted window -> what may be the past of the next one: latents are quantised."""
    if self.draws_codes:
      return window
    return self.tokenizer.quantize(window, params["tokenizer"])[0]

  def decode(self, params, window):
    """A window, as of `encode` or `forecast` -> video float32 [B, T, S, S, 3] in 0..1."""
    if self.draws_codes:
      window = self.tokenizer.from_indices(window, params["tokenizer"])
    return self.tokenizer.decode(params["tokenizer"], window)

  @property
  def _context(self):
    """Shape of the codes of past and future."""
    return 2 * self.grid[0], *self.grid[1:]

  def _video(self, batch):
    """-> (past, future) [B, T, S, S, 3] in the tokenizer's range."""
    video = frozen.as_input(self.tokenizer, batch["video"])
    return video[:, : self.frames], video[:, self.frames :]

  def _pixels(self, video):
    """Video in the tokenizer's range -> 0..1."""
    low, high = self.tokenizer.value_range
    return (video - low) / (high - low)

  def _encoded(self, params, batch, with_gradient):
    """-> videos, latents, quantised latents and codes, each a pair (past, future).

    Videos and latents are None where the batch holds codes.
    """
    params = params["tokenizer"]
    if "past_codes" in batch:
      codes = batch["past_codes"], batch["future_codes"]
      quantized = (jax.lax.stop_gradient(self.tokenizer.from_indices(c, params)) for c in codes)
      return None, None, tuple(quantized), codes
    video = self._video(batch)
    latents = self.tokenizer.encode(params, jnp.concatenate(video))
    quantized, codes = self.tokenizer.quantize(latents, params)
    if not with_gradient:
      latents, quantized = jax.lax.stop_gradient((latents, quantized))
    return video, *(tuple(jnp.split(x, 2)) for x in (latents, quantized, codes))

  def _decoded(self, params, latents):
    return self.tokenizer.decode_unclipped(params["tokenizer"], latents)

  def _predict(self, params, past, seen, keys):
    """seen: frames of the past in 0..1, read where there is a motion network."""
    vector = None
    if self.motion is not None:
      vector = self.motion.apply({"params": params["motion"]}, seen)
    return self.predictor.apply({"params": params["predictor"]}, past, vector, keys)

  def _to_decode(self, params, predicted):
    snap = lambda x: self.tokenizer.quantize(x, params["tokenizer"])[0]  # noqa: E731
    return predictor.to_decode(predicted, self.head, self.eval["decode_input"], snap)

  def _check_tokenizer(self, ours, black):
    checks.require(
      ours >= black or self.allow_worse_than_black,
      f"config.model.tokenizer: its reconstructions have {ours:.2f} dB where a black picture has "
      f"{black:.2f} dB, so nothing predicted in its codes can be seen; train it longer or on such "
      "videos, or set config.model.tokenizer.allow_worse_than_black=True.",
    )

  def _latent_loss(self, predicted, target):
    loss = bits.latent_mse if self.head == "mse" else bits.bit_cross_entropy
    return loss(predicted, target)

  def _nats(self, params, codes, row_keys, keys, train):
    """-log p [B] of the future's codes, a decision (`TokenModel.parts`)."""
    params, both = params["predictor"], jnp.concatenate(codes, 1)
    past = self.grid[0]
    if self.head == "masked":
      hidden = masked.training_mask(row_keys, past, both.shape[1:])
      run = lambda method, *args: self.predictor.apply(  # noqa: E731
        {"params": params}, *args, method=method
      )
      nats = run("nats", run("context", both, hidden, keys), both)
      return bits.masked_mean(nats, hidden) / self.predictor.parts
    seen = both
    if train and self.flip_rate:
      flip = lambda code, key: tokens.flip_bits(code, key, self.flip_rate, self.predictor.bits)  # noqa: E731
      seen = jax.vmap(flip)(both, row_keys)
    nats = autoregressive.next_frame_nats(self.predictor, params, both, keys, seen)
    return nats[:, past - 1 :].mean((1, 2, 3)) / self.predictor.parts

  def _generate(self, params, past, rng):
    generate = masked.generate if self.head == "masked" else autoregressive.generate
    options = {name: self.eval[name] for name in ("temperature", "top_k", "top_p")}
    if self.head == "masked":
      options = {"steps": self.eval["steps"], "sampling": options}
    else:
      options = {"sampling": options}
    return generate(self.predictor, params["predictor"], past, self.grid[0], rng, **options)


_KNOWN = ("foreground", "centre", "centre_valid")
