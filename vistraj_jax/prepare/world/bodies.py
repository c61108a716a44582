"""Shapes of agents: convex parts within the annotated box, and the polygons that paint them.

Coordinates are those of the agent's box: origin in the middle of its footprint, +x ahead, +y left,
+z up, m. Cameras paint the polygons; the LiDAR hits the parts, so both see the same object.
Colours are blue, green, red, 0..255.
"""

import dataclasses
import zlib

import numpy as np

CORNERS = 8  # points of a polygon; those with fewer repeat their last one
_GLASS = (74, 62, 52)
_DARK = (38, 36, 36)
_TIRE = (30, 30, 30)
_RIM = (150, 150, 150)
_HEADLIGHT = (225, 242, 248)
_TAIL_LIGHT = (44, 40, 190)
_PLATE = (215, 225, 228)
_TRIM = (150, 152, 152)
_SKINS = ((150, 178, 224), (112, 142, 196), (70, 96, 142), (48, 66, 98))
_TROUSERS = ((92, 64, 46), (52, 50, 50), (70, 88, 108), (110, 104, 98))
_HAIR = ((26, 30, 40), (40, 62, 92), (96, 150, 186), (150, 150, 152))
_PAINTS = {
  "car": (
    (46, 42, 168),
    (150, 84, 40),
    (226, 226, 224),
    (56, 54, 54),
    (172, 170, 166),
    (84, 116, 60),
    (60, 140, 206),
    (120, 60, 84),
  ),
  "truck": ((210, 214, 214), (150, 96, 44), (52, 132, 208), (66, 128, 74), (60, 52, 170)),
  "bus": ((42, 42, 190), (46, 178, 224), (168, 112, 44), (84, 150, 70)),
  "trailer": ((206, 208, 206), (176, 130, 74), (82, 96, 170), (122, 152, 108)),
  "pedestrian": ((58, 52, 176), (176, 110, 50), (70, 160, 200), (96, 142, 70), (190, 186, 180)),
  "motorcycle": ((40, 40, 180), (54, 54, 54), (176, 90, 40), (48, 150, 216)),
  "bicycle": ((60, 60, 190), (60, 140, 90), (180, 130, 60), (60, 170, 220)),
}


@dataclasses.dataclass(frozen=True)
class Body:
  """One agent's shape.

  Attributes:
    polygons: [P, CORNERS, 3], seen only from where their points run anti-clockwise.
    colors: [P, 3]; part: int [P], the part a polygon lies on.
    low, high: [K, 3], the extent of each part.
  """

  polygons: np.ndarray
  colors: np.ndarray
  part: np.ndarray
  low: np.ndarray
  high: np.ndarray


