"""A nuScenes database -> a data set: MOT folders, track records, sequence maps and a report.

The tables are opened once and taken apart into one file per scene. Then they are dropped, and
every scene-camera is a unit of work of `prepare.runner`.
"""

import pathlib

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.data import trackssm
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.nuscenes import (
  database,
  devkit_tables,
  extract,
  report,
  splits,
  tracks,
)


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
    images: also link the image nearest in time to each frame; only these have to be there.
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
  left_out = {}

  def units(parts):
    chosen, skipped = extract.extract(
      parts,
      dataroot,
      version,
      wanted,
      named=bool(split),
      require=_Requirements(cameras, conversion, dataroot if images else None),
      keep_going=keep_going,
    )
    left_out.update(skipped)
    shown = dataroot if images else None
    return [
      runner.Unit(
        name,
        f"{scene}_{camera}",
        (extract.scene_file(parts, scene), camera, conversion, out / name, shown, detections),
      )
      for name, names in chosen.items()
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
    summarize=lambda results: report.summarize(results, left_out),
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


class _Requirements:
  """What a scene needs beside sound tables: the cameras, sweeps for poses, images to link."""

  def __init__(self, cameras, conversion, images):
    self._cameras = cameras
    self._frames_per_keyframe = conversion.frames_per_keyframe
    self._sweeps = conversion.interpolation == "pose3d" and self._frames_per_keyframe > 1
    self._images = images
    self._listing = extract.Listing()

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
    linked = np.unique(camera.frames(self._frames_per_keyframe)[0])
    missing = self._listing.missing([self._images / file for file in camera.file[linked].tolist()])
    checks.require(
      not missing,
      f"{scene.name}: {len(missing)} of {len(linked)} images of {name} are missing, the first is "
      f"{(missing or [''])[0]}; complete the folder, or leave --images out.",
    )
