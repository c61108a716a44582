"""Pictures of the manipulation world: table, squares, blocks, hand and arm, by painter's algorithm.

Frame of the robot: origin on the table under its base, x ahead, y left, z up, m. Colours are red,
green, blue. Blocks and what of the fingers is not above them stand apart, so their footprints say
which can hide which; what is above all blocks is hidden by none of them for a camera that is
higher still.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import geometry
from vistraj_jax.prepare.world import cameras, painter
from vistraj_jax.prepare.world import manipulation_physics as physics

BLOCKS = {"red": (204, 52, 44), "blue": (44, 88, 200), "yellow": (232, 200, 48)}
SQUARES = {"green": (52, 160, 84), "purple": (142, 66, 168)}
SQUARE = 0.09  # m, side
SHOULDER = 0.30  # m, its height
WRIST = 0.16  # m above the fingers' tips
LINK = 0.37  # m, upper arm and forearm
TABLE = ((0.08, 0.80), (-0.46, 0.46))  # m
_SCALE = 10.0  # the painter's near plane is made for streets
_AHEAD = (0.5, -0.5, 0.5, -0.5)  # quaternion of a camera that looks along +x
_FIELD = {"agentview": 38.0, "eye_in_hand": 75.0}  # degrees
_PLANKS = 9
_WALL, _FLOOR = np.array([196.0, 200, 204]), np.array([122.0, 116, 112])
_WOOD = np.array([188.0, 158, 122])
_METAL, _JOINT, _PALM, _RUBBER = (214, 216, 220), (92, 96, 104), (70, 72, 78), (40, 40, 44)
_SHADOW = 0.72
# Faces of the cube from -1 to 1, anti-clockwise from outside: +x -x +y -y +z -z.
_FACES = np.array(
  [
    [(1, -1, -1), (1, 1, -1), (1, 1, 1), (1, -1, 1)],
    [(-1, 1, -1), (-1, -1, -1), (-1, -1, 1), (-1, 1, 1)],
    [(1, 1, -1), (-1, 1, -1), (-1, 1, 1), (1, 1, 1)],
    [(-1, -1, -1), (1, -1, -1), (1, -1, 1), (-1, -1, 1)],
    [(-1, -1, 1), (1, -1, 1), (1, 1, 1), (-1, 1, 1)],
    [(-1, 1, -1), (1, 1, -1), (1, -1, -1), (-1, -1, -1)],
  ],
  np.float64,
)
_NORMALS = _FACES.mean(1)
_SQUARE = np.array([(-1.0, -1), (1, -1), (1, 1), (-1, 1)])


@dataclasses.dataclass(frozen=True)
class Looks:
  """What differs between scenes: planks [_PLANKS, 3] colours, light (share of full brightness)."""

  planks: np.ndarray
  light: float

  @classmethod
  def draw(cls, rng):
    """Draws them by a NumPy generator."""
    wood = _WOOD * rng.uniform(0.75, 1.1) * rng.uniform(0.94, 1.06, 3)
    return cls(wood * rng.uniform(0.93, 1.05, (_PLANKS, 1)), float(rng.uniform(0.85, 1.05)))


@dataclasses.dataclass(frozen=True)
class Viewpoint:
  """A camera: position [3] m, rotation quaternion [4] (+z ahead, +x right, +y down), name."""

  position: np.ndarray
  rotation: np.ndarray
  name: str = "agentview"

  def intrinsic(self, size):
    """Returns [3, 3] for square images of `size` px."""
    focal = size / 2 / np.tan(np.deg2rad(_FIELD[self.name]) / 2)
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def looking(position, target, roll=0.0, name="agentview"):
  """Returns the `Viewpoint` at `position` [3] that looks at `target` [3], rolled by rad."""
  x, y, z = np.asarray(target, np.float64) - position
  down = np.arctan2(-z, np.hypot(x, y))
  rotation = geometry.yaw_quaternion(np.arctan2(y, x))
  for turn in (
    (np.cos(down / 2), 0, np.sin(down / 2), 0),
    (np.cos(roll / 2), np.sin(roll / 2), 0, 0),
  ):
    rotation = geometry.multiply_quaternions(rotation, turn)
  rotation = geometry.multiply_quaternions(rotation, _AHEAD)
  return Viewpoint(np.asarray(position, np.float64), rotation, name)


def hand_camera(hand):
  """Returns the `Viewpoint` of the camera on the hand: hand [5] x, y, z, yaw, width."""
  forward = np.array([np.cos(hand[3]), np.sin(hand[3]), 0])
  tip = np.asarray(hand[:3])
  position = tip - 0.07 * forward + (0, 0, 0.13)
  return looking(position, tip + 0.04 * forward, name="eye_in_hand")


def arm_points(hand):
  """Returns [3, 3]: shoulder, elbow (bent upward) and wrist for hand [5]."""
  shoulder = np.array([0, 0, SHOULDER])
  wrist = hand[:3] + np.array([0, 0, WRIST])
  way = wrist - shoulder
  upward = np.cross(np.cross(way, [0, 0, 1.0]), way)
  upward /= np.linalg.norm(upward)
  height = np.sqrt(max(LINK**2 - way @ way / 4, 0.0))
  return np.stack([shoulder, shoulder + way / 2 + height * upward, wrist])


class Painter:
  """Paints one scene: `size` px, `Looks`, squares [S, 2] m, colours of squares and blocks."""

  def __init__(self, size, looks, squares, square_colours, block_colours):
    self._size, self._looks = size, looks
    self._ground, self._ground_colours = _ground(looks, squares, square_colours)
    self._block_colours = block_colours
    self._still = None  # (viewpoint, its ground)

  def frame(self, viewpoint, hand, blocks):
    """Returns uint8 [size, size, 3] for hand [5] and blocks [K, 3] x, y, yaw."""
    intrinsic = viewpoint.intrinsic(self._size)
    camera = cameras.Camera("", (0, 0, 0), viewpoint.rotation, intrinsic, (self._size,) * 2)
    eye = painter.Eye(camera, _SCALE * viewpoint.position, (1, 0, 0, 0))
    if self._still is None or self._still[0] is not viewpoint:
      self._still = (viewpoint, self._empty(eye))
    image = self._still[1].copy()
    self._cast_shadows(image, eye, hand, blocks)
    boxes, colours = self._boxes(viewpoint, hand, blocks)
    polygons, normals = _faces(boxes)
    towards = ((viewpoint.position - polygons[:, 0]) * normals).sum(-1) > 0
    shades = painter.lit(np.repeat(colours, 6, 0)[towards], normals[towards]) * self._looks.light
    _paint(image, eye, polygons[towards], np.minimum(shades, 255))
    return image

  def _empty(self, eye):
    """Returns the room with the table and its squares."""
    image = np.empty((self._size, self._size, 3), np.uint8)
    image[:] = _WALL * self._looks.light
    _paint(image, eye, self._ground, self._ground_colours * self._looks.light)
    return image

  def _cast_shadows(self, image, eye, hand, blocks):
    import cv2

    flat = [physics.corners(blocks) - 0.35 * physics.BLOCK_HEIGHT * painter.SUN[:2]]
    flat.append(_palm_outline(hand)[None] - 0.35 * hand[2] * painter.SUN[:2])
    flat = np.concatenate(flat)
    flat = np.concatenate([flat, np.full((*flat.shape[:2], 1), 1e-3)], -1)
    points, seen, cut = eye.pictures(_SCALE * flat)
    mask = np.zeros(image.shape[:2], np.uint8)
    for k in np.flatnonzero(seen).tolist():
      cv2.fillConvexPoly(mask, cut[k] if k in cut else points[k], 1, cv2.LINE_8, painter.SHIFT)
    shaded = mask > 0
    image[shaded] = (image[shaded] * _SHADOW).astype(np.uint8)

  def _boxes(self, viewpoint, hand, blocks):
    """Boxes in painting order: (centres [N, 3], halves [N, 3], rotations [N, 3, 3]), colours."""
    eye = viewpoint.position[:2]
    height, radius = physics.BLOCK_HEIGHT, physics.FINGER
    tips = physics.fingers(hand)
    standing = tips if hand[2] < height else tips[:0]  # fingers between the blocks
    upright = _upright(np.append(blocks[:, 2], [hand[3]] * 2))[: len(blocks) + len(standing)]
    places = np.concatenate([blocks[:, :2], standing])
    half = np.full((len(places), 3), physics.BLOCK / 2)
    bottom = np.zeros(len(places))
    half[len(blocks) :], bottom[len(blocks) :] = radius, hand[2]
    half[:, 2] = (height - bottom) / 2
    centre = np.concatenate([places, (bottom[:, None] + height) / 2], 1)
    outline = (_SQUARE * half[:, None, :2]) @ upright[:, :2, :2].swapaxes(1, 2) + places[:, None]
    order = painter.far_to_near(outline, eye)
    colours = np.array([*self._block_colours, _RUBBER, _RUBBER], np.float64)[order]
    low_boxes = (centre[order], half[order], upright[order])

    top, start = hand[2] + 0.07, max(hand[2], height)
    far_first = np.argsort(-np.linalg.norm(tips - eye, axis=1))
    finger_centre = np.concatenate([tips[far_first], [[(start + top) / 2]] * 2], 1)
    finger_half = [[radius, radius, (top - start) / 2]] * 2
    finger_boxes = (finger_centre, finger_half, _upright(hand[[3, 3]]))
    if viewpoint.name == "eye_in_hand":  # hand and arm are behind the camera
      groups, paints = [low_boxes, finger_boxes], [colours, [_RUBBER] * 2]
    else:
      shoulder, elbow, wrist = arm_points(hand)
      column = ([[0, 0, SHOULDER / 2]], [[0.06, 0.06, SHOULDER / 2]], np.eye(3)[None])
      palm = ([[*hand[:2], top + 0.03]], [[0.022, 0.04, 0.03]], _upright(hand[3:4]))
      stub = (
        [[*hand[:2], (top + 0.06 + wrist[2]) / 2]],
        [[0.02, 0.02, 0.022]],
        _upright(hand[3:4]),
      )
      upper, fore = _link(shoulder, elbow, 0.04), _link(elbow, wrist, 0.03)
      groups = [column, low_boxes, upper, finger_boxes, palm, stub, fore]
      paints = [[_JOINT], colours, [_METAL], [_RUBBER] * 2, [_PALM], [_JOINT], [_METAL]]
    boxes = tuple(np.concatenate([np.asarray(g[k], np.float64) for g in groups]) for k in range(3))
    return boxes, np.concatenate([np.asarray(p, np.float64) for p in paints])


def _paint(image, eye, polygons, colours):
  import cv2

  points, seen, cut = eye.pictures(_SCALE * polygons)
  colours = colours.tolist()
  for k in np.flatnonzero(seen).tolist():
    polygon = cut[k] if k in cut else points[k]
    cv2.fillConvexPoly(image, polygon, colours[k], cv2.LINE_AA, painter.SHIFT)


def _faces(boxes):
  """Faces [6 N, 4, 3] of N boxes (centres, halves, rotations) and their normals [6 N, 3]."""
  centre, half, rotation = boxes
  turned = rotation.swapaxes(1, 2)[:, None]
  polygons = (_FACES * half[:, None, None]) @ turned + centre[:, None, None]
  normals = (_NORMALS[:, None] @ turned)[:, :, 0]
  return polygons.reshape(-1, 4, 3), normals.reshape(-1, 3)


def _link(start, end, half):
  """One box from `start` to `end` [3], 2 * half thick."""
  way = end - start
  length = np.linalg.norm(way)
  ahead = way / length
  side = np.cross([0, 0, 1.0], ahead)
  side = side / np.linalg.norm(side) if np.linalg.norm(side) > 1e-6 else np.array([0, 1.0, 0])
  rotation = np.stack([ahead, side, np.cross(ahead, side)], 1)
  return [(start + end) / 2], [[length / 2, half, half]], rotation[None]


def _upright(yaw):
  cos, sin, zero, one = np.cos(yaw), np.sin(yaw), np.zeros(len(yaw)), np.ones(len(yaw))
  rows = [[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]]
  return np.stack([np.stack(row, -1) for row in rows], -2)


def _palm_outline(hand):
  return (_SQUARE * (0.022, 0.04)) @ _upright(hand[3:4])[0, :2, :2].T + hand[:2]


def _ground(looks, squares, colours):
  """Floor, planks and squares: polygons [N, 4, 3] in the order of painting, colours [N, 3]."""
  (x0, x1), (y0, y1) = TABLE
  edges = np.linspace(y0, y1, _PLANKS + 1)
  flat = [_rectangle(-3, 3, -3, 3, -0.7)]
  flat += [_rectangle(x0, x1, a, b, 0.0) for a, b in zip(edges[:-1], edges[1:], strict=True)]
  for x, y in squares:
    half = SQUARE / 2
    flat.append(_rectangle(x - half, x + half, y - half, y + half, 0.0))
  return np.stack(flat), np.concatenate([[_FLOOR], looks.planks, np.array(colours, np.float64)])


def _rectangle(x0, x1, y0, y1, z):
  return np.array([(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)], np.float64)
