"""Process-wide settings of the commands that compute: compilation cache, memory, processes."""

import ctypes
import json
import logging
import os
import pathlib
import resource

from vistraj_jax.core import files

# glibc's mallopt parameters.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def configure():
  """Sets up JAX for a command; call it before the first computation."""
  import jax
  from absl import logging as absl_logging

  absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax tells every step of every save
  # What we choose ourselves is told, on stderr: by absl's handler where app.run has set it.
  logging.basicConfig(format="%(message)s")
  logging.getLogger("vistraj_jax").setLevel(logging.INFO)
  cache = os.environ.get("VISTRAJ_JAX_CACHE", pathlib.Path.home() / ".cache" / "vistraj_jax")
  jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(cache) / "xla"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  _keep_freed_memory()


def record_memory(path):
  """Writes the peak memory of this process, unless an earlier one has needed more.

  {"peak_bytes", "of": "device" or "process"}: the fullest device's, or on a CPU the process's.
  """
  import jax

  statistics = [d.memory_stats() or {} for d in jax.local_devices()]
  on_device = [s["peak_bytes_in_use"] for s in statistics if "peak_bytes_in_use" in s]
  process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  found = {
    "peak_bytes": max(on_device, default=process),
    "of": "device" if on_device else "process",
  }
  if path.is_file():
    found["peak_bytes"] = max(found["peak_bytes"], json.loads(path.read_text())["peak_bytes"])
  files.write_text(path, json.dumps(found) + "\n")


def _keep_freed_memory():
  """Tells glibc to keep big freed blocks: returning and refaulting pages costs CPU runs a lot."""
  try:
    mallopt = ctypes.CDLL("libc.so.6").mallopt
  except OSError:  # not glibc: nothing to tell
    return
  mallopt(_MMAP_THRESHOLD, 1 << 30)
  mallopt(_TRIM_THRESHOLD, 2**31 - 1)
  mallopt(_TOP_PAD, 256 << 20)
