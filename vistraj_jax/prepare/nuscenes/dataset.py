"""A nuScenes database -> a data set: MOT folders, track records, sequence maps and a report.

The tables are opened once and taken apart into one file per scene. Then they are dropped, and
every scene-camera is a unit of work of `prepare.runner`.
"""

import collections
import gc
import json
import os
import pathlib

from vistraj_jax.core import checks, files
from vistraj_jax.data import trackssm
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.nuscenes import database, devkit_tables, report, splits, tracks
from vistraj_jax.prepare.nuscenes import scene as scenes

_EXTRACTED = "scenes.json"  # written when all scenes are in the folder of parts


def prepare(
  dataroot,
  out,
  *,
  version,
  split=None,
  split_policy="dev",
  cameras=database.CAMERAS,
  target_fps=12,
  min_visibility=1,
  clip="corners",
  interpolation="image2d",
  official_pedestrians=False,
  detections=False,
  images=False,
  keep_going=False,
  processes=1,
  beam=None,
):
  """Converts scenes of a nuScenes database into folder `out`; returns the statistics.

  Args:
    dataroot: folder that holds the version's folder, maps, samples and sweeps.
    out: output folder.
    version: "v1.0-trainval" or "v1.0-mini".
    split: names of splits; None takes all of which the database holds scenes.
    split_policy: as `splits.scene_names`.
    cameras: names.
    target_fps: frames per second, a multiple of 2; 2 gives the keyframes alone.
    min_visibility, clip, interpolation, official_pedestrians: as `tracks.Conversion`.
    detections: also write det/det.txt from the simulated detector.
    images: also link the image nearest in time to each frame.
    keep_going: leave out scenes whose tables or images are bad, and name them in the statistics.
    processes: worker processes.
    beam: pipeline arguments for Apache Beam; None runs locally.

  Raises:
    InputError: a wrong setting; missing folders, tables, scenes or images; a bad record.
  """
  dataroot, out = pathlib.Path(dataroot).resolve(), pathlib.Path(out).resolve()
  conversion = _conversion(target_fps, min_visibility, clip, interpolation, official_pedestrians)
  for camera in cameras:
    checks.choice("--cameras", camera, database.CAMERAS)
  checks.require(
    len(set(cameras)) == len(cameras),
    f"--cameras: {list(cameras)} has one twice; name each camera once.",
  )
  wanted = {
    name: splits.scene_names(version, name, split_policy)
    for name in split or splits.split_names(version)
  }
  settings = {
    "dataroot": str(dataroot),
    "version": version,
    "inputs": runner.fingerprint(devkit_tables.table_paths(dataroot, version)),
    "split": sorted(wanted) if split else None,
    "split_policy": split_policy,
    "cameras": list(cameras),
    "target_fps": target_fps,
    "min_visibility": min_visibility,
    "clip": clip,
    "interpolation": interpolation,
    "official_pedestrians": official_pedestrians,
    "detections": detections,
    "images": images,
    "keep_going": keep_going,
  }
  extracted = {}

  def units(parts):
    if not (parts / _EXTRACTED).is_file():
      opened = database.Database(dataroot, version)
      chosen = _choose(opened, wanted, bool(split), f"{dataroot / version}")
      require = _Requirements(cameras, conversion, dataroot if images else None)
      skipped = _extract(opened, chosen, require, parts, keep_going)
      files.write_text(parts / _EXTRACTED, json.dumps({"scenes": chosen, "skipped": skipped}))
      del opened
      gc.collect()  # the tables hold each other; workers want the memory
    extracted.update(json.loads((parts / _EXTRACTED).read_text()))
    skipped = extracted["skipped"]
    checks.require(
      any(set(names) - skipped.keys() for names in extracted["scenes"].values()),
      f"{dataroot / version}: every scene is bad; the first: {next(iter(skipped.values()), '')}",
    )
    shown = dataroot if images else None
    return [
      runner.Unit(
        name,
        f"{scene}_{camera}",
        (_scene_file(parts, scene), camera, conversion, out / name, shown, detections),
      )
      for name, names in extracted["scenes"].items()
      for scene in names
      if scene not in skipped
      for camera in cameras
    ]

  statistics = runner.run(
    out,
    name=trackssm.NAME,
    spec=trackssm.SPEC,
    description="nuScenes tracks of boxes, one record per track.",
    settings=settings,
    units=units,
    work=tracks.convert,
    summarize=lambda results: report.summarize(results, extracted["skipped"]),
    processes=processes,
    beam=beam,
  )
  for name in statistics["splits"]:
    sequence_map = out / "seqmaps" / f"{name}.txt"
    if not sequence_map.is_file():
      sequences = sorted(path.parent.name for path in (out / name).glob("*/seqinfo.ini"))
      files.write_text(sequence_map, "\n".join(["name", *sequences, ""]))
  return statistics


