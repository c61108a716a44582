"""XMem's memory as arrays: similarity, top-k read, writing, consolidation, eviction.

A memory has N = L + W * h * w columns: L of long-term memory, then W working slots of one frame
each. Keys are shared by all objects; an object reads the columns from its own first frame on, so a
late object has a softmax of its own. Everything that decides is float32.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

NEVER = np.iinfo(np.int32).max  # birth of an object that is not there
EMPTY = -1  # time of a column that holds nothing
_START_LIFE = 1e-7
_EXACT = jax.lax.Precision.HIGHEST


@flax.struct.dataclass
class Memory:
  """What has been written.

  Attributes:
    key: float32 [B, N, C_k].
    shrinkage: float32 [B, N].
    selection: float32 [B, N - L, C_k], of working columns only.
    value: [B, N, K, C_v].
    use: float32 [B, N], attention received since written.
    life: float32 [B, N], reads since written.
    mass: float32 [B, N], see `MemorySettings`.
    time: int32 [B, N], frame the column's key comes from, or EMPTY.
  """

  key: Any
  shrinkage: Any
  selection: Any
  value: Any
  use: Any
  life: Any
  mass: Any
  time: Any

  @property
  def num_long(self):
    """L."""
    return self.key.shape[1] - self.selection.shape[1]


def empty(batch, num_objects, num_long, num_working, key_dim, value_dim, dtype=jnp.float32):
  """Returns a memory of `num_long` + `num_working` empty columns."""
  N = num_long + num_working
  return Memory(
    key=jnp.zeros((batch, N, key_dim)),
    shrinkage=jnp.ones((batch, N)),
    selection=jnp.zeros((batch, num_working, key_dim)),
    value=jnp.zeros((batch, N, num_objects, value_dim), dtype),
    use=jnp.zeros((batch, N)),
    life=jnp.full((batch, N), _START_LIFE, jnp.float32),
    mass=jnp.zeros((batch, N)),
    time=jnp.full((batch, N), EMPTY, jnp.int32),
  )


def similarity(key, shrinkage, query, selection):
  """Anisotropic L2: -s_n sum_c e_qc (k_nc - q_qc)^2 / sqrt(C).

  Args:
    key: [B, N, C].
    shrinkage: [B, N], or None for 1.
    query: [B, Q, C].
    selection: [B, Q, C]; None: the same weight for all channels, and sum(q^2), which no softmax
      over N sees, left out.

  Returns:
    float32 [B, Q, N].
  """
  if selection is None:
    left = jnp.concatenate([2 * query, -jnp.ones_like(query)], -1)
    constant = 0.0
  else:
    left = jnp.concatenate([2 * query * selection, -selection], -1)
    constant = (selection * query**2).sum(-1, keepdims=True)
  right = jnp.concatenate([key, key**2], -1)
  scores = jnp.einsum("bqc,bnc->bqn", left, right, precision=_EXACT) - constant
  scale = key.shape[-1] ** -0.5
  return scores * (scale if shrinkage is None else shrinkage[:, None] * scale)


def softmax(scores, valid=None):
  """Softmax over the last axis where `valid`; a row without a valid entry gives zeros."""
  if valid is not None:
    scores = jnp.where(valid, scores, -jnp.inf)
  top = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
  weights = jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0.0))
  total = weights.sum(-1, keepdims=True)
  return weights / jnp.where(total > 0, total, 1.0)


def top_k_affinity(scores, valid, top_k):
  """The softmax of each row's `top_k` largest entries: weights and columns, [..., top_k]."""
  scores = scores if valid is None else jnp.where(valid, scores, -jnp.inf)
  best, columns = jax.lax.top_k(scores, min(top_k, scores.shape[-1]))
  return softmax(best), columns


