"""Demonstrations of the manipulation world -> folders in public layouts, sources of launch.prepare.

"bridge": RLDS TFRecords at 5 Hz; "egodex": MP4 with HDF5 poses at 30 Hz; "libero": HDF5 files of
demonstrations at 20 Hz.
"""

import importlib

from vistraj_jax.core import checks
from vistraj_jax.prepare import runner

# Raise the version whenever the world or its writers change: cached copies are then made again.
VERSION = 1
LAYOUTS = ("bridge", "egodex", "libero")
SETTINGS = {
  "layout": "bridge",
  "episodes": 320,  # of "libero": demonstrations of each task
  "size": 128,  # px, side of the frames
  "moving_camera": False,
  "spread": 1.0,  # see `manipulation.Settings`; also of noise
  "noise": 0.1,
  "seed": 0,
}
# What differs from `SETTINGS`: LIBERO's tasks have their places, EgoDex is filmed from a head.
DEFAULTS = {
  "bridge": {},
  "egodex": {"episodes": 100, "size": 256, "moving_camera": True},
  "libero": {"episodes": 50, "spread": 0.25},
}


def write(out, settings=None, processes=1):
  """Writes a folder; returns {"episodes", "frames", ...}.

  An interrupted run goes on with the units that are missing; a finished folder stays.

  Args:
    out: folder, the --source of `launch.prepare` bridge, egodex or libero.
    settings: dictionary as `SETTINGS`, which is the default.
    processes: worker processes.

  Raises:
    InputError: a setting is out of range, or `out` holds something else.
  """
  settings = {**SETTINGS, **(settings or {})}
  layout = checks.choice("--layout", settings["layout"], LAYOUTS)
  for name, low, high in (("episodes", 1, 10**6), ("size", 16, 1024), ("seed", 0, 10**6)):
    value = settings[name]
    checks.require(low <= value <= high, f"--{name}: {value} received; give {low} to {high}.")
  for name in ("spread", "noise"):
    value = settings[name]
    checks.require(0 <= value <= 1, f"--{name}: {value} received; give 0 to 1.")
  writer = importlib.import_module(f"vistraj_jax.prepare.world.manipulation_{layout}")
  return runner.resume(
    out,
    settings={"writer": "manipulation", "version": VERSION, **settings},
    units=writer.units(out, settings),
    work=writer.write_unit,
    finish=getattr(writer, "finish", None) or finish,
    processes=processes,
  )


def finish(_, results):
  """Adds up what the units wrote."""
  names = ("episodes", "frames")
  return {name: sum(part["result"][name] for _, part in results) for name in names}