def _conversion(target_fps, min_visibility, clip, interpolation, official_pedestrians):
  checks.require(
    target_fps >= 2 and target_fps % tracks.KEYFRAME_RATE == 0,
    f"--target_fps: {target_fps}; keyframes come at 2 Hz: give a multiple of 2, such as 12.",
  )
  return tracks.Conversion(
    frames_per_keyframe=int(target_fps) // tracks.KEYFRAME_RATE,
    min_visibility=checks.choice("--min_visibility", min_visibility, range(5)),
    clip=checks.choice("--clip", clip, ("corners", "hull")),
    interpolation=checks.choice("--interpolation", interpolation, ("image2d", "pose3d")),
    official_pedestrians=official_pedestrians,
  )


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


def _extract(opened, chosen, require, parts, keep_going):
  """Writes one file per scene into `parts`; returns {what was skipped: sentence}."""
  import tqdm

  skipped = {}
  for number, sentence in enumerate(opened.strays, 1):
    checks.require(keep_going, sentence)
    skipped[f"record of no scene {number}"] = sentence
  names = dict.fromkeys(name for names in chosen.values() for name in names)
  for name in tqdm.tqdm(names, desc="scenes"):
    if _scene_file(parts, name).is_file():
      continue
    try:
      scene = opened.scene(name)
      require(scene)
    except checks.InputError as error:
      if not keep_going:
        raise
      skipped[name] = str(error)
    else:
      scenes.save(_scene_file(parts, name), scene)
  return skipped


class _Requirements:
  """What a scene needs beside sound tables: the cameras, sweeps for poses, images to link."""

  def __init__(self, cameras, conversion, images):
    self._cameras = cameras
    self._sweeps = conversion.interpolation == "pose3d" and conversion.frames_per_keyframe > 1
    self._images = images
    self._listed = collections.defaultdict(dict)  # folder -> its files

  def __call__(self, scene):
    for name in self._cameras:
      checks.require(
        name in scene.cameras,
        f"{scene.name}: holds no image of {name}, only of {sorted(scene.cameras)}; set --cameras.",
      )
      camera = scene.cameras[name]
      checks.require(
        not self._sweeps or len(scene.time) == 1 or not camera.is_keyframe.all(),
        f"{scene.name}: {name} has no sweeps between its keyframes, whose ego poses "
        "--interpolation pose3d needs; take image2d.",
      )
      if self._images is not None:
        self._require_images(scene, name, camera)

  def _require_images(self, scene, name, camera):
    missing = [file for file in camera.file.tolist() if not self._exists(self._images / file)]
    checks.require(
      not missing,
      f"{scene.name}: {len(missing)} of {len(camera.file)} images of {name} are missing, the first "
      f"is {self._images / (missing or [''])[0]}; complete the folder, or leave --images out.",
    )

  def _exists(self, path):
    # Folders are listed once: asking for a million files takes long on a shared file system.
    folder = path.parent
    if folder not in self._listed:
      self._listed[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
    return path.name in self._listed[folder]


def _scene_file(parts, name):
  return parts / f"{name}.npz"
