"""Drives of the simulated world -> a nuScenes database: 13 tables, images, LiDAR sweeps, maps.

Keyframes come at 2 Hz and carry the annotations; cameras run at 12 Hz and the LiDAR at 10 Hz. Every
sensor fires exactly at the keyframes, so boxes, images and points of a keyframe show one instant.
The global frame is the world's, moved by `shift` so that the map has no negative coordinates.
Scenes carry official names, in the order of our splits, and are marked as simulated.
"""

import collections
import json
import pathlib

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.data import point_clouds
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.nuscenes import devkit_tables, splits
from vistraj_jax.prepare.world import cameras, driving, lidar, render, scenery
from vistraj_jax.prepare.world import nuscenes_tables as tables

VERSION = "v1.0-trainval"
KEYFRAME_RATE = 2  # Hz
CAMERA_RATE = 12
LIDAR_RATE = 10  # half of the real car's: half the disk for what nothing here reads
SETTINGS = {
  "version": 1,
  "scenes": {"train": 14, "val": 4, "test": 2},
  "seconds": 19.5,
  "moving": 110,
  "parked": 30,
  "seed": 8,
  "sweeps": ["test"],
}
_LIMITS = {
  "seconds": (1 / KEYFRAME_RATE, 600, "from the time between two keyframes to ten minutes"),
  "moving": (0, 1000, "more than a drive has room for"),
  "parked": (0, 1000, "more than a drive has room for"),
  "seed": (0, 10**9, "of which every drive takes the next"),
}
_JPEG_QUALITY = 78
_START = 1_500_000_000_000_000  # us since 1970, of the first scene
_APART = 1_000_000_000  # us between the starts of scenes
_MARGIN = 100.0  # m of map around the ego car's way
_PIXEL = 0.1  # m of the map


def write(out, settings=None, processes=1, beam=None):
  """Writes a database into folder `out`; returns its statistics.

  An interrupted run goes on with the scenes that are missing; a finished database stays.

  Args:
    out: folder, the `dataroot` of the devkit.
    settings: dictionary as `SETTINGS`, which is the default: "scenes" counts the drives of each
      split, "sweeps" lists the splits whose images and LiDAR sweeps between keyframes have files
      (the tables list them all, and keyframes always have files).
    processes: worker processes.
    beam: pipeline arguments of Apache Beam (`prepare.beam_runner`); None runs locally.

  Raises:
    InputError: a setting is out of range, or `out` holds something else.
  """
  settings = SETTINGS if settings is None else settings
  out = pathlib.Path(out)
  return runner.resume(
    out,
    settings={"writer": "nuscenes", **settings},
    units=[
      runner.Unit(split, name, (out, settings, split, name, number))
      for number, (split, name) in enumerate(scenes(settings))
    ],
    work=write_scene,
    finish=lambda _, results: _finish(out, settings, results),
    processes=processes,
    beam=beam,
  )


def scenes(settings):
  """Returns (split, official scene name) of each drive, in the order of their seeds.

  Raises:
    InputError: a setting is out of range.
  """
  for name, (low, high, meaning) in _LIMITS.items():
    checks.require(
      low <= settings[name] <= high,
      f"--{name}: {settings[name]} received; give {low} to {high}, {meaning}.",
    )
  found = []
  for split, count in settings["scenes"].items():
    names = splits.scene_names(VERSION, split)
    checks.require(
      0 <= count <= len(names),
      f"--{split}: {count} scenes received; give 0 to {len(names)}, the official number.",
    )
    found += [(split, name) for name in names[:count]]
  checks.require(
    len(found) > 0, "--train, --val, --test: no scenes at all; give 1 or more of one split."
  )
  for split in settings["sweeps"]:
    checks.choice("--sweeps", split, settings["scenes"])
  return found


def simulate(settings, number):
  """Returns the `driving.Drive` of scene `number` (from 0, in the order of `scenes`)."""
  return driving.simulate(
    settings["seed"] + number, settings["seconds"], settings["moving"], settings["parked"]
  )


