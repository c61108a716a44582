"""jit, pmap and a split model on 8 virtual devices, and two processes: the same numbers."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
import tiny_run

from launch import train
from vistraj_jax.core import checks, trained, weights
from vistraj_jax.train import partition

REPO = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return tiny_run.write_tracks(tmp_path_factory.mktemp("tracks"))


@pytest.fixture(scope="module")
def one_device(root, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("one")
  train.train(tiny_run.config(root, **tiny_run.ONE_PHASE), workdir)
  return weights.flatten(trained.load_best(workdir / "decoder"))


def _environment(devices):
  flags = f"--xla_force_host_platform_device_count={devices}"
  path = f"{REPO}{os.pathsep}{REPO / 'tests'}"
  return {
    **os.environ,
    "XLA_FLAGS": flags,
    "PYTHONPATH": path,
    "JAX_PLATFORMS": "cpu",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
  }


def test_jit_pmap_and_split_model_are_equal(root, one_device, tmp_path):
  command = [sys.executable, "tests/eight_devices.py", str(root), str(tmp_path)]
  subprocess.run(command, cwd=REPO, env=_environment(8), check=True, stderr=subprocess.DEVNULL)
  report = json.loads((tmp_path / "report.json").read_text())
  for name in ("pmap", "model"):
    assert report[name]["params"] < 2e-6 * report[name]["largest"], report[name]
    np.testing.assert_allclose(*report[name]["loss"], rtol=1e-5)
  # And the same as on one device: random numbers follow the row, not the device.
  spread = weights.flatten(trained.load_best(tmp_path / "jit" / "decoder"))
  for name, value in one_device.items():
    np.testing.assert_allclose(spread[name], value, rtol=1e-4, atol=2e-6, err_msg=name)


def test_two_processes_train_as_one(root, one_device, tmp_path):
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
  code = (
    "import sys, jax, tiny_run; from launch import train;"
    f"jax.distributed.initialize('127.0.0.1:{port}', 2, int(sys.argv[1]));"
    f"train.train(tiny_run.config({str(root)!r}, **tiny_run.ONE_PHASE), {str(tmp_path)!r})"
  )
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", code, str(i)],
      cwd=REPO,
      env=_environment(1),
      stderr=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
    )
    for i in range(2)
  ]
  assert [p.wait(timeout=240) for p in processes] == [0, 0]
  together = weights.flatten(trained.load_best(tmp_path / "decoder"))
  for name, value in one_device.items():
    np.testing.assert_allclose(together[name], value, rtol=1e-4, atol=2e-6, err_msg=name)
  lines = (tmp_path / "log.jsonl").read_text().splitlines()
  assert len(lines) == 6  # process 0 alone writes: 3 calls and 3 evaluations


@pytest.mark.parametrize(
  "parallel, mesh, sentence",
  [
    ("pjit", dict(data=-1, model=1), "config.parallel: 'pjit' is not allowed"),
    ("jit", dict(data=3, model=1), "config.mesh: data=3, model=1 received"),
  ],
)
def test_layout_errors(parallel, mesh, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    partition.make(parallel, mesh, ((".*", ()),))
