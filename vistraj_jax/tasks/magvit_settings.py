"""What settings of configs/magvit.py mean together: refusals, and the network they describe."""

import math
import re

import jax.numpy as jnp

from vistraj_jax.core import checks, trained
from vistraj_jax.models.magvit import frozen, predictor, tokens

TOKENIZER_PHASE = "tokenizer"


def check(config, has_code_book):
  """Raises InputError unless something is trained, and by losses that can reach it.

  Args:
    config: the whole configuration.
    has_code_book: whether the tokenizer's codes are vectors of a book, not signs.
  """
  model, phases = config.model, config.phases
  head, draws_codes = model.head, model.head not in predictor.HEADS
  checks.require(
    head != "bits" or not has_code_book,
    "config.model.head: 'bits' received; it says which latents are above 0, but those of this "
    "tokenizer are vectors of a code book; set config.model.head=mse.",
  )
  needs = {"config.model.joint": model.joint, "config.loss.pixel": config.loss.pixel}
  needs["config.model.motion.kind"] = model.motion.kind
  for name, value in needs.items():
    checks.require(
      not (draws_codes and value),
      f"{name}: {value!r} received, but config.model.head={head!r} draws codes, through which no "
      f"gradient goes and which no motion guides; leave it out, or set the head to one of "
      f"{predictor.HEADS}.",
    )
  checks.require(
    0 <= model.flip_rate <= 1,
    f"config.model.flip_rate: {model.flip_rate} received, 0 to 1 allowed.",
  )
  runs = [name for name in phases if config.run in ("all", name)]
  if model.tokenizer.checkpoint:
    _check_finished(config, runs)
    return
  checks.require(
    TOKENIZER_PHASE in phases or config.init.checkpoint,
    "config.model.tokenizer.checkpoint: '' and no phase 'tokenizer', so the tokenizer would "
    "stay random; give weights of `launch.convert magvit_tokenizer` or of a run.",
  )
  for name in runs:
    checks.require(
      name == TOKENIZER_PHASE or config.init.checkpoint or phases[name].start_from != "init",
      f"config.phases.{name}.start_from: 'init' received without config.model.tokenizer.checkpoint "
      "or config.init.checkpoint, so the tokenizer would stay random; give either, or 'best'.",
    )
  if TOKENIZER_PHASE in phases:
    adversarial, groups = config.loss.tokenizer.adversarial, phases[TOKENIZER_PHASE].groups
    kernel = "discriminator/conv_0/kernel"
    group = next((group for pattern, group in groups if re.fullmatch(pattern, kernel)), "frozen")
    checks.require(
      not adversarial or group != "frozen",
      f"config.loss.tokenizer.adversarial: {adversarial} received, but config.phases.tokenizer."
      "groups leaves the discriminator as it is, random; train the tokenizer by "
      "configs/magvit_tokenizer.py, and give its run as config.model.tokenizer.checkpoint.",
    )


def _check_finished(config, runs):
  """Raises InputError where a phase would bring another tokenizer than the finished one."""
  checkpoint, names = config.model.tokenizer.checkpoint, list(config.phases)
  checks.require(
    TOKENIZER_PHASE not in runs,
    f"config.model.tokenizer.checkpoint: {checkpoint} received, but the phase {TOKENIZER_PHASE!r} "
    "would train another tokenizer; add --config.run=predictor "
    "--config.phases.predictor.start_from=init.",
  )
  for before, name in zip(names[:-1], names[1:], strict=True):
    checks.require(
      before != TOKENIZER_PHASE or name not in runs or config.phases[name].start_from != "best",
      f"config.model.tokenizer.checkpoint: {checkpoint} received, but config.phases.{name}."
      f"start_from is 'best', which takes the tokenizer of the phase {TOKENIZER_PHASE!r}; add "
      f"--config.phases.{name}.start_from=init.",
    )


def check_codes(config, data_set, fingerprint, grid):
  """Raises InputError unless codes alone are enough, and are those of the tokenizer."""
  model, root = config.model, config.data.root
  checks.require(
    fingerprint,
    "config.data.pipeline: 'video_codes' received, but the codes' tokenizer is not given; give "
    "config.model.tokenizer.checkpoint, with --config=configs/magvit.py:full,codes.",
  )
  found = data_set["train"]
  if config.init.checkpoint:
    params, _ = trained.load(config.init.checkpoint)
    other = frozen.fingerprint(
      params.get("tokenizer", {}), frozen.load(model.tokenizer.checkpoint).config
    )
    checks.require(
      other == fingerprint,
      f"config.init.checkpoint: {config.init.checkpoint} holds tokenizer {other!r}, "
      f"config.model.tokenizer.checkpoint is {fingerprint!r}; codes of one mean nothing to the "
      "other: start from a run with the same tokenizer.",
    )
  checks.require(
    found["tokenizer"] == fingerprint,
    f"config.data.root: {root} holds codes of tokenizer {found['tokenizer']!r}, "
    f"config.model.tokenizer.checkpoint is {fingerprint!r}; codes of one mean nothing to another: "
    "give the tokenizer that made them, or make them again with `python -m launch.tokenize`.",
  )
  checks.require(
    tuple(found["code_shape"]) == tuple(grid),
    f"config.data.image_size: windows of {config.data.past} frames of {config.data.image_size} px "
    f"are {grid} codes, those of {root} {tuple(found['code_shape'])}; they were made of "
    f"{found['image_size']} px.",
  )
  needs = {"config.model.joint": model.joint, "config.model.motion.kind": model.motion.kind}
  needs["config.loss.pixel"] = config.loss.pixel
  for name, value in needs.items():
    checks.require(
      not value,
      f"{name}: {value!r} received, but that needs pixels and {root} holds codes only; leave it "
      "out, or train with config.data.pipeline='future_video'.",
    )


def make_predictor(model, tokenizer, grid):
  """Returns the network that config.model describes, with positions for its windows."""
  transformer = dict(model.transformer)
  transformer["dtype"] = jnp.dtype(model.dtype)
  frames, *sides = grid
  if model.head in predictor.HEADS:
    if transformer["positions"] == "table":
      transformer["num_positions"] = frames if model.tokens == "pooled" else math.prod(grid)
    transformer["max_grid"] = grid
    return predictor.LatentPredictor(
      tokenizer.latent_dim, transformer, model.tokens, model.motion.fusion
    )
  transformer["max_grid"] = (2 * frames, *sides)
  transformer["num_positions"] = 2 * math.prod(grid)
  transformer["causal"] = model.head == "autoregressive"
  num_codes = tokenizer.num_codes
  checks.require(
    num_codes & (num_codes - 1) == 0,
    f"config.model.head: {model.head!r} received; heads over codes draw any code of some bits, but "
    f"the tokenizer has {num_codes:,} codes, which is no power of two; set config.model.head=mse.",
  )
  num_bits = num_codes.bit_length() - 1
  return tokens.TokenModel(num_bits, transformer, model.token_head, model.first_bits)
