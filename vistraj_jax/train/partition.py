"""Where arrays live: jit with NamedSharding over a (data, model) mesh, or pmap over devices.

Both plans offer the same moves: put a state on devices, turn it into what a checkpoint holds and
back, put batches there, compile a step and fetch its results. The step functions themselves are
the same (see step.py).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vistraj_jax.core import checks, rules

AXES = ("data", "model")


def make(parallel, mesh, table):
  """Returns the plan named by config.parallel.

  Args:
    parallel: "jit" or "pmap".
    mesh: mapping with `data` and `model` sizes; -1 means all remaining devices.
    table: first-match table parameter name -> tuple of mesh axes (or None) per dimension.

  Raises:
    InputError: sizes that do not fit the devices, or pmap with a split model.
  """
  checks.choice("config.parallel", parallel, ("jit", "pmap"))
  devices, model = jax.device_count(), mesh["model"]
  data = devices // model if mesh["data"] == -1 else mesh["data"]
  checks.require(
    data * model == devices,
    f"config.mesh: data={mesh['data']}, model={model} received, their product must be the "
    f"{devices} devices there are.",
  )
  if parallel == "pmap":
    checks.require(
      model == 1, f"config.mesh.model: {model} received, pmap can only split data; use 'jit'."
    )
    return PmapPlan()
  devices = np.array(jax.devices()).reshape(data, model)
  return JitPlan(Mesh(devices, AXES, axis_types=(AxisType.Auto,) * 2), table)


class JitPlan:
  """jit over a mesh: the batch is split over "data", parameters as the table says."""

  axis = None

  def __init__(self, mesh, table):
    self.mesh, self.table = mesh, table
    self.num_shards = mesh.shape["data"]

  def put_state(self, state):
    """State of this process, the same on all -> state laid out on the mesh."""

    def put(x, sharding):
      x = np.array(x)  # a copy: what is put must not be deleted when a step donates it
      return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, state, self._shardings(state))

  def to_saved(self, state):
    """State on devices -> the arrays that a checkpoint holds."""
    return state

  def from_saved(self, state):
    """The inverse of `to_saved`."""
    return state

  def put_batch(self, batch, stacked=False):
    """This process's rows [B, ...] ([K, B, ...] if stacked) -> global arrays."""
    spec = PartitionSpec(None, "data") if stacked else PartitionSpec("data")
    sharding = NamedSharding(self.mesh, spec)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)

  def put_fixed(self, tree):
    """Arrays of this process, the same on all -> one copy on every device."""
    sharding = NamedSharding(self.mesh, PartitionSpec())

    def put(x):
      x = np.asarray(x)
      return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, tree)

  def compile(self, function, donate=False):
    """(state, batch, fixed) -> (state, scalars), compiled."""
    return jax.jit(function, donate_argnums=(0,) if donate else ())

  def fetch(self, tree):
    """Replicated results -> NumPy."""
    return jax.tree.map(np.asarray, jax.device_get(tree))

  def _shardings(self, state):
    specs = rules.match(self.table, state.params, "config.partition")
    specs = jax.tree.map(lambda s: PartitionSpec(*s), specs, is_leaf=lambda x: type(x) is tuple)
    by_name = dict(
      zip(
        jax.tree.leaves(rules.names(state.params)),
        jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, PartitionSpec)),
        strict=True,
      )
    )

    def sharding(name, _):
      # Moments and averages are laid out like the parameter whose name ends theirs.
      own = [n for n in by_name if name.endswith("/" + n)]
      return NamedSharding(self.mesh, by_name[max(own, key=len)] if own else PartitionSpec())

    return jax.tree.map(sharding, rules.names(state), state)


class PmapPlan:
  """pmap over all devices: parameters on each of them, gradients summed by name."""

  axis = "data"

  def __init__(self):
    self.num_shards = jax.device_count()

  def put_state(self, state):
    """State of this process, the same on all -> one copy on every local device."""
    return _copies(state, jax.local_device_count())

  def to_saved(self, state):
    """State on devices -> the arrays that a checkpoint holds."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_shards[0].data)[0], state)

  def from_saved(self, state):
    """The inverse of `to_saved`."""
    return self.put_state(state)

  def put_batch(self, batch, stacked=False):
    """This process's rows [B, ...] ([K, B, ...] if stacked) -> [devices, (K,) B / devices, ...]."""
    count = jax.local_device_count()

    def split(x):
      if not stacked:
        return x.reshape(count, -1, *x.shape[1:])
      return np.moveaxis(x.reshape(x.shape[0], count, -1, *x.shape[2:]), 1, 0)

    return jax.tree.map(split, batch)

  def put_fixed(self, tree):
    """Arrays of this process, the same on all -> one copy on every local device."""
    devices = jax.local_devices()
    sharding = NamedSharding(Mesh(np.array(devices), (self.axis,)), PartitionSpec(self.axis))

    def put(x):
      copies = [jax.device_put(x[None], device) for device in devices]
      shape = (len(devices), *x.shape)
      return jax.make_array_from_single_device_arrays(shape, sharding, copies)

    return jax.tree.map(put, tree)

  def compile(self, function, donate=False):
    """(state, batch, fixed) -> (state, scalars), compiled."""
    return jax.pmap(function, axis_name=self.axis, donate_argnums=(0,) if donate else ())

  def fetch(self, tree):
    """Replicated results -> NumPy."""
    return jax.tree.map(lambda x: np.asarray(x)[0], jax.device_get(tree))


@functools.partial(jax.jit, static_argnums=1)
def _copies(tree, count):
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), tree)
