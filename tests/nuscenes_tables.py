"""Writes small nuScenes databases: all 13 tables and a map mask, without camera images.

The ego vehicle drives a gentle curve among parked and moving objects.
"""

import hashlib
import json

import cv2
import numpy as np

from vistraj_jax.core import geometry
from vistraj_jax.prepare.nuscenes import database, devkit_tables

IMAGE_SIZE = (1600, 900)
START = 1_533_151_603_000_000  # microseconds
CATEGORIES = (
  *("vehicle.car", "human.pedestrian.adult", "vehicle.truck", "vehicle.bicycle"),
  *("vehicle.bus.rigid", "vehicle.trailer", "vehicle.motorcycle", "movable_object.barrier"),
)
_YAWS = (0, 55, -55, 180, 110, -110)  # degrees, of database.CAMERAS
_SIZES = np.array([(1.9, 4.6, 1.7), (0.7, 0.7, 1.8), (2.5, 8, 3), (0.6, 1.8, 1.3)] * 2)
_INTRINSIC = [[1266.4, 0.0, 816.3], [0.0, 1266.4, 491.5], [0.0, 0.0, 1.0]]


def write(
  root,
  scenes=("scene-0103", "scene-0916"),
  version="v1.0-mini",
  keyframes=4,
  objects=8,
  sweeps=5,
  images=False,
  seed=0,
):
  """Writes a database to folder `root` and returns `root`.

  Args:
    root: folder.
    scenes: official names.
    version: version folder.
    keyframes: per scene, 2 Hz.
    objects: annotated in every keyframe.
    sweeps: camera images between two keyframes.
    images: also write an (empty) file for every camera image.
    seed: of the objects' places.
  """
  tables = {table: [] for table in devkit_tables.TABLES}
  for i, level in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"), 1):
    tables["visibility"].append({"token": str(i), "level": level, "description": level})
  for name in CATEGORIES:
    tables["category"].append({"token": _token("category", name), "name": name, "description": ""})
  for channel in (*database.CAMERAS, "LIDAR_TOP"):
    modality = "lidar" if channel == "LIDAR_TOP" else "camera"
    tables["sensor"].append(
      {"token": _token("sensor", channel), "channel": channel, "modality": modality}
    )
  logs = []
  for number, name in enumerate(scenes):
    logs.append(_token("log", name))
    _add_scene(
      tables, name, logs[-1], keyframes, objects, sweeps, np.random.default_rng((seed, number))
    )
  tables["map"].append(
    {
      "token": _token("map", ""),
      "log_tokens": logs,
      "category": "semantic_prior",
      "filename": "maps/town.png",
    }
  )
  (root / "maps").mkdir(parents=True)
  cv2.imwrite(str(root / "maps" / "town.png"), np.zeros((4, 4), np.uint8))
  (root / version).mkdir()
  for table, records in tables.items():
    (root / version / f"{table}.json").write_text(json.dumps(records))
  if images:
    for record in tables["sample_data"]:
      path = root / record["filename"]
      path.parent.mkdir(parents=True, exist_ok=True)
      path.touch()
  return root


def edit(root, table, change, version="v1.0-mini"):
  """Calls `change(records)` on one table and writes it back; returns what `change` returns."""
  path = root / version / f"{table}.json"
  records = json.loads(path.read_text())
  result = change(records)
  path.write_text(json.dumps(records))
  return result


def _token(*parts):
  return hashlib.md5("/".join(map(str, parts)).encode()).hexdigest()


def _add_scene(tables, scene, log, keyframes, objects, sweeps, rng):
  samples = [_token("sample", scene, k) for k in range(keyframes)]
  tables["log"].append(
    {
      "token": log,
      "logfile": "",
      "vehicle": "",
      "date_captured": "2018-08-01",
      "location": "town",
    }
  )
  tables["scene"].append(
    {
      "token": _token("scene", scene),
      "log_token": log,
      "nbr_samples": keyframes,
      "first_sample_token": samples[0],
      "last_sample_token": samples[-1],
      "name": scene,
      "description": "",
    }
  )
  for k, token in enumerate(samples):
    tables["sample"].append(
      {
        "token": token,
        "timestamp": START + 500_000 * k,
        "scene_token": _token("scene", scene),
        **_neighbours(samples, k),
      }
    )
  for number, channel in enumerate((*database.CAMERAS, "LIDAR_TOP")):
    _add_sensor(tables, scene, channel, number, samples, sweeps)
  _add_objects(tables, scene, samples, objects, rng)