def paint(class_name, number):
  """Returns the main colour of agent `number`, blue, green, red."""
  choices = _PAINTS[class_name]
  pick = _pick(class_name, number)
  return np.array(choices[pick % len(choices)]) * (0.88 + 0.24 * (pick // 97 % 100) / 100)


def body(class_name, size_wlh, number, parked=False):
  """Returns the `Body` of agent `number` of a class; two-wheelers that are parked have no rider."""
  shape = _Shape(*size_wlh, paint(class_name, number), _pick(class_name, number))
  {
    "car": _car,
    "truck": _truck,
    "bus": _bus,
    "trailer": _trailer,
    "pedestrian": _pedestrian,
    "motorcycle": _motorcycle,
    "bicycle": _bicycle,
  }[class_name](shape, not parked)
  return shape.body()


def _pick(class_name, number):
  return zlib.crc32(f"{class_name}/{number}".encode())


class _Shape:
  """Collects parts and polygons. x is given in half lengths, y in half widths, z in heights."""

  def __init__(self, width, length, height, color, pick):
    self.unit = np.array([length / 2, width / 2, height])
    self.color, self.pick = tuple(color), pick
    self.polygons, self.colors, self.parts = [], [], []
    self.low, self.high = [], []

  def body(self):
    count = len(self.polygons)
    padded = np.empty((count, CORNERS, 3))
    for row, points in zip(padded, self.polygons, strict=True):
      row[: len(points)], row[len(points) :] = points, points[-1]
    return Body(
      polygons=padded * self.unit,
      colors=np.array(self.colors, np.float64),
      part=np.array(self.parts),
      low=np.array(self.low) * self.unit,
      high=np.array(self.high) * self.unit,
    )

  def polygon(self, points, color):
    """A polygon on the latest part, painted after the part's earlier ones."""
    self.polygons.append(np.array(points, np.float64))
    self.colors.append(color)
    self.parts.append(len(self.low) - 1)

  def block(self, x, y, z, color, top_x=None, top_y=None, **faces):
    """A new part between x[0]..x[1], y[0]..y[1], z[0]..z[1], narrower at the top if asked.

    `faces` gives other colours to front, rear, left, right or top. Returns the corners of each
    face, anti-clockwise from its lower right as seen from outside.
    """
    self.low.append((x[0], y[0], z[0]))
    self.high.append((x[1], y[1], z[1]))
    (a, b), (c, d) = top_x or x, top_y or y
    low = [(x[1], y[0], z[0]), (x[1], y[1], z[0]), (x[0], y[1], z[0]), (x[0], y[0], z[0])]
    up = [(b, c, z[1]), (b, d, z[1]), (a, d, z[1]), (a, c, z[1])]
    sides = {
      "front": (low[0], low[1], up[1], up[0]),
      "left": (low[1], low[2], up[2], up[1]),
      "rear": (low[2], low[3], up[3], up[2]),
      "right": (low[3], low[0], up[0], up[3]),
      "top": (up[0], up[1], up[2], up[3]),
    }
    for name, points in sides.items():
      self.polygon(points, faces.get(name, color))
    return {name: np.array(points, np.float64) for name, points in sides.items()}

  def decal(self, face, left, right, low, high, color):
    """A rectangle on a face: shares of its width and height, from its lower right corner."""
    first, second, third, fourth = face

    def at(u, v):
      return (first * (1 - u) + second * u) * (1 - v) + (fourth * (1 - u) + third * u) * v

    self.polygon([at(left, low), at(right, low), at(right, high), at(left, high)], color)

  def column(self, x, y, radii, top_radii, z, color, cap=None, sides=8):
    """A new part: a round column of radii (x, y), others at the top, from z[0] to z[1]."""
    turn = np.arange(sides) * 2 * np.pi / sides
    circle = np.stack([np.cos(turn), np.sin(turn)], -1)
    low = np.column_stack([circle * radii + (x, y), np.full(sides, z[0])])
    up = np.column_stack([circle * top_radii + (x, y), np.full(sides, z[1])])
    widest = np.maximum(radii, top_radii)
    self.low.append((x - widest[0], y - widest[1], z[0]))
    self.high.append((x + widest[0], y + widest[1], z[1]))
    for k in range(sides):
      following = (k + 1) % sides
      self.polygon([low[k], low[following], up[following], up[k]], color)
    self.polygon(up, cap or color)

  def wheels(self, places, radius, sides=(-1, 1), depth=1.0):
    """Round wheels of a radius in m at x places, on the outer sides of the latest part."""
    turn = np.arange(8) * np.pi / 4 + np.pi / 8
    for x in places:
      for side in sides:
        for scale, color in ((1.0, _TIRE), (0.55, _RIM)):
          around = turn if side < 0 else -turn
          points = np.column_stack(
            [
              x + scale * radius * np.cos(around) / self.unit[0],
              np.full(8, side * depth),
              (radius + scale * radius * np.sin(around)) / self.unit[2],
            ]
          )
          self.polygon(points, color)


def _car(shape, _):
  shape.block((-0.9, 0.9), (-0.9, 0.9), (0.06, 0.16), _DARK)
  hull = shape.block(
    (-1, 1), (-1, 1), (0.14, 0.57), shape.color, top_x=(-0.98, 0.95), top_y=(-0.95, 0.95)
  )
  for side in ("left", "right"):
    shape.decal(hull[side], 0, 1, 0, 0.2, _DARK)
    shape.decal(hull[side], 0.47, 0.475, 0.22, 0.98, _DARK)
  for name, lamp in (("front", _HEADLIGHT), ("rear", _TAIL_LIGHT)):
    shape.decal(hull[name], 0, 1, 0, 0.22, _DARK)
    shape.decal(hull[name], 0.04, 0.26, 0.5, 0.78, lamp)
    shape.decal(hull[name], 0.74, 0.96, 0.5, 0.78, lamp)
    shape.decal(hull[name], 0.36, 0.64, 0.24, 0.44, _PLATE)
  shape.decal(hull["front"], 0.3, 0.7, 0.55, 0.72, _DARK)
  shape.wheels((-0.62, 0.62), 0.33)
  van = shape.pick % 4 == 0
  cabin = shape.block(
    (-0.97, 0.55) if van else (-0.86, 0.5),
    (-0.93, 0.93),
    (0.57, 1.0),
    shape.color,
    top_x=(-0.92, 0.22) if van else (-0.55, 0.08),
    top_y=(-0.76, 0.76),
  )
  shape.decal(cabin["front"], 0.06, 0.94, 0.06, 0.9, _GLASS)
  shape.decal(cabin["rear"], 0.08, 0.92, 0.12, 0.86, _GLASS)
  for side in ("left", "right"):
    flip = side == "left"  # u runs backwards on the left side
    for a, b in ((0.06, 0.3), (0.33, 0.62), (0.65, 0.94)):
      u, v = (1 - b, 1 - a) if flip else (a, b)
      shape.decal(cabin[side], u, v, 0.1, 0.86, _GLASS)


def _truck(shape, _):
  gray = (96, 96, 98)
  shape.block((-0.97, 0.95), (-0.8, 0.8), (0.1, 0.2), _DARK)
  shape.wheels((-0.72, -0.46, 0.74), 0.48, depth=0.97)
  cargo = shape.block((-1, 0.5), (-1, 1), (0.19, 1.0), shape.color)
  shape.decal(cargo["rear"], 0.49, 0.51, 0.03, 0.97, _TRIM)
  for a in (0.02, 0.86):
    shape.decal(cargo["rear"], a, a + 0.12, 0.0, 0.07, _TAIL_LIGHT)
  for side in ("left", "right"):
    shape.decal(cargo[side], 0, 1, 0, 0.05, gray)
    shape.decal(cargo[side], 0.1, 0.9, 0.74, 0.84, tuple(0.8 * c for c in shape.color))
  cab = shape.block(
    (0.54, 1), (-0.94, 0.94), (0.13, 0.82), shape.color, top_x=(0.56, 0.94), front=shape.color
  )
  _front_of_truck(shape, cab)


def _front_of_truck(shape, cab):
  shape.decal(cab["front"], 0.06, 0.94, 0.56, 0.94, _GLASS)
  shape.decal(cab["front"], 0.2, 0.8, 0.18, 0.44, _DARK)
  shape.decal(cab["front"], 0, 1, 0.0, 0.1, _DARK)
  for a in (0.03, 0.82):
    shape.decal(cab["front"], a, a + 0.15, 0.12, 0.24, _HEADLIGHT)
  for side in ("left", "right"):
    low, high = (0.12, 0.7) if side == "left" else (0.3, 0.88)
    shape.decal(cab[side], low, high, 0.56, 0.9, _GLASS)
    shape.decal(cab[side], 0, 1, 0, 0.08, _DARK)
  shape.wheels((0.74,), 0.48, depth=0.95)


def _bus(shape, _):
  hull = shape.block((-1, 1), (-1, 1), (0.08, 1.0), shape.color, top_y=(-0.96, 0.96))
  for side in ("left", "right"):
    shape.decal(hull[side], 0, 1, 0, 0.06, _DARK)
    shape.decal(hull[side], 0.015, 0.985, 0.53, 0.84, _GLASS)
    for a in np.arange(0.15, 0.95, 0.135):
      shape.decal(hull[side], a, a + 0.008, 0.53, 0.84, tuple(0.6 * c for c in shape.color))
  for a in (0.09, 0.36, 0.76):  # doors at the kerb
    shape.decal(hull["right"], a, a + 0.09, 0.04, 0.84, _GLASS)
    shape.decal(hull["right"], a + 0.042, a + 0.048, 0.04, 0.84, _TRIM)
  shape.decal(hull["front"], 0.04, 0.96, 0.33, 0.83, _GLASS)
  shape.decal(hull["front"], 0.2, 0.8, 0.87, 0.96, (30, 150, 230))
  shape.decal(hull["rear"], 0.12, 0.88, 0.58, 0.83, _GLASS)
  for a in (0.04, 0.82):
    shape.decal(hull["front"], a, a + 0.14, 0.1, 0.2, _HEADLIGHT)
    shape.decal(hull["rear"], a, a + 0.14, 0.16, 0.34, _TAIL_LIGHT)
  for name in ("front", "rear"):
    shape.decal(hull[name], 0, 1, 0, 0.07, _DARK)
    shape.decal(hull[name], 0.38, 0.62, 0.1, 0.15, _PLATE)
  shape.wheels((-0.52, 0.55), 0.5)


def _trailer(shape, _):
  shape.block((-0.97, 0.9), (-0.7, 0.7), (0.14, 0.25), _DARK)
  shape.wheels((-0.82, -0.62, -0.42), 0.48, depth=0.97)
  hull = shape.block((-1, 1), (-1, 1), (0.25, 1.0), shape.color)
  for side in ("left", "right"):
    shape.decal(hull[side], 0, 1, 0, 0.06, (96, 96, 98))
    for a in np.arange(0.08, 0.97, 0.12):
      shape.decal(hull[side], a, a + 0.006, 0.06, 1.0, tuple(0.82 * c for c in shape.color))
  shape.decal(hull["rear"], 0.49, 0.51, 0.05, 0.97, _TRIM)
  shape.decal(hull["rear"], 0, 1, 0, 0.05, _DARK)
  for a in (0.02, 0.86):
    shape.decal(hull["rear"], a, a + 0.12, 0.0, 0.07, _TAIL_LIGHT)


def _pedestrian(shape, _):
  skin = _SKINS[shape.pick // 7 % len(_SKINS)]
  legs = _TROUSERS[shape.pick // 31 % len(_TROUSERS)]
  hair = _HAIR[shape.pick // 131 % len(_HAIR)]
  shoe = (36, 36, 40)
  for side, ahead in ((-0.27, 0.42), (0.27, -0.42)):
    y = (side - 0.2, side + 0.2)
    hip, foot = (-0.22, 0.2), (ahead - 0.25, ahead + 0.25)
    leg = shape.block(foot, y, (0.0, 0.48), legs, top_x=hip)
    for face in ("front", "left", "rear", "right"):
      shape.decal(leg[face], 0, 1, 0, 0.1, shoe)
  for side, ahead in ((-0.82, -0.35), (0.82, 0.35)):
    y = (side - 0.17, side + 0.17)
    arm = shape.block(
      (ahead - 0.17, ahead + 0.17), y, (0.46, 0.81), shape.color, top_x=(-0.17, 0.17)
    )
    for face in ("front", "left", "rear", "right"):
      shape.decal(arm[face], 0, 1, 0, 0.16, skin)
  shape.column(0, 0, (0.32, 0.52), (0.36, 0.68), (0.45, 0.82), shape.color)
  shape.column(0.02, 0, (0.12, 0.14), (0.12, 0.14), (0.81, 0.86), skin)
  shape.column(0.02, 0, (0.24, 0.22), (0.3, 0.26), (0.855, 0.945), skin)
  shape.column(-0.02, 0, (0.31, 0.28), (0.2, 0.18), (0.945, 1.0), hair)


def _rider(shape, seat, color, helmet):
  skin = _SKINS[shape.pick // 7 % len(_SKINS)]
  legs = _TROUSERS[shape.pick // 31 % len(_TROUSERS)]
  x = -0.2
  for side in (-0.36, 0.36):
    shape.block(
      (x + 0.1, x + 0.36), (side - 0.16, side + 0.16), (0.16, seat + 0.06), legs, top_x=(x, x + 0.3)
    )
    shape.block(
      (x + 0.05, 0.42),
      (side - 0.12 + side * 0.5, side + 0.12 + side * 0.5),
      (seat + 0.12, 0.82),
      color,
      top_x=(x - 0.02, x + 0.16),
    )
  shape.column(x, 0, (0.16, 0.4), (0.15, 0.6), (seat, 0.83), color)
  shape.column(x + 0.06, 0, (0.11, 0.25), (0.12, 0.27), (0.83, 0.94), skin)
  shape.column(x + 0.05, 0, (0.14, 0.32), (0.08, 0.2), (0.92, 1.0), helmet)


def _two_wheels(shape, radius, width):
  """Thin wheels in the middle plane, at both ends."""
  reach = 1 - radius / shape.unit[0]
  tall = 2 * radius / shape.unit[2]
  half = width / 2 / shape.unit[1]
  for x in (-reach, reach):
    wide = 0.72 * radius / shape.unit[0]
    shape.block((x - wide, x + wide), (-half, half), (0.02, tall * 0.98), _TIRE)
    shape.wheels((x,), radius, depth=half * 1.02)


def _motorcycle(shape, rider):
  _two_wheels(shape, 0.32, 0.14)
  tank = shape.block((-0.66, 0.6), (-0.34, 0.34), (0.2, 0.52), shape.color, top_x=(-0.8, 0.35))
  for side in ("left", "right"):
    shape.decal(tank[side], 0.15, 0.85, 0.0, 0.45, _TRIM)
  shape.decal(tank["front"], 0.2, 0.8, 0.6, 0.98, _HEADLIGHT)
  shape.decal(tank["rear"], 0.25, 0.75, 0.7, 0.98, _TAIL_LIGHT)
  shape.block((0.3, 0.42), (-0.95, 0.95), (0.6, 0.64), _DARK)
  shape.block((0.36, 0.5), (-0.3, 0.3), (0.5, 0.72), shape.color, top_x=(0.24, 0.32))
  if rider:
    _rider(shape, 0.5, (46, 44, 44), tuple(shape.color))


def _bicycle(shape, rider):
  _two_wheels(shape, 0.34, 0.06)
  shape.block((-0.6, 0.52), (-0.05, 0.05), (0.24, 0.3), shape.color)
  shape.block((-0.28, -0.2), (-0.06, 0.06), (0.22, 0.58), shape.color)
  shape.block((0.4, 0.5), (-0.06, 0.06), (0.22, 0.68), shape.color, top_x=(0.32, 0.4))
  shape.block((-0.24, 0.38), (-0.05, 0.05), (0.48, 0.53), shape.color)
  shape.block((0.3, 0.4), (-0.8, 0.8), (0.66, 0.69), _DARK)
  if rider:
    _rider(shape, 0.56, shape.color, (180, 180, 182))
