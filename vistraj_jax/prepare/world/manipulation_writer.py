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


def usual(layout, changes=None):
  """Returns settings as `SETTINGS` for a layout, with some changed."""
  checks.choice("--layout", layout, LAYOUTS)
  return {**SETTINGS, "layout": layout, **DEFAULTS[layout], **(changes or {})}


def write(out, settings=None, processes=1, beam=None):
  """Writes a folder; returns {"episodes", "frames", ...}.

  An interrupted run goes on with the units that are missing; a finished folder stays.

  Args:
    out: folder, the --source of `launch.prepare` bridge, egodex or libero.
    settings: dictionary as `SETTINGS`, which is the default; see `usual`.
    processes: worker processes.
    beam: pipeline arguments of Apache Beam (`prepare.beam_runner`); None runs locally.

  Raises:
    InputError: a setting is out of range, or `out` holds something else.
  """
  settings = SETTINGS if settings is None else settings
  layout = checks.choice("--layout", settings["layout"], LAYOUTS)
  for name, low, high in (("episodes", 1, 10**6), ("size", 16, 1024), ("seed", 0, 10**6)):
    value = settings[name]
    checks.require(low <= value <= high, f"--{name}: {value} received; give {low} to {high}.")
  checks.require(
    layout != "egodex" or settings["size"] % 2 == 0,
    f"--size: {settings['size']} received; a video's side is even.",
  )
  for name in ("spread", "noise"):
    value = settings[name]
    checks.require(0 <= value <= 1, f"--{name}: {value} received; give 0 to 1.")
  writer = importlib.import_module(f"vistraj_jax.prepare.world.manipulation_{layout}")
  running = {
    "settings": {"writer": "manipulation", "version": VERSION, **settings},
    "units": writer.units(out, settings),
    "work": writer.write_unit,
    "processes": processes,
    "beam": beam,
  }
  if layout == "bridge":
    return runner.run(out, summarize=_total, **writer.records_of(settings), **running)

  def finish(_, results):
    return _total([(unit, part["result"]) for unit, part in results])

  return runner.resume(out, finish=finish, **running)


def _total(results):
  """Adds up what the units wrote."""
  return {name: sum(result[name] for _, result in results) for name in ("episodes", "frames")}
