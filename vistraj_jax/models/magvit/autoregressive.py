"""Future codes frame by frame: each frame's places at once, from all frames before.

The transformer is block-causal: attention is full inside a latent frame and looks back from frame
to frame. What it said of frame t is the distribution of frame t + 1. Keys and values of past frames
stay in a cache, so that a new frame costs one frame's work.
"""

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks


def next_frame_nats(model, params, codes, keys=None, seen=None):
  """-log p of every frame but the first, given the frames before.

  Args:
    model: `tokens.TokenModel` whose transformer is causal.
    params: its parameters.
    codes: int [B, T, H, W].
    keys: dropout keys of the rows, or None.
    seen: codes [B, T, H, W] to condition on instead, for example with `tokens.flip_bits`.

  Returns:
    float32 [B, T - 1, H, W], nats.
  """
  _check_causal(model)
  condition = codes if seen is None else seen
  variables = {"params": params}
  context = model.apply(variables, condition[:, :-1], keys=keys, method="context")
  return model.apply(variables, context, codes[:, 1:], method="nats")


def generate(model, params, past, frames, rng, sampling=None):
  """Draws future codes.

  Args:
    model: `tokens.TokenModel` whose transformer is causal, with positions for past and future.
    params: its parameters.
    past: int [B, T, H, W].
    frames: latent frames to predict.
    rng: key.
    sampling: further arguments of `TokenModel.sample`, a dict, or None.

  Returns:
    int32 [B, frames, H, W].
  """
  _check_causal(model)
  T, variables = past.shape[1], {"params": params}
  run = lambda *args, **kwargs: model.apply(variables, *args, method="context", **kwargs)  # noqa: E731

  def drawn(context, number):
    key = jax.random.fold_in(rng, number)
    return model.apply(variables, context, key, method="sample", **(sampling or {}))[0]

  context, cache = run(past, room=T + frames - 1)

  def step(state, number):
    codes, cache = state
    context, cache = run(codes, cache=cache, start=T + number)
    return (drawn(context, number + 1), cache), codes[:, 0]

  start = drawn(context[:, -1:], 0), cache
  (last, _), before = jax.lax.scan(step, start, jnp.arange(frames - 1))
  return jnp.concatenate([jnp.moveaxis(before, 0, 1), last], 1)


def _check_causal(model):
  checks.require(
    model.transformer.get("causal"),
    "config.model.head: frames that see later frames cannot be predicted one by one; train "
    "'autoregressive', whose frames do not, or use masked generation.",
  )
