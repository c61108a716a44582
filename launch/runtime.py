"""Process-wide settings of the commands that compute: compilation cache, memory, processes."""

import ctypes
import os
import pathlib

# glibc's mallopt parameters.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def configure():
  """Sets up JAX for a command; call it before the first computation."""
  import jax
  from absl import logging

  logging.set_verbosity(logging.ERROR)  # Orbax tells every step of every save
  cache = os.environ.get("VISTRAJ_JAX_CACHE", pathlib.Path.home() / ".cache" / "vistraj_jax")
  jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache) / "xla"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  _keep_freed_memory()


def _keep_freed_memory():
  """Tells glibc to keep big freed blocks: returning and refaulting pages costs CPU runs a lot."""
  try:
    mallopt = ctypes.CDLL("libc.so.6").mallopt
  except OSError:  # not glibc: nothing to tell
    return
  mallopt(_MMAP_THRESHOLD, 1 << 30)
  mallopt(_TRIM_THRESHOLD, 2**31 - 1)
  mallopt(_TOP_PAD, 256 << 20)
