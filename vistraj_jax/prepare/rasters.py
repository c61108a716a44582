"""LiDAR points and 3-D boxes as images: seen from above (BEV) and by a camera.

BEV images have forward (+x) up and left (+y) left: cell (row, column) covers the x below
x_max - row * resolution and the y below y_max - column * resolution. Points, boxes and masks share
this convention, so they lie on each other. Poses are those of `core.geometry`.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import checks, geometry

NEAR = 0.1  # m; nearer parts of a box are cut off before projection


@dataclasses.dataclass(frozen=True)
class Grid:
  """A square BEV grid around the ego vehicle.

  Attributes:
    reach: m from the centre to each side.
    resolution: m, side of a cell.
  """

  reach: float = 51.2
  resolution: float = 0.4

  def __post_init__(self):
    cells = 2 * self.reach / self.resolution
    checks.require(
      self.reach > 0 and self.resolution > 0 and abs(cells - round(cells)) < 1e-6,
      f"grid: {self.resolution} m does not divide {2 * self.reach} m; choose another resolution.",
    )

  @property
  def size(self):
    """Cells a side."""
    return round(2 * self.reach / self.resolution)


def pose_matrix(translation, rotation):
  """Returns float64 [4, 4], which maps points of the pose's frame to the frame it is given in."""
  matrix = np.eye(4)
  matrix[:3, :3] = geometry.rotation_matrix(rotation)
  matrix[:3, 3] = translation
  return matrix


def transform(matrix, points):
  """Applies [4, 4] to points [..., 3]."""
  return np.asarray(points, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def yaw(rotation):
  """Returns the heading [...] of quaternions [..., 4], rad, counter-clockwise from +x."""
  matrix = geometry.rotation_matrix(rotation)
  return np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])


def planar_into_frame(xy, translation, rotation):
  """Expresses points [..., 2] in the frame of a pose as if the vehicle stood level.

  The published trajectory code has its targets this way; on a slope they are off by centimetres.
  """
  matrix = geometry.rotation_matrix(rotation)[:2, :2]
  return (np.asarray(xy, np.float64) - np.asarray(translation)[:2]) @ matrix


def bev_corners(center, size_wlh, heading, grid):
  """Corners of boxes seen from above, in cells.

  Args:
    center: [N, 2 or more], x, y in the ego frame, m.
    size_wlh: [N, 3], m.
    heading: [N], rad in the ego frame.
    grid: `Grid`.

  Returns:
    int64 [N, 4, 2]: column, row of front left, front right, rear right, rear left, rounded half to
    even; not clipped, so that a box outside stays outside.
  """
  half_width, half_length = np.asarray(size_wlh, np.float64)[:, :2].T / 2
  along = half_length[:, None] * np.array([1, 1, -1, -1])
  left = half_width[:, None] * np.array([1, -1, -1, 1])
  cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
  center = np.asarray(center, np.float64)
  x = center[:, :1] + cos * along - sin * left
  y = center[:, 1:2] + sin * along + cos * left
  cells = (grid.reach - np.stack([y, x], -1)) / grid.resolution
  return np.round(cells).astype(np.int64)


def filled(corners, size):
  """Fills convex polygons: corners int [N, M, 2] (column, row) -> bool [N, height, width]."""
  import cv2

  height, width = size
  masks = np.zeros((len(corners), height, width), np.uint8)
  for mask, polygon in zip(masks, corners, strict=True):
    # cv2 draws coordinates of 16 bits; far outside is far enough.
    cv2.fillConvexPoly(mask, np.clip(polygon, -30000, 30000).astype(np.int32), 1)
  return masks.astype(bool)


def camera_masks(corners, intrinsic, size):
  """Outlines of 3-D boxes in a camera image.

  Args:
    corners: [N, 8, 3] in the camera frame, in the order of `geometry.box_corners`, m.
    intrinsic: [3, 3] for images of this size.
    size: (height, width).

  Returns:
    bool [N, height, width]; empty where a box is behind the camera or outside.
  """
  import cv2

  masks = np.zeros((len(corners), *size), bool)
  for mask, box in zip(masks, np.asarray(corners, np.float64), strict=True):
    points = _in_front(box)
    if len(points) >= 3:
      pixels, _ = geometry.project(points, intrinsic)
      hull = cv2.convexHull(np.clip(pixels.round(), -30000, 30000).astype(np.int32))
      mask[:] = filled([hull[:, 0]], size)[0]
  return masks


