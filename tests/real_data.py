"""Finds public data sets on this machine; tests that need one are skipped where it is absent."""

import os
import pathlib

import pytest

_BESIDE = pathlib.Path(__file__).parents[2] / "shared" / "data"


def folder(name):
  """Returns the folder `name` of the data root, or skips the running test with the reason.

  The root is the environment variable VISTRAJ_JAX_DATA, or ../shared/data beside the repository.
  """
  path = pathlib.Path(os.environ.get("VISTRAJ_JAX_DATA", _BESIDE)) / name
  if not path.exists():
    pytest.skip(f"real data set {name} is absent: {path} (set VISTRAJ_JAX_DATA)")
  return path
