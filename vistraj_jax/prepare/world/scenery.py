"""What stands still in a town: ground with marks, houses with windows, signal posts.

Everything is a polygon with a colour, in the drive's global frame (m; z = 0 is the ground).
Colours are blue, green, red, 0..255, as OpenCV writes them.
"""

import dataclasses

import numpy as np

from vistraj_jax.prepare.world import painter
from vistraj_jax.prepare.world import town as town_lib

WALL_NORMALS = np.array([(0.0, -1, 0), (1, 0, 0), (0, 1, 0), (-1, 0, 0)])
KERB = 11.0  # m from the street's axis; road inside, pavement outside
_REACH = 190.0  # m around the ego car's way; nothing beyond is built
_CROSSING = (11.4, 14.2)  # m from the junction, between which one walks across
_STOP = town_lib.JUNCTION + 1.0  # m from the junction
_PIECE = 9.0  # m; long strips are cut, so that haze can change along them
_FLOOR = 3.2  # m
_DEPTH = 14.0  # m of a house, from the pavement into the block

ASPHALT = np.array([92.0, 90, 88])
_PAVING = np.array([150.0, 155, 158])
_KERB_STONE = np.array([178.0, 182, 184])
_GRASS = np.array([88.0, 140, 112])
_PAINT = np.array([222.0, 224, 226])
_YELLOW = np.array([96.0, 190, 222])
_BICYCLES = np.array([82.0, 86, 138])
_PATCH = np.array([84.0, 82, 80])
_FACADES = np.array(
  [
    (112, 128, 168),  # brick
    (150, 178, 202),  # sandstone
    (176, 190, 200),  # plaster
    (168, 168, 164),  # concrete
    (128, 166, 190),  # ochre
    (158, 150, 132),  # slate blue
    (140, 152, 176),  # rose
  ],
  np.float64,
)
_GLASS = np.array([122.0, 104, 84])
_SHOP = np.array([96.0, 78, 62])
_POST = np.array([74.0, 78, 78])
_RED, _GREEN, _LAMP_OFF = (60.0, 50, 235), (150.0, 225, 70), (34.0, 36, 36)


@dataclasses.dataclass(frozen=True)
class Ground:
  """Flat quadrilaterals [G, 4, 2] m with colours [G, 3]; later ones lie on earlier ones."""

  quads: np.ndarray
  colors: np.ndarray


@dataclasses.dataclass(frozen=True)
class Houses:
  """H houses with rectangular footprints; walls are in the order south, east, north, west.

  Attributes:
    footprints: [H, 4, 2], m, anti-clockwise; heights: [H], m.
    walls: [H, 4, 4, 3], from outside: lower left, lower right, upper right, upper left.
    colors: [H, 4, 3], of the walls, lit.
    decals: for each of the 4 H walls, quadrilaterals [n, 4, 3] to be painted on it.
    groups: for each of the 4 H walls, (ends [g + 1] over its decals, colors [g, 3], lit).
  """

  footprints: np.ndarray
  heights: np.ndarray
  walls: np.ndarray
  colors: np.ndarray
  decals: list
  groups: list


@dataclasses.dataclass(frozen=True)
class Posts:
  """P signal posts.

  Attributes:
    footprints: [P, 4, 2]; junctions: int [P, 2]; axis: int [P], of the traffic they stop.
    polygons: [P, n, 8, 3]; normals: [P, n, 3]; colors: [P, n, 3]; the last three of each post
      are its lamps, red, amber, green.
  """

  footprints: np.ndarray
  junctions: np.ndarray
  axis: np.ndarray
  polygons: np.ndarray
  normals: np.ndarray
  colors: np.ndarray


