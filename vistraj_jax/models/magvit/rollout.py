"""Futures longer than the trained window, and several of them for one past.

A predictor turns one window of codes or latents into the next, equally long one. The next window
becomes the past, either as it is or after a way through pixels: decoded, and encoded again as the
past of training was.
"""

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks


def roll_out(predict, past, windows, rng, renew=None):
  """Predicts several windows, each from the one before.

  Args:
    predict: function (past [B, t, ...], rng) -> next window [B, t, ...].
    past: codes or latents [B, t, ...].
    windows: how many to predict.
    rng: key; every window gets its own.
    renew: function of a predicted window that returns what serves as past, for example
      `through_pixels`; None: the window itself, the rollout stays in code space.

  Returns:
    predicted windows [B, windows * t, ...].

  Raises:
    InputError: windows of predictions that are no pasts.
  """
  found = []
  for number in range(windows):
    window = predict(past, jax.random.fold_in(rng, number))
    checks.require(
      window.shape[1] == past.shape[1],
      f"rollout: a past of {past.shape[1]} latent frames and predictions of {window.shape[1]}; "
      "only windows of one length can follow each other: set config.data.future to the past's.",
    )
    found.append(window)
    past = window if renew is None else renew(window)
  return jnp.concatenate(found, 1)


def through_pixels(encode, decode):
  """Returns the function window -> window that decodes and encodes again; see `roll_out`.

  Args:
    encode: function of uint8 video -> window.
    decode: function of a window -> video in 0..1.
  """
  return lambda window: encode(jnp.round(255 * decode(window)).astype(jnp.uint8))


def several(generate, rng, count):
  """Draws `count` futures: generate(key) -> [B, ...], one after the other -> [count, B, ...]."""
  return jax.lax.map(generate, jax.random.split(rng, count))


def best_of(errors):
  """errors [count, B] -> that of the best sample [B]."""
  return errors.min(0)


def diversity(samples):
  """Mean squared distance [B] between pairs of different samples [count, B, ...], count >= 2."""
  count, B = samples.shape[:2]
  x = samples.astype(jnp.float32).reshape(count, B, -1)
  # Twice the unbiased variance of each number is the mean over pairs of squared differences.
  return 2 * x.var(0, ddof=1).mean(-1)
