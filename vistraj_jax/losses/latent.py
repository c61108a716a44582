"""Losses of video tokenizers: code use, commitment, pixels, and the adversarial terms.

Source: SEED-Voken's video tokenizer. Sizes: B videos, latents [B, t, h, w, D], logits of a patch
discriminator [B, t', h', w', 1]; float32.
"""

import jax
import jax.numpy as jnp


def commitment(latents, quantized):
  """Mean squared distance of latents to what they became: [B, t, h, w, D] twice -> [B].

  No gradient reaches `quantized`.
  """
  return jnp.mean((latents - jax.lax.stop_gradient(quantized)) ** 2, (1, 2, 3, 4))


def video_l1(predicted, target):
  """Mean absolute error: [B, T, H, W, 3] twice -> [B]."""
  return jnp.mean(jnp.abs(predicted - target), (1, 2, 3, 4))


def video_l2(predicted, target):
  """Mean squared error: [B, T, H, W, 3] twice -> [B]."""
  return jnp.mean((predicted - target) ** 2, (1, 2, 3, 4))


def masked_l1(predicted, target, mask):
  """Mean absolute error of the pixels of a mask [B, T, H, W]: -> [B], 0 where it is empty."""
  error = jnp.mean(jnp.abs(predicted - target), -1) * mask
  return jnp.sum(error, (1, 2, 3)) / jnp.maximum(jnp.sum(mask, (1, 2, 3)), 1)


def hinge(real, fake):
  """The discriminator's loss: logits twice -> [B]."""
  return 0.5 * (_mean(jax.nn.relu(1 - real)) + _mean(jax.nn.relu(1 + fake)))


def non_saturating(fake):
  """The generator's loss, softplus of minus the mean logit of each video: logits -> [B]."""
  return jax.nn.softplus(-_mean(fake))


def moved_averages(averages, real, fake, decay):
  """Returns {"real", "fake"}: running means of the logits after one more batch."""
  means = {"real": jnp.mean(real), "fake": jnp.mean(fake)}
  return {
    name: decay * averages[name] + (1 - decay) * jax.lax.stop_gradient(mean)
    for name, mean in means.items()
  }


def lecam(real, fake, averages):
  """LeCAM regularisation (Tseng et al., arXiv 2104.03310): logits, `moved_averages` -> scalar.

  Keeps real logits near the running mean of fake ones at most, and the other way round.
  """
  above = jnp.mean(jax.nn.relu(real - averages["fake"]) ** 2)
  below = jnp.mean(jax.nn.relu(averages["real"] - fake) ** 2)
  return above + below


def _mean(logits):
  return jnp.mean(logits, tuple(range(1, logits.ndim)))
