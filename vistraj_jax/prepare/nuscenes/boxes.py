"""nuScenes annotations -> 2-D boxes of one camera -> MOT rows at 12 fps: the pure parts.

Poses are x, y, z (m) and a quaternion w, x, y, z. Keyframes come at 2 Hz; with n frames from one to
the next (6 for 12 fps), keyframe k (from 0) is frame n k + 1.
"""

import numpy as np

from vistraj_jax.core import checks, geometry
from vistraj_jax.tracking import mot_files

_BEHIND, _OUTSIDE, _SMALL = "behind the camera", "outside the image", "too small"
# Why a projected box is dropped; the last one is for what else there is.
REASONS = (_BEHIND, _OUTSIDE, _SMALL)
_MIN_SIDE = 1.0  # px

# First prefix that fits.
_CATEGORIES = (
  ("vehicle.car", "car"),
  ("vehicle.truck", "truck"),
  ("vehicle.bus.bendy", "bus"),
  ("vehicle.bus.rigid", "bus"),
  ("vehicle.trailer", "trailer"),
  ("human.pedestrian.", "pedestrian"),
  ("vehicle.motorcycle", "motorcycle"),
  ("vehicle.bicycle", "bicycle"),
)
_DROPPED = (
  "vehicle.construction",
  "vehicle.emergency.",
  "animal",
  "movable_object.",
  "static_object.bicycle_rack",
)
# Pedestrians that the official tracking task drops.
_UNOFFICIAL = ("personal_mobility", "stroller", "wheelchair")


def class_id(category, official_pedestrians=False):
  """Returns the class id of a nuScenes category name, or -1 if it is dropped.

  `official_pedestrians` drops personal mobility, strollers and wheelchairs, as the official
  tracking task does.

  Raises:
    InputError: neither a tracked nor a known dropped category.
  """
  if official_pedestrians and category.rsplit(".", 1)[-1] in _UNOFFICIAL:
    return -1
  for prefix, name in _CATEGORIES:
    if category.startswith(prefix):
      return mot_files.CLASSES.index(name)
  checks.require(
    category.startswith(_DROPPED),
    f"category {category!r} is unknown; tracked are {[p for p, _ in _CATEGORIES]}, dropped are "
    f"{list(_DROPPED)}.",
  )
  return -1


def camera_boxes(
  translation, size_wlh, rotation, ego_pose, sensor_pose, intrinsic, image_size, clip="corners"
):
  """Projects global 3-D boxes into one camera.

  Args:
    translation: [N, 3], size_wlh: [N, 3], rotation: [N, 4], boxes in the global frame.
    ego_pose: [N, 7], ego in global at the time of the camera's image.
    sensor_pose: [7], camera in ego.
    intrinsic: [3, 3].
    image_size: (width, height), px.
    clip: rule of `geometry.visible_box`.

  Returns:
    [N, 4] left, top, width, height in px; nan where the box is not visible.
  """
  corners, depth = _in_camera(translation, size_wlh, rotation, ego_pose, sensor_pose)
  return geometry.visible_box(corners, depth, intrinsic, image_size, clip)


def camera_boxes_and_reasons(
  translation, size_wlh, rotation, ego_pose, sensor_pose, intrinsic, image_size, clip="corners"
):
  """Projects as `camera_boxes`, drops sides below 1 px, and says why a box is rejected.

  Returns:
    ([N, 4], nan where rejected; int [N], index into `REASONS`, -1 where the box is visible).
  """
  corners, depth = _in_camera(translation, size_wlh, rotation, ego_pose, sensor_pose)
  if clip == "corners":  # all corners have to be in front of the camera
    behind = (depth < 0.1) | (corners[..., 2] <= 0.1).any(-1)
  else:
    behind = (corners[..., 2] <= 0).all(-1)
  box = np.full((len(depth), 4), np.nan)
  front = np.flatnonzero(~behind)
  box[front] = geometry.visible_box(corners[front], depth[front], intrinsic, image_size, clip)
  seen = np.isfinite(box[:, 0])
  large = (box[:, 2:] >= _MIN_SIDE).all(-1)
  if clip == "corners":  # the rule itself drops small boxes
    points, corner_depth = geometry.project(corners, intrinsic)
    inside = ((points > 0) & (points < np.asarray(image_size))).all(-1) & (corner_depth > 1.0)
    seen = inside.any(-1)
  reason = np.select(
    [large, behind, ~seen], [-1, REASONS.index(_BEHIND), REASONS.index(_OUTSIDE)], len(REASONS) - 1
  )
  return np.where(large[:, None], box, np.nan), reason


def keyframes_to_frames(keyframe, track_id, box_xywh, classes, visibility, frames_per_keyframe=6):
  """Interpolates the keyframe boxes of one camera to all frames.

  Frames between neighbouring keyframes get boxes linear in left, top, width, height and the class
  of the earlier end. Where an object is missing in a keyframe its track has no rows there: nothing
  is drawn across a gap, nor before the first or after the last sighting. The visibility of a row
  is the smaller one of the sighting at or before it and the next sighting.

  Args:
    keyframe: int [N], from 0; track_id: int [N]; box_xywh: [N, 4] px; classes: int [N];
    visibility: [N].
    frames_per_keyframe: frames from one keyframe to the next; 1 adds nothing.

  Returns:
    (`mot_files.Table` sorted by frame, then id; bool [rows], True on annotated rows).
  """
  order = np.lexsort((keyframe, track_id))
  keyframe, track_id, classes, visibility = (
    np.asarray(a)[order] for a in (keyframe, track_id, classes, visibility)
  )
  box = np.asarray(box_xywh, np.float64)[order]
  same = np.diff(track_id) == 0
  lowest = visibility.copy()
  lowest[:-1][same] = np.minimum(visibility[:-1], visibility[1:])[same]
  first = np.flatnonzero(same & (np.diff(keyframe) == 1))
  second = first + 1
  steps = np.arange(1, frames_per_keyframe)
  weight = (steps / frames_per_keyframe)[:, None]
  between = box[first][:, None] * (1 - weight) + box[second][:, None] * weight
  count = len(steps)
  start = frames_per_keyframe * keyframe + 1
  table = mot_files.Table.of(
    frame=np.concatenate([start, (start[first][:, None] + steps).ravel()]),
    track_id=np.concatenate([track_id, np.repeat(track_id[first], count)]),
    box_xywh=np.concatenate([box, between.reshape(-1, 4)]),
    class_id=np.concatenate([classes, np.repeat(classes[first], count)]),
    visibility=np.concatenate([lowest, np.repeat(lowest[first], count)]),
  )
  is_keyframe = np.arange(len(table)) < len(box)
  order = np.lexsort((table.track_id, table.frame))
  return table.select(order), is_keyframe[order]


def dense_ids(instances):
  """Numbers instance tokens from 1 in order of first appearance: (int64 [N], {token: id})."""
  numbers = {}
  ids = [numbers.setdefault(token, len(numbers) + 1) for token in instances]
  return np.array(ids, np.int64), numbers


def _in_camera(translation, size_wlh, rotation, ego_pose, sensor_pose):
  """Returns (corners [N, 8, 3], depth of the centres [N]) in the camera frame, m."""
  corners = geometry.box_corners(translation, size_wlh, rotation)
  points = np.concatenate([corners, np.asarray(translation)[:, None]], 1)
  points = geometry.into_frame(points, ego_pose[:, :3], ego_pose[:, 3:])
  points = geometry.into_frame(points, sensor_pose[:3], sensor_pose[3:])
  return points[:, :8], points[:, 8, 2]
