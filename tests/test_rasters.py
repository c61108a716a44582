"""Points and boxes as images: the public pipeline's numbers, and one convention for all of them."""

import golden_cases
import numpy as np
import pytest

from vistraj_jax.core import checks, geometry
from vistraj_jax.data import depth as depth_images
from vistraj_jax.prepare import rasters

GRID = rasters.Grid(12.8, 0.2)


def _golden():
  case = golden_cases.load("xmem", "geometry")
  inputs = {k[3:]: v for k, v in case.arrays.items() if k.startswith("in/")}
  poses = {k: (v[4:], v[:4]) for k, v in inputs.items() if v.shape == (7,)}
  return case, inputs, poses, {k: rasters.pose_matrix(*v) for k, v in poses.items()}


def _check(case, name, value, bad_pixels=0):
  tolerance = case.manifest["tolerance"]
  own = {**tolerance, **tolerance["per_output"].get(name, {})}
  want = case.arrays[f"out/{name}"]
  wrong = np.abs(value - want) > own["atol"] + own["rtol"] * np.abs(want)
  assert value.shape == want.shape and wrong.sum() <= bad_pixels, name


def test_published_boxes_from_above():
  case, inputs, poses, _ = _golden()
  boxes = inputs["annotations"]
  center = geometry.into_frame(boxes[:, :3], *poses["ego_pose_lidar"])
  heading = rasters.yaw(boxes[:, 6:]) - rasters.yaw(poses["ego_pose_lidar"][1])
  _check(case, "box_center_ego", center[:, :2])
  _check(case, "box_yaw_ego", heading)
  corners = rasters.bev_corners(center, boxes[:, 3:6], heading, GRID)
  clipped = corners.clip(0, GRID.size - 1)
  np.testing.assert_array_equal(clipped, case.arrays["out/bev_polygon"])
  want = case.arrays["out/bev_mask"] > 0
  published = rasters.filled(clipped, (GRID.size, GRID.size))
  overlap = (published & want).sum((1, 2)) / (published | want).sum((1, 2))
  assert (overlap >= 0.97).all()
  # Clipping leaves a sliver of boxes outside; here they leave nothing.
  own = rasters.filled(corners, (GRID.size, GRID.size))
  assert own.any((1, 2)).tolist() == [True, False, False, False]
  anchor = rasters.planar_into_frame(inputs["future_global"], *poses["ego_pose_cam"])
  _check(case, "future_anchor", anchor)


def test_published_points():
  case, inputs, _, pose = _golden()
  camera = np.linalg.inv(pose["ego_pose_cam"] @ pose["sensor_cam"])
  matrix = camera @ pose["ego_pose_lidar"] @ pose["sensor_lidar"]
  _check(case, "T_cam_from_lidar", matrix)
  intrinsic = depth_images.scaled_intrinsic(inputs["camera_K"], (900, 1600), (60, 96))
  _check(case, "K_scaled", intrinsic)
  points = inputs["points_lidar"]
  depth = rasters.depth_image(rasters.transform(matrix, points), intrinsic, (60, 96))
  _check(case, "depth", depth, bad_pixels=2)
  inverse, valid = depth_images.inverse_depth(depth)
  _check(case, "inverse_depth", inverse, bad_pixels=2)
  _check(case, "valid", valid, bad_pixels=2)
  points = np.concatenate([points, inputs["intensity"][:, None]], 1)
  ego = rasters.join_sweeps([(points, pose["sensor_lidar"], pose["ego_pose_lidar"], 0.0)])
  _check(case, "points_ego", ego[:, :4])
  # The public raster has y rising along rows and x along columns.
  own = rasters.lidar_bev(ego, GRID)
  _check(case, "lidar_bev", own[:, ::-1, ::-1].swapaxes(1, 2))
  sweeps = [
    (points[:750], pose["sensor_lidar"], pose["ego_pose_lidar"], 0.0),
    (points[750:], pose["sensor_lidar"], pose["ego_pose_cam"], -0.05),
  ]
  _check(case, "sweeps_aggregated", rasters.join_sweeps(sweeps))


def test_points_of_a_box_lie_in_its_mask():
  """A car 8 m ahead, 3 m to the left, turned by 30 degrees."""
  center, size, heading = np.array([[8.0, 3.0, 0.0]]), np.array([[2.0, 4.6, 1.5]]), np.radians([30])
  along, across = np.meshgrid(np.linspace(-2.2, 2.2, 40), np.linspace(-0.9, 0.9, 20))
  cos, sin = np.cos(heading), np.sin(heading)
  x = center[0, 0] + cos * along.ravel() - sin * across.ravel()
  y = center[0, 1] + sin * along.ravel() + cos * across.ravel()
  points = np.stack([x, y, 0 * x, 0 * x], -1)
  seen = rasters.lidar_bev(points, GRID)[0] > 0
  corners = rasters.bev_corners(center, size, heading, GRID)
  mask = rasters.filled(corners, (GRID.size, GRID.size))[0]
  assert (seen & mask).sum() > 0.95 * seen.sum() > 0  # edges are rounded to whole cells
  rows, columns = np.nonzero(seen)
  assert rows.mean() == pytest.approx((12.8 - 8) / 0.2, abs=1)  # ahead is up
  assert columns.mean() == pytest.approx((12.8 - 3) / 0.2, abs=1)  # left is left


def test_boxes_in_a_camera():
  intrinsic = np.array([[50.0, 0, 50], [0, 50, 30], [0, 0, 1]])
  half = np.array([1.0, 1.0, 1.0])

  def box(center):
    signs = geometry.box_corners(np.zeros(3), 2 * half, np.array([1.0, 0, 0, 0]))
    return signs + np.asarray(center, float)

  ahead, behind, aside, around = rasters.camera_masks(
    np.stack([box((0, 0, 11)), box((0, 0, -5)), box((40, 0, 11)), box((0, 0, 0.5))]),
    intrinsic,
    (60, 100),
  )
  # The near face, 10 m away, spans 50 / 10 = 5 px to each side of the centre.
  rows, columns = np.nonzero(ahead)
  assert (rows.min(), rows.max(), columns.min(), columns.max()) == (25, 35, 45, 55)
  assert not behind.any() and not aside.any()
  assert around.all()  # the camera is inside


def test_empty_sweeps_and_wrong_grids():
  nothing = np.zeros((0, 5))
  bev = rasters.lidar_bev(nothing, GRID)
  assert bev.shape == (4, 128, 128) and not bev[[0, 1, 3]].any()
  assert not rasters.depth_image(nothing[:, :3], np.eye(3), (4, 5)).any()
  joined = rasters.join_sweeps([(nothing[:, :4], np.eye(4), np.eye(4), 0.0)])
  assert joined.shape == (0, 5)
  depth = rasters.depth_image(np.array([[0, 0, 0], [np.nan, 0, 1], [1, 1, 2]]), np.eye(3), (4, 5))
  assert np.count_nonzero(depth) == 1 and depth[0, 0] == 2  # 0.5 is rounded to even
  with pytest.raises(checks.InputError, match=r"grid: 0.3 m does not divide 25.6 m"):
    rasters.Grid(12.8, 0.3)
