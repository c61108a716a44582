"""A town of straight streets in a square grid: lanes, pavements, signals, and paths through them.

Junction (i, j) lies at (i, j) * block, in m, global frame: x east, y north. Every street has, from
its axis to the right: two lanes, a bicycle lane, parked vehicles and a pavement. Traffic keeps
right. Signals let one axis go at a time; pedestrians cross a street while the other has green.
"""

import dataclasses

import numpy as np

LANES = (1.75, 5.25)  # distances from the street's axis, m
BICYCLE_LANE = 7.75
PARKING = 9.8
PAVEMENT = 12.8
BUILDING = 16.0
JUNCTION = 14.0  # paths leave the straight at this distance from the junction
STEP = 0.5  # distance of path points, m

_GREEN, _CLEAR = 9.0, 3.0  # s; all red between the phases
_CYCLE = 2 * (_GREEN + _CLEAR)


@dataclasses.dataclass(frozen=True)
class Town:
  """Layout of one town.

  Attributes:
    block: distance of neighbouring junctions, m.
    seed: of the signals' offsets.
  """

  block: float
  seed: int

  def green(self, junctions, axis, time):
    """Whether traffic along `axis` int [N] (0: x) may go at `junctions` int [N, 2]: bool [N]."""
    mixed = junctions[:, 0] * 7919 + junctions[:, 1] * 104729 + self.seed * 1299709
    offset = (mixed % 997) / 997 * _CYCLE
    phase = (time + offset + axis * (_GREEN + _CLEAR)) % _CYCLE
    return phase < _GREEN

  def buildings(self, low, high):
    """Returns the blocks between junctions `low` and `high` int [2]: [N, 4] x0, y0, x1, y1 in m."""
    i, j = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]), indexing="ij")
    corner = np.stack([i.ravel(), j.ravel()], -1) * self.block
    return np.concatenate([corner + BUILDING, corner + self.block - BUILDING], -1)


@dataclasses.dataclass(frozen=True)
class Path:
  """A line to follow, in points `STEP` apart.

  Attributes:
    points: [P, 2], m.
    stops: [K] arc lengths of stop lines, m.
    junctions: int [K, 2], axis: int [K]: the signal at each stop line.
  """

  points: np.ndarray
  stops: np.ndarray
  junctions: np.ndarray
  axis: np.ndarray


def drive(town, rng, junction, direction, lane, length):
  """Returns a vehicle's path from `junction` along `direction` for at least `length` m.

  Vehicles keep their lane: the inner one turns left at times, the others right.

  Args:
    town: `Town`.
    rng: numpy Generator; chooses the turns.
    junction: (i, j), where the path starts.
    direction: (1, 0), (0, 1), (-1, 0) or (0, -1).
    lane: distance from the axis, m.
    length: m.
  """
  junction, direction = np.array(junction), np.array(direction)
  turn = 1 if lane == LANES[0] else -1  # left or right
  start = junction * town.block + lane * _right(direction) + JUNCTION * direction
  points, stops, signals = [start], [], []
  travelled = 0.0
  while travelled < length:
    following = junction + direction
    center = following * town.block
    end = center + lane * _right(direction) - JUNCTION * direction
    travelled += np.linalg.norm(end - points[-1])
    points.append(end)
    stops.append(travelled - 1.0)
    signals.append((*following, int(direction[0] == 0)))
    after = turn * _left(direction) if rng.random() < 0.35 else direction
    start = center + lane * _right(after) + JUNCTION * after
    if (after != direction).any():
      corner = center + lane * (_right(direction) + _right(after))
      curve = _bezier(end, corner, start)
      travelled += np.linalg.norm(np.diff(curve, axis=0), axis=1).sum()
      points.extend(curve[1:])
    else:
      travelled += 2 * JUNCTION
      points.append(start)
    junction, direction = following, after
  return _path(points, stops, signals)


def walk(town, rng, junction, side, length):
  """Returns a pedestrian's path of at least `length` m over pavements and crossings.

  Args:
    junction: (i, j); side: (+-1, +-1), the corner of the junction where the path starts.
  """
  junction, side = np.array(junction), np.array(side)
  points, stops, signals = [junction * town.block + side * PAVEMENT], [], []
  travelled, last = 0.0, None
  while travelled < length:
    moves = [(axis, crossing) for axis in (0, 1) for crossing in (False, True)]
    weights = np.array([0.0 if m == last else 0.3 if m[1] else 0.7 for m in moves])
    axis, crossing = moves[rng.choice(4, p=weights / weights.sum())]
    if crossing:
      stops.append(travelled)
      signals.append((*junction, axis))
    else:
      junction = junction + np.eye(2, dtype=int)[axis] * side[axis]
    side = side * np.where(np.arange(2) == axis, -1, 1)
    last = (axis, crossing)
    points.append(junction * town.block + side * PAVEMENT)
    travelled += np.linalg.norm(points[-1] - points[-2])
  return _path(points, stops, signals)


def round_corners(points, width=2.0):
  """Returns path points smoothed over `width` m; the ends stay."""
  half = int(width / STEP)
  padded = np.concatenate([np.repeat(points[:1], half, 0), points, np.repeat(points[-1:], half, 0)])
  kernel = np.full(2 * half + 1, 1 / (2 * half + 1))
  return np.stack([np.convolve(padded[:, k], kernel, "valid") for k in (0, 1)], -1)


def _right(direction):
  return np.array([direction[1], -direction[0]])


def _left(direction):
  return np.array([-direction[1], direction[0]])


def _bezier(start, control, end):
  t = np.linspace(0, 1, 25)[:, None]
  return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def _path(points, stops, signals):
  """Resamples a polyline to points `STEP` apart."""
  points = np.array(points, np.float64)
  travelled = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
  grid = np.arange(0, travelled[-1], STEP)
  points = np.stack([np.interp(grid, travelled, points[:, k]) for k in (0, 1)], -1)
  signals = np.array(signals, int).reshape(-1, 3)
  return Path(points, np.array(stops, np.float64), signals[:, :2], signals[:, 2])
