"""Golden cases of XMem: inputs by fill rules, outputs with strides and statistics, one network."""

import functools
import re

import golden_cases
import jax
import numpy as np

from vistraj_jax.convert import xmem as converter
from vistraj_jax.models.xmem import network

# XLA's options for programs that run once: a third of the time to compile.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


def jit(function, **kwargs):
  """jax.jit for tests."""
  options = QUICK if jax.default_backend() == "cpu" else None
  return jax.jit(function, compiler_options=options, **kwargs)


def load(name):
  return golden_cases.load("xmem", name)


def unit(name, *shape):
  """Standard normal numbers of the input `name`."""
  return golden_cases.fill.tensor(f"input:{name}", shape)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def last(x, axis=-3):
  """Channels of a PyTorch array to the end."""
  return np.moveaxis(np.asarray(x), axis, -1)


@functools.cache
def published():
  """The published size with filled weights: (model, params); the same tensors serve all cases."""
  tree, config, _ = converter.from_torch(load("clip").checkpoint(), "clip")
  return network.XMem(**config), jax.device_put(tree)


def check(case, name, value):
  """Compares `value`, in PyTorch's layout, with an output: its slice, its statistics, exactly."""
  spec = case.manifest["outputs"][name]
  tolerance = case.manifest["tolerance"]
  own = tolerance.get("per_output", {}).get(name, {})
  rtol, atol = (own.get(k, tolerance[k]) for k in ("rtol", "atol"))
  value = np.asarray(value)
  assert list(value.shape) == spec["shape"], f"{name}: {value.shape}"
  want = case.arrays[f"out/{name}"]
  stored = spec["stored"]
  if stored != "full":
    strides = [int(re.sub(".*:", "", part) or 1) for part in stored.strip("[]").split(",")]
    part = value[tuple(slice(None, None, s) for s in strides)]
  else:
    part = value
  where = f"{case.folder.name}: {name}"
  if spec.get("compare") == "exact":
    np.testing.assert_array_equal(part, want, err_msg=where)
    return
  np.testing.assert_allclose(part, want, rtol=rtol, atol=atol, err_msg=where)
  if f"stats/{name}" in case.arrays:
    stats = [value.mean(), value.std(), np.sqrt((value.astype(np.float64) ** 2).sum())]
    np.testing.assert_allclose(
      stats, case.arrays[f"stats/{name}"], rtol=10 * rtol, atol=atol, err_msg=f"{where} statistics"
    )


def check_content(case, held, work_usage=False, work_key=False):
  """Compares what a memory of batch 1 holds: working frames in time order, prototypes as a set."""
  held = jax.tree.map(np.asarray, held)
  L = held.num_long
  time = held.time[0, L:]
  order = L + np.argsort(time, kind="stable")[np.sum(time == -1) :]
  usage = held.use[0] / held.life[0]
  if work_usage:
    check(case, "work_usage", usage[order])
  if work_key:
    check(case, "work_key", held.key[0, order].T)
  if L:
    # The public memory keeps the order of writing; here new prototypes take the places of old.
    full = np.flatnonzero(held.time[0, :L] != -1)
    want = case.arrays["out/long_key"].T
    distance = np.abs(held.key[0, full][None] - want[:, None]).sum(-1)
    match = full[distance.argmin(1)]
    assert sorted(match) == sorted(full)
    check(case, "long_key", held.key[0, match].T)
    check(case, "long_shrinkage", held.shrinkage[0, match])
    check(case, "long_value", np.moveaxis(held.value[0, match], 0, -1))
    check(case, "long_usage", usage[match])
