"""Rendered images: who hides whom, how much is seen, colours, signals, the near plane."""

import itertools

import cv2
import numpy as np
import pytest
import standing

from vistraj_jax.core import geometry
from vistraj_jax.prepare.world import bodies, cameras, driving, painter, render, scenery

FRONT = cameras.RIG[0]
BUS = driving.SIZES["bus"]


def _moment(drive, state, time=0.0):
  renderer = render.Renderer(drive, way=np.zeros((1, 2)))
  return renderer, renderer.moment(state, 0, time)


def _box_mask(drive, state, agent):
  """Pixels of the front image within the hull of an agent's projected box, by half planes."""
  corners = geometry.box_corners(
    state.center[0, agent],
    drive.size_wlh[agent],
    geometry.yaw_quaternion(state.yaw[0, agent]),
  )
  points = geometry.into_frame(corners, FRONT.translation, FRONT.rotation)
  hull = cv2.convexHull(geometry.project(points, FRONT.intrinsic)[0].astype(np.float32))[:, 0]
  y, x = np.mgrid[:900, :1600] + 0.5
  inside = np.ones((900, 1600), bool)
  for (ax, ay), (bx, by) in zip(hull, np.roll(hull, -1, 0), strict=True):
    inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) >= 0
  if not inside.any():  # the hull ran the other way
    inside = np.ones((900, 1600), bool)
    for (ax, ay), (bx, by) in zip(hull, np.roll(hull, -1, 0), strict=True):
      inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) <= 0
  return inside


@pytest.mark.parametrize("offset", [0.6, 1.5, 2.1, 3.0, 8.0])
def test_visible_share_equals_a_count_of_pixels(offset):
  """One bus hides a part of another: a wall 3.3 m behind a wall that `offset` m aside."""
  drive, state = standing.scene([(30, 0), (16, offset)], ("bus", "bus"), BUS)
  renderer, moment = _moment(drive, state)
  pixels, share = renderer.visibility(moment)
  far, near = (_box_mask(drive, state, agent) for agent in (1, 2))
  wanted = (far & ~near).sum() / far.sum()
  assert abs(share[1] - wanted) < 0.03 and share[2] == 1.0
  count = (far & ~near).sum()
  assert abs(pixels[1] - count) <= 0.12 * count + 40  # the space between the wheels is open
  assert pixels[0] == share[0] == 0  # the ego car


def test_houses_and_signal_posts_hide():
  drive, state = standing.scene([(30, 0), (70, 0)], buildings=[(40, -10, 50, 10)])
  renderer, moment = _moment(drive, state)
  pixels, share = renderer.visibility(moment)
  assert share[1] == 1.0 and pixels[2] == share[2] == 0
  image = renderer.image(moment, FRONT)
  numbers, _ = renderer.numbers(moment, FRONT, scale=1)
  assert set(np.unique(numbers)) == {0, 1}
  assert (image[300, 700:900] != image[300, 0]).any()  # the house stands against the sky


def test_numbers_follow_the_painted_order_of_parts():
  """A truck seen from behind: its box hides its cab, wherever the list of parts has it."""
  for yaw in np.arange(8) * np.pi / 4:
    drive, state = standing.scene([(14, 1)], ("truck",), driving.SIZES["truck"], yaw)
    renderer, moment = _moment(drive, state)
    image = renderer.image(moment, FRONT)
    mask = _box_mask(drive, state, 1)
    color = bodies.paint("truck", 1)
    shown = image[mask].astype(float)
    like = shown @ color / np.linalg.norm(shown, axis=1) / np.linalg.norm(color) > 0.995
    assert like.mean() > 0.2, yaw


@pytest.mark.parametrize("name", ["car", "truck", "bus", "trailer"])
@pytest.mark.parametrize("yaw", [1.2, 1.57, -1.4])
def test_center_of_the_box_has_the_colour_of_the_object(name, yaw):
  drive, state = standing.scene([(16, -1)], (name,), driving.SIZES[name], yaw)
  renderer, moment = _moment(drive, state)
  image = renderer.image(moment, FRONT)
  point = geometry.into_frame(state.center[0, 1][None], FRONT.translation, FRONT.rotation)
  (x, y) = geometry.project(point, FRONT.intrinsic)[0][0]
  _assert_colour(image[int(y), int(x)], bodies.paint(name, 1), 15.0)


def _assert_colour(pixel, paint, distance):
  haze = painter.hazed(np.zeros((1, 3)), np.array([distance]))[0]
  shown = pixel - haze
  np.testing.assert_allclose(
    shown / np.linalg.norm(shown), paint / np.linalg.norm(paint), atol=0.04
  )
  assert 0.55 < np.linalg.norm(shown) / np.linalg.norm(paint) < 1.1


def test_nothing_is_painted_outside_the_annotated_box():
  for (name, size), yaw in itertools.product(driving.SIZES.items(), (0.3, 2.0, 4.0)):
    drive, state = standing.scene([(14, 0.5)], (name,), size, yaw)
    renderer, moment = _moment(drive, state)
    numbers, _ = renderer.numbers(moment, FRONT, scale=1)
    mask = cv2.dilate(_box_mask(drive, state, 1).astype(np.uint8), np.ones((5, 5)))
    assert not ((numbers == 1) & (mask == 0)).any(), name
    box = cameras.boxes(drive, state, FRONT)[0, 1]
    rows, columns = np.nonzero(numbers)
    drawn = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    if name in ("car", "bus"):  # others have corners of air
      np.testing.assert_allclose(drawn[:3], box[:3], atol=0.03 * box[2:].max() + 3)
      assert 0.8 * box[3] < drawn[3] < box[3] + 3  # the lowest corner may be air beside a wheel


