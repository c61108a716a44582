"""Tiny clips for tests: a rectangle at constant velocity, seen from above, as prepared records."""

import json

import numpy as np

from configs import xmem as config_file
from vistraj_jax.data import clip_arrays, example, images, records, xmem

SIZE, REACH, T_IN, T_OUT = 64, 12.8, 4, 3
RESOLUTION = 2 * REACH / SIZE
_HALF = np.array([2.0, 1.4])  # m, of the rectangle


def clip(seed):
  """Returns {name: array} of one clip: past_xy, future_xy (m), masks [T, H, W], points."""
  rng = np.random.default_rng(seed)
  step = rng.uniform(-2, 2, 2)
  xy = rng.uniform(-4, 4, 2) + step * (np.arange(T_IN + T_OUT) - T_IN + 1)[:, None]
  centres = REACH - (np.arange(SIZE) + 0.5) * RESOLUTION  # x of rows, y of columns
  grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), -1)
  masks = (np.abs(grid - xy[:T_IN, None, None]) < _HALF).all(-1)
  own = rng.uniform(-1, 1, (T_IN, 30, 2)) * _HALF + xy[:T_IN, None]
  around = np.broadcast_to(rng.uniform(-REACH, REACH, (1, 20, 2)), (T_IN, 20, 2))
  points = np.zeros((T_IN, 50, 5))
  points[..., :2] = np.concatenate([own, around], 1)
  points[:, :30, 2:4] = 1.0, 0.8
  return {"past_xy": xy[:T_IN], "future_xy": xy[T_IN:], "masks": masks, "points": points}


def record(name, seed):
  """Returns the bytes of one clip's record; the camera sees the same picture from above."""
  made = clip(seed)
  rng = np.random.default_rng(seed + 1000)
  ground = np.broadcast_to(rng.integers(60, 120, (1, 1, 1, 3)), (T_IN, SIZE, SIZE, 3))
  frames = np.where(made["masks"][..., None], rng.integers(160, 255, 3), ground).astype(np.uint8)
  packed = [clip_arrays.pack_masks(mask[None]) for mask in made["masks"]]
  values = {
    "sample_id": name,
    "scene": "scene",
    "instance_token": f"agent{name}",
    "sample_token": f"frame{name}",
    "category": ("vehicle.car", "human.pedestrian.adult")[seed % 2],
    "schema_version": xmem.SCHEMA_VERSION,
    "object_valid": [1.0],
    "mask_valid": np.ones(T_IN),
    "future_xy": made["future_xy"],
    "future_valid": np.ones(T_OUT),
    "past_xy": made["past_xy"],
    "past_valid": np.ones(T_IN),
    "ego_delta": np.zeros((T_IN, 3)),
    "anchor_pose": [500.0, 300, 1, np.cos(0.3), 0, 0, np.sin(0.3)],
    "points": [clip_arrays.pack_points(p) for p in made["points"]],
    "bev_masks": packed,
    "bev_hw": [SIZE, SIZE],
    "frames": [images.encode(frame) for frame in frames],
    "depth": [clip_arrays.pack_depth(np.full((SIZE, SIZE), 20.0)) for _ in frames],
    "camera_masks": packed,
    "camera_hw": [SIZE, SIZE],
    "camera": "CAM_FRONT",
    "intrinsics": np.tile(np.eye(3).ravel(), (T_IN, 1)),
    "cam_from_ego": np.tile(np.eye(4).ravel(), (T_IN, 1)),
  }
  return example.encode(values, xmem.SPEC), {name: values[name] for name in xmem.STRINGS}


def write(root, splits=(("train", 8), ("val", 6))):
  """Writes clips as launch.prepare does; returns the folder."""
  for offset, (split, count) in enumerate(splits):
    made = [record(f"{split}{k}", 100 * offset + k) for k in range(count)]
    path = records.shard_path(root, xmem.NAME, split, 0, 1)
    records.write_records(path, [payload for payload, _ in made])
    rows = "".join(json.dumps(row) + "\n" for _, row in made)
    xmem.rows_path(root, split).write_text(rows)
  settings = dict(t_in=T_IN, t_out=T_OUT, objects=1, inputs=("bev", "camera"), points=50)
  settings |= dict(reach=REACH, resolution=RESOLUTION, image_size=(SIZE, SIZE))
  (root / xmem.STATISTICS).write_text(json.dumps({"settings": settings}))
  return root


def config(root, variant="smoke", **changes):
  """Returns the smoke config on `root`; changes are "a.b.c"=value."""
  c = config_file.get_config(variant)
  c.data.update(root=str(root), t_in=T_IN, t_out=T_OUT, points=50)
  if "pillars" in c.model:
    c.model.pillars.reach = REACH
  for name, value in changes.items():
    *path, last = name.split(".")
    node = c
    for part in path:
      node = node[part]
    node[last] = value
  c.lock()
  return c
