"""A distribution over codes of 2^bits without 2^bits outputs, in the context of other codes.

"bits": the bits of a code are independent given the context: one logit a bit. "subtokens": a code
is a pair of smaller ones; the first is drawn from the context, the second from the context and the
first. A code of +-1 channels has its lowest bits in the first sub-token.
Source: MAGVIT-v2 (arXiv 2310.05737) and Open-MAGVIT2 (arXiv 2409.04410).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.magvit.transformer import Transformer
from vistraj_jax.nn import initializers, quantize

HEADS = ("bits", "subtokens")


class TokenModel(nn.Module):
  """Codes int [B, T, H, W] -> contexts, and from a context the probability of a code, or a sample.

  Attributes:
    bits: of a code.
    transformer: fields of `transformer.Transformer`; `causal` for models that add frames.
    head: one of `HEADS`.
    first_bits: of the first sub-token.
  """

  bits: int
  transformer: dict
  head: str = "subtokens"
  first_bits: int = 9

  @property
  def parts(self):
    """Number of decisions a code is made of; the loss is -log p of a code over this."""
    return self.bits if self.head == "bits" else 2

  def setup(self):
    checks.choice("config.model.head", self.head, HEADS)
    self.trunk = Transformer(**self.transformer)
    width, dtype = self.trunk.width, self.trunk.dtype
    draw = nn.initializers.normal(0.02)
    self.mask_token = self.param("mask_token", draw, (width,))
    if self.head == "bits":
      self.embed_bits = nn.Dense(width, dtype=dtype, kernel_init=draw)
      self.bit_logits = initializers.dense(self.bits, width, jnp.float32, None)
      return
    checks.require(
      0 < self.first_bits < self.bits,
      f"config.model.first_bits={self.first_bits}: between 1 and {self.bits - 1} of the code's "
      f"{self.bits} bits make the first sub-token.",
    )
    sizes = 1 << self.first_bits, 1 << self.bits - self.first_bits
    self.embed_first, self.embed_rest = (
      nn.Embed(n, width, dtype=dtype, embedding_init=draw) for n in sizes
    )
    self.first_logits = initializers.dense(sizes[0], width, jnp.float32, None)
    self.given_first = nn.Embed(sizes[0], width, embedding_init=draw)
    self.joined = initializers.dense(width, width, jnp.float32, None)
    self.rest_logits = initializers.dense(sizes[1], width, jnp.float32, None)

  def __call__(self, codes, hidden=None):
    """-log p [B, T, H, W] in nats of each code, whose own place is `hidden` (bool) or not."""
    return self.nats(self.context(codes, hidden), codes)

  def context(self, codes, hidden=None, keys=None, cache=None, start=0, room=0):
    """Runs the transformer.

    Args:
      codes: int [B, T, H, W].
      hidden: bool [B, T, H, W], where a learned vector stands in for the code; or None.
      keys, cache, start, room: as of `Transformer`.

    Returns:
      float32 [B, T, H, W, width]; with `cache` or `room`, (that, cache).
    """
    if self.head == "bits":
      x = self.embed_bits(quantize.index_to_bits(codes, self.bits))
    else:
      first, rest = quantize.split_index(codes, self.first_bits)
      x = self.embed_first(first) + self.embed_rest(rest)
    if hidden is not None:
      x = jnp.where(hidden[..., None], self.mask_token.astype(x.dtype), x)
    return self.trunk(x, keys, cache, start, room)

  def nats(self, context, codes):
    """Cost of codes.

    Args:
      context: [B, T, H, W, width].
      codes: int [B, T, H, W].

    Returns:
      -log p [B, T, H, W] in nats, float32.
    """
    if self.head == "bits":
      p = _two(self.bit_logits(context))
      wanted = (quantize.index_to_bits(codes, self.bits) > 0).astype(jnp.int32)
      return _nats(p, wanted).sum(-1)
    first, rest = quantize.split_index(codes, self.first_bits)
    of_first = _nats(self.first_logits(context), first)
    return of_first + _nats(self._rest(context, first), rest)

  def sample(self, context, rng, temperature=1.0, top_k=0, top_p=1.0):
    """Draws codes.

    Args:
      context: [B, T, H, W, width].
      rng: key.
      temperature, top_k, top_p: of each of the decisions that make a code, see `draw`.

    Returns:
      codes int32 [B, T, H, W], and -log p of each in nats, before temperature and cuts.
    """
    options = (temperature, top_k, top_p)
    if self.head == "bits":
      bits = draw(_two(self.bit_logits(context)), rng, *options)
      codes = quantize.bits_to_index(bits)
    else:
      of_first, of_rest = jax.random.split(rng)
      first = draw(self.first_logits(context), of_first, *options)
      rest = draw(self._rest(context, first), of_rest, *options)
      codes = quantize.join_index(first, rest, self.first_bits)
    return codes, self.nats(context, codes)

  def _rest(self, context, first):
    return self.rest_logits(nn.relu(self.joined(context + self.given_first(first))))


def draw(logits, rng, temperature=1.0, top_k=0, top_p=1.0):
  """Draws classes int32 [...] from logits [..., classes].

  Args:
    logits: float.
    rng: key.
    temperature: divides the logits; 0: the most probable class.
    top_k: if not 0, only that many of the most probable classes are left.
    top_p: only the most probable classes that together reach this probability are left.

  Raises:
    InputError: a temperature below 0, `top_k` below 0, or `top_p` not above 0.
  """
  checks.require(
    temperature >= 0 and top_k >= 0 and top_p > 0,
    f"config.eval.temperature, top_k, top_p: {temperature}, {top_k} and {top_p} received; give a "
    "temperature and a top_k of 0 or more, and a top_p above 0.",
  )
  if not temperature:
    return logits.argmax(-1).astype(jnp.int32)
  logits = logits / temperature
  if top_k and top_k < logits.shape[-1]:
    least = jax.lax.top_k(logits, top_k)[0][..., -1:]
    logits = jnp.where(logits < least, -jnp.inf, logits)
  if top_p < 1:
    falling = -jnp.sort(-logits, -1)
    p = jax.nn.softmax(falling)
    before = jnp.cumsum(p, -1) - p
    least = jnp.where(before < top_p, falling, jnp.inf).min(-1, keepdims=True)
    logits = jnp.where(logits < least, -jnp.inf, logits)
  return jax.random.categorical(rng, logits).astype(jnp.int32)


def flip_bits(codes, rng, rate, bits):
  """Flips every bit of codes with probability `rate`: the noise against drift of long rollouts."""
  flipped = jax.random.bernoulli(rng, rate, (*codes.shape, bits))
  worth = jnp.left_shift(1, jnp.arange(bits, dtype=jnp.int32))
  return codes ^ jnp.sum(flipped * worth, -1, dtype=jnp.int32)


def _two(logits):
  """Logits of a bit being 1 -> of the classes 0 and 1."""
  return jnp.stack([jnp.zeros_like(logits), logits], -1)


def _nats(logits, target):
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  return -jnp.take_along_axis(log_p, target[..., None], -1)[..., 0]