def test_signals_show_the_state_of_the_town():
  drive, state = standing.scene([(100, 80)])
  renderer = render.Renderer(drive, way=np.array([[60.0, -1.75]]))
  state.ego_translation[0, :2] = (60, -1.75)
  seen = set()
  for time in np.arange(0, 24, 1.0):
    moment = renderer.moment(state, 0, time)
    image = renderer.image(moment, FRONT).astype(int)
    blue, green, red = np.moveaxis(image[300:470], -1, 0)
    is_green = ((green > 200) & (red < 150)).sum()
    is_red = ((red > 200) & (green < 120)).sum()
    go = bool(drive.green(np.array([[1, 0]]), np.array([0]), time)[0])
    # The post at the next stop line is the nearest: its lamp has the most pixels.
    assert (is_green > is_red) == go, time
    seen.add(go)
  assert seen == {True, False}


def test_polygons_are_cut_at_the_near_plane():
  triangle = np.array([(-1.0, 0, -1), (1, 0, -1), (0, 0, 3)])
  cut = painter.cut_at(triangle, 1.0)
  np.testing.assert_allclose(sorted(cut.tolist()), [(-0.5, 0, 1), (0, 0, 3), (0.5, 0, 1)])
  # A bus that reaches from behind the camera to before it fills its side of the image.
  drive, state = standing.scene([(3, -2.6)], ("bus",), BUS)
  renderer, moment = _moment(drive, state)
  numbers, _ = renderer.numbers(moment, FRONT, scale=1)
  assert (numbers[300:500, 1500:] == 1).all() and not (numbers[:, :900] == 1).any()


def test_order_of_footprints():
  eye = np.zeros(2)
  square = np.array([(-1.0, -1), (1, -1), (1, 1), (-1, 1)])
  wall = np.array([(5.0, 3), (60, 3), (60, 8), (5, 8)])  # its nearest corner is near
  car = square + (40, 0)  # before the wall, but farther than its nearest corner
  behind = square + (40, 12)
  order = painter.far_to_near(np.stack([car, wall, behind]), eye).tolist()
  assert order.index(2) < order.index(1) < order.index(0)
  turn = np.arange(3) * 2 * np.pi / 3
  ring = []
  for angle in turn:  # three slats, each before the next as seen from the centre
    slat = np.array([(4.0, -5), (4.6, -5), (9, 6), (8.4, 6)])
    cos, sin = np.cos(angle), np.sin(angle)
    ring.append(slat @ np.array([(cos, sin), (-sin, cos)]))
  assert sorted(painter.far_to_near(np.array(ring), eye).tolist()) == [0, 1, 2]


def test_images_are_a_street_and_repeatable():
  drive = driving.simulate(8, 2.0, 60, 20)
  state = drive.at([1.0])
  renderer = render.Renderer(drive)
  moment = renderer.moment(state, 0, 1.0)
  images = [renderer.image(moment, camera) for camera in cameras.RIG]
  again = render.Renderer(drive)
  for camera, image in zip(cameras.RIG, images, strict=True):
    assert image.shape == (900, 1600, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, again.image(again.moment(state, 0, 1.0), camera))
  front = images[0].astype(int)
  assert front[0, 800, 0] > front[0, 800, 2] + 40  # blue sky
  assert np.ptp(front[880, 600]) < 12  # gray road
  white = (front[500:880] > 205).all(-1)
  assert 0.002 < white.mean() < 0.2  # lane marks


def test_houses_fill_their_blocks():
  drive = driving.simulate(8, 2.0, 30, 5)
  way = drive.at([1.0]).ego_translation[:, :2]
  houses = scenery.houses(drive.town, drive.buildings, way)
  low, high = houses.footprints[:, 0], houses.footprints[:, 2]
  assert ((high - low) > 5).all() and (houses.heights > 8).all()
  for k in range(len(low)):
    block = (drive.buildings[:, :2] <= low[k] + 1e-6) & (drive.buildings[:, 2:] >= high[k] - 1e-6)
    assert block.all(1).any()  # within one block
    over = (low < high[k] - 1e-6).all(1) & (high > low[k] + 1e-6).all(1)
    assert over.sum() == 1  # no two houses share ground


def test_bodies_fill_their_boxes():
  for name, size in driving.SIZES.items():
    for number in range(8):
      body = bodies.body(name, size, number, parked=number % 2 == 0)
      half = np.array(size)[[1, 0, 2]] / (2, 2, 1)
      points = body.polygons.reshape(-1, 3)
      assert (np.abs(points[:, :2]) <= half[:2] + 1e-9).all(), name
      assert points[:, 2].min() >= 0 and points[:, 2].max() <= size[2] + 1e-9
      assert points[:, 2].max() > 0.6 * size[2] and points[:, 2].min() < 0.03 * size[2]
      assert body.part.max() + 1 == len(body.low) and (body.low < body.high).all()
  with_rider = bodies.body("motorcycle", driving.SIZES["motorcycle"], 3)
  without = bodies.body("motorcycle", driving.SIZES["motorcycle"], 3, parked=True)
  assert len(with_rider.polygons) > len(without.polygons)
