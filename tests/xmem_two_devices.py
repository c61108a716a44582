"""Gradients of one batch on one device and over two; run by test_xmem_trajectory.py."""

import json
import sys

import jax
import numpy as np
import pytest
import test_xmem_trajectory as cases
import xmem_cases
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def main(root, out):
  """Writes the largest gradient and the largest difference to `out`."""
  tiny = cases._Tiny(root, pytest.MonkeyPatch())

  def loss(params, batch):
    terms, _ = tiny.task.losses({"params": params}, batch, jax.random.key(0), train=True)
    return sum(weight * term.value for weight, term in terms.values())

  run = xmem_cases.jit(jax.grad(loss))
  alone = run(tiny.params, tiny.batch)
  mesh = Mesh(np.array(jax.devices()), ("data",))
  spread = jax.device_put(tiny.batch, NamedSharding(mesh, PartitionSpec("data")))
  params = jax.device_put(tiny.params, NamedSharding(mesh, PartitionSpec()))
  together = run(params, spread)
  pairs = [
    (np.asarray(a), np.asarray(b))
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True)
  ]
  report = {
    "devices": jax.device_count(),
    "largest": max(float(np.abs(a).max()) for a, _ in pairs),
    "difference": max(float(np.abs(a - b).max()) for a, b in pairs),
  }
  with open(out, "w") as file:
    json.dump(report, file)


if __name__ == "__main__":
  main(*sys.argv[1:])