def read(memory, birth, query, selection, top_k, method="gather"):
  """Reads every object's value for every query.

  Args:
    memory: `Memory`.
    birth: int32 [B, K], the first frame of each object, or NEVER.
    query: float32 [B, Q, C_k].
    selection: float32 [B, Q, C_k].
    top_k: columns each query reads, or None for all.
    method: "dense" or "gather", see `MemorySettings`.

  Returns:
    readout [B, K, Q, C_v]; usage float32 [B, N], the attention of all queries together (of the
    oldest object's read).
  """
  scores = similarity(memory.key, memory.shrinkage, query, selection)
  oldest = birth.min(1)

  def together():
    readout, usage = _read(scores, _seen(memory.time, oldest), memory.value, top_k, method)
    return jnp.moveaxis(readout, 2, 1), usage

  def one_by_one():
    pairs = [
      _read(scores, _seen(memory.time, birth[:, k]), memory.value[:, :, k : k + 1], top_k, method)
      for k in range(birth.shape[1])
    ]
    readout = jnp.stack([readout[:, :, 0] for readout, _ in pairs], 1)
    usages = jnp.stack([usage for _, usage in pairs], 1)
    first = jnp.argmin(birth, 1)
    return readout, jnp.take_along_axis(usages, first[:, None, None], 1)[:, 0]

  if birth.shape[1] == 1:
    return together()
  same = jnp.all((birth == oldest[:, None]) | (birth == NEVER))
  return jax.lax.cond(same, together, one_by_one)


def count(memory, usage, was_read):
  """Adds one read to the columns' statistics; `usage` [B, N] as `read` gives it."""
  held = (memory.time != EMPTY) & was_read
  usage = jax.lax.stop_gradient(usage)
  return memory.replace(
    use=jnp.where(held, memory.use + usage, memory.use),
    life=jnp.where(held, memory.life + 1, memory.life),
  )


def write(memory, slot, when, key, shrinkage, selection, value, mass, enabled):
  """Writes one frame to a working slot, if `enabled`.

  Args:
    memory: `Memory`.
    slot: int32, working slot.
    when: int32, frame number.
    key, selection: [B, h * w, C_k].
    shrinkage, mass: [B, h * w].
    value: [B, h * w, K, C_v].
    enabled: bool.
  """
  cells = key.shape[1]
  start = slot * cells

  def put(into, new, at):
    # Written in any case, so that the array stays in place.
    old = jax.lax.dynamic_slice_in_dim(into, at, cells, 1)
    new = jnp.where(enabled, new.astype(into.dtype), old)
    return jax.lax.dynamic_update_slice_in_dim(into, new, at, 1)

  at = memory.num_long + start
  flat = memory.use.shape[0], cells
  return memory.replace(
    key=put(memory.key, key, at),
    shrinkage=put(memory.shrinkage, shrinkage, at),
    selection=put(memory.selection, selection, start),
    value=put(memory.value, value, at),
    use=put(memory.use, jnp.zeros(flat), at),
    life=put(memory.life, jnp.full(flat, _START_LIFE), at),
    mass=put(memory.mass, mass, at),
    time=put(memory.time, jnp.full(flat, when), at),
  )


def consolidate(memory, birth, candidates, cells, now, settings, enabled):
  """Turns working frames into prototypes of long-term memory, if `enabled`.

  The least used prototypes make room if long-term memory is full.

  Args:
    memory: `Memory`.
    birth: int32 [B, K].
    candidates: int32 [M], working slots, oldest first.
    cells: h * w, columns of a slot.
    now: int32, frame number.
    settings: `MemorySettings`.
    enabled: bool.
  """
  L, P = memory.num_long, settings.num_prototypes
  columns = (candidates[:, None] * cells + jnp.arange(cells)).reshape(-1)

  def make():
    def take(array, offset=L):
      return jnp.take(array, offset + columns, axis=1)

    ages = now - take(memory.time)
    scores = score(take(memory.use), take(memory.life), take(memory.mass), ages, settings)
    chosen, prototypes = make_prototypes(
      take(memory.key),
      take(memory.shrinkage),
      take(memory.selection, 0),
      take(memory.value),
      take(memory.time),
      birth,
      scores,
      P,
    )
    key, shrinkage, value = prototypes
    if settings.detach_long_term:
      key, shrinkage, value = jax.lax.stop_gradient((key, shrinkage, value))
    picked = [jnp.take_along_axis(take(x), chosen, 1) for x in (memory.mass, memory.time)]
    places = least_used(memory, now, settings)
    return places, key, shrinkage, value.astype(memory.value.dtype), *picked

  def skip():
    B, _, K, C_v = memory.value.shape
    C_k = memory.key.shape[-1]
    return (
      jnp.full((B, P), memory.key.shape[1], jnp.int32),  # beyond the end: nothing is written
      jnp.zeros((B, P, C_k)),
      jnp.zeros((B, P)),
      jnp.zeros((B, P, K, C_v), memory.value.dtype),
      jnp.zeros((B, P)),
      jnp.zeros((B, P), jnp.int32),
    )

  places, key, shrinkage, value, mass, time = jax.lax.cond(enabled, make, skip)
  put = jax.vmap(lambda into, new, at: into.at[at].set(new, mode="drop"))
  cleared = jnp.where(enabled, L + columns, memory.key.shape[1])
  emptied = memory.time.at[:, cleared].set(EMPTY, mode="drop")
  return memory.replace(
    key=put(memory.key, key, places),
    shrinkage=put(memory.shrinkage, shrinkage, places),
    value=put(memory.value, value, places),
    use=put(memory.use, jnp.zeros_like(mass), places),
    life=put(memory.life, jnp.full_like(mass, _START_LIFE), places),
    mass=put(memory.mass, mass, places),
    time=put(emptied, time, places),
  )