def ground(town, way):
  """Returns the `Ground` near the points `way` [N, 2]."""
  quads, colors = [], []
  cells, junctions = _near(town, way)
  block = town.block

  def add(rectangles, color):
    if len(rectangles):
      quads.append(np.concatenate(rectangles))
      shade = np.random.default_rng(len(quads)).normal(1, 0.012, (len(quads[-1]), 1))
      colors.append(color * shade)

  corner = [np.array(c) * block for c in cells]
  inner = (KERB, block - KERB)
  add([_strip(c, (1, 0), inner, inner, block) for c in corner], _GRASS)
  walks = ((KERB, 16.2), (block - 16.2, block - KERB))
  for axis in ((1, 0), (0, 1)):
    for walk in walks:
      add([_strip(c, axis, inner, walk) for c in corner], _PAVING)
  stones = ((KERB, KERB + 0.25), (block - KERB - 0.25, block - KERB))
  for axis in ((1, 0), (0, 1)):
    for stone in stones:
      add([_strip(c, axis, inner, stone) for c in corner], _KERB_STONE)
  arms = [(np.array(j) * block, d) for j in junctions for d in ((1, 0), (-1, 0), (0, 1), (0, -1))]
  half = (_STOP, block / 2)
  lane = sum(town_lib.LANES) / 2
  add([_strip(c, d, half, (7.1, 8.5)) for c, d in arms], _BICYCLES)
  add([_strip(c, d, half, (-8.5, -7.1)) for c, d in arms], _BICYCLES)
  add([_strip(c, d, (22, 27), (0.5, 3.2)) for c, d in arms], _PATCH)
  add([_strip(c, d, half, (0.08, 0.22)) for c, d in arms], _YELLOW)
  add([_strip(c, d, half, (-0.22, -0.08)) for c, d in arms], _YELLOW)
  for side in (-1, 1):
    for where in (7.0, 8.6):
      line = sorted((side * where - 0.06, side * where + 0.06))
      add([_strip(c, d, half, line) for c, d in arms], _PAINT)
    dash = sorted((side * lane - 0.08, side * lane + 0.08))
    starts = np.arange(_STOP + 2, block / 2 - 3, 9.0)
    add([_strip(c, d, (s, s + 3), dash) for c, d in arms for s in starts], _PAINT)
    bay = sorted((side * 8.6, side * KERB))
    starts = np.arange(_STOP + 4, block / 2, 6.5)
    add([_strip(c, d, (s, s + 0.12), bay) for c, d in arms for s in starts], _PAINT)
  add([_strip(c, d, (_STOP, _STOP + 0.45), (-8.5, -0.3)) for c, d in arms], _PAINT)
  stripes = np.arange(-10.25, 10.3, 1.05)
  add([_strip(c, d, _CROSSING, (s - 0.28, s + 0.28)) for c, d in arms for s in stripes], _PAINT)
  return Ground(np.concatenate(quads), np.concatenate(colors))


def houses(town, blocks, way):
  """Returns the `Houses` of blocks [N, 4] (x0, y0, x1, y1 in m) near the points `way` [N, 2]."""
  footprints, heights, colors, decals, groups = [], [], [], [], []
  for block in blocks:
    away = np.maximum(block[:2] - way, way - block[2:]).clip(0)
    if np.hypot(*away.T).min() > _REACH:
      continue
    place = np.round(block[:2]).astype(int)
    rng = np.random.default_rng((abs(town.seed), *(place + 2**20)))
    for x0, y0, x1, y1 in _parcels(block, rng):
      footprint = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
      height = _FLOOR * rng.integers(3, 8) + 1.2
      color = _FACADES[rng.integers(len(_FACADES))] * rng.uniform(0.86, 1.08)
      outer = np.isclose((y0, x1, y1, x0), (block[1], block[2], block[3], block[0]))
      walls = _walls(footprint, height)
      for wall, normal, faces_street in zip(walls, WALL_NORMALS, outer, strict=True):
        parts = _windows(wall, color, rng) if faces_street else []
        shades = np.array([shade for _, shade in parts]).reshape(-1, 3)
        decals.append(np.concatenate([np.zeros((0, 4, 3)), *(quads for quads, _ in parts)]))
        ends = np.cumsum([0] + [len(quads) for quads, _ in parts])
        groups.append((ends, painter.lit(shades, normal[None])))
      footprints.append(footprint)
      heights.append(height)
      colors.append(painter.lit(color[None], WALL_NORMALS))
  return Houses(
    footprints=np.array(footprints, np.float64).reshape(-1, 4, 2),
    heights=np.array(heights, np.float64),
    colors=np.array(colors, np.float64).reshape(-1, 4, 3),
    walls=np.array(
      [_walls(f, h) for f, h in zip(footprints, heights, strict=True)], np.float64
    ).reshape(-1, 4, 4, 3),
    decals=decals,
    groups=groups,
  )