def shift(drive):
  """Returns [3] m, what is added to the world's coordinates to give those of the database."""
  way = drive.at(np.linspace(0, drive.duration, 50)).ego_translation
  return np.append(np.round(_MARGIN - way[:, :2].min(0)), 0.0)


def write_scene(out, settings, split, name, number):
  """Writes the files of one scene; returns ([], rows of the tables and counts of files)."""
  return [], _Scene(out, settings, split, name, number).write()


class _Scene:
  """One scene: times, names, and the rows it adds to the tables."""

  def __init__(self, out, settings, split, name, number):
    self.out, self.name, self.number = out, name, number
    self.log = f"simulated-{number + 1:04d}"
    self.sweeps = split in settings["sweeps"]
    self.drive = simulate(settings, number)
    self.shift = shift(self.drive)
    self.keyframes = int(settings["seconds"] * KEYFRAME_RATE + 1e-6) + 1
    self.parked = self.drive.speeds.max(0) == 0
    self.renderer = render.Renderer(self.drive)
    self.rows = collections.defaultdict(list)
    self.files = {"images": 0, "sweeps": 0, "maps": 0, "bytes": 0}

  def write(self):
    for channel in [*(camera.name for camera in cameras.RIG), tables.LIDAR]:
      for folder in ("samples", "sweeps"):
        (self.out / folder / channel).mkdir(parents=True, exist_ok=True)
    self._add_scene()
    self._write_map()
    boxes = self._write_images()
    counts = self._write_sweeps()
    self._add_annotations(boxes, counts)
    return {"rows": self.rows, "files": self.files}

  def token(self, kind, *index):
    return tables.token(kind, self.name, *index)

  def _microseconds(self, time):
    return _START + self.number * _APART + int(round(float(time) * 1e6))

  def _times(self, rate):
    """Times of a sensor, s, and which of them are keyframes."""
    step = rate // KEYFRAME_RATE
    frames = np.arange(step * (self.keyframes - 1) + 1)
    return frames / rate, frames % step == 0

  def _add_scene(self):
    samples = [self.token("sample", k) for k in range(self.keyframes)]
    self.rows["scene"].append(
      {
        "token": self.token("scene"),
        "log_token": self.token("log"),
        "nbr_samples": self.keyframes,
        "first_sample_token": samples[0],
        "last_sample_token": samples[-1],
        "name": self.name,
        "description": f"simulated drive {self.number + 1}",
      }
    )
    self.rows["log"].append(
      {
        "token": self.token("log"),
        "logfile": self.log,
        "vehicle": "simulated",
        "date_captured": "2018-01-01",
        "location": "simulated-town",
      }
    )
    for k, (before, sample, after) in enumerate(_linked(samples)):
      self.rows["sample"].append(
        {
          "token": sample,
          "timestamp": self._microseconds(k / KEYFRAME_RATE),
          "scene_token": self.token("scene"),
          "prev": before,
          "next": after,
        }
      )
    for camera in cameras.RIG:
      self._add_sensor(camera.name, camera.translation, camera.rotation, camera.intrinsic.tolist())
    self._add_sensor(tables.LIDAR, lidar.TRANSLATION, lidar.ROTATION, [])

  def _add_sensor(self, channel, translation, rotation, intrinsic):
    self.rows["calibrated_sensor"].append(
      {
        "token": self.token("calibrated_sensor", channel),
        "sensor_token": tables.token("sensor", channel),
        "translation": [float(v) for v in translation],
        "rotation": [float(v) for v in rotation],
        "camera_intrinsic": intrinsic,
      }
    )

  def _add_sample_data(self, channel, times, is_keyframe, state, image_size):
    """Adds the rows of one sensor with its ego poses; returns the paths of the files."""
    extension = ".pcd.bin" if channel == tables.LIDAR else ".jpg"
    stamps = [self._microseconds(time) for time in times]
    tokens = [self.token("sample_data", channel, k) for k in range(len(times))]
    # What lies between two keyframes belongs to the later one.
    samples = np.cumsum(is_keyframe) - is_keyframe
    paths = []
    for k, (before, token, after) in enumerate(_linked(tokens)):
      folder = "samples" if is_keyframe[k] else "sweeps"
      paths.append(f"{folder}/{channel}/{self.log}__{channel}__{stamps[k]}{extension}")
      self.rows["sample_data"].append(
        {
          "token": token,
          "sample_token": self.token("sample", samples[k]),
          "ego_pose_token": token,
          "calibrated_sensor_token": self.token("calibrated_sensor", channel),
          "timestamp": stamps[k],
          "fileformat": "pcd" if channel == tables.LIDAR else "jpg",
          "is_key_frame": bool(is_keyframe[k]),
          "height": image_size[1],
          "width": image_size[0],
          "filename": paths[-1],
          "prev": before,
          "next": after,
        }
      )
      self.rows["ego_pose"].append(
        {
          "token": token,
          "timestamp": stamps[k],
          "translation": _rounded(state.ego_translation[k] + self.shift, 6),
          "rotation": _rounded(state.ego_rotation[k], 9),
        }
      )
    return paths

  def _write_images(self):
    """Writes images; returns (state, pixels [K, A], visible share [K, A]) of the keyframes."""
    import cv2

    times, is_keyframe = self._times(CAMERA_RATE)
    state = self.drive.at(times)
    paths = [
      self._add_sample_data(camera.name, times, is_keyframe, state, cameras.IMAGE_SIZE)
      for camera in cameras.RIG
    ]
    pixels, shares = [], []
    for k in np.flatnonzero(is_keyframe | self.sweeps).tolist():
      moment = self.renderer.moment(state, k, times[k])
      for camera, files_of_camera in zip(cameras.RIG, paths, strict=True):
        image = self.renderer.image(moment, camera)
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        (self.out / files_of_camera[k]).write_bytes(data.tobytes())
        self._count(files_of_camera[k], "images")
      if is_keyframe[k]:
        seen, share = self.renderer.visibility(moment)
        pixels.append(seen)
        shares.append(share)
    return np.array(pixels), np.array(shares)

  def _write_sweeps(self):
    """Writes LiDAR sweeps; returns the number of points [K, A] on the agents at keyframes."""
    times, is_keyframe = self._times(LIDAR_RATE)
    state = self.drive.at(times)
    paths = self._add_sample_data(tables.LIDAR, times, is_keyframe, state, (0, 0))
    counts = []
    for k in np.flatnonzero(is_keyframe | self.sweeps).tolist():
      moment = self.renderer.moment(state, k, times[k])
      noise = np.random.default_rng((self.number, k))
      sweep = lidar.scan(moment, self.renderer.houses, noise)
      point_clouds.write_points(self.out / paths[k], sweep.points)
      self._count(paths[k], "sweeps")
      if is_keyframe[k]:
        counts.append(sweep.counts)
    return np.array(counts)

  def _count(self, path, kind):
    self.files[kind] += 1
    self.files["bytes"] += (self.out / path).stat().st_size

  def _write_map(self):
    """Writes the streets with their pavements as a picture, white on black, north up."""
    import cv2

    way = self.drive.at(np.linspace(0, self.drive.duration, 50)).ego_translation + self.shift
    columns, rows = (np.ceil((way[:, :2].max(0) + _MARGIN) / _PIXEL)).astype(int)
    place = [
      (np.arange(n) + 0.5) * _PIXEL - s
      for n, s in ((columns, self.shift[0]), (rows, self.shift[1]))
    ]
    street = [scenery.in_street(self.drive.town, p) for p in place]
    mask = (street[0][None] | street[1][::-1, None]).astype(np.uint8) * 255
    path = f"maps/{self.token('map')}.png"
    (self.out / "maps").mkdir(exist_ok=True)
    (self.out / path).write_bytes(cv2.imencode(".png", mask)[1].tobytes())
    self._count(path, "maps")
    self.rows["map"].append(
      {
        "token": self.token("map"),
        "log_tokens": [self.token("log")],
        "category": "semantic_prior",
        "filename": path,
      }
    )

  def _add_annotations(self, boxes, counts):
    """Adds the annotations: agents within range that a camera sees or a LiDAR point hits."""
    pixels, shares = boxes
    state = self.drive.at(np.arange(self.keyframes) / KEYFRAME_RATE)
    away = np.linalg.norm(state.center[..., :2] - state.ego_translation[:, None, :2], axis=-1)
    listed = ((pixels > 0) | (counts > 0)) & (away < cameras.RANGE)
    listed[:, 0] = False  # the ego car
    for agent in np.flatnonzero(listed.any(0)).tolist():
      frames = np.flatnonzero(listed[:, agent]).tolist()
      tokens = [self.token("sample_annotation", agent, k) for k in frames]
      class_name, size = self.drive.class_names[agent], self.drive.size_wlh[agent]
      kind = tables.category(class_name, size[2], agent)
      self.rows["instance"].append(
        {
          "token": tables.instance_token(self.name, agent),
          "category_token": tables.token("category", kind),
          "nbr_annotations": len(frames),
          "first_annotation_token": tokens[0],
          "last_annotation_token": tokens[-1],
        }
      )
      for k, (before, token, after) in zip(frames, _linked(tokens), strict=True):
        doing = tables.attribute(class_name, state.speed[k, agent], self.parked[agent])
        half = state.yaw[k, agent] / 2
        self.rows["sample_annotation"].append(
          {
            "token": token,
            "sample_token": self.token("sample", k),
            "instance_token": tables.instance_token(self.name, agent),
            "visibility_token": tables.visibility_token(shares[k, agent]),
            "attribute_tokens": [tables.token("attribute", doing)],
            "translation": _rounded(state.center[k, agent] + self.shift, 6),
            "size": _rounded(size, 6),
            "rotation": _rounded((np.cos(half), 0.0, 0.0, np.sin(half)), 9),
            "prev": before,
            "next": after,
            "num_lidar_pts": int(counts[k, agent]),
            "num_radar_pts": 0,
          }
        )