def make_prototypes(key, shrinkage, selection, value, time, birth, scores, num_prototypes):
  """Chooses the candidates of highest score and gathers the values around them.

  Args:
    key, selection: [B, M, C_k], of M candidates.
    shrinkage: [B, M].
    value: [B, M, K, C_v].
    time: int32 [B, M].
    birth: int32 [B, K].
    scores: [B, M].
    num_prototypes: P.

  Returns:
    int32 [B, P], the chosen candidates by falling score; and their (key [B, P, C_k], shrinkage
    [B, P], value [B, P, K, C_v]). The softmax of an object runs over the candidates from its first
    frame on; the shrinkage is gathered as the oldest object's values.
  """
  _, chosen = jax.lax.top_k(scores, num_prototypes)
  prototype = jnp.take_along_axis(key, chosen[..., None], 1)
  query = jnp.take_along_axis(selection, chosen[..., None], 1)
  similar = similarity(key, shrinkage, prototype, query)  # [B, P, M]
  seen = time[:, None] >= birth[:, :, None]
  affinity = softmax(similar[:, None], seen[:, :, None])  # [B, K, P, M]
  gathered = jnp.einsum("bkpm,bmkc->bpkc", affinity.astype(value.dtype), value)
  first = jnp.argmin(birth, 1)[:, None, None, None]
  oldest = jnp.take_along_axis(affinity, first, 1)[:, 0]
  return chosen, (prototype, jnp.einsum("bpm,bm->bp", oldest, shrinkage), gathered)


def least_used(memory, now, settings):
  """Long-term columns [B, P] that the next prototypes take: empty ones, then lowest scores."""
  L = memory.num_long
  held = memory.time[:, :L] != EMPTY
  ages = now - memory.time[:, :L]
  scores = score(memory.use[:, :L], memory.life[:, :L], memory.mass[:, :L], ages, settings)
  _, places = jax.lax.top_k(jnp.where(held, -scores, jnp.inf), settings.num_prototypes)
  return jnp.sort(places, -1)


def score(use, life, mass, age, settings):
  """See `MemorySettings`; all [...], age in frames."""
  value = (use / life) ** settings.usage_power
  if settings.mass_power:
    value = value * (settings.mass_floor + mass) ** settings.mass_power
  if np.isfinite(settings.age_scale):
    value = value * jnp.exp(-age / settings.age_scale)
  return jax.lax.stop_gradient(value)


def _seen(time, birth):
  """Columns that hold something from frame `birth` [B] on: [B, 1, N]."""
  return (time != EMPTY)[:, None] & (time >= birth[:, None])[:, None]


def _read(scores, valid, value, top_k, method):
  """scores [B, Q, N], valid [B, 1, N], value [B, N, K, C] -> [B, Q, K, C], usage [B, N]."""
  if top_k is None:
    affinity = softmax(scores, valid)
    return _attend(affinity, value), affinity.sum(1)
  weights, columns = top_k_affinity(scores, valid, top_k)
  B, Q, N = scores.shape
  rows = jnp.arange(B)[:, None, None]
  usage = jnp.zeros((B, N)).at[rows, columns].add(weights)
  if method == "gather":
    picked = jax.vmap(lambda v, c: v[c])(value, columns)  # [B, Q, top_k, K, C]
    return jnp.einsum("bqt,bqtkc->bqkc", weights.astype(value.dtype), picked), usage
  affinity = jnp.zeros((B, Q, N)).at[rows, jnp.arange(Q)[None, :, None], columns].set(weights)
  return _attend(affinity, value), usage


def _attend(affinity, value):
  return jnp.einsum("bqn,bnkc->bqkc", affinity.astype(value.dtype), value)
