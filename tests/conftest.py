"""Parity needs full-precision products; one compilation cache serves all tests of a session."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def compilation_cache(tmp_path_factory):
  jax.config.update("jax_default_matmul_precision", "highest")
  folder = tmp_path_factory.mktemp("compiled")
  jax.config.update("jax_compilation_cache_dir", str(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  return folder
