"""Camera images of a drive, and which share of each agent the cameras really see.

Painter's algorithm: the ground first, then houses, signal posts and agents from the far ones to
the near ones. Their footprints are convex and apart, so a line between two of them says which can
hide the other. Within an agent, parts are painted from far to near. The same order painted in
agent numbers instead of colours counts what is hidden.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import geometry
from vistraj_jax.prepare.world import bodies, cameras, painter, scenery

_SIGHT = 160.0  # m; nothing beyond is painted
_AGENT_SIGHT = 130.0  # m
_GROUND_SIGHT = 110.0  # m
_COARSE = 2  # agent numbers are counted on an image that many times smaller
_RINGS = np.array([300.0, 160, 100, 65, 40, 22, 10])  # m, half sides of the squares of asphalt
_SQUARE = np.array([(-1.0, -1), (1, -1), (1, 1), (-1, 1)])
_SHADOW = 0.55  # brightness of asphalt in it


@dataclasses.dataclass(frozen=True)
class Moment:
  """One time of the drive, in the global frame: what the six cameras share.

  Attributes:
    ego_translation: [3]; ego_rotation: [4].
    center: [A, 3]; yaw: [A]; size_wlh: [A, 3], boxes of the agents; 0 is the ego car.
    polygons: [P, 8, 3]; normals: [P, 3]; colors: [P, 3], lit; agent, part: int [P].
    part_agent: int [K]; part_center: [K, 3]; part_yaw: [K]; part_half: [K, 3], half the extent of
      the parts of all agents.
    footprints: [A, 4, 2] of the agents; shadows: [n, 4, 2].
    lamps: [L, 3, 3], colours of the posts' lamps.
  """

  ego_translation: np.ndarray
  ego_rotation: np.ndarray
  center: np.ndarray
  yaw: np.ndarray
  size_wlh: np.ndarray
  polygons: np.ndarray
  normals: np.ndarray
  colors: np.ndarray
  agent: np.ndarray
  part: np.ndarray
  part_agent: np.ndarray
  part_center: np.ndarray
  part_yaw: np.ndarray
  part_half: np.ndarray
  footprints: np.ndarray
  shadows: np.ndarray
  lamps: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Layers:
  """What one camera paints, far to near: N polygons in OpenCV's fixed point with their colour,
  agent number (0: none) and row of the wall (-1: none) that then gets its windows."""

  polygons: list
  colors: np.ndarray
  number: np.ndarray
  wall: np.ndarray


class Renderer:
  """Paints the images of one `driving.Drive`; `houses` are its `scenery.Houses`."""

  def __init__(self, drive, way=None):
    """`way` [N, 2] are the places the ego car comes to; by default those of the drive."""
    if way is None:
      way = drive.at(np.linspace(0, drive.duration, 20)).ego_translation[:, :2]
    self.drive = drive
    self._ground = scenery.ground(drive.town, way)
    self.houses = scenery.houses(drive.town, drive.buildings, way)
    self._posts = scenery.posts(drive.town, way)
    parked = drive.speeds.max(0) == 0
    self._bodies = _concatenate(
      [
        bodies.body(name, drive.size_wlh[i], i, parked[i])
        for i, name in enumerate(drive.class_names)
      ]
    )

  def moment(self, state, index, time):
    """Returns the `Moment` of row `index` of a `driving.State`; `time` in s sets the signals."""
    center, yaw, size = state.center[index], state.yaw[index], self.drive.size_wlh
    near = np.linalg.norm(center - state.ego_translation[index], axis=-1) < _AGENT_SIGHT
    near[0] = False  # the ego car does not see itself
    local = self._bodies
    keep = near[local["agent"]]
    agent, owner = local["agent"][keep], local["part_agent"]
    turn = geometry.rotation_matrix(geometry.yaw_quaternion(yaw)).swapaxes(1, 2)
    foot = center - size[:, 2:] / 2 * (0, 0, 1)
    normals = (local["normals"][keep][:, None] @ turn[agent])[:, 0]
    shadows = _footprints(center[near], yaw[near], size[near] * 1.06 + (0.1, 0.1, 0))
    return Moment(
      ego_translation=state.ego_translation[index],
      ego_rotation=state.ego_rotation[index],
      center=center,
      yaw=yaw,
      size_wlh=size,
      polygons=local["polygons"][keep] @ turn[agent] + foot[agent][:, None],
      normals=normals,
      colors=painter.lit(local["colors"][keep], normals),
      agent=agent,
      part=local["part"][keep],
      part_agent=owner,
      part_center=(local["part_center"][:, None] @ turn[owner])[:, 0] + foot[owner],
      part_yaw=yaw[owner],
      part_half=local["part_half"],
      footprints=_footprints(center, yaw, size),
      shadows=shadows - 0.18 * painter.SUN[:2] * size[near][:, None, 2:],
      lamps=scenery.lamp_colors(self.drive.green(self._posts.junctions, self._posts.axis, time)),
    )

  def image(self, moment, camera):
    """Returns the image of a `cameras.Camera`: uint8 [900, 1600, 3], blue, green, red."""
    import cv2

    eye = painter.Eye(camera, moment.ego_translation, moment.ego_rotation)
    image = eye.sky()
    self._paint_ground(image, eye, moment)
    layers = self._layers(eye, moment)
    windows = self._windows(eye, np.unique(layers.wall[layers.wall >= 0]))
    for polygon, color, wall in zip(
      layers.polygons, layers.colors.tolist(), layers.wall.tolist(), strict=True
    ):
      cv2.fillConvexPoly(image, polygon, color, cv2.LINE_AA, painter.SHIFT)
      for group, shade in windows.get(wall, ()):
        cv2.fillPoly(image, group, shade, cv2.LINE_AA, painter.SHIFT)
    return image

  def numbers(self, moment, camera, scale=_COARSE):
    """Paints agent numbers.

    Returns:
      int32 [900 / scale, 1600 / scale], 0 where no agent is seen; and int [A], how many pixels
      each agent would have if nothing hid it.
    """
    import cv2

    eye = painter.Eye(camera, moment.ego_translation, moment.ego_rotation, scale)
    image = np.zeros(eye.size[::-1], np.int32)
    layers = self._layers(eye, moment)
    alone = np.zeros(len(self.drive.class_names), int)
    edges = np.flatnonzero(np.diff(layers.number, prepend=-1, append=-1))
    for first, last in zip(edges[:-1], edges[1:], strict=True):
      number = int(layers.number[first])
      for polygon in layers.polygons[first:last]:
        cv2.fillConvexPoly(image, polygon, number, cv2.LINE_8, painter.SHIFT)
      if number:
        points = np.concatenate(layers.polygons[first:last]) >> painter.SHIFT
        (x0, y0), (x1, y1) = (points.min(0) - 1).clip(0), (points.max(0) + 3).clip(0)
        alone[number] = np.count_nonzero(image[y0:y1, x0:x1] == number)
    return image, alone

  def visibility(self, moment):
    """Returns what all cameras together see of the agents.

    Returns:
      int [A], pixels; float [A], share of the pixels within the images that nothing hides (0 for
      an agent outside all images).
    """
    seen = np.zeros(len(self.drive.class_names), int)
    alone = np.zeros_like(seen)
    for camera in cameras.RIG:
      image, unhidden = self.numbers(moment, camera)
      seen += np.bincount(image.ravel(), minlength=len(seen))
      alone += unhidden
    seen[0] = 0  # no agent
    return seen * _COARSE**2, seen / np.maximum(alone, 1)

  def _layers(self, eye, moment):
    walls, posts = self.houses.walls, self._posts
    footprints = np.concatenate([self.houses.footprints, posts.footprints, moment.footprints])
    first_post, first_agent = len(walls), len(walls) + len(posts.footprints)
    shown = np.flatnonzero(eye.may_see(footprints, _SIGHT))
    shown = shown[shown != first_agent]
    rank = np.full(len(footprints), -1)
    rank[shown[painter.far_to_near(footprints[shown], eye.position[:2])]] = np.arange(len(shown))

    wall_normals = np.tile(scenery.WALL_NORMALS, (len(walls), 1))
    wall_rank = np.repeat(rank[:first_post], 4)
    wall = np.flatnonzero((wall_rank >= 0) & _faces(walls.reshape(-1, 4, 3), wall_normals, eye))
    post_rank = np.repeat(rank[first_post:first_agent], posts.polygons.shape[1])
    post_normals = posts.normals.reshape(-1, 3)
    post_polygons = posts.polygons.reshape(-1, bodies.CORNERS, 3)
    post = np.flatnonzero((post_rank >= 0) & _faces(post_polygons, post_normals, eye))
    agent_rank = rank[first_agent:][moment.agent]
    agent = np.flatnonzero((agent_rank >= 0) & _faces(moment.polygons, moment.normals, eye))

    wall_polygons = walls.reshape(-1, 4, 3)[wall]
    padding = np.repeat(wall_polygons[:, -1:], bodies.CORNERS - 4, 1)
    polygons = np.concatenate(
      [
        np.concatenate([wall_polygons, padding], 1),
        post_polygons[post],
        moment.polygons[agent],
      ]
    )
    post_colors = posts.colors.copy()
    post_colors[:, -3:] = moment.lamps
    colors = np.concatenate(
      [
        self.houses.colors.reshape(-1, 3)[wall],
        post_colors.reshape(-1, 3)[post],
        moment.colors[agent],
      ]
    )
    none = np.zeros(len(wall) + len(post))
    away = np.concatenate([none, _part_distances(eye, moment, moment.part[agent])])
    rank = np.concatenate([wall_rank[wall], post_rank[post], agent_rank[agent]])
    number = np.concatenate([none.astype(int), moment.agent[agent]])
    wall = np.concatenate([wall, np.full(len(post) + len(agent), -1)])

    points, seen, cut = eye.pictures(polygons)
    order = np.lexsort((np.arange(len(rank)), -away, rank))
    order = order[seen[order]]
    distance = np.linalg.norm(polygons[order, :4].mean(1) - eye.position, axis=-1)
    return _Layers(
      polygons=[cut[k] if k in cut else points[k] for k in order.tolist()],
      colors=painter.hazed(colors[order], distance),
      number=number[order],
      wall=wall[order],
    )

  def _windows(self, eye, walls):
    """What to paint on walls: {row of the wall: [(polygons, color)]}."""
    if not len(walls):
      return {}
    houses = self.houses
    decals = [houses.decals[k] for k in walls]
    starts = np.cumsum([0] + [len(d) for d in decals])
    points, seen, _ = eye.pictures(np.concatenate(decals))
    middle = houses.walls.reshape(-1, 4, 3)[walls].mean(1)
    distance = np.linalg.norm(middle - eye.position, axis=-1)
    windows = {}
    for k, wall in enumerate(walls.tolist()):
      ends, colors = houses.groups[wall]
      colors = painter.hazed(colors, distance[k : k + 1]).tolist()
      found = []
      for first, last, color in zip(ends[:-1], ends[1:], colors, strict=True):
        rows = slice(starts[k] + first, starts[k] + last)
        found.append((points[rows][seen[rows]], color))
      windows[wall] = [(group, color) for group, color in found if len(group)]
    return windows

  def _paint_ground(self, image, eye, moment):
    import cv2

    rings = eye.position[:2] + _SQUARE * _RINGS[:, None, None]
    ground = self._ground
    near = eye.may_see(ground.quads, _GROUND_SIGHT)
    quads = np.concatenate([rings, ground.quads[near], moment.shadows])
    distance = np.linalg.norm(quads.mean(1) - eye.position[:2], axis=-1)
    distance[: len(_RINGS)] = _RINGS
    asphalt = scenery.ASPHALT[None]
    colors = np.concatenate(
      [
        np.repeat(asphalt, len(_RINGS), 0),
        ground.colors[near],
        np.repeat(_SHADOW * asphalt, len(moment.shadows), 0),
      ]
    )
    colors = painter.hazed(colors, distance).tolist()
    flat = np.concatenate([quads, np.zeros((*quads.shape[:2], 1))], -1)
    points, seen, cut = eye.pictures(flat)
    for k in np.flatnonzero(seen).tolist():
      polygon = cut[k] if k in cut else points[k]
      cv2.fillConvexPoly(image, polygon, colors[k], cv2.LINE_AA, painter.SHIFT)


def _faces(polygons, normals, eye):
  """Whether the outer side of polygons [N, K, 3] is towards the eye: bool [N]."""
  return ((eye.position - polygons[:, 0]) * normals).sum(-1) > 0


def _part_distances(eye, moment, part):
  """Distance [N] from the eye to the nearest point of each of the parts [N]."""
  offset = eye.position - moment.part_center[part]
  cos, sin = np.cos(moment.part_yaw[part]), np.sin(moment.part_yaw[part])
  along = cos * offset[:, 0] + sin * offset[:, 1]
  across = cos * offset[:, 1] - sin * offset[:, 0]
  local = np.abs(np.stack([along, across, offset[:, 2]], -1))
  return np.linalg.norm(np.maximum(local - moment.part_half[part], 0), axis=-1)


def _footprints(center, yaw, size_wlh):
  """Corners [A, 4, 2] of agents on the ground, anti-clockwise."""
  forward = np.stack([np.cos(yaw), np.sin(yaw)], -1) * size_wlh[:, 1:2] / 2
  left = np.stack([-np.sin(yaw), np.cos(yaw)], -1) * size_wlh[:, :1] / 2
  corners = (forward - left, forward + left, left - forward, -forward - left)
  return center[:, None, :2] + np.stack(corners, 1)


def _concatenate(shapes):
  """The polygons and parts of all bodies in a row, with the agent they belong to."""
  counts = np.array([len(b.low) for b in shapes])
  starts = np.cumsum(counts) - counts
  polygons = np.concatenate([b.polygons for b in shapes])
  low = np.concatenate([b.low for b in shapes])
  high = np.concatenate([b.high for b in shapes])
  return {
    "polygons": polygons,
    "normals": painter.normals(polygons),
    "colors": np.concatenate([b.colors for b in shapes]),
    "agent": np.repeat(np.arange(len(shapes)), [len(b.polygons) for b in shapes]),
    "part": np.concatenate([b.part + s for b, s in zip(shapes, starts, strict=True)]),
    "part_agent": np.repeat(np.arange(len(shapes)), counts),
    "part_center": (low + high) / 2,
    "part_half": (high - low) / 2,
  }
