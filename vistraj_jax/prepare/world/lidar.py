"""Sweeps of a roof LiDAR with 32 beams: rays against the ground, houses and the parts of agents.

The beams are those of the HDL-32E on the nuScenes car, -30.67 to 10.67 degrees; the sensor frame
has x to the right, y ahead and z up. A sweep is a snapshot: all its rays leave at one time.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import geometry

TRANSLATION = (0.94, 0.0, 1.84)  # m, in the ego frame
ROTATION = tuple(geometry.yaw_quaternion(-np.pi / 2))
RINGS = 32
COLUMNS = 1080
RANGE = 100.0  # m
_ELEVATIONS = np.deg2rad(np.linspace(-30.67, 10.67, RINGS))
_NOISE = 0.015  # m, standard deviation along the ray
_INSET = 0.05  # m by which surfaces lie inside the annotated box
_TILT = 0.045  # rad the car may lean; spans of rays are that much wider
_GROUND, _HOUSE = 9.0, 28.0  # intensities


@dataclasses.dataclass(frozen=True)
class Sweep:
  """One sweep.

  Attributes:
    points: float32 [N, 5]: x, y, z (m, sensor frame), intensity 0..255, ring; in firing order.
    counts: int [A], how many of the points lie in each agent's box.
  """

  points: np.ndarray
  counts: np.ndarray


def scan(moment, houses, rng):
  """Returns the `Sweep` at a `render.Moment` among `scenery.Houses`; rng is of the noise."""
  ego = geometry.rotation_matrix(moment.ego_rotation)
  turn = ego @ geometry.rotation_matrix(ROTATION)
  origin = ego @ TRANSLATION + moment.ego_translation
  azimuth, rays = _rays(turn)
  with np.errstate(divide="ignore"):
    distance = np.where(rays[2] < 0, -origin[2] / rays[2], np.inf).astype(np.float32)
  intensity = np.full_like(distance, _GROUND)
  for center, yaw, half, shine in _boxes(moment, houses, origin):
    columns, rings = _span(center, yaw, half, azimuth)
    if rings.stop <= rings.start:
      continue
    for part in columns:
      found = _enter(rays[:, part, rings], center, yaw, half)
      nearer = found < distance[part, rings]
      distance[part, rings][nearer] = found[nearer]
      intensity[part, rings][nearer] = shine
  column, ring = np.nonzero(distance < RANGE)
  along = distance[column, ring] + rng.normal(0, _NOISE, len(ring))
  local = along[:, None] * (rays[:, column, ring].T.astype(np.float64) @ turn)
  shine = (intensity[column, ring] * rng.uniform(0.4, 1.6, len(ring))).round().clip(0, 255)
  points = np.column_stack([local, shine, ring]).astype(np.float32)
  place = points[:, :3].astype(np.float64) @ turn.T + origin
  return Sweep(points, count_inside(place, moment.center, moment.yaw, moment.size_wlh))


def count_inside(points, center, yaw, size_wlh):
  """Returns how many points [N, 3] lie in each upright box: center [A, 3], yaw [A], size [A, 3]."""
  counts = np.zeros(len(center), int)
  x, y = np.ascontiguousarray(points[:, 0]), np.ascontiguousarray(points[:, 1])
  reach = np.abs(points[:, :2]).max(0, initial=0)
  halves = size_wlh[:, [1, 0, 2]] / 2
  for k in np.flatnonzero((np.abs(center[:, :2]) < reach + 20).all(-1)).tolist():
    half = halves[k]
    radius = np.hypot(half[0], half[1])
    near = np.flatnonzero(
      (np.abs(x - center[k, 0]) <= radius) & (np.abs(y - center[k, 1]) <= radius)
    )
    offset = points[near] - center[k]
    cos, sin = np.cos(yaw[k]), np.sin(yaw[k])
    along = cos * offset[:, 0] + sin * offset[:, 1]
    across = cos * offset[:, 1] - sin * offset[:, 0]
    inside = (np.abs(along) <= half[0]) & (np.abs(across) <= half[1])
    counts[k] = np.count_nonzero(inside & (np.abs(offset[:, 2]) <= half[2]))
  counts[0] = 0  # the ego car
  return counts


def _rays(turn):
  """Azimuth [COLUMNS] in the global frame, falling, and directions float32 [3, COLUMNS, RINGS]."""
  around = -np.pi - 2 * np.pi * np.arange(COLUMNS) / COLUMNS  # clockwise from the left
  flat = np.cos(_ELEVATIONS)
  rays = np.stack(
    [
      np.cos(around)[:, None] * flat,
      np.sin(around)[:, None] * flat,
      np.broadcast_to(np.sin(_ELEVATIONS), (COLUMNS, RINGS)),
    ]
  )
  heading = np.arctan2(turn[1, 0], turn[0, 0])  # of the sensor's x axis
  return around + heading, np.einsum("ij,jcr->icr", turn, rays).astype(np.float32)


def _boxes(moment, houses, origin):
  """Yields (centre relative to the sensor [3], yaw, half extent [3], intensity) within range."""
  low, high = houses.footprints[:, 0], houses.footprints[:, 2]
  tall = houses.heights[:, None]
  center = np.concatenate([(low + high) / 2, tall / 2], 1) - origin
  half = np.concatenate([(high - low) / 2, tall / 2], 1)
  near = np.linalg.norm(np.maximum(np.abs(center) - half, 0), axis=-1) < RANGE
  for k in np.flatnonzero(near).tolist():
    yield center[k], 0.0, half[k], _HOUSE * (0.6 + k % 5 / 5)
  center = moment.part_center - origin
  half = np.maximum(moment.part_half - _INSET, 0.3 * moment.part_half)
  near = (np.linalg.norm(center, axis=-1) < RANGE) & (moment.part_agent > 0)
  for k in np.flatnonzero(near).tolist():
    yield center[k], moment.part_yaw[k], half[k], 20.0 + moment.part_agent[k] * 37 % 60


def _span(center, yaw, half, azimuth):
  """Columns (one or two slices) and rings (a slice) whose rays may hit the box."""
  cos, sin = np.cos(yaw), np.sin(yaw)
  corners = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * half[:2]
  x = center[0] + cos * corners[:, 0] - sin * corners[:, 1]
  y = center[1] + sin * corners[:, 0] + cos * corners[:, 1]
  middle = np.arctan2(center[1], center[0])
  offset = (np.arctan2(y, x) - middle + np.pi) % (2 * np.pi) - np.pi
  step = 2 * np.pi / COLUMNS
  margin = 0.02
  first = int(np.floor(((azimuth[0] - middle - offset.max() - margin) % (2 * np.pi)) / step))
  count = int(np.ceil((np.ptp(offset) + 2 * margin) / step)) + 1
  last = first + min(count, COLUMNS)
  columns = [slice(first, min(last, COLUMNS))]
  if last > COLUMNS:
    columns.append(slice(0, last - COLUMNS))
  local = np.abs((cos * center[0] + sin * center[1], cos * center[1] - sin * center[0]))
  near = max(np.linalg.norm(np.maximum(local - half[:2], 0)), 0.1)
  far = np.hypot(x, y).max()
  bottom, top = center[2] - half[2], center[2] + half[2]
  low = np.arctan2(bottom, near if bottom < 0 else far) - _TILT
  high = np.arctan2(top, near if top > 0 else far) + _TILT
  return columns, slice(*np.searchsorted(_ELEVATIONS, (low, high)).tolist())


def _enter(rays, center, yaw, half):
  """Distance at which rays [3, C, R] from the origin enter a box; inf where they miss it."""
  cos, sin = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
  x, y, z = rays
  local = (cos * x + sin * y, cos * y - sin * x, z)
  middle = (
    np.float32(cos * center[0] + sin * center[1]),
    np.float32(cos * center[1] - sin * center[0]),
    np.float32(center[2]),
  )
  enter = leave = None
  with np.errstate(divide="ignore", invalid="ignore"):
    for ray, position, side in zip(local, middle, half.astype(np.float32), strict=True):
      first, second = (position - side) / ray, (position + side) / ray
      near, far = np.minimum(first, second), np.maximum(first, second)
      enter = near if enter is None else np.maximum(enter, near)
      leave = far if leave is None else np.minimum(leave, far)
  return np.where((enter <= leave) & (enter > 0), enter, np.float32(np.inf))
