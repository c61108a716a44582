"""The embedded data sets: made once from the simulated world, through the readers of user data."""

import fcntl
import hashlib
import json
import os
import pathlib
import tempfile

from vistraj_jax.core import checks
from vistraj_jax.data import trackssm
from vistraj_jax.prepare import mot, runner, tracks
from vistraj_jax.prepare.world import driving, mot_writer
from vistraj_jax.tracking import mot_files

# Raise the version whenever the world or its writers change: cached copies are then made again.
TRACKSSM = {
  "version": 1,
  "scenes": {"train": 14, "val": 4, "test": 2},
  "seconds": 235 / mot_writer.FRAME_RATE,
  "moving": 110,
  "parked": 30,
  "seed": 8,
}


def cache_folder():
  """Returns the folder of embedded data sets: $VISTRAJ_JAX_CACHE or ~/.cache/vistraj_jax."""
  return pathlib.Path(os.environ.get("VISTRAJ_JAX_CACHE", "~/.cache/vistraj_jax")).expanduser()


def root(task):
  """Returns the folder of the embedded data set of a task, made on first use.

  Raises:
    InputError: the task has none.
  """
  return {"trackssm": trackssm_root}[checks.choice("config.task", task, ("trackssm",))]()


def trackssm_root():
  """Returns the folder of the embedded tracks (`data.trackssm`), made on first use."""
  key = hashlib.sha256(json.dumps(TRACKSSM, sort_keys=True).encode()).hexdigest()[:12]
  root = cache_folder() / f"trackssm-{key}"
  root.parent.mkdir(parents=True, exist_ok=True)
  # Several processes of one training run ask at the same time: one makes it, the others wait.
  with open(root.with_suffix(".lock"), "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    prepare(root, processes=os.cpu_count() or 1)
  return root


def prepare(out, *, settings=None, processes=1, beam=None):
  """Simulates drives and converts them into folder `out`; returns the statistics.

  Args:
    out: output folder; a finished one is left as it is.
    settings: dictionary as `TRACKSSM`, which is the default.
    processes: worker processes.
    beam: pipeline arguments for Apache Beam; None runs locally.
  """
  settings = TRACKSSM if settings is None else settings
  units = []
  for split, count in settings["scenes"].items():
    for _ in range(count):
      number = len(units)
      scene = f"scene-{number + 1:04d}"
      arguments = (settings, settings["seed"] + number, scene, pathlib.Path(out) / split)
      units.append(runner.Unit(split, scene, arguments))
  return runner.run(
    out,
    name=trackssm.NAME,
    spec=trackssm.SPEC,
    description="Tracks of boxes in a simulated drive, one record per track.",
    settings=settings,
    units=units,
    work=convert_scene,
    summarize=tracks.summarize,
    processes=processes,
    beam=beam,
  )


def convert_scene(settings, seed, scene, folder):
  """Simulates one drive, writes its MOT folders under `folder` and converts them.

  Returns:
    (records of all cameras, {"sequences": [result of each]}).
  """
  drive = driving.simulate(seed, settings["seconds"], settings["moving"], settings["parked"])
  payloads, results = [], []
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=folder, prefix=f".{scene}.") as raw:
    for source in mot_writer.write(drive, scene, pathlib.Path(raw), seed):
      found, result = mot.convert_sequence(
        source, folder / source.name, None, tuple(range(len(mot_files.CLASSES))), 6
      )
      payloads += found
      results.append(result)
  return payloads, {"sequences": results}
