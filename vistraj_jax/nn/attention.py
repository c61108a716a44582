"""Softmax attention, with the softmax in float32 and without the whole score matrix in memory.

`attend` is for images and texts, up to a few thousand tokens, with masks. On a GPU
`jax.nn.dot_product_attention` runs (cuDNN's fused kernel where it takes the shape). Elsewhere a
loop goes over heads in groups whose scores stay in the cache: on a CPU this is 3 to 4 times faster
than one batched product over all heads (729 tokens, 16 heads).

`attention` is for videos, of any length, and chooses among four backends.
"""

import functools
import logging

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.nn import chunked_attention

GROUP_SCORES = 1 << 20  # scores per step of the loop: 4 MB
BACKENDS = ("auto", "xla", "chunked", "cudnn", "flash")
SHORT = 4096  # tokens for which the scores of one head still fit
_FLASH_TILE = 128  # the TPU kernel takes lengths in steps of this
_log = logging.getLogger(__name__)


def attention(q, k, v, backend="auto", block=0, seen=None):
  """Attention scaled by 1 / sqrt(head width), over tokens of a video in frame order.

  Args:
    q: queries [B, N, heads, D].
    k, v: keys and values [B, M, heads, D].
    backend: "xla": plain, needs the scores of a head in memory; "chunked": exact in memory of
      order N, on every platform; "cudnn": fused, NVIDIA GPUs in half precision; "flash": fused,
      TPUs; "auto": see `choose`.
    block: if not 0, tokens come in blocks (frames) of this many; queries see their own block and
      those before. N must equal M.
    seen: int scalar or None: only the first `seen` keys count (a cache that is not full yet).

  Returns:
    [B, N, heads, D] in the dtype of `v`.

  Raises:
    InputError: an unknown backend, or one that does not take these arrays.
  """
  checks.choice("config.model.attention", backend, BACKENDS)
  if backend == "auto":
    platform = jax.default_backend()
    backend = choose(platform, q.dtype.name, q.shape[1], k.shape[1], q.shape[-1], seen is not None)
  if backend == "chunked":
    return chunked_attention.chunked(q, k, v, block, seen)
  if backend == "xla":
    return _plain(q, k, v, block, seen)
  checks.require(
    seen is None,
    f"config.model.attention={backend!r} reads whole caches only; use 'auto', 'xla' or 'chunked'.",
  )
  checks.require(
    backend != "cudnn" or _cudnn_takes(q.dtype.name, q.shape[-1]),
    f"config.model.attention='cudnn' takes bfloat16 or float16 and head widths up to 128 in steps "
    f"of 8, received {q.dtype.name} and {q.shape[-1]}; use 'auto' or config.model.dtype=bfloat16.",
  )
  fused = _cudnn if backend == "cudnn" else _flash
  if not block:
    return fused(q, k, v)
  # Without a mask: every frame attends to a prefix of the keys.
  frames = [slice(start, start + block) for start in range(0, q.shape[1], block)]
  return jnp.concatenate([fused(q[:, f], k[:, : f.stop], v[:, : f.stop]) for f in frames], 1)


@functools.cache
def choose(platform, dtype, N, M, width, has_cache=False):
  """Returns the backend for a platform, dtype, numbers of queries and keys, and head width.

  The choice for arrays of one kind is logged once.
  """
  if platform == "gpu" and _cudnn_takes(dtype, width) and not has_cache:
    name = "cudnn"
  elif platform == "tpu" and max(N, M) > _FLASH_TILE and not has_cache:
    name = "flash"
  else:
    name = "xla" if N * M <= SHORT**2 and (platform != "cpu" or N * M <= 1 << 20) else "chunked"
  _log.info(
    "attention of %d queries over %d keys (%s, head width %d) on %s: %s",
    *(N, M, dtype, width, platform, name),
  )
  return name


def attend(q, k, v, key_mask=None, relative=None, causal=False):
  """Attention of queries over keys, scaled by 1 / sqrt(head width).

  Args:
    q: queries [B, N, heads, D].
    k, v: keys and values [B, M, heads, D].
    key_mask: bool [B, M], False where a key is padding; or None.
    relative: (rows [B, N, heads, h], columns [B, N, heads, w]) or None: what each query adds to
      the scores of the keys in row i, plus column j, of an h x w grid with h * w = M.
    causal: whether query n sees keys 0..n only.

  Returns:
    [B, N, heads, D] in the dtype of `v`.
  """
  if relative is None and jax.default_backend() == "gpu":
    mask = None if key_mask is None else key_mask[:, None, None, :]
    return _fused(q, k, v, mask, causal)
  return _in_groups(q, k, v, key_mask, relative, causal)


