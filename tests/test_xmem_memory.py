"""XMem's memory without a network: who reads what, sizes, late objects, hard numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xmem_cases import jit

from vistraj_jax.core import checks
from vistraj_jax.models.xmem import memory, schedule
from vistraj_jax.models.xmem.settings import MemorySettings

CELLS = 4
RULES = MemorySettings(
  top_k=3, mem_every=1, min_mid=2, max_mid=4, num_prototypes=2, max_long=6, read="dense"
)


def _held(columns=12, objects=2, batch=1, filled=None):
  """A memory of working columns only, of which the first `filled` hold something."""
  rng = np.random.default_rng(0)
  made = memory.empty(batch, objects, 0, columns, 4, 3)
  time = np.where(np.arange(columns) < (columns if filled is None else filled), 0, memory.EMPTY)
  return made.replace(
    key=jnp.asarray(rng.normal(size=made.key.shape), jnp.float32),
    value=jnp.asarray(rng.normal(size=made.value.shape), jnp.float32),
    time=jnp.asarray(np.broadcast_to(time, (batch, columns)), jnp.int32),
  )


def _query(batch=1, queries=5):
  rng = np.random.default_rng(1)
  query = jnp.asarray(rng.normal(size=(batch, queries, 4)), jnp.float32)
  return query, jnp.full_like(query, 0.5)


@pytest.mark.parametrize("top_k", [None, 3, 40])
def test_empty_columns_get_no_usage_and_no_gradient(top_k):
  held, birth = _held(filled=7), jnp.zeros((1, 2), jnp.int32)

  def read(value, key):
    held_now = held.replace(value=value, key=key)
    readout, usage = memory.read(held_now, birth, *_query(), top_k, "gather")
    return jnp.square(readout).sum(), (readout, usage)

  grads, (readout, usage) = jax.grad(read, (0, 1), has_aux=True)(held.value, held.key)
  assert np.isfinite(readout).all() and not usage[0, 7:].any()
  assert usage.sum() == pytest.approx(5, rel=1e-5)  # five queries give one each
  for grad in grads:
    assert np.isfinite(grad).all() and not grad[0, 7:].any() and grad[0, :7].any()


def test_permuted_objects_and_a_batch():
  held, birth = _held(batch=3), jnp.zeros((3, 2), jnp.int32)
  readout, usage = memory.read(held, birth, *_query(3), 3, "dense")
  swapped = held.replace(value=held.value[:, :, ::-1])
  np.testing.assert_allclose(
    memory.read(swapped, birth, *_query(3), 3, "dense")[0], readout[:, ::-1], rtol=1e-6
  )
  for b in range(3):
    one, query = jax.tree.map(lambda x, b=b: x[b : b + 1], (held, _query(3)))
    alone, used = memory.read(one, birth[:1], *query, 3, "dense")
    np.testing.assert_allclose(alone[0], readout[b], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(used[0], usage[b], rtol=1e-5, atol=1e-6)


def test_similarities_of_minus_a_thousand():
  scores = jnp.array([[-1000.0, -1001.0, -2000.0]])
  want = [1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1)), 0]
  np.testing.assert_allclose(memory.softmax(scores)[0], want, rtol=1e-6)
  weights, columns = memory.top_k_affinity(scores, None, 2)
  np.testing.assert_allclose(weights[0], want[:2], rtol=1e-6)
  assert columns.tolist() == [[0, 1]]


def _run(rules, T, births, writes=None):
  """Writes the frame's number into keys and values of all objects; returns the last memory.

  births: {object: frame}. Values of an object before its birth are poison.
  """
  objects = len(births)
  masks = {frame: [k for k in births if births[k] == frame] for frame in sorted(births.values())}
  planned = schedule.plan_clip(rules, T, masks)
  start = memory.empty(1, objects, planned.num_long, planned.num_slots * CELLS, 2, 1)

  @functools.partial(jit)
  def run(held, plans):
    def body(held, plan):
      now = plan.time.astype(jnp.float32)
      birth = jnp.array([[births[k] for k in sorted(births)]])
      born = jnp.where(birth <= plan.time, birth, memory.NEVER)
      cells = jnp.arange(CELLS, dtype=jnp.float32)
      key = jnp.stack([jnp.full(CELLS, now), cells / 10], -1)[None]
      ones = jnp.ones_like(key)
      readout, usage = memory.read(held, born, key, ones, rules.top_k, rules.read)
      held = memory.count(held, usage, plan.segment)
      value = jnp.where(born[0, :, None] <= plan.time, now, -1e4)
      value = jnp.broadcast_to(value, (1, CELLS, objects, 1))
      row = (key, 50 * jnp.ones((1, CELLS)), ones, value, jnp.zeros((1, CELLS)))
      held = memory.write(held, plan.slot, plan.time, *row, plan.write)
      if held.num_long:
        held = memory.consolidate(
          held, born, plan.candidates, CELLS, plan.time, rules, plan.consolidate
        )
      return held, readout

    return jax.lax.scan(body, held, plans)

  return planned, *run(start, planned.plan)


@pytest.mark.parametrize("frame", [1, 6, 10])
def test_late_object_keeps_its_values_with_its_keys(frame):
  births = {0: 0, 1: frame}
  planned, held, readout = _run(RULES, 12, births)
  assert planned.plan.consolidate.sum() >= 4
  held = jax.tree.map(np.asarray, held)
  for k, birth in births.items():
    seen = (held.time[0] != memory.EMPTY) & (held.time[0] >= birth)
    assert seen.any()
    # Shrinkage is high: each prototype's value is that of its own key's frame.
    np.testing.assert_allclose(held.value[0, seen, k, 0], held.key[0, seen, 0], atol=1e-3)
    read = readout[birth + 1 :, 0, k]
    assert (read >= birth - 1e-3).all() and (read < 12).all()


def test_sizes_follow_the_schedule_and_least_used_leave():
  planned, held, _ = _run(RULES, 12, {0: 0})
  full = np.asarray(held.time[0] != memory.EMPTY)
  L = held.num_long
  assert (full[L:].sum() / CELLS, full[:L].sum()) == tuple(planned.sizes[-1])
  # A consolidation every second frame adds two elements, until four stay and two come.
  assert planned.sizes[:, 1].tolist() == [0, 0, 0, 2, 2, 4, 4, 6, 6, 6, 6, 6]
  assert planned.sizes[:, 0].tolist() == [1, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2]


def test_score_prefers_the_target_and_the_young():
  use, life = jnp.array([2.0, 2.0]), jnp.array([4.0, 4.0])
  mass, age = jnp.array([0.0, 1.0]), jnp.array([0, 10])
  plain = memory.score(use, life, mass, age, RULES)
  assert plain.tolist() == [0.5, 0.5]
  keen = MemorySettings(mass_power=1.0, mass_floor=0.01, age_scale=5.0)
  want = [0.5 * 0.01, 0.5 * 1.01 * np.exp(-2)]
  np.testing.assert_allclose(memory.score(use, life, mass, age, keen), want, rtol=1e-6)


def test_pinned_frames_are_never_consolidated():
  rules = MemorySettings(**{**vars(RULES), "pinned": 2})
  planned = schedule.plan_clip(rules, 12, pinned=[3])
  slot = planned.plan.slot[3]
  later = planned.plan.candidates[planned.plan.consolidate]
  assert slot not in later and (planned.plan.slot[4:] != slot).all()
  assert planned.num_slots <= schedule.num_slots(rules)
  with pytest.raises(checks.InputError, match="memory.pinned is 1, the first frame included"):
    schedule.plan_clip(RULES, 12, pinned=[3])
  with pytest.raises(checks.InputError, match="frame 3 is pinned but not written"):
    schedule.plan_clip(MemorySettings(**{**vars(rules), "mem_every": 2}), 12, pinned=[3])


def test_plan_of_published_defaults():
  planned = schedule.plan_clip(MemorySettings(), 12, last_is_end=True)
  plan = planned.plan
  assert np.flatnonzero(plan.write).tolist() == [0, 5, 10]
  np.testing.assert_array_equal(plan.deep, plan.write)
  np.testing.assert_array_equal(plan.hidden[:-1], ~plan.write[:-1])
  assert not plan.segment[0] and plan.segment[1:].all() and not plan.hidden[-1]


@pytest.mark.parametrize(
  ("arguments", "sentence"),
  [
    ({"num_frames": 0}, "clip: 0 frames are too few"),
    ({"num_frames": 3, "masks": {1: None}}, "clip: frame 0 has no mask"),
    ({"num_frames": 3, "masks": {0: None, 5: None}}, r"clip: mask on frame \[5\] of a clip of 3"),
  ],
)
def test_wrong_plans(arguments, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    schedule.plan_clip(RULES, **arguments)


def test_full_memory_says_so():
  planner = schedule.Planner(MemorySettings(long_term=False, mem_every=1), capacity=2)
  planner.next(0)
  planner.next()
  with pytest.raises(checks.InputError, match="frame 2: memory has 2 frames and is full"):
    planner.next()
