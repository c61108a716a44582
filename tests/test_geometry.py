"""Frames, corners and projections, against hand-made numbers, SciPy, Shapely and real boxes."""

import json

import numpy as np
import pytest
import real_data
from scipy.spatial import transform
from shapely import geometry as shapely_geometry

from vistraj_jax.core import geometry
from vistraj_jax.prepare.nuscenes import boxes as nuscenes_boxes

INTRINSIC = np.array([[1000.0, 0, 800], [0, 1000, 450], [0, 0, 1]])
SIZE = (1600, 900)


def _cube(center, side=2.0):
  """Corners [1, 8, 3] of an axis-parallel cube in the camera frame."""
  return geometry.box_corners([center], [(side,) * 3], [(1, 0, 0, 0)])


def test_rotations_equal_scipy():
  q = np.random.default_rng(0).normal(size=(20, 4))
  wanted = transform.Rotation.from_quat(q, scalar_first=True)
  np.testing.assert_allclose(geometry.rotation_matrix(q), wanted.as_matrix(), atol=1e-12)
  p = np.roll(q, 1, 0)
  product = wanted * transform.Rotation.from_quat(p, scalar_first=True)
  found = geometry.rotation_matrix(geometry.multiply_quaternions(q, p))
  np.testing.assert_allclose(found, product.as_matrix(), atol=1e-12)
  quarter = geometry.rotation_matrix(geometry.yaw_quaternion(np.pi / 2))
  np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_into_frame_undoes_out_of_frame():
  rng = np.random.default_rng(1)
  points, place, q = rng.normal(size=(5, 7, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
  there = geometry.out_of_frame(points, place, q)
  np.testing.assert_allclose(geometry.into_frame(there, place, q), points, atol=1e-12)


def test_a_point_left_of_a_car_heading_north():
  q = geometry.yaw_quaternion(np.pi / 2)
  found = geometry.into_frame([[7.0, 20.0, 1.0]], [10.0, 20.0, 0.0], q)
  np.testing.assert_allclose(found, [[0, 3, 1]], atol=1e-12)  # west of it is its left


def test_box_corners_of_a_turned_car():
  corners = geometry.box_corners([0, 0, 1], (2.0, 4.0, 2.0), geometry.yaw_quaternion(np.pi / 2))
  np.testing.assert_allclose(corners.min(0), [-1, -2, 0], atol=1e-12)  # now long along y
  np.testing.assert_allclose(corners.max(0), [1, 2, 2], atol=1e-12)
  np.testing.assert_allclose(corners[0], [-1, 2, 2], atol=1e-12)  # front, left, top


def test_projected_cube_by_hand():
  # The near face (z = 9) bounds the box: 1000 * 1 / 9 px to every side of (800, 450).
  for clip in ("corners", "hull"):
    box = geometry.visible_box(_cube((0, 0, 10)), [10.0], INTRINSIC, SIZE, clip)
    r = 1000 / 9
    np.testing.assert_allclose(box, [[800 - r, 450 - r, 2 * r, 2 * r]], rtol=1e-9)


def test_boxes_that_reach_over_the_edge_are_clipped():
  box = geometry.visible_box(_cube((-8, 0, 10)), [10.0], INTRINSIC, SIZE)[0]
  assert box[0] == 0
  np.testing.assert_allclose(box[0] + box[2], 800 - 7 / 11 * 1000)  # far right edge


@pytest.mark.parametrize(
  ("center", "side", "corners_rule", "hull_rule"),
  [
    ((0, 0, -10), 2.0, False, False),  # behind
    ((40, 0, 10), 2.0, False, False),  # far to the side
    ((0, 0, 1.2), 2.0, False, True),  # all corners outside the image, which it fills
    ((0, 0, 0.5), 2.0, False, True),  # reaches behind the camera
    ((0, 0, 2500), 2.0, False, True),  # below one pixel
  ],
)
def test_which_boxes_the_two_rules_reject(center, side, corners_rule, hull_rule):
  corners = _cube(center, side)
  for clip, wanted in (("corners", corners_rule), ("hull", hull_rule)):
    box = geometry.visible_box(corners, [center[2]], INTRINSIC, SIZE, clip)
    assert bool(np.isfinite(box).all()) is wanted, clip


def test_hull_equals_shapely():
  rng = np.random.default_rng(2)
  center = rng.uniform([-40, -6, -10], [40, 6, 60], (400, 3))
  size, q = rng.uniform(0.5, 12, (400, 3)), rng.normal(size=(400, 4))
  corners = geometry.box_corners(center, size, q)
  found = geometry.visible_box(corners, center[:, 2], INTRINSIC, SIZE, "hull")
  image = shapely_geometry.box(0, 0, *SIZE)
  compared = 0
  for box, points in zip(found, corners, strict=True):
    ahead = points[points[:, 2] > 0]
    if len(ahead) < 3:
      continue
    hull = shapely_geometry.MultiPoint(geometry.project(ahead, INTRINSIC)[0]).convex_hull
    part = hull.intersection(image)
    if part.area == 0:
      assert np.isnan(box).all()
      continue
    left, top, right, bottom = part.bounds
    np.testing.assert_allclose(box, [left, top, right - left, bottom - top], atol=1e-3)
    compared += 1
  assert compared > 150


def test_box_formats():
  xywh = np.array([[10.0, 20.0, 4.0, 6.0]])
  np.testing.assert_array_equal(geometry.xywh_to_cxcywh(xywh), [[12, 23, 4, 6]])
  np.testing.assert_array_equal(geometry.cxcywh_to_xywh(geometry.xywh_to_cxcywh(xywh)), xywh)


def test_real_boxes_of_the_official_devkit():
  root = real_data.folder("nuscenes_scenes")
  tables = {
    name: json.loads((root / "v1.0-mini" / f"{name}.json").read_text())
    for name in (
      *("scene", "sample", "sample_data", "sample_annotation", "ego_pose"),
      *("calibrated_sensor", "sensor"),
    )
  }
  by_token = {name: {row["token"]: row for row in rows} for name, rows in tables.items()}
  channel = {
    row["token"]: by_token["sensor"][row["sensor_token"]]["channel"]
    for row in tables["calibrated_sensor"]
  }
  images = {
    (row["sample_token"], channel[row["calibrated_sensor_token"]]): row
    for row in tables["sample_data"]
    if row["is_key_frame"]
  }
  annotations = {
    (row["sample_token"], row["instance_token"]): row for row in tables["sample_annotation"]
  }
  samples = {}
  for scene in tables["scene"]:
    token = scene["first_sample_token"]
    while token:
      samples.setdefault(scene["name"], []).append(token)
      token = by_token["sample"][token]["next"]
  with np.load(root / "expected_keyframe_boxes.npz") as stored:
    expected = dict(stored)
  worst = 0.0
  for camera_number, camera in enumerate(expected["cameras"]):
    rows = np.flatnonzero(expected["index"][:, 1] == camera_number)
    boxes, poses = [], []
    for scene, _, keyframe, instance in expected["index"][rows]:
      sample = samples[str(expected["scenes"][scene])][keyframe]
      boxes.append(annotations[sample, str(expected["instances"][instance])])
      data = images[sample, str(camera)]
      pose = by_token["ego_pose"][data["ego_pose_token"]]
      poses.append([*pose["translation"], *pose["rotation"]])
    sensor = by_token["calibrated_sensor"][data["calibrated_sensor_token"]]
    found = nuscenes_boxes.camera_boxes(
      np.array([b["translation"] for b in boxes]),
      np.array([b["size"] for b in boxes]),
      np.array([b["rotation"] for b in boxes]),
      np.array(poses),
      np.array([*sensor["translation"], *sensor["rotation"]]),
      np.array(sensor["camera_intrinsic"]),
      (1600, 900),
      "hull",
    )
    ltrb = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
    worst = max(worst, np.abs(ltrb - expected["ltrb"][rows]).max())
  assert len(expected["index"]) == 4830
  assert worst < 0.01


def test_slerp():
  first, second = geometry.yaw_quaternion(np.array([0.2, 1.0]))
  found = geometry.slerp(first, second, np.array([0, 0.25, 1]))
  np.testing.assert_allclose(found, geometry.yaw_quaternion(np.array([0.2, 0.4, 1.0])), atol=1e-12)
  # The other sign and another length stand for the same rotations; equal ones stay.
  other = geometry.slerp(first, -3 * second, 0.25)
  np.testing.assert_allclose(other, found[1], atol=1e-12)
  np.testing.assert_allclose(geometry.slerp(first, first, 0.3), first, atol=1e-12)
