"""Softmax attention over long sequences in memory that grows with the length, not its square.

Scores exist one tile (some queries x some keys of one head) at a time, small enough to stay in a
CPU's cache; a running maximum and sum turn them into the exact softmax. The backward pass is
written by hand: it computes each tile again from the saved log-sum-exp, which is five products a
tile where the derivative of the loops would take ten and keep their states.
Source: FlashAttention-2 (arXiv 2307.08691).
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

KEPT = "attention"  # name, for checkpoint policies, of what the backward pass wants most
CHUNK = 1280  # queries and keys of a tile: 6.5 MB of scores
_LOWEST = -1e30  # in place of -inf, whose differences are nan


def chunked(q, k, v, block=0, seen=None, chunk=CHUNK):
  """Attention scaled by 1 / sqrt(head width).

  Args:
    q: queries [B, N, heads, D].
    k, v: keys and values [B, M, heads, D].
    block: if not 0, tokens come in blocks of this many, and a query sees the keys of its own block
      and of those before.
    seen: int scalar or None: only the first `seen` keys count (at least one).
    chunk: most queries and keys of a tile; changes rounding only.

  Returns:
    [B, N, heads, D] in the dtype of `v`. Products have operands in the dtypes given and sums in
    float32.
  """
  batch, length, heads, width = q.shape
  if seen is not None:
    seen = jnp.asarray(seen, jnp.int32)
  by_head = lambda x: jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], x.shape[3])  # noqa: E731
  out = _attention(by_head(q), by_head(k), by_head(v), seen, block, chunk)
  return jnp.swapaxes(out.reshape(batch, heads, length, width), 1, 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q, k, v, seen, block, chunk):
  return _forward(q, k, v, seen, block, chunk)[0]


def _forward(q, k, v, seen, block, chunk):
  """q [R, N, D], k, v [R, M, D] -> out [R, N, D] and what the backward pass needs."""
  N, D = q.shape[1:]
  tiles = _Tiles(N, k.shape[1], block, chunk)

  def of_queries(row, i):
    q, k, v = row
    start = (jnp.full(tiles.rows, _LOWEST), jnp.zeros(tiles.rows), jnp.zeros((tiles.rows, D)))

    def add(j, state):
      highest, total, out = state
      scores = tiles.masked(_product(q[i], k[j].T) * D**-0.5, i, j, seen)
      now = jnp.maximum(highest, scores.max(-1))
      weights = jnp.exp(scores - now[:, None])
      fade = jnp.exp(highest - now)
      out = out * fade[:, None] + _product(weights.astype(v.dtype), v[j])
      return now, total * fade + weights.sum(-1), out

    highest, total, out = jax.lax.fori_loop(0, tiles.last_key(i), add, start)
    return (out / total[:, None]).astype(v.dtype), highest + jnp.log(total)

  def of_row(row):
    q, k, v = row
    row = tiles.of_queries(q), tiles.of_keys(k), tiles.of_keys(v)
    out, log_sum = jax.lax.map(functools.partial(of_queries, row), jnp.arange(tiles.num_rows))
    return out.reshape(-1, D)[:N], log_sum.reshape(-1)[:N]

  out, log_sum = (checkpoint_name(x, KEPT) for x in jax.lax.map(of_row, (q, k, v)))
  return out, (q, k, v, seen, out, log_sum)


def _backward(block, chunk, saved, gradient):
  """Tiles are turned, keys by queries, so that no product needs a transposed tile."""
  q, k, v, seen, out, log_sum = saved
  N, D = q.shape[1:]
  M = k.shape[1]
  tiles = _Tiles(N, M, block, chunk)
  inner = (out.astype(jnp.float32) * gradient.astype(jnp.float32)).sum(-1)

  def of_row(row):
    q, k, v, gradient, log_sum, inner = row
    q, k, v = tiles.of_queries(q), tiles.of_keys(k), tiles.of_keys(v)
    gradient, inner = tiles.of_queries(gradient.astype(v.dtype)), tiles.of_queries(inner)
    log_sum = tiles.of_queries(log_sum)

    def of_keys(of_q, j):
      start = of_q, jnp.zeros((tiles.columns, D)), jnp.zeros((tiles.columns, D))

      def add(i, state):
        of_q, of_k, of_v = state
        scores = _product(k[j], q[i].T) * D**-0.5
        scores = tiles.masked(scores, i, j, seen, turned=True)
        weights = jnp.exp(scores - log_sum[i])
        of_v = of_v + _product(weights.astype(v.dtype), gradient[i])
        change = weights * (_product(v[j], gradient[i].T) - inner[i])
        change = (change * D**-0.5).astype(q.dtype)
        of_k = of_k + _product(change, q[i])
        return of_q.at[i].add(_product(k[j].T, change)), of_k, of_v

      of_q, *of_kv = jax.lax.fori_loop(tiles.first_query(j), tiles.num_rows, add, start)
      return of_q, of_kv

    start = jnp.zeros((tiles.num_rows, D, tiles.rows))
    of_q, (of_k, of_v) = jax.lax.scan(of_keys, start, jnp.arange(tiles.num_columns))
    of_q = jnp.swapaxes(of_q, 1, 2).reshape(-1, D)[:N]
    return of_q, of_k.reshape(-1, D)[:M], of_v.reshape(-1, D)[:M]

  of_q, of_k, of_v = jax.lax.map(of_row, (q, k, v, gradient, log_sum, inner))
  return of_q.astype(q.dtype), of_k.astype(k.dtype), of_v.astype(v.dtype), None


_attention.defvjp(_forward, _backward)


class _Tiles:
  """How N queries and M keys fall into tiles of nearly equal size, padded with zeros at the end."""

  def __init__(self, N, M, block, chunk):
    self.block, self.num_keys = block, M
    self.num_rows, self.num_columns = math.ceil(N / chunk), math.ceil(M / chunk)
    self.rows, self.columns = math.ceil(N / self.num_rows), math.ceil(M / self.num_columns)

  def of_queries(self, x):
    return self._split(x, self.num_rows, self.rows)

  def of_keys(self, x):
    return self._split(x, self.num_columns, self.columns)

  def _split(self, x, count, size):
    x = jnp.pad(x, ((0, count * size - x.shape[0]), *((0, 0),) * (x.ndim - 1)))
    return x.reshape(count, size, *x.shape[1:])

  def last_key(self, i):
    """Number of key tiles that some query of tile i sees."""
    if not self.block:
      return self.num_columns
    end = ((i + 1) * self.rows - 1) // self.block * self.block + self.block
    return jnp.minimum(-(-end // self.columns), self.num_columns)

  def first_query(self, j):
    """First query tile that sees some key of tile j."""
    return j * self.columns // self.block * self.block // self.rows if self.block else 0

  def masked(self, scores, i, j, seen, turned=False):
    """Scores of queries of tile i and keys of tile j (turned: keys first)."""
    if not self.block and seen is None and self.num_columns * self.columns == self.num_keys:
      return scores
    queries = i * self.rows + jax.lax.broadcasted_iota(jnp.int32, scores.shape, int(turned))
    keys = j * self.columns + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1 - int(turned))
    visible = keys < (self.num_keys if seen is None else seen)
    if self.block:
      visible &= keys // self.block <= queries // self.block
    return jnp.where(visible, scores, _LOWEST)


def _product(a, b):
  return jnp.dot(a, b, preferred_element_type=jnp.float32)
