"""LiDAR sweeps of the world: geometry by hand and by marching along rays, points in boxes."""

import numpy as np
import pytest
import standing

from vistraj_jax.core import geometry
from vistraj_jax.prepare.world import driving, lidar, render

DOWN = np.deg2rad(np.linspace(-30.67, 10.67, 32))


def _sweep(drive, state, seed=0):
  renderer = render.Renderer(drive, way=np.zeros((1, 2)))
  moment = renderer.moment(state, 0, 0.0)
  return lidar.scan(moment, renderer.houses, np.random.default_rng(seed)), moment, renderer


def test_empty_field_is_rings_on_the_ground():
  sweep, _, _ = _sweep(*standing.scene([(500, 0)]))
  points = sweep.points
  assert points.dtype == np.float32 and points.shape[1] == 5
  reach = 1.84 / np.tan(-DOWN[DOWN < 0])
  hit = np.hypot(reach, 1.84) < lidar.RANGE
  assert len(points) == hit.sum() * lidar.COLUMNS
  for ring in np.flatnonzero(hit):
    mine = points[points[:, 4] == ring]
    np.testing.assert_allclose(np.hypot(mine[:, 0], mine[:, 1]), reach[ring], atol=0.1)
    np.testing.assert_allclose(mine[:, 2], -1.84, atol=0.05)
  assert 0.01 < np.std(np.linalg.norm(points[points[:, 4] == 0][:, :3], axis=1)) < 0.02
  assert sweep.counts.tolist() == [0, 0]
  # Clockwise from the left, all beams of a column together.
  assert points[0, 0] < 0 and abs(points[0, 1]) < 0.1
  assert np.diff(points[: hit.sum(), 4]).min() == 1
  assert points[10 * hit.sum(), 1] > 0


def test_a_car_ahead_is_ahead():
  sweep, _, _ = _sweep(*standing.scene([(10.94, 3.0)]))
  x, y, z = sweep.points[:, :3].T
  on_car = z > -1.5
  # Sensor frame: x right, y ahead; the rear of the car is 8 m before the sensor, 3 m to the left.
  assert on_car.sum() > 200
  assert abs(y[on_car].min() - 8.0) < 0.15
  assert -4.1 < x[on_car].min() < -3.9 and -2.1 < x[on_car].max() < -1.9
  assert sweep.counts[1] >= on_car.sum()


def test_every_point_is_where_its_ray_first_meets_something():
  """Marches along rays in steps of 2 cm through the same houses and parts."""
  drive, state = standing.scene(
    [(9, 2), (6, -5), (-8, 4), (14, 1), (3, 7)],
    ("car", "pedestrian", "truck", "bus", "bicycle"),
    [driving.SIZES[n] for n in ("car", "pedestrian", "truck", "bus", "bicycle")],
    (0.4, 1.0, 2.5, -0.3, 3.0),
    buildings=[(20, -9, 30, 12), (-40, 8, -20, 30)],
  )
  tilt = np.array([np.cos(0.01), 0, np.sin(0.01), 0])  # the nose 1 degree down
  state.ego_rotation[0] = tilt
  sweep, moment, renderer = _sweep(drive, state)
  ego = geometry.rotation_matrix(tilt)
  turn = ego @ geometry.rotation_matrix(lidar.ROTATION)
  origin = ego @ lidar.TRANSLATION
  rng = np.random.default_rng(1)
  chosen = rng.choice(len(sweep.points), 600, replace=False)
  local = sweep.points[chosen, :3].astype(float)
  found = np.linalg.norm(local, axis=1)
  steps = np.arange(0.1, 45, 0.02)
  path = origin + (local / found[:, None] @ turn.T)[:, None] * steps[:, None]
  inside = path[..., 2] <= 0
  low, high = renderer.houses.footprints[:, 0], renderer.houses.footprints[:, 2]
  for a, b, height in zip(low, high, renderer.houses.heights, strict=True):
    inside |= ((path[..., :2] >= a) & (path[..., :2] <= b)).all(-1) & (path[..., 2] <= height)
  for k in np.flatnonzero(moment.part_agent > 0):
    half = np.maximum(moment.part_half[k] - 0.05, 0.3 * moment.part_half[k])
    part = geometry.into_frame(
      path.reshape(-1, 3),
      moment.part_center[k],
      geometry.yaw_quaternion(moment.part_yaw[k]),
    )
    inside |= (np.abs(part) <= half).all(-1).reshape(inside.shape)
  within = found < 44
  assert within.mean() > 0.8 and inside[within].any(1).all()
  first = steps[inside.argmax(1)]
  # Grazing rays may meet the noise of a ray's direction: nearly all agree.
  agree = np.abs(first - found) < 0.12
  assert agree[within].mean() > 0.985
  assert (sweep.counts[1:] > 5).all()


def test_counts_are_those_of_the_devkit():
  utils = pytest.importorskip("nuscenes.utils.geometry_utils")
  from nuscenes.utils.data_classes import Box
  from pyquaternion import Quaternion

  drive = driving.simulate(8, 1.0, 110, 30)
  state = drive.at([0.5])
  renderer = render.Renderer(drive)
  moment = renderer.moment(state, 0, 0.5)
  sweep = lidar.scan(moment, renderer.houses, np.random.default_rng(0))
  near = np.linalg.norm(state.center[0] - state.ego_translation[0], axis=-1) < 60
  checked = 0
  for agent in np.flatnonzero(near)[1:]:
    rotation = Quaternion(axis=[0, 0, 1], angle=state.yaw[0, agent])
    box = Box(state.center[0, agent], drive.size_wlh[agent], rotation)
    box.translate(-state.ego_translation[0])
    box.rotate(Quaternion(state.ego_rotation[0]).inverse)
    box.translate(-np.array(lidar.TRANSLATION))
    box.rotate(Quaternion(lidar.ROTATION).inverse)
    inside = utils.points_in_box(box, sweep.points[:, :3].T)
    assert inside.sum() == sweep.counts[agent]
    checked += inside.any()
  assert checked > 10


def test_noise_is_seeded():
  scene = standing.scene([(9, 2)])
  first, again, other = _sweep(*scene)[0], _sweep(*scene)[0], _sweep(*scene, seed=1)[0]
  np.testing.assert_array_equal(first.points, again.points)
  assert (first.points != other.points).any()
