"""Projection of polygons into one camera, the order in which to paint them, light and haze.

Global frame and camera frame as in `cameras`; colours are blue, green, red, 0..255.
"""

import numpy as np

from vistraj_jax.core import geometry

NEAR = 0.3  # m; polygons are cut there
SHIFT = 4  # fractional bits of OpenCV's pixel coordinates
HAZE = np.array([226.0, 218, 208])
SUN = np.array([0.42, -0.55, 0.72]) / np.linalg.norm([0.42, -0.55, 0.72])
_ZENITH = np.array([214.0, 160, 104])
_CLEAR_AIR = 260.0  # m after which 63 % of the light is haze


class Eye:
  """One camera of the ego car at one time.

  Attributes:
    position: [3], m, global frame.
    size: (width, height), px.
  """

  def __init__(self, camera, ego_translation, ego_rotation, scale=1):
    """`scale` divides the size of the image."""
    ego = geometry.rotation_matrix(ego_rotation)
    self.position = ego @ np.array(camera.translation) + ego_translation
    self.size = tuple(side // scale for side in camera.image_size)
    self._turn = ego @ geometry.rotation_matrix(camera.rotation)
    self._focal = np.diag(camera.intrinsic)[:2] / scale
    self._middle = camera.intrinsic[:2, 2] / scale
    self._half_angle = camera.image_size[0] / 2 / camera.intrinsic[0, 0]  # its tangent

  def may_see(self, footprints, sight):
    """Whether ground polygons [N, K, 2] reach into the picture within `sight` m: bool [N]."""
    offset = footprints.transpose(2, 1, 0) - self.position[:2, None, None]  # [2, K, N]
    ahead = self._turn[:2, 2] / np.linalg.norm(self._turn[:2, 2])
    depth = ahead[0] * offset[0] + ahead[1] * offset[1]
    across = ahead[1] * offset[0] - ahead[0] * offset[1]
    limit = (self._half_angle + 0.05) * depth + 0.5
    beside = (across > limit).all(0) | (across < -limit).all(0)
    close = np.square(offset).sum(0).min(0) < sight**2
    return close & (depth > NEAR).any(0) & ~beside

  def pictures(self, polygons):
    """Projects global polygons [N, K, 3].

    Returns:
      int32 [N, K, 2] in OpenCV's fixed point; bool [N], whether a polygon touches the picture;
      {row: int32 [n, 2]} of those that were cut at the near plane.
    """
    local = (polygons - self.position) @ self._turn
    x, y, depth = np.ascontiguousarray(local.transpose(2, 1, 0))  # [K, N] each
    scale = 1 / np.maximum(depth, 1e-3)
    x = x * scale * self._focal[0] + self._middle[0]
    y = y * scale * self._focal[1] + self._middle[1]
    front = depth > NEAR
    whole = front.all(0)
    left, right, top, bottom = x.min(0), x.max(0), y.min(0), y.max(0)
    seen = whole & (right > 0) & (bottom > 0) & (left < self.size[0]) & (top < self.size[1])
    seen &= np.minimum(right - left, bottom - top) > 0.3
    cut = {}
    for row in np.flatnonzero(front.any(0) & ~whole).tolist():
      part = cut_at(local[row], NEAR)
      part = part[:, :2] / part[:, 2:] * self._focal + self._middle
      if (part.max(0) > 0).all() and (part.min(0) < self.size).all():
        cut[row] = _fixed(part)
        seen[row] = True
    return np.ascontiguousarray(_fixed(np.stack([x, y])).transpose(2, 1, 0)), seen, cut

  def sky(self):
    """Returns the sky above the horizon and haze below: uint8 [height, width, 3]."""
    import cv2

    width, height = self.size
    image = np.empty((height, width, 3), np.uint8)
    ray = (np.arange(height) - self._middle[1]) / self._focal[1]
    up = (self._turn[2, 1] * ray + self._turn[2, 2]) / np.sqrt(1 + ray**2)
    share = np.clip(up / 0.38, 0, 1)[:, None] ** 0.7
    colors = np.round(HAZE * (1 - share) + _ZENITH * share)
    # Rectangles of equal colour: much faster than copying rows of three bytes.
    edges = np.flatnonzero(np.abs(np.diff(colors, axis=0)).sum(1)) + 1
    edges = [0, *edges.tolist(), height]
    for first, last in zip(edges[:-1], edges[1:], strict=True):
      cv2.rectangle(image, (0, first), (width - 1, last - 1), colors[first].tolist(), cv2.FILLED)
    return image


def far_to_near(footprints, eye):
  """Orders convex footprints that are apart so that none comes after one it may hide.

  Where a side of one footprint has all of the other beyond it, the one on the eye's side of that
  line cannot be hidden by the other.

  Args:
    footprints: [N, 4, 2], anti-clockwise.
    eye: [2].

  Returns:
    int [N]. Where that is impossible (three that hide each other in turn), the farthest is first.
  """
  side = np.roll(footprints, -1, 1) - footprints
  outward = np.stack([side[..., 1], -side[..., 0]], -1)  # [N, 4, 2]
  reach = (outward * footprints).sum(-1)  # [N, 4]
  across = outward.reshape(-1, 2) @ footprints.swapaxes(0, 1).reshape(-1, 2).T
  across = across.reshape(*reach.shape, footprints.shape[1], -1).min(2)  # [N, 4, M]
  apart = across >= reach[..., None] - 1e-6
  beyond = (outward @ eye >= reach)[..., None]
  # cannot[i, j]: i cannot hide j.
  cannot = (apart & beyond).any(1) | (apart & ~beyond).any(1).T
  hides = ~cannot & cannot.T
  np.fill_diagonal(hides, False)
  distance = np.linalg.norm(footprints - eye, axis=-1).min(-1)
  waits = hides.sum(1)  # how many must be painted before
  order = []
  left = np.ones(len(footprints), bool)
  for _ in range(len(footprints)):
    among = np.flatnonzero(left & (waits == 0))
    if not len(among):
      among = np.flatnonzero(left)
    pick = among[np.argmax(distance[among])]
    order.append(pick)
    left[pick] = False
    waits -= hides[:, pick]
  return np.array(order, int)


def cut_at(points, near):
  """Returns the part of a camera-frame polygon [K, 3] with depth above `near`: [n, 3]."""
  result = []
  for a, b in zip(points, np.roll(points, -1, 0), strict=True):
    if a[2] > near:
      result.append(a)
    if (a[2] > near) != (b[2] > near):
      result.append(a + (b - a) * (near - a[2]) / (b[2] - a[2]))
  return np.array(result)


def normals(polygons):
  """Returns unit normals [N, 3] of [N, K, 3]; outward for anti-clockwise points."""
  normal = np.cross(polygons[:, 1] - polygons[:, 0], polygons[:, 2] - polygons[:, 1])
  return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


def lit(colors, directions):
  """Returns colors [N, 3] of faces with unit normals [N, 3] under the sun and the sky."""
  sun = np.maximum(directions @ SUN, 0)
  return colors * (0.66 + 0.28 * sun + 0.12 * np.maximum(directions[:, 2], 0))[:, None]


def hazed(colors, distance):
  """Returns colors [N, 3] seen from `distance` [N] m."""
  share = np.exp(-distance / _CLEAR_AIR)[:, None]
  return np.minimum(colors, 255) * share + HAZE * (1 - share)


def _fixed(points):
  """OpenCV's fixed-point coordinates, in which the centre of a pixel is whole."""
  return np.rint((points - 0.5) * (1 << SHIFT)).clip(-(2**30), 2**30).astype(np.int32)
