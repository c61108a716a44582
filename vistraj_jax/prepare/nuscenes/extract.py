"""nuScenes tables, taken apart once: one file per scene, which workers read in their place."""

import gc
import json
import os

from vistraj_jax.core import checks, files
from vistraj_jax.prepare.nuscenes import database
from vistraj_jax.prepare.nuscenes import scene as scenes

_EXTRACTED = "scenes.json"  # written when all scenes are in the folder of parts


def extract(parts, dataroot, version, wanted, *, named, require, keep_going, lidar=False):
  """Writes one file per scene into the folder of parts, unless an earlier run did.

  Args:
    parts: folder (`prepare.runner`).
    dataroot, version: database.
    wanted: {split: official scene names}.
    named: whether the user named these splits, so that none may be empty.
    require: function of a `Scene`; raises InputError where it lacks what is needed.
    keep_going: leave out bad scenes.
    lidar: also read the LiDAR's sweeps.

  Returns:
    ({split: names of the scenes that the database holds}, {what was left out of them: sentence}).

  Raises:
    InputError: missing or damaged tables; nothing there for a split; a bad scene, or only those.
  """
  if not (parts / _EXTRACTED).is_file():
    opened = database.Database(dataroot, version)
    chosen = _choose(opened, wanted, named, f"{dataroot / version}")
    skipped = _extract(opened, chosen, require, parts, keep_going, lidar)
    files.write_text(parts / _EXTRACTED, json.dumps({"scenes": chosen, "skipped": skipped}))
    del opened
    gc.collect()  # the tables hold each other; workers want the memory
  extracted = json.loads((parts / _EXTRACTED).read_text())
  chosen, skipped = extracted["scenes"], extracted["skipped"]
  checks.require(
    any(set(names) - skipped.keys() for names in chosen.values()),
    f"{dataroot / version}: every scene is bad; the first: {next(iter(skipped.values()), '')}",
  )
  return chosen, skipped


def scene_file(parts, name):
  """Returns the file of one scene."""
  return parts / f"{name}.npz"


class Listing:
  """Which files exist; folders are listed once, since a million questions take long."""

  def __init__(self):
    self._listed = {}

  def missing(self, paths):
    """Returns those `paths` that are no files."""
    return [path for path in paths if path.name not in self._files(path.parent)]

  def _files(self, folder):
    if folder not in self._listed:
      self._listed[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
    return self._listed[folder]


def _choose(opened, wanted, named, folder):
  """Returns {split: scene names that the database holds}; splits that were named may not be empty.

  Raises:
    InputError: nothing there for a split that was named, or for any.
  """
  held = set(opened.names)
  chosen = {split: [name for name in names if name in held] for split, names in wanted.items()}
  for split, names in chosen.items():
    checks.require(
      names or not named,
      f"--split: {folder} holds none of the {len(wanted[split])} scenes of {split!r}; it holds "
      f"{opened.names[:5]}{' and others' if len(held) > 5 else ''}.",
    )
  checks.require(
    any(chosen.values()),
    f"{folder}: holds no scene of the official splits, but {opened.names[:5]}; scenes need their "
    "official names.",
  )
  return {split: names for split, names in chosen.items() if names}


def _extract(opened, chosen, require, parts, keep_going, lidar):
  """Writes one file per scene into `parts`; returns {what was skipped: sentence}."""
  import tqdm

  skipped = {}
  for number, sentence in enumerate(opened.strays, 1):
    checks.require(keep_going, sentence)
    skipped[f"record of no scene {number}"] = sentence
  names = dict.fromkeys(name for names in chosen.values() for name in names)
  for name in tqdm.tqdm(names, desc="scenes"):
    if scene_file(parts, name).is_file():
      continue
    try:
      scene = opened.scene(name, lidar)
      require(scene)
    except checks.InputError as error:
      if not keep_going:
        raise
      skipped[name] = str(error)
    else:
      scenes.save(scene_file(parts, name), scene)
  return skipped
