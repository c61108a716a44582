"""Index rows of a scene -> clip records: points, frames, depth images and masks of key frames.

What a key frame has is the same in all clips that hold it, and made once.
"""

import functools
import json
import zlib

import numpy as np

from vistraj_jax.core import checks, files, geometry
from vistraj_jax.data import clip_arrays, example, images, point_clouds, xmem
from vistraj_jax.prepare import rasters
from vistraj_jax.prepare.nuscenes import clip_rows
from vistraj_jax.prepare.nuscenes import scene as scenes


def convert(scene_path, rows_path, split, choice, dataroot):
  """Makes the clips of one scene, a unit of `prepare.runner`.

  Args:
    scene_path: file of the scene.
    rows_path: file for the index rows, JSON lines.
    split: name.
    choice: `clip_rows.Choice`.
    dataroot: folder of the database.

  Returns:
    (iterator of serialized records; {"scene", "counts" of `clip_rows.rows`, "categories" {name:
    clips}, "sweeps": key frames whose points were read, "empty_sweeps": those without a point,
    "points": mean points in reach, "kept": mean points kept}).

  Raises:
    InputError: a sensor file is missing or damaged.
  """
  scene = scenes.load(scene_path)
  rows, counts = clip_rows.rows(scene, split, choice)
  files.write_text(rows_path, "".join(f"{json.dumps(row)}\n" for row in rows))
  clips = Clips(scene, choice, dataroot)
  keyframes = sorted({row["first_keyframe"] + t for row in rows for t in range(choice.t_in)})
  found = [clips.points(k) for k in keyframes] if "bev" in choice.inputs else []
  categories = [row["category"] for row in rows]
  result = {
    "scene": scene.name,
    "counts": counts,
    "categories": {name: categories.count(name) for name in sorted(set(categories))},
    "sweeps": len(found),
    "empty_sweeps": sum(in_reach == 0 for _, in_reach in found),
    "points": float(np.mean([in_reach for _, in_reach in found])) if found else 0.0,
    "kept": float(np.mean([len(kept) for kept, _ in found])) if found else 0.0,
  }
  return map(clips.record, rows), result