def implementation(dtype, width):
  """Returns what `jax.nn.dot_product_attention` should run here: "cudnn" on GPUs, else "xla".

  Also "xla" on a GPU where cuDNN does not take the dtype (a name) or the head width.
  """
  return "cudnn" if jax.default_backend() == "gpu" and _cudnn_takes(dtype, width) else "xla"


def _plain(q, k, v, block, seen):
  if jax.default_backend() == "cpu" and not block and seen is None:
    return _in_groups(q, k, v, None, None, False)
  mask = None
  if block:
    frame = jnp.arange(q.shape[1]) // block
    mask = (frame <= frame[:, None])[None, None]
  if seen is not None:
    mask = jnp.arange(k.shape[1]) < seen if mask is None else mask & (jnp.arange(k.shape[1]) < seen)
    mask = jnp.broadcast_to(mask, (1, 1, q.shape[1], k.shape[1]))
  return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")


def _cudnn(q, k, v):
  return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


def _flash(q, k, v):
  """The TPU kernel; what fills the last tile is another segment, which real tokens do not see."""
  # Half a second to import, of use on TPUs only.
  from jax.experimental.pallas.ops.tpu import flash_attention

  N, M = q.shape[1], k.shape[1]
  padded = lambda x: jnp.swapaxes(  # noqa: E731
    jnp.pad(x, ((0, 0), (0, -x.shape[1] % _FLASH_TILE), (0, 0), (0, 0))), 1, 2
  )
  q, k, v = padded(q), padded(k), padded(v)
  segments = None
  if N % _FLASH_TILE or M % _FLASH_TILE:
    segment = lambda x, length: jnp.broadcast_to(  # noqa: E731
      (jnp.arange(x.shape[2]) >= length).astype(jnp.int32), (x.shape[0], x.shape[2])
    )
    segments = flash_attention.SegmentIds(segment(q, N), segment(k, M))
  scale = q.shape[-1] ** -0.5
  out = flash_attention.flash_attention(q, k, v, segment_ids=segments, sm_scale=scale)
  return jnp.swapaxes(out, 1, 2)[:, :N]


def _cudnn_takes(dtype, width):
  return dtype in ("bfloat16", "float16") and width % 8 == 0 and width <= 128


def _fused(q, k, v, mask, causal):
  """cuDNN where it takes the operands."""
  name = implementation(q.dtype.name, q.shape[-1])
  return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation=name)


def _in_groups(q, k, v, key_mask, relative, causal):
  batch, length, heads, width = q.shape
  rows = {"q": q, "k": k, "v": v}
  if relative is not None:
    rows["r"], rows["c"] = relative
  rows = {
    name: jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], x.shape[3]) for name, x in rows.items()
  }
  if key_mask is not None:
    rows["mask"] = jnp.repeat(key_mask, heads, axis=0)

  @jax.checkpoint  # the backward pass computes the scores again
  def one(row):
    scores = jnp.dot(row["q"], row["k"].T, preferred_element_type=jnp.float32) * width**-0.5
    if relative is not None:
      added = row["r"][:, :, None] + row["c"][:, None, :]
      scores = scores + added.reshape(scores.shape).astype(jnp.float32)
    if key_mask is not None:
      scores = jnp.where(row["mask"], scores, -jnp.inf)
    if causal:
      seen = jnp.arange(scores.shape[1]) <= jnp.arange(length)[:, None]
      scores = jnp.where(seen, scores, -jnp.inf)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    out = jnp.dot(weights.astype(v.dtype), row["v"], preferred_element_type=jnp.float32)
    return (out / weights.sum(-1, keepdims=True)).astype(v.dtype)

  total = batch * heads
  most = max(1, GROUP_SCORES // (length * k.shape[1]))
  group = max(n for n in range(1, min(most, total) + 1) if total % n == 0)
  if group == total:
    out = jax.vmap(one)(rows)
  else:
    split = lambda x: x.reshape(total // group, group, *x.shape[1:])  # noqa: E731
    out = jax.lax.map(jax.vmap(one), jax.tree.map(split, rows))
  return jnp.swapaxes(out.reshape(batch, heads, length, width), 1, 2)
