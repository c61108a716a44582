"""Quantisers of latents: signs without a table (LFQ), and the nearest vector of a code book (VQ).

LFQ (Yu et al., arXiv 2310.05737): each of D channels becomes +1 or -1, and the D bits are a token
of 2^D. Bit d, of worth 2^d, belongs to channel d. Its entropy loss speaks of all 2^D codes, but
the softmax over codes of +-1 is a product over bits; the mean over tokens of a product of two
halves is one matrix product, and no token ever sees 2^D numbers.
"""

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks

_MOST_BITS = 30  # of an int32
_EPSILON = 1e-5  # inside the logarithm of the mean distribution, as published


def signs(z):
  """z [...] -> +1.0 where z > 0, else -1.0."""
  return jnp.where(z > 0, 1.0, -1.0).astype(z.dtype)


def straight_through(z, quantized):
  """Returns `quantized`, whose gradient goes to `z` unchanged."""
  return z + jax.lax.stop_gradient(quantized - z)


def bits_to_index(z):
  """z [..., D] -> int32 [...] below 2^D: bit d says whether z[..., d] > 0.

  Raises:
    InputError: more than 30 channels.
  """
  count = z.shape[-1]
  checks.require(
    count <= _MOST_BITS, f"latents: {count} channels, an index has at most {_MOST_BITS} bits."
  )
  worth = jnp.left_shift(1, jnp.arange(count, dtype=jnp.int32))
  return jnp.sum((z > 0) * worth, -1, dtype=jnp.int32)


def index_to_bits(index, count):
  """index int [...] -> float32 [..., count] of +-1; the inverse of `bits_to_index`."""
  bits = (jnp.asarray(index)[..., None] >> jnp.arange(count)) & 1
  return (2 * bits - 1).astype(jnp.float32)


def split_index(index, first_bits):
  """index [...] -> (first, rest): that of the first channels and that of the others."""
  return index & ((1 << first_bits) - 1), index >> first_bits


def join_index(first, rest, first_bits):
  """The inverse of `split_index`."""
  return first + (rest << first_bits)


def code_entropies(z, temperature=0.01, weights=None):
  """Entropies in nats of the codes that softly belong to tokens: softmax of 2 z.c / temperature.

  Args:
    z: float [N, D], D at least 2.
    temperature: of the softmax.
    weights: [N], how much each token counts in the means; None: all alike.

  Returns:
    (mean entropy of a token, entropy of the tokens' mean distribution), float32 scalars.
  """
  z = z.astype(jnp.float32)
  weights = jnp.ones(len(z)) if weights is None else weights
  weights = weights / jnp.sum(weights)
  logits = 4 * z / temperature  # of the bits: code vectors of +1 and -1 are 2 apart
  away = jnp.abs(logits)
  bit_entropy = jax.nn.softplus(-away) + away * jax.nn.sigmoid(-away)
  half = (z.shape[1] + 1) // 2
  first, rest = (_products(jax.nn.sigmoid(part)) for part in (logits[:, :half], logits[:, half:]))
  first, rest = jax.lax.optimization_barrier((first * weights[:, None], rest))
  mean = jnp.matmul(first.T, rest, precision=jax.lax.Precision.HIGHEST)
  return jnp.sum(weights * bit_entropy.sum(-1)), -jnp.sum(mean * jnp.log(mean + _EPSILON))


def nearest(z, code_book, vectors_at_once=1024, codes_at_once=8192):
  """Index of the nearest code vector of each latent, the first of equally near ones.

  Distances are squared and Euclidean, in float32. No array of all latents times all codes arises:
  `vectors_at_once` times `codes_at_once` distances live at a time, and no choice of the two
  changes the result.

  Args:
    z: float [..., C].
    code_book: float [K, C].

  Returns:
    int32 [...].
  """
  shape, width = z.shape[:-1], z.shape[-1]
  z = z.astype(jnp.float32).reshape(-1, width)
  code_book = code_book.astype(jnp.float32)
  vectors_at_once = min(vectors_at_once, len(z))
  codes_at_once = min(codes_at_once, len(code_book))
  codes = _in_blocks(code_book, codes_at_once, 0.0)
  # |z|^2 is the same for all codes. Those that only fill the last block are infinitely far.
  norms = _in_blocks(jnp.sum(code_book**2, -1), codes_at_once, jnp.inf)

  def of_block(vectors):
    def step(best, block):
      start, codes, norms = block
      distance = norms - 2 * jnp.matmul(vectors, codes.T, precision=jax.lax.Precision.HIGHEST)
      index = jnp.argmin(distance, -1)
      distance = jnp.take_along_axis(distance, index[:, None], -1)[:, 0]
      nearer = distance < best[0]
      index = jnp.where(nearer, start + index.astype(jnp.int32), best[1])
      return (jnp.where(nearer, distance, best[0]), index), None

    start = codes_at_once * jnp.arange(len(codes), dtype=jnp.int32)
    nothing = jnp.full(len(vectors), jnp.inf), jnp.zeros(len(vectors), jnp.int32)
    return jax.lax.scan(step, nothing, (start, codes, norms))[0][1]

  found = jax.lax.map(of_block, _in_blocks(z, vectors_at_once, 0.0))
  return found.reshape(-1)[: len(z)].reshape(shape)


def _products(probabilities):
  """p [N, D] of bits -> [N, 2^D] of all their patterns, bit d being worth 2^d."""
  count = probabilities.shape[1]
  if count == 1:
    return jnp.concatenate([1 - probabilities, probabilities], -1)
  low, high = (_products(part) for part in jnp.split(probabilities, [count // 2], 1))
  return (high[:, :, None] * low[:, None, :]).reshape(len(probabilities), -1)


def _in_blocks(x, size, fill):
  """[N, ...] -> [ceil(N / size), size, ...], filled up with `fill`."""
  missing = -len(x) % size
  x = jnp.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1)), constant_values=fill)
  return x.reshape(-1, size, *x.shape[1:])