def _linked(tokens):
  """Yields (previous, token, next); the ends have an empty neighbour."""
  return zip(["", *tokens[:-1]], tokens, [*tokens[1:], ""], strict=True)


def _rounded(values, digits):
  return [round(float(v), digits) for v in values]


def _finish(out, settings, results):
  """Writes the tables; returns the statistics."""
  rows = {name: list(tables.fixed().get(name, ())) for name in devkit_tables.TABLES}
  for _, part in results:
    for name, found in part["result"]["rows"].items():
      rows[name] += found
  size = sum(part["result"]["files"]["bytes"] for _, part in results)
  with files.atomic_folder(out / VERSION) as folder:
    for name, found in rows.items():
      text = json.dumps(found, indent=0)
      (folder / f"{name}.json").write_text(text)
      size += len(text)
  categories = {row["token"]: row["name"] for row in rows["category"]}
  kinds = {row["token"]: categories[row["category_token"]] for row in rows["instance"]}
  annotations = collections.defaultdict(lambda: [0, 0, 0, 0])
  for row in rows["sample_annotation"]:
    annotations[kinds[row["instance_token"]]][int(row["visibility_token"]) - 1] += 1
  return {
    "scenes": settings["scenes"],
    "keyframes": len(rows["sample"]),
    "images": sum(part["result"]["files"]["images"] for _, part in results),
    "sweeps": sum(part["result"]["files"]["sweeps"] for _, part in results),
    "instances": len(rows["instance"]),
    "annotations": dict(sorted(annotations.items())),
    "bytes": size,
  }
