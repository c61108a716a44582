"""Calls a compiled function over many rows: the next batch is read while the devices compute, which
share its rows."""

import collections
import concurrent.futures


def in_batches(rows, gather, call, batch_size, bar):
  """Yields (rows, result) batch by batch, in order.

  Args:
    rows: int [N].
    gather: function of rows -> batch; runs in a thread.
    call: function of a batch of `batch_size` rows -> array or tree of arrays [batch_size, ...].
    batch_size: rows a call; the last batch is filled up, so that one program serves all.
    bar: tqdm bar of rows.
  """
  import jax
  import numpy as np

  groups = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]

  def read(chosen):
    return gather(np.resize(chosen, batch_size) if len(chosen) < batch_size else chosen)

  running = collections.deque()

  def finish():
    chosen, result = running.popleft()
    result = jax.tree.map(lambda x: np.asarray(x)[: len(chosen)], result)
    bar.update(len(chosen))
    return chosen, result

  with concurrent.futures.ThreadPoolExecutor(1) as reader:
    ahead = reader.submit(read, groups[0])
    for i, chosen in enumerate(groups):
      batch = ahead.result()
      if i + 1 < len(groups):
        ahead = reader.submit(read, groups[i + 1])
      running.append((chosen, call(batch)))
      if len(running) > 1:
        yield finish()
    yield finish()


def placed(params):
  """Returns (function that spreads rows over the devices, parameters on all of them)."""
  import jax
  from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

  mesh = Mesh(jax.local_devices(), ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
  return lambda x: jax.device_put(x, rows), params


def whole(batch_size):
  """Returns the next multiple of the number of devices."""
  import jax

  devices = len(jax.local_devices())
  return -(-batch_size // devices) * devices
