"""Predicts the latents of the next frames from the latents of the past ones, in one pass.

Output (t, h, w) is the prediction for the place (h, w), as many latent frames later as the past
has. A motion vector of a video backbone may speak to every token.
"""

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.magvit.transformer import Transformer
from vistraj_jax.nn import dropout, initializers, quantize

TOKENS = ("all", "pooled")
FUSIONS = ("film", "concat")
HEADS = ("mse", "bits")
DECODE_INPUTS = ("hard", "soft")
_FUSION_SITE = 1 << 20  # number of the fusion's dropout, far from those of the layers


class LatentPredictor(nn.Module):
  """Past latents [B, t, h, w, C] -> predicted latents [B, t, h, w, C].

  Attributes:
    latent_dim: C. Where it is not the transformer's width, tokens are projected to that.
    transformer: fields of `transformer.Transformer`.
    tokens: "all" latents, or "pooled": the mean of each frame, whose prediction is repeated over
      the frame (it cannot say where anything is; as the original experiments were run).
    fusion: how a motion vector enters: "film" scales and shifts tokens by what it says (starts as
      no change), "concat": Linear and ReLU on [token, motion], as in the original joint model.
  """

  latent_dim: int
  transformer: dict
  tokens: str = "all"
  fusion: str = "film"

  @nn.compact
  def __call__(self, latents, motion=None, keys=None):
    """Predicts.

    Args:
      latents: [B, t, h, w, C], quantised as the tokenizer gives them.
      motion: [B, M] or None.
      keys: one key a row [B] in training; None switches dropout off.

    Returns:
      float32 [B, t, h, w, C]; with a loss on bits, their logits.

    Raises:
      InputError: latents of another tokenizer, or an unknown option.
    """
    checks.choice("config.model.tokens", self.tokens, TOKENS)
    checks.require(
      latents.shape[-1] == self.latent_dim,
      f"latents: {latents.shape[-1]} channels received, the predictor was made for "
      f"{self.latent_dim}; give it the tokenizer it was trained with.",
    )
    trunk = Transformer(**self.transformer, name="transformer")
    dtype = trunk.dtype
    x = latents.astype(jnp.float32)
    if self.tokens == "pooled":
      x = x.mean((2, 3), keepdims=True)
    if self.latent_dim != trunk.width:
      x = initializers.dense(trunk.width, self.latent_dim, dtype, "input")(x)
    if motion is not None:
      x = self._fused(x, motion, trunk, keys)
    x = trunk(x, keys)
    x = initializers.dense(self.latent_dim, trunk.width, jnp.float32, "output")(x)
    return jnp.broadcast_to(x, latents.shape)

  def _fused(self, x, motion, trunk, keys):
    checks.choice("config.model.motion.fusion", self.fusion, FUSIONS)
    motion = motion[:, None, None, None]
    width = x.shape[-1]
    if self.fusion == "film":
      zeros = nn.initializers.zeros_init()
      both = nn.Dense(2 * width, kernel_init=zeros, name="fusion")(motion)
      scale, shift = jnp.split(both, 2, -1)
      return x * (1 + scale) + shift
    motion = jnp.broadcast_to(motion, (*x.shape[:4], motion.shape[-1]))
    both = jnp.concatenate([x, motion], -1)
    x = nn.relu(initializers.dense(width, both.shape[-1], trunk.dtype, "fusion")(both))
    self.sow("intermediates", "fused", x)
    return dropout.dropout(x, trunk.dropout, keys, _FUSION_SITE)


def to_decode(predicted, head, how, quantized=None):
  """Returns what the decoder gets for predicted latents.

  Args:
    predicted: of `LatentPredictor`, [B, t, h, w, C].
    head: "mse": they are latents; "bits": logits of the signs being +1.
    how: "hard": quantised, the only kind of input a decoder has seen in training; "soft": as they
      are, or the expected signs.
    quantized: the tokenizer's function latents -> quantised latents; None: signs.
  """
  checks.choice("config.model.head", head, HEADS)
  if checks.choice("config.eval.decode_input", how, DECODE_INPUTS) == "hard":
    return (quantized or quantize.signs)(predicted)
  return jnp.tanh(predicted / 2) if head == "bits" else predicted