def depth_image(points, intrinsic, size):
  """Depth of the nearest point in each pixel.

  Args:
    points: [N, 3] in the camera frame, m; infinite ones and those behind are left out.
    intrinsic: [3, 3] for images of this size.
    size: (height, width).

  Returns:
    float32 [height, width], m; 0 where there is no point.
  """
  points = np.asarray(points, np.float64)
  points = points[np.isfinite(points).all(-1)]
  points = points[points[:, 2] > 0]
  pixels, depth = geometry.project(points, intrinsic)
  pixels = np.round(np.clip(pixels, -1e6, 1e6)).astype(np.int64)
  height, width = size
  inside = ((pixels >= 0) & (pixels < (width, height))).all(-1)
  image = np.full(height * width, np.inf, np.float32)
  cells = pixels[inside, 1] * width + pixels[inside, 0]
  np.minimum.at(image, cells, depth[inside].astype(np.float32))
  return np.where(np.isinf(image), 0, image).reshape(size)


def lidar_bev(points, grid, height_range=(-3.0, 5.0)):
  """Points seen from above.

  Args:
    points: [N, 4 or more]: x, y, z in the ego frame in m, intensity in [0, 1].
    grid: `Grid`.
    height_range: m; heights are clipped to it.

  Returns:
    float32 [4, size, size]: log(1 + count), mean height, greatest height (m), mean intensity.
    Where there is no point, the greatest height is the lower limit and the rest 0.
  """
  points = np.asarray(points, np.float64)
  n = grid.size
  cells = np.floor((points[:, :2] + grid.reach) / grid.resolution).astype(np.int64)
  inside = ((cells >= 0) & (cells < n)).all(-1)
  points, cells = points[inside], n - 1 - cells[inside]
  cells = cells[:, 0] * n + cells[:, 1]
  count = np.bincount(cells, minlength=n * n)
  some = np.maximum(count, 1)
  highest = np.full(n * n, -np.inf)
  np.maximum.at(highest, cells, points[:, 2])
  mean_height, mean_intensity = (
    np.bincount(cells, points[:, i], minlength=n * n) / some for i in (2, 3)
  )
  channels = (
    np.log1p(count),
    mean_height.clip(*height_range),
    highest.clip(*height_range),
    mean_intensity.clip(0, 1),
  )
  return np.stack(channels).reshape(4, n, n).astype(np.float32)


def join_sweeps(sweeps):
  """Brings LiDAR sweeps into the ego frame of the first.

  Args:
    sweeps: list of (points [N, 4]: x, y, z in the sensor frame and intensity; [4, 4] ego from
      sensor; [4, 4] global from ego at that time; seconds after the first sweep, 0 or less).

  Returns:
    float32 [sum N, 5]: x, y, z, intensity in [0, 1], seconds. Intensities beyond 1.5 are taken to
    be of 0..255.
  """
  to_first = np.linalg.inv(sweeps[0][2])
  out = []
  for points, ego_from_sensor, global_from_ego, seconds in sweeps:
    matrix = to_first @ global_from_ego @ ego_from_sensor
    intensity = np.asarray(points[:, 3:4], np.float64)
    if len(intensity) and intensity.max() > 1.5:
      intensity = intensity / 255
    moved = transform(matrix, points[:, :3])
    out.append(np.concatenate([moved, intensity, np.full_like(intensity, seconds)], 1))
  return np.concatenate(out).astype(np.float32)


# Edges of a box: pairs of corners that differ in one direction.
_RING = np.array([(0, 1), (1, 2), (2, 3), (3, 0)])
_EDGES = np.concatenate([_RING, _RING + 4, [(i, i + 4) for i in range(4)]])


def _in_front(box):
  """Corners of the part of a box [8, 3] deeper than NEAR."""
  start, end = box[_EDGES[:, 0]], box[_EDGES[:, 1]]
  crossing = (start[:, 2] > NEAR) != (end[:, 2] > NEAR)
  start, end = start[crossing], end[crossing]
  share = (NEAR - start[:, 2]) / (end[:, 2] - start[:, 2])
  return np.concatenate([box[box[:, 2] > NEAR], start + share[:, None] * (end - start)])