class Clips:
  """Makes the records of a scene; key frames are read once."""

  def __init__(self, scene, choice, dataroot):
    self.scene, self.choice, self.dataroot = scene, choice, dataroot
    self.agents = clip_rows.Agents(scene, choice)
    self.points = functools.cache(self._points)
    self._camera = functools.cache(self._read_camera)
    # Windows follow each other in time: what a few of them need is held.
    self._drawn = functools.lru_cache(64)(self._draw)

  def record(self, row):
    """Returns the serialized record of one index row."""
    choice, start = self.choice, row["first_keyframe"]
    observed = range(start, start + choice.t_in)
    pose = np.array(row["ego_pose"])
    objects = np.full(choice.objects, -1)
    objects[: len(row["objects"])] = np.searchsorted(self.agents.tokens, row["objects"])
    annotated = (objects[:, None] >= 0) & (self.agents.row[objects][:, list(observed)] >= 0)
    values = {
      **{name: row[name] for name in xmem.STRINGS},
      "schema_version": row["schema_version"],
      "object_valid": objects >= 0,
      "mask_valid": annotated.T.ravel(),
      "future_xy": row["target"]["future_xy"],
      "future_valid": np.ones(choice.t_out),
      "past_xy": row["past_xy"],
      "past_valid": row["past_valid"],
      "ego_delta": ego_delta(pose),
      "anchor_pose": row["anchor_pose"],
      "points": [],
      "bev_masks": [],
      "bev_hw": (choice.grid.size,) * 2,
      "camera_hw": choice.image_size,
      "camera": row.get("cam", ""),
      **dict.fromkeys(("frames", "depth", "camera_masks"), ()),
      "intrinsics": np.zeros((0, 9)),
      "cam_from_ego": np.zeros((0, 16)),
    }
    if "bev" in choice.inputs:
      values["points"] = [clip_arrays.pack_points(self.points(k)[0]) for k in observed]
      values["bev_masks"] = [self._pack_masks("bev", k, objects) for k in observed]
    if "camera" in choice.inputs:
      found = [self._camera(row["cam"], k) for k in observed]
      matrix = clip_rows.intrinsic(self.scene.cameras[row["cam"]], choice.image_size)
      values |= {
        "frames": [jpeg for jpeg, _, _ in found],
        "depth": [depth for _, depth, _ in found],
        "cam_from_ego": np.stack([pose.ravel() for _, _, pose in found]),
        "intrinsics": np.tile(matrix.ravel(), (len(found), 1)),
        "camera_masks": [self._pack_masks(row["cam"], k, objects) for k in observed],
      }
    return example.encode(values, xmem.SPEC)

  def _pack_masks(self, view, k, objects):
    """Packs the masks of agents `objects` int [K] at key frame k, -1 for none."""
    drawn, bits, shape = self._drawn(view, k)
    masks = np.zeros((len(objects), *shape), bool)
    for mask, agent in zip(masks, objects, strict=True):
      for at in np.flatnonzero(drawn == agent):  # none where it is not annotated
        mask[:] = np.unpackbits(bits[at], count=mask.size).reshape(shape)
    return clip_arrays.pack_masks(masks)

  def _draw(self, view, k):
    """Returns (agents [N], their masks as bits uint8 [N, M], (height, width)) of key frame k."""
    drawn, masks = self.agents.masks(view, k)
    return drawn, np.packbits(masks.reshape(len(masks), -1), axis=1), masks.shape[1:]

  def _points(self, k):
    """Returns (points kept [N, 5], number in reach) of key frame k, in random order."""
    choice = self.choice
    sweeps = clip_rows.joined_sweeps(self.scene.lidar, self.agents.sweep[k], choice)
    points = self._sweeps(sweeps)
    reach = (choice.reach, choice.reach, clip_arrays.POINT_REACH)
    points = points[(np.abs(points[:, :3]) < reach).all(-1)]
    seed = (choice.seed, zlib.crc32(self.scene.name.encode()), k)
    order = np.random.default_rng(seed).permutation(len(points))
    return points[order[: choice.points]], len(points)

  def _read_camera(self, name, k):
    """Returns (JPEG bytes, packed depth, [4, 4] camera from ego at the sweep) of key frame k."""
    camera, size = self.scene.cameras[name], self.choice.image_size
    image = np.flatnonzero(camera.is_keyframe)[k]
    path = self.dataroot / str(camera.file[image])
    checks.require(path.is_file(), f"{path}: no such image; complete the folder.")
    jpeg = images.encode(images.decode(path.read_bytes(), size, str(path)))
    ego = self.agents.ego_pose[k]
    global_from_camera = _matrix(camera.ego_pose[image]) @ _matrix(camera.sensor_pose)
    pose = np.linalg.inv(global_from_camera) @ _matrix(ego)
    points = rasters.transform(pose, self._sweeps(self.agents.sweep[k : k + 1])[:, :3])
    depth = rasters.depth_image(points, clip_rows.intrinsic(camera, size), size)
    return jpeg, clip_arrays.pack_depth(depth), pose

  def _sweeps(self, sweeps):
    """Returns sweeps int [N] in the ego frame of the first: float32 [M, 5]."""
    lidar = self.scene.lidar
    sensor = _matrix(lidar.sensor_pose)
    return rasters.join_sweeps(
      [
        (
          point_clouds.read_points(self.dataroot / str(lidar.file[i]))[:, :4],
          sensor,
          _matrix(lidar.ego_pose[i]),
          lidar.time[i] - lidar.time[sweeps[0]],
        )
        for i in sweeps
      ]
    )


def ego_delta(pose):
  """Expresses ego poses [T, 7] in the frame of the last: float64 [T, 3], dx, dy (m), dyaw (rad)."""
  xy = geometry.into_frame(pose[:, :3], pose[-1, :3], pose[-1, 3:])[:, :2]
  turn = rasters.yaw(pose[:, 3:]) - rasters.yaw(pose[-1, 3:])
  return np.concatenate([xy, np.angle(np.exp(1j * turn))[:, None]], -1)


def _matrix(pose):
  return rasters.pose_matrix(pose[:3], pose[3:])
