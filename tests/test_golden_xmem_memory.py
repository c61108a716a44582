"""XMem's memory without a network against the public memory manager."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xmem_cases
from xmem_cases import check, jit, sigmoid, unit

from vistraj_jax.models.xmem import memory as memories
from vistraj_jax.models.xmem import schedule, settings


def _columns(x):
  """[B, C, ...] -> [B, N, C]."""
  return np.moveaxis(x.reshape(*x.shape[:2], -1), 1, 2)


@pytest.mark.parametrize("method", settings.READS)
def test_memory_read(method):
  case = xmem_cases.load("memory_read")
  key = _columns(0.7 * unit("memory_key", 1, 64, 3, 4, 6))
  shrinkage = 1 + unit("memory_shrinkage", 1, 1, 3, 4, 6).reshape(1, -1) ** 2
  query = _columns(0.7 * unit("query_key", 1, 64, 4, 6))
  selection = _columns(sigmoid(unit("query_selection", 1, 64, 4, 6)))
  value = np.moveaxis(unit("memory_value", 1, 2, 32, 3, 4, 6).reshape(1, 2, 32, -1), 3, 1)
  scores = memories.similarity(key, shrinkage, query, selection)
  check(case, "similarity", np.swapaxes(scores, 1, 2))
  for name, one, other in (("shrinkage", None, selection), ("selection", shrinkage, None)):
    plain = memories.similarity(key, one, query, other)
    check(case, f"similarity_no_{name}", np.swapaxes(plain, 1, 2))
  check(case, "affinity", np.swapaxes(memories.softmax(scores), 1, 2))
  weights, columns = memories.top_k_affinity(scores, None, 8)
  affinity = np.zeros((24, 72))
  affinity[np.arange(24)[:, None], columns[0]] = weights[0]
  check(case, "affinity_topk", affinity.T[None])
  held = memories.empty(1, 2, 0, 72, 64, 32).replace(
    key=key, shrinkage=shrinkage, value=value, time=np.zeros((1, 72), np.int32)
  )
  birth = np.zeros((1, 2), np.int32)
  for top_k, name in ((None, "readout"), (8, "readout_topk")):
    readout, usage = memories.read(held, jnp.asarray(birth), query, selection, top_k, method)
    check(case, name, np.swapaxes(readout, 2, 3).reshape(1, 2, 32, 4, 6))
    if top_k:
      check(case, "usage_topk", usage)


def test_consolidation():
  case = xmem_cases.load("consolidation")
  key = _columns(0.7 * unit("candidate_key", 1, 64, 48))
  shrinkage = 1 + unit("candidate_shrinkage", 1, 1, 48)[:, 0] ** 2
  selection = _columns(sigmoid(unit("candidate_selection", 1, 64, 48)))
  usage = np.abs(unit("usage", 1, 1, 48))[:, 0]
  value = np.zeros((1, 48, 3, 32), np.float32)
  value[:, :, :2] = np.moveaxis(unit("value_0", 2, 32, 48), -1, 0)
  value[:, -29:, 2:] = np.moveaxis(unit("value_1", 1, 32, 29), -1, 0)
  time, birth = np.arange(48)[None], np.array([[0, 0, 48 - 29]])
  chosen, (key, shrinkage, value) = memories.make_prototypes(
    key, shrinkage, selection, value, time, birth, usage, 10
  )
  check(case, "prototype_indices", chosen[0])
  check(case, "prototype_key", np.swapaxes(key, 1, 2))
  check(case, "prototype_shrinkage", np.asarray(shrinkage)[:, None])
  value = np.moveaxis(np.asarray(value)[0], 0, -1)
  check(case, "prototype_value_0", value[:2])
  seen = np.asarray(chosen)[0] >= 48 - 29  # the late object does not see the others
  check(case, "prototype_value_1", value[2:][..., seen])

  # 144 elements of which 30 shall stay: the 114 least used make room.
  rules = settings.MemorySettings(num_prototypes=114, max_long=144)
  held = memories.empty(1, 3, 144, 0, 64, 32).replace(
    use=np.abs(unit("long_use_count", 144))[None],
    life=np.arange(1.0, 145, dtype=np.float32)[None],
    time=jnp.zeros((1, 144), jnp.int32),
  )
  dropped = np.asarray(memories.least_used(held, 0, rules))[0]
  check(case, "survivors", np.setdiff1d(np.arange(144), dropped))


def test_memory_trace():
  case = xmem_cases.load("memory_trace")
  config = case.config
  rules = settings.MemorySettings(
    top_k=config["top_k"],
    mem_every=config["add_every"],
    min_mid=config["min_mid_term_frames"],
    max_mid=config["max_mid_term_frames"],
    num_prototypes=config["num_prototypes"],
    max_long=config["max_long_term_elements"],
  )
  clip = schedule.plan_clip(rules, 24)
  check(case, "sizes", clip.sizes * [12, 1])
  T, cells = 24, 12
  key = 0.7 * (unit("key_base", 1, 64, 3, 4) + 0.6 * unit("key", T, 64, 3, 4))
  frames = {
    "key": _columns(key),
    "shrinkage": 1 + unit("shrinkage", T, 1, 3, 4).reshape(T, 12) ** 2,
    "selection": _columns(sigmoid(unit("selection", T, 64, 3, 4))),
    "value": np.moveaxis(unit("value", T, 2, 16, 3, 4).reshape(T, 2, 16, 12), 3, 1),
  }
  frames = {name: array[:, None] for name, array in frames.items()}  # a batch of one
  birth = jnp.zeros((1, 2), jnp.int32)

  def body(held, step):
    frame, plan = step
    readout, usage = memories.read(held, birth, frame["key"], frame["selection"], 8, "dense")
    held = memories.count(held, usage, plan.segment)
    held = memories.write(
      held, plan.slot, plan.time, **frame, mass=jnp.zeros((1, 12)), enabled=plan.write
    )
    held = memories.consolidate(
      held, birth, plan.candidates, cells, plan.time, rules, plan.consolidate
    )
    return held, readout

  start = memories.empty(1, 2, clip.num_long, clip.num_slots * cells, 64, 16)
  held, readout = jit(functools.partial(jax.lax.scan, body))(start, (frames, clip.plan))
  readout = np.swapaxes(readout[1:, 0], 2, 3).reshape(23, 2, 16, 3, 4)
  check(case, "readout", readout)
  xmem_cases.check_content(case, held, work_usage=True)