def posts(town, way):
  """Returns the `Posts`: one at the right of every stop line near the points `way` [N, 2]."""
  footprints, polygons, junctions, axis = [], [], [], []
  for junction in _near(town, way)[1]:
    for direction in ((1, 0), (-1, 0), (0, 1), (0, -1)):
      ahead = np.array(direction, np.float64)
      right = np.array([ahead[1], -ahead[0]])
      center = np.array(junction) * town.block
      place = center - (_STOP + 0.2) * ahead + (KERB + 0.5) * right
      footprints.append(place + 0.2 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]))
      polygons.append(_signal(place, ahead, right))
      junctions.append(junction)
      axis.append(int(direction[0] == 0))
  polygons = np.array(polygons)
  normals = painter.normals(polygons.reshape(-1, *polygons.shape[2:]))
  normals = normals.reshape(*polygons.shape[:2], 3)
  colors = np.array([_POST] * 4 + [_POST * 0.5] * 4 + [np.zeros(3)] * 3)
  return Posts(
    footprints=np.array(footprints),
    junctions=np.array(junctions),
    axis=np.array(axis),
    polygons=polygons,
    normals=normals,
    colors=np.repeat(colors[None], len(polygons), 0),
  )


def lamp_colors(green):
  """Returns [P, 3, 3], the colours of the three lamps of posts that show `green` bool [P]."""
  colors = np.full((len(green), 3, 3), _LAMP_OFF)
  colors[~green, 0], colors[green, 2] = _RED, _GREEN
  return colors


def in_street(town, places):
  """Whether a coordinate [N] m lies in a street along the other axis, pavement included."""
  return np.abs(places - np.round(places / town.block) * town.block) < town_lib.BUILDING


def _walls(footprint, height):
  """The four walls [4, 4, 3] over a footprint [4, 2]."""
  low = np.column_stack([footprint, np.zeros(4)])
  up = low + (0, 0, height)
  return np.stack([low, np.roll(low, -1, 0), np.roll(up, -1, 0), up], 1)


def _signal(place, ahead, right):
  """Pole, head and lamps of a signal for traffic that moves along `ahead`: [11, 8, 3]."""
  faces = []
  for half, low, high in ((0.07, 0.0, 2.5), (0.19, 2.4, 3.45)):
    square = place + half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    for wall in _walls(square, high - low):
      faces.append(np.concatenate([wall, np.repeat(wall[-1:], 4, 0)]) + (0, 0, low))
  turn = np.arange(8) * np.pi / 4
  for height in (3.25, 2.93, 2.61):
    across = (place - 0.2 * ahead) + 0.12 * np.cos(turn)[:, None] * right
    faces.append(np.column_stack([across, height + 0.12 * np.sin(turn)]))
  return np.array(faces)


def _near(town, way):
  """Cells and junctions (i, j) within reach of the way."""
  low = np.floor((way.min(0) - _REACH) / town.block).astype(int)
  high = np.ceil((way.max(0) + _REACH) / town.block).astype(int)
  every = [(i, j) for i in range(low[0], high[0] + 1) for j in range(low[1], high[1] + 1)]

  def close(point, margin):
    return np.hypot(*(way - point).T).min() < _REACH + margin

  cells = [c for c in every if close((np.array(c) + 0.5) * town.block, town.block / 2)]
  junctions = [c for c in every if close(np.array(c) * town.block, 0)]
  return cells, junctions


