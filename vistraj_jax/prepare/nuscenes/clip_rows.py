"""A nuScenes scene -> index rows of clips: which agent, which key frames, which files.

A row says all that a clip is made of, and nothing that a machine or a run would change. An agent
gives a row for every window of key frames in which it can be seen and its future is known; where
not, the first reason is counted. Positions are in the ego frame of the anchor, the LiDAR sweep of
the last observed key frame.
"""

import collections
import dataclasses

import numpy as np

from vistraj_jax.core import geometry
from vistraj_jax.data import depth, xmem
from vistraj_jax.prepare import rasters

INPUTS = ("bev", "camera")
KEYFRAME_RATE = 2  # Hz
ANCHORS = ("lidar", "published")
REASONS = ("no agent", "future unknown", "too slow", "hidden at first", "hidden too often")
_SPEED_STEP = 4  # future key frames, over which speed is measured


@dataclasses.dataclass(frozen=True)
class Choice:
  """Which clips are made; the fields that `data.xmem.Layout` has too mean the same.

  Attributes:
    t_in, t_out: observed and future key frames.
    stride: key frames from one window to the next.
    objects: K, the target and others in view.
    inputs: of `INPUTS`; the target has to be visible in each of them.
    cameras: names, of which the one that sees the target best is taken.
    image_size: (height, width) of stored frames, px.
    reach, resolution: of the bird's-eye masks, m.
    points: most LiDAR points kept of a key frame.
    sweeps: LiDAR sweeps joined for a key frame, itself included.
    max_sweep_age: s.
    min_pixels: of a mask that counts as visible.
    max_hidden: observed key frames in which the target may be hidden.
    min_speed: m/s, of the target over the next 2 s.
    anchor: of `ANCHORS`: "lidar", the ego pose at the last observed sweep; or "published", that at
      the image of the first camera, as if the ego car stood level (the original project's rule,
      centimetres off on slopes).
    seed: of which points are kept.
  """

  t_in: int
  t_out: int
  stride: int
  objects: int
  inputs: tuple
  cameras: tuple
  image_size: tuple
  reach: float
  resolution: float
  points: int
  sweeps: int
  max_sweep_age: float
  min_pixels: int
  max_hidden: int
  min_speed: float
  anchor: str
  seed: int

  @property
  def grid(self):
    """`rasters.Grid` of the bird's-eye masks."""
    return rasters.Grid(self.reach, self.resolution)


class Agents:
  """The agents of a scene: boxes by (agent, key frame), poses, masks.

  Attributes:
    tokens: str [A], sorted.
    category: list of A.
    row: int64 [A, K], the annotation in the scene, -1 where there is none.
    sweep: int64 [K], the LiDAR sweep of each key frame.
    ego_pose: float64 [K, 7], at the sweeps.
    anchor_pose: float64 [K, 7], in whose frame positions are.
  """

  def __init__(self, scene, choice):
    self.scene, self._choice = scene, choice
    self.sweep = np.flatnonzero(scene.lidar.is_keyframe)
    self.ego_pose = self.anchor_pose = scene.lidar.ego_pose[self.sweep]
    if choice.anchor == "published":
      camera = scene.cameras[choice.cameras[0]]
      self.anchor_pose = camera.ego_pose[camera.is_keyframe]
    self.tokens, agent = np.unique(scene.instance, return_inverse=True)
    self.row = np.full((len(self.tokens), len(scene.time)), -1)
    self.row[agent, scene.keyframe] = np.arange(len(agent))
    self.category = [str(scene.category[row[row >= 0][0]]) for row in self.row]

  def positions(self, agent, anchor):
    """Returns (xy float64 [K, 2] in the ego frame of key frame `anchor`, valid bool [K])."""
    rows, pose = self.row[agent], self.anchor_pose[anchor]
    places = self.scene.translation[rows]
    if self._choice.anchor == "published":
      xy = rasters.planar_into_frame(places[:, :2], pose[:3], pose[3:])
    else:
      xy = geometry.into_frame(places, pose[:3], pose[3:])[:, :2]
    return np.where((rows >= 0)[:, None], xy, 0.0), rows >= 0

  def masks(self, view, keyframe):
    """Draws all annotations of a key frame.

    In a camera's image, nearer boxes hide farther ones; from above, boxes do not hide each other.

    Args:
      view: "bev" or the name of a camera.
      keyframe: from 0.

    Returns:
      (int64 [N], the agents annotated there; bool [N, H, W]).
    """
    agents = np.flatnonzero(self.row[:, keyframe] >= 0)
    rows = self.row[agents, keyframe]
    if view == "bev":
      return agents, self._bev_masks(rows, keyframe, self._choice.grid)
    return agents, self._camera_masks(rows, keyframe, view, self._choice.image_size)

  def _bev_masks(self, rows, keyframe, grid):
    scene, pose = self.scene, self.ego_pose[keyframe]
    center = geometry.into_frame(scene.translation[rows], pose[:3], pose[3:])
    heading = rasters.yaw(scene.rotation[rows]) - rasters.yaw(pose[3:])
    corners = rasters.bev_corners(center, scene.size_wlh[rows], heading, grid)
    return rasters.filled(corners, (grid.size, grid.size))

  def _camera_masks(self, rows, keyframe, name, size):
    scene, camera = self.scene, self.scene.cameras[name]
    ego = camera.ego_pose[np.flatnonzero(camera.is_keyframe)[keyframe]]
    corners = geometry.box_corners(
      scene.translation[rows], scene.size_wlh[rows], scene.rotation[rows]
    )
    for pose in (ego, camera.sensor_pose):
      corners = geometry.into_frame(corners, pose[:3], pose[3:])
    masks = rasters.camera_masks(corners, intrinsic(camera, size), size)
    free = np.ones(size, bool)
    for nearest in np.argsort(np.linalg.norm(corners.mean(1), axis=-1), kind="stable"):
      masks[nearest] &= free
      free &= ~masks[nearest]
    return masks


