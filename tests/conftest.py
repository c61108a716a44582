"""Parity needs full-precision products; the compilation cache saves repeated compilations."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def _highest_precision():
  jax.config.update("jax_default_matmul_precision", "highest")