def _strip(origin, direction, along, across, piece=_PIECE):
  """A rectangle from along[0] to along[1] m in a direction, across[0] to across[1] m to its left,
  cut into pieces: [n, 4, 2]."""
  direction = np.array(direction, np.float64)
  left = np.array([-direction[1], direction[0]])
  count = max(1, round((along[1] - along[0]) / piece))
  ends = np.linspace(along[0], along[1], count + 1)
  near = origin + ends[:, None] * direction + across[0] * left
  far = origin + ends[:, None] * direction + across[1] * left
  return np.stack([near[:-1], near[1:], far[1:], far[:-1]], 1)


def _parcels(block, rng):
  """Cuts a block into houses along its four sides: list of x0, y0, x1, y1."""
  x0, y0, x1, y1 = block
  if min(x1 - x0, y1 - y0) < 3 * _DEPTH:
    return [block]
  rows = [
    (True, x0, x1, y0, y0 + _DEPTH),
    (True, x0, x1, y1 - _DEPTH, y1),
    (False, y0 + _DEPTH, y1 - _DEPTH, x0, x0 + _DEPTH),
    (False, y0 + _DEPTH, y1 - _DEPTH, x1 - _DEPTH, x1),
  ]
  parcels = []
  for level, start, stop, low, high in rows:
    count = max(1, round((stop - start) / rng.uniform(12, 20)))
    ends = np.linspace(start, stop, count + 1)
    if count > 1:
      ends[1:-1] += rng.uniform(-2, 2, count - 1)
    for a, b in zip(ends[:-1], ends[1:], strict=True):
      parcels.append(np.array((a, low, b, high) if level else (low, a, high, b)))
  return parcels


def _windows(wall, color, rng):
  """Windows and ledges on a wall [4, 3]: list of (quadrilaterals [n, 4, 3], color)."""
  origin, along, height = wall[0], wall[1] - wall[0], wall[2, 2]
  length = np.linalg.norm(along)
  along = along / length

  def rectangles(left, width, bottom, top):
    left, bottom = np.broadcast_arrays(np.asarray(left, np.float64), bottom)
    corners = [(left, bottom), (left + width, bottom), (left + width, top), (left, top)]
    up = np.array([0.0, 0, 1])
    points = [
      origin + s[..., None] * along + np.broadcast_to(z, s.shape)[..., None] * up
      for s, z in corners
    ]
    return np.stack(points, -2).reshape(-1, 4, 3)

  columns = max(2, int(length / rng.uniform(2.4, 3.4)))
  pitch = length / columns
  width = pitch * rng.uniform(0.4, 0.68)
  left = (np.arange(columns) + 0.5) * pitch - width / 2
  floors = np.arange(1, round((height - 1.2) / _FLOOR)) * _FLOOR
  grid_left, grid_floor = map(np.ravel, np.meshgrid(left, floors))
  sill = rng.uniform(0.7, 1.1)
  frames = rectangles(grid_left - 0.12, width + 0.24, grid_floor + sill - 0.15, grid_floor + 2.75)
  panes = rectangles(grid_left, width, grid_floor + sill, grid_floor + 2.6)
  shops = rectangles(left - 0.1 * width, 1.2 * width, np.full(columns, 0.45), 2.6)
  lit = rng.random(len(panes)) < 0.2
  parts = [
    (rectangles(0.0, length, 0.0, 0.4), color * 0.6),
    (rectangles(0.0, length, 2.85, 3.1), color * 0.8),
    (rectangles(0.0, length, height - 0.7, height - 0.25), color * 1.12),
    (frames, color * 1.16),
    (panes[~lit], _GLASS * rng.uniform(0.85, 1.15)),
    (panes[lit], _GLASS * 1.45),
    (shops, _SHOP * rng.uniform(0.8, 1.4)),
  ]
  return [(quads, np.minimum(shade, 240)) for quads, shade in parts if len(quads)]
