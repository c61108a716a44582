"""Quaternions, moving between frames, corners of 3-D boxes, projection to clipped 2-D boxes.

Quaternions are w, x, y, z. Sizes of 3-D boxes are width, length, height in m; a box at rest looks
along +x (length), with +y to its left (width) and +z up. A pose (translation, rotation) maps
points of its own frame to the frame it is given in. Camera frames look along +z with +x right and
+y down. All functions are vectorised over leading axes.
"""

import numpy as np

# Corners in units of half (length, width, height): the front four, then the rear four.
_CORNERS = np.array(
  [
    (1, 1, 1),
    (1, -1, 1),
    (1, -1, -1),
    (1, 1, -1),
    (-1, 1, 1),
    (-1, -1, 1),
    (-1, -1, -1),
    (-1, 1, -1),
  ],
  np.float64,
)
_FIRST, _SECOND = np.triu_indices(8, 1)  # all segments between corners


def rotation_matrix(quaternion):
  """Returns [..., 3, 3] for quaternions [..., 4] of any length but zero."""
  q = np.asarray(quaternion, np.float64)
  w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
  rows = (
    (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
    (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
    (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
  )
  return np.stack([np.stack(row, -1) for row in rows], -2)


def multiply_quaternions(first, second):
  """Returns the rotation `second`, then `first`: [..., 4]."""
  a, b, c, d = np.moveaxis(np.asarray(first, np.float64), -1, 0)
  w, x, y, z = np.moveaxis(np.asarray(second, np.float64), -1, 0)
  return np.stack(
    [
      a * w - b * x - c * y - d * z,
      a * x + b * w + c * z - d * y,
      a * y - b * z + c * w + d * x,
      a * z + b * y - c * x + d * w,
    ],
    -1,
  )


def slerp(first, second, weight):
  """Turns from rotation `first` [..., 4] to `second` at even speed, the short way: [..., 4].

  Args:
    first, second: quaternions of any length but zero; the result has length 1.
    weight: [...], 0 gives `first`, 1 `second`.
  """
  first, second = (
    q / np.linalg.norm(q, axis=-1, keepdims=True)
    for q in (np.asarray(first, np.float64), np.asarray(second, np.float64))
  )
  weight = np.asarray(weight, np.float64)[..., None]
  cosine = (first * second).sum(-1, keepdims=True)
  second = np.where(cosine < 0, -second, second)  # both stand for the same rotation
  angle = np.arccos(np.abs(cosine).clip(0, 1))
  sine = np.sin(angle)
  small = sine < 1e-6  # there the sphere is flat
  scale = np.where(small, 1.0, sine)
  start = np.where(small, 1 - weight, np.sin((1 - weight) * angle) / scale)
  end = np.where(small, weight, np.sin(weight * angle) / scale)
  return start * first + end * second


def yaw_quaternion(yaw):
  """Returns [..., 4], the rotation about +z by `yaw` [...] rad, counter-clockwise from above."""
  half = np.asarray(yaw, np.float64) / 2
  zero = np.zeros_like(half)
  return np.stack([np.cos(half), zero, zero, np.sin(half)], -1)


def into_frame(points, translation, rotation):
  """Expresses points [..., N, 3] in the frame of the pose ([..., 3], quaternion [..., 4])."""
  moved = np.asarray(points, np.float64) - np.asarray(translation)[..., None, :]
  return moved @ rotation_matrix(rotation)


def out_of_frame(points, translation, rotation):
  """Expresses points [..., N, 3] of the pose's frame in the frame the pose is given in."""
  turned = np.asarray(points, np.float64) @ np.swapaxes(rotation_matrix(rotation), -1, -2)
  return turned + np.asarray(translation)[..., None, :]


def box_corners(center, size_wlh, rotation):
  """Returns the corners [..., 8, 3] of 3-D boxes: center [..., 3], size [..., 3], [..., 4]."""
  size_lwh = np.asarray(size_wlh, np.float64)[..., [1, 0, 2]]
  return out_of_frame(_CORNERS * size_lwh[..., None, :] / 2, center, rotation)


def project(points, intrinsic):
  """Projects camera-frame points [..., 3] by [3, 3]; returns px [..., 2] and depth [...], m.

  Points at depth 0 give inf or nan.
  """
  points = np.asarray(points, np.float64)
  flat = points @ np.asarray(intrinsic, np.float64).T
  with np.errstate(divide="ignore", invalid="ignore"):
    return flat[..., :2] / flat[..., 2:], points[..., 2]


def visible_box(corners, center_depth, intrinsic, image_size, clip="corners"):
  """Projects 3-D boxes to 2-D boxes clipped to the image.

  "corners" bounds the 8 projected corners; a box is rejected unless its centre and all corners are
  deeper than 0.1 m, a corner deeper than 1 m lies inside the image and both sides are 1 px or
  more: the rule of the TrackSSM nuScenes conversion. "hull" cuts the convex hull of the corners in
  front of the camera with the image and bounds what is left: the rule of the nuScenes devkit's
  2-D export; it also keeps boxes that fill the image or reach behind the camera.

  Args:
    corners: [N, 8, 3], camera frame, m.
    center_depth: [N], m.
    intrinsic: [3, 3].
    image_size: (width, height), px.
    clip: "corners" or "hull".

  Returns:
    float64 [N, 4] left, top, width, height in px; nan where rejected.
  """
  if clip not in ("corners", "hull"):
    raise ValueError(f"clip: {clip!r} is not allowed; choose 'corners' or 'hull'.")
  points, depth = project(corners, intrinsic)
  limit = np.asarray(image_size, np.float64)
  if clip == "corners":
    inside = ((points > 0) & (points < limit)).all(-1) & (depth > 1.0)
    good = (np.asarray(center_depth) >= 0.1) & (depth > 0.1).all(-1) & inside.any(-1)
    low = np.clip(points.min(-2), 0, limit)
    high = np.clip(points.max(-2), 0, limit)
    good &= (high - low >= 1.0).all(-1)
  else:
    low, high = _hull_in_image(points, depth > 0, limit)
    good = (high > low).all(-1)
  return np.where(good[:, None], np.concatenate([low, high - low], -1), np.nan)


def xywh_to_cxcywh(boxes):
  """Turns left, top, width, height [..., 4] into centre x, centre y, width, height."""
  return np.concatenate([boxes[..., :2] + boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def cxcywh_to_xywh(boxes):
  """Turns centre x, centre y, width, height [..., 4] into left, top, width, height."""
  return np.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., 2:]], -1)


def _hull_in_image(points, valid, limit):
  """Bounds of (convex hull of the valid points) within the image: low, high [N, 2].

  Every edge of the hull is a segment between two points, and no segment leaves the hull. So the
  extremes are ends of the segments cut to the image, or image corners inside the hull.
  """
  points = np.where(valid[..., None], points, 0.0)
  start = points[:, _FIRST]
  step = points[:, _SECOND] - start
  # A segment is inside for parameters from `enter` to `leave` (Liang and Barsky).
  with np.errstate(divide="ignore", invalid="ignore"):
    to_low, to_high = -start / step, (limit - start) / step
  outside = (step == 0) & ((start < 0) | (start > limit))
  enter = np.where(step == 0, 0.0, np.minimum(to_low, to_high)).max(-1).clip(0, 1)
  leave = np.where(step == 0, 1.0, np.maximum(to_low, to_high)).min(-1).clip(0, 1)
  cut = (enter <= leave) & ~outside.any(-1) & valid[:, _FIRST] & valid[:, _SECOND]
  ends = np.concatenate([start + enter[..., None] * step, start + leave[..., None] * step], 1)
  # Parameters that were clipped to 0 or 1 do not put a segment beyond an edge inside.
  inside_image = ((ends >= -1e-6) & (ends <= limit + 1e-6)).all(-1)
  ends = np.clip(ends, 0, limit)
  used = np.concatenate([cut, cut], 1) & inside_image
  image_corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * limit
  covered = _in_hull(points, valid, image_corners)
  ends = np.concatenate([ends, np.broadcast_to(image_corners, (len(points), 4, 2))], 1)
  used = np.concatenate([used, covered], 1)[..., None]
  return np.where(used, ends, np.inf).min(1), np.where(used, ends, -np.inf).max(1)


def _in_hull(points, valid, targets):
  """Whether targets [M, 2] lie in the hull of the valid points [N, 8, 2]: bool [N, M].

  Seen from inside, no gap between the directions to the points is wider than half a turn.
  """
  offset = points[:, None] - targets[:, None]  # [N, M, 8, 2]
  angle = np.arctan2(offset[..., 1], offset[..., 0])
  some_valid = np.argmax(valid, 1)
  fallback = np.take_along_axis(angle, some_valid[:, None, None], 2)
  angle = np.sort(np.where(valid[:, None], angle, fallback), -1)
  gap = np.diff(np.concatenate([angle, angle[..., :1] + 2 * np.pi], -1), axis=-1)
  return (gap.max(-1) <= np.pi) & valid.any(1)[:, None]