def rows(scene, split, choice):
  """Chooses the clips of a scene.

  Args:
    scene: `Scene` with its LiDAR.
    split: name, written into the rows.
    choice: `Choice`.

  Returns:
    (list of rows, JSON-able dictionaries; {reason: (window, agent) pairs rejected, "windows":
    windows, "clips": rows}).
  """
  agents = Agents(scene, choice)
  pixels = _pixels(agents, choice)
  counts = collections.Counter(dict.fromkeys(("windows", *REASONS, "clips"), 0))
  found = []
  for start in range(0, len(scene.time) - choice.t_in - choice.t_out + 1, choice.stride):
    counts["windows"] += 1
    observed = slice(start, start + choice.t_in)
    for agent in np.flatnonzero(agents.row[:, observed.stop - 1] >= 0).tolist():
      camera = _best_camera(pixels, agent, observed, choice)
      seen = _seen(pixels, camera, observed, choice)
      reason = _reason(agents, agent, start, seen, choice)
      counts[reason or "clips"] += 1
      if not reason:
        objects = [agent, *_others(agents, agent, start, seen)][: choice.objects]
        found.append(_row(agents, objects, start, split, camera, choice))
  return found, dict(counts)


def intrinsic(camera, size):
  """Returns float64 [3, 3] of a `Camera` whose images are resized to (height, width) `size`."""
  return depth.scaled_intrinsic(camera.intrinsic, camera.image_size[::-1], size)


def joined_sweeps(lidar, sweep, choice):
  """Returns the sweeps that are joined to one, itself first: int64 [N]."""
  earlier = np.arange(sweep, max(sweep - choice.sweeps, -1), -1)
  return earlier[lidar.time[sweep] - lidar.time[earlier] <= choice.max_sweep_age]


def is_agent(category):
  """Whether a category is a vehicle or a human."""
  return category.startswith(("vehicle.", "human."))


def _pixels(agents, choice):
  """Counts pixels of all agents: {"bev" or camera: int64 [A, K]}, 0 where not annotated."""
  of_agent = np.array([is_agent(category) for category in agents.category], bool)
  views = ["bev"] if "bev" in choice.inputs else []
  views += choice.cameras if "camera" in choice.inputs else ()
  pixels = {}
  for view in views:
    pixels[view] = np.zeros(agents.row.shape, np.int64)
    for k in range(agents.row.shape[1]):
      drawn, masks = agents.masks(view, k)
      pixels[view][drawn, k] = masks.sum((1, 2)) * of_agent[drawn]
  return pixels


def _seen(pixels, camera, observed, choice):
  """Returns bool [A, t_in]: visible in all inputs."""
  names = [name for name in ("bev", camera) if name in pixels]
  return np.all([pixels[name][:, observed] >= choice.min_pixels for name in names], 0)


