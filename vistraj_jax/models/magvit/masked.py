"""Masked generation of future codes: all places at once, the surest first, in a dozen steps.

Past codes are always seen. Training hides a random share of the future ones, and the model says
what they are; generation starts with all of them hidden and keeps more in every step.
Source: MaskGIT (arXiv 2202.04200) and MAGVIT's frame prediction (arXiv 2212.05199).
"""

import math

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks

STEPS, TEMPERATURE = 12, 4.5  # as published


def training_mask(keys, past, shape):
  """Draws which codes of past and future frames to hide.

  Args:
    keys: one key a row [B].
    past: number of past frames, which are never hidden.
    shape: (T, H, W) of the codes, past and future.

  Returns:
    bool [B, T, H, W]; in a row a share cos(pi/2 r) of the future, r even in 0..1, at least one.
  """
  T, H, W = shape
  count = (T - past) * H * W

  def of_row(key):
    of_share, of_place = jax.random.split(key)
    share = jnp.cos(math.pi / 2 * jax.random.uniform(of_share))
    rank = jax.random.permutation(of_place, count)
    return rank < jnp.maximum(1, jnp.ceil(share * count))

  future = jax.vmap(of_row)(keys).reshape(-1, T - past, H, W)
  return jnp.pad(future, ((0, 0), (past, 0), (0, 0), (0, 0)))


def generate(model, params, past, frames, rng, steps=STEPS, temperature=TEMPERATURE, sampling=None):
  """Draws future codes.

  Args:
    model: `tokens.TokenModel`, not causal.
    params: its parameters.
    past: int [B, T, H, W].
    frames: latent frames to predict.
    rng: key.
    steps: of the schedule.
    temperature: of the noise in "the surest first", falling to 0 with the steps.
    sampling: further arguments of `TokenModel.sample`, a dict, or None.

  Returns:
    int32 [B, frames, H, W].

  Raises:
    InputError: no step.
  """
  checks.require(steps >= 1, f"config.eval.steps: {steps} received, 1 or more wanted.")
  B, T, H, W = past.shape
  sampling = sampling or {}
  count = frames * H * W
  codes = jnp.pad(past, ((0, 0), (0, frames), (0, 0), (0, 0)))
  hidden = jnp.pad(jnp.ones((B, frames, H, W), bool), ((0, 0), (T, 0), (0, 0), (0, 0)))

  def step(state, number):
    codes, hidden = state
    of_codes, of_order = jax.random.split(jax.random.fold_in(rng, number))
    context = model.apply({"params": params}, codes, hidden, method="context")
    context, unknown = context[:, T:], hidden[:, T:]
    drawn, nats = model.apply(
      {"params": params}, context, of_codes, method="sample", **(sampling or {})
    )
    future = jnp.where(unknown, drawn, codes[:, T:])
    progress = (number + 1) / steps
    noise = temperature * (1 - progress) * jax.random.gumbel(of_order, nats.shape)
    sureness = jnp.where(unknown, noise - nats, jnp.inf).reshape(B, count)
    left = jnp.minimum(unknown.reshape(B, count).sum(-1) - 1, still_hidden(progress, count))
    rank = sureness.argsort(-1).argsort(-1)
    unknown = (rank < left[:, None]).reshape(unknown.shape)
    return (codes.at[:, T:].set(future), hidden.at[:, T:].set(unknown)), None

  (codes, _), _ = jax.lax.scan(step, (codes, hidden), jnp.arange(steps))
  return codes[:, T:]


def still_hidden(progress, count):
  """Number of places of `count` that are hidden after a share `progress` of the steps."""
  return jnp.floor(count * jnp.cos(math.pi / 2 * progress) + 1e-4).astype(jnp.int32)
