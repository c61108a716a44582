"""Trains the same tiny run in several layouts over 8 virtual devices; run by test_parallel.py."""

import json
import sys

import jax
import numpy as np
import tiny_run

from launch import train
from vistraj_jax.core import trained, weights

LAYOUTS = {
  "jit": {},
  "pmap": {"parallel": "pmap"},
  "model": {
    "mesh.data": 4,
    "mesh.model": 2,
    "partition": (("encoder/layer.*/in_proj/kernel", (None, "model")), (".*", ())),
  },
}


def main(root, out):
  """Writes {layout: differences to jit} to `out`."""
  assert jax.device_count() == 8
  found = {}
  for name, changes in LAYOUTS.items():
    config = tiny_run.config(root, **tiny_run.ONE_PHASE, **changes)
    summary = train.train(config, f"{out}/{name}")
    params = weights.flatten(trained.load_best(f"{out}/{name}/decoder"))
    found[name] = (params, summary)
  params, summary = found["jit"]
  report = {}
  for name, (other, other_summary) in found.items():
    report[name] = {
      "params": max(float(np.abs(other[n] - params[n]).max()) for n in params),
      "largest": max(float(np.abs(params[n]).max()) for n in params),
      "loss": [other_summary["decoder"]["loss/val"], summary["decoder"]["loss/val"]],
    }
  with open(f"{out}/report.json", "w") as f:
    json.dump(report, f)


if __name__ == "__main__":
  main(*sys.argv[1:])