def _best_camera(pixels, agent, observed, choice):
  """Returns the camera that sees an agent at first, most often, largest; "" without cameras."""

  def quality(name):
    count = pixels[name][agent, observed]
    seen = count >= choice.min_pixels
    return bool(seen[0]), int(seen.sum()), int(count.sum())

  names = [name for name in pixels if name != "bev"]
  return max(names, key=quality, default="")


def _reason(agents, agent, start, seen, choice):
  """Returns why an agent gives no clip, of `REASONS`, or ""."""
  anchor = start + choice.t_in - 1
  future = agents.row[agent, anchor + 1 : anchor + 1 + choice.t_out]
  if not is_agent(agents.category[agent]):
    return "no agent"
  if (future < 0).any():
    return "future unknown"
  step = min(_SPEED_STEP, choice.t_out)
  xy = agents.positions(agent, anchor)[0]
  moved = np.linalg.norm(xy[anchor + step] - xy[anchor])
  if moved * KEYFRAME_RATE / step < choice.min_speed:
    return "too slow"
  if not seen[agent, 0]:
    return "hidden at first"
  if (~seen[agent]).sum() > choice.max_hidden:
    return "hidden too often"
  return ""


def _others(agents, target, start, seen):
  """Returns the agents that are seen at first, those seen longest first, then the nearest."""
  translation = agents.scene.translation[agents.row[:, start]]
  away = np.linalg.norm(translation - translation[target], axis=-1)
  candidates = [agent for agent in np.flatnonzero(seen[:, 0]).tolist() if agent != target]
  return sorted(candidates, key=lambda agent: (-int(seen[agent].sum()), away[agent]))


def _row(agents, objects, start, split, camera, choice):
  scene, lidar = agents.scene, agents.scene.lidar
  observed = range(start, start + choice.t_in)
  anchor = observed[-1]
  future = range(anchor + 1, anchor + 1 + choice.t_out)
  token = str(agents.tokens[objects[0]])
  xy, known = agents.positions(objects[0], anchor)
  xy = xy.round(6)
  sweeps = [joined_sweeps(lidar, agents.sweep[k], choice) for k in observed]
  row = {
    "schema_version": xmem.SCHEMA_VERSION,
    "sample_id": f"{token}_{scene.sample[anchor]}",
    "split": split,
    "scene": scene.name,
    "category": agents.category[objects[0]],
    "instance_token": token,
    "sample_token": str(scene.sample[anchor]),
    "first_keyframe": start,
    "start_sample_token": str(scene.sample[start]),
    "obs_sample_tokens": scene.sample[list(observed)].tolist(),
    "fut_sample_tokens": scene.sample[list(future)].tolist(),
    "target": {
      "agent_id": token,
      "last_xy": xy[anchor].tolist(),
      "future_xy": xy[list(future)].tolist(),
      "frame": "ego_xy",
    },
    "past_xy": xy[list(observed)].tolist(),
    "past_valid": known[list(observed)].tolist(),
    "objects": agents.tokens[objects].tolist(),
    "ego_pose": agents.ego_pose[list(observed)].tolist(),
    "anchor_pose": agents.anchor_pose[anchor].tolist(),
    "lidar": {
      "sensor": "LIDAR_TOP",
      "keyframe_sd_tokens": lidar.token[agents.sweep[list(observed)]].tolist(),
      "sd_tokens": [lidar.token[found].tolist() for found in sweeps],
      "pc_paths": [lidar.file[found].tolist() for found in sweeps],
      "dt_s": [(lidar.time[found] - lidar.time[found[0]]).round(6).tolist() for found in sweeps],
      "nsweeps": choice.sweeps,
      "max_sweep_age_s": choice.max_sweep_age,
    },
    "context": {"anchor_lidar_sd_token": str(lidar.token[agents.sweep[anchor]])},
  }
  if camera:
    view = scene.cameras[camera]
    image = np.flatnonzero(view.is_keyframe)[list(observed)]
    row |= {
      "cam": camera,
      "cam_sd_tokens": view.token[image].tolist(),
      "img_paths": view.file[image].tolist(),
      "intrinsics": [view.intrinsic.tolist()] * choice.t_in,
    }
    row["context"]["t0_cam_sd_token"] = str(view.token[image[0]])
  return row