def _neighbours(tokens, i):
  return {"prev": tokens[i - 1] if i else "", "next": tokens[i + 1] if i + 1 < len(tokens) else ""}


def _ego(seconds):
  """Returns (translation, rotation) lists: 6 m/s, turning left by 0.1 rad/s."""
  yaw = 0.1 * seconds
  position = [60 * np.sin(yaw) + 600, 60 * (1 - np.cos(yaw)) + 1600, 0.0]
  return position, geometry.yaw_quaternion(yaw).tolist()


def _add_sensor(tables, scene, channel, number, samples, sweeps):
  camera = channel != "LIDAR_TOP"
  calibration = _token("calibration", scene, channel)
  rotation = np.array([1.0, 0, 0, 0])
  if camera:  # the optical axis from +z to +x, then the yaw of the camera
    turn = geometry.yaw_quaternion(np.deg2rad(_YAWS[number]))
    rotation = geometry.multiply_quaternions(turn, np.array([0.5, -0.5, 0.5, -0.5]))
  tables["calibrated_sensor"].append(
    {
      "token": calibration,
      "sensor_token": _token("sensor", channel),
      "translation": [1.5, 0.0, 1.5],
      "rotation": rotation.tolist(),
      "camera_intrinsic": _INTRINSIC if camera else [],
    }
  )
  steps = sweeps + 1 if camera else 1
  count = steps * (len(samples) - 1) + 1
  tokens = [_token("data", scene, channel, i) for i in range(count)]
  for i, token in enumerate(tokens):
    keyframe = i % steps == 0
    offset = 5_000 * number * camera  # cameras fire one after the other
    time = START + offset + round(500_000 * i / steps)
    translation, rotation = _ego((time - START) / 1e6)
    tables["ego_pose"].append(
      {
        "token": token,  # nuScenes itself does this
        "timestamp": time,
        "translation": translation,
        "rotation": rotation,
      }
    )
    folder = "samples" if keyframe else "sweeps"
    extension = "jpg" if camera else "pcd.bin"
    tables["sample_data"].append(
      {
        "token": token,
        "sample_token": samples[-(-i // steps)],
        "ego_pose_token": token,
        "calibrated_sensor_token": calibration,
        "timestamp": time,
        "fileformat": extension.split(".")[0],
        "is_key_frame": keyframe,
        "height": IMAGE_SIZE[1] if camera else 0,
        "width": IMAGE_SIZE[0] if camera else 0,
        "filename": f"{folder}/{channel}/{scene}__{channel}__{time}.{extension}",
        **_neighbours(tokens, i),
      }
    )


def _add_objects(tables, scene, samples, objects, rng):
  seconds = 0.5 * np.arange(len(samples))
  for number in range(objects):
    category = CATEGORIES[number % len(CATEGORIES)]
    instance = _token("instance", scene, number)
    annotations = [_token("annotation", scene, number, k) for k in range(len(samples))]
    tables["instance"].append(
      {
        "token": instance,
        "category_token": _token("category", category),
        "nbr_annotations": len(samples),
        "first_annotation_token": annotations[0],
        "last_annotation_token": annotations[-1],
      }
    )
    middle, _ = _ego(seconds[-1] / 2)
    angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(12, 50)
    place = np.array([middle[0] + distance * np.cos(angle), middle[1] + distance * np.sin(angle)])
    velocity = rng.normal(0, 3, 2) * (number % 2)
    yaw, turn = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.2)
    size = _SIZES[number % len(_SIZES)]
    for k, token in enumerate(annotations):
      position = place + velocity * (seconds[k] - seconds[-1] / 2)
      tables["sample_annotation"].append(
        {
          "token": token,
          "sample_token": samples[k],
          "instance_token": instance,
          "visibility_token": str(1 + (number + k) % 4),
          "attribute_tokens": [],
          "translation": [*position.tolist(), size[2] / 2],
          "size": size.tolist(),
          "rotation": geometry.yaw_quaternion(yaw + turn * seconds[k]).tolist(),
          "num_lidar_pts": 1,
          "num_radar_pts": 0,
          **_neighbours(annotations, k),
        }
      )
