"""Sensor files for the small nuScenes databases of `nuscenes_tables`: flat images, dotted boxes."""

import json

import numpy as np
import nuscenes_tables

from vistraj_jax.core import geometry
from vistraj_jax.data import images, point_clouds

VERSION = "v1.0-mini"
SCENES = ("scene-0061", "scene-0103")  # of mini_train and of mini_val
CHOICE = {
  **{"t_in": 3, "t_out": 3, "stride": 2, "objects": 2, "points": 300, "sweeps": 1, "seed": 4},
  **{"reach": 64.0, "resolution": 0.25, "image_size": (45, 80), "min_pixels": 2},
}


def write(root, keyframes=9):
  """Writes tables of two scenes and the files of their key frames; returns `root`.

  Every box is filled with 200 points. The sweep of key frame 1 of each scene is empty.
  """
  nuscenes_tables.write(root, SCENES, VERSION, keyframes=keyframes, objects=12, sweeps=0)
  tables = {
    name: json.loads((root / VERSION / f"{name}.json").read_text())
    for name in ("sample_data", "sample_annotation", "ego_pose", "calibrated_sensor", "sample")
  }
  by_token = {name: {row["token"]: row for row in rows} for name, rows in tables.items()}
  jpeg = images.encode(np.full((90, 160, 3), 128, np.uint8))
  rng = np.random.default_rng(0)
  for row in tables["sample_data"]:
    path = root / row["filename"]
    path.parent.mkdir(parents=True, exist_ok=True)
    if row["fileformat"] == "jpg":
      path.write_bytes(jpeg)
      continue
    sample = by_token["sample"][row["sample_token"]]
    points = np.zeros((0, 5))
    if sample["timestamp"] != nuscenes_tables.START + 500_000:
      xyz = np.concatenate(
        [
          geometry.out_of_frame(
            rng.uniform(-0.5, 0.5, (200, 3)) * np.array(box["size"])[[1, 0, 2]],
            box["translation"],
            box["rotation"],
          )
          for box in tables["sample_annotation"]
          if box["sample_token"] == sample["token"]
        ]
      )
      for table, key in (("ego_pose", "ego_pose_token"), ("calibrated_sensor",) * 2):
        key = key if key.endswith("_token") else f"{key}_token"
        pose = by_token[table][row[key]]
        xyz = geometry.into_frame(xyz, pose["translation"], pose["rotation"])
      points = np.concatenate([xyz, np.full((len(xyz), 2), 51.0)], 1)
    point_clouds.write_points(path, points)
  return root


def arguments(root, out, **changes):
  """Returns the command line of launch.prepare for these files."""
  found = ["nuscenes_clips", "--dataroot", str(root), "--version", VERSION, "--out", str(out)]
  for name, value in {**CHOICE, **changes}.items():
    values = value if isinstance(value, tuple) else (value,)
    found += [f"--{name}", *map(str, values)]
  return found


def data_config(root, mode="bev", **changes):
  """Returns config.data for these clips."""
  return {
    **{"pipeline": "xmem", "root": str(root), "mode": mode, "t_in": 3, "t_out": 3, "objects": 2},
    "points": 300,
    "image_size": (512, 512) if mode == "bev" else (45, 80),
    **changes,
  }
