"""The world as end-to-end driving shards: wire format, geometry of states and cameras, extras."""

import json

import numpy as np
import pytest

from vistraj_jax.core import geometry
from vistraj_jax.data import images, records, waymo_e2e
from vistraj_jax.prepare import embedded
from vistraj_jax.prepare.waymo_e2e import convert, messages, submission
from vistraj_jax.prepare.world import driving, painter, render, town, waymo_writer

SETTINGS = {
  **waymo_writer.SETTINGS,
  "sequences": {"train": 2, "val": 2, "test": 1},
  "shards": {"train": 2, "val": 1, "test": 1},
  "frames": 3,
  "width": 90,
  "moving": 8,
  "parked": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp("world")
  assert waymo_writer.write(out, SETTINGS)["frames"] == 15
  return out


@pytest.fixture(scope="module")
def drive():
  return driving.simulate(SETTINGS["seed"], 20.0, SETTINGS["moving"], SETTINGS["parked"])


def _read(folder, prefix):
  source = records.TFRecordSource(sorted(folder.glob(f"{prefix}*.tfrecord-*")))
  return [(messages.read_frame(payload), payload) for payload in source]


def test_val_frames(folder):
  found = _read(folder, "val_")
  assert len(found) == 6
  assert len({waymo_e2e.sequence_of(frame.name) for frame, _ in found}) == 2
  heights = dict.fromkeys(waymo_e2e.CAMERAS, 100) | {"REAR": 51}
  heights |= {"REAR_LEFT": 54, "REAR_RIGHT": 54}
  for frame, payload in found:
    assert set(frame.images) == set(frame.calibrations) == set(waymo_e2e.CAMERAS)
    for name, (first, length) in frame.images.items():
      image = images.decode(payload[first : first + length])
      assert image.shape == (heights[name], 90, 3) and image.std() > 10
      calibration = frame.calibrations[name]
      assert (calibration.height, calibration.width) == image.shape[:2]
    assert frame.past.shape == (16, 6) and frame.future.shape == (20, 3)
    np.testing.assert_array_equal(frame.past[-1, :2], 0)
    np.testing.assert_allclose(
      np.diff(frame.past[:, :2], axis=0)[:-1] * 4, frame.past[1:-1, 2:4], atol=1e-3
    )
    np.testing.assert_array_equal(frame.past[-1, 2:], frame.past[-2, 2:])
  rated = [frame for frame, _ in found if frame.rated[0].score >= 0]
  assert len(rated) == 2 and len({waymo_e2e.sequence_of(frame.name) for frame in rated}) == 2
  for frame in rated:
    assert [len(r.xy) for r in frame.rated] == [21, 21, 21]
    assert frame.rated[0].score == 9 == max(r.score for r in frame.rated)
    np.testing.assert_array_equal(frame.rated[0].xy[:20], frame.future[:, :2])


def test_other_splits_and_files(folder):
  train, test = _read(folder, "training_"), _read(folder, "test_")
  assert len(list(folder.glob("training_*"))) == 2 and len(train) == 6
  assert {len(frame.future) for frame, _ in train} == {20}
  assert {frame.rated for frame, _ in train + test} == {()}
  assert {tuple(frame.images) for frame, _ in train} == {("FRONT",)}
  assert {len(frame.future) for frame, _ in test} == {0}
  listed = submission.read_listed(folder / waymo_writer.SUBMISSION_FRAMES)
  assert len(listed) == 1 and listed[0] in {frame.name for frame, _ in test}
  clusters = json.loads((folder / convert.CLUSTERS).read_text())
  assert set(clusters) == {waymo_e2e.sequence_of(f.name) for f, _ in _read(folder, "val_")}


def test_conversion_and_the_same_bytes_again(folder, tmp_path):
  statistics = convert.prepare(folder, tmp_path / "out", size=32, cameras=("FRONT",))
  counts = {split: total["frames"] for split, total in statistics["splits"].items()}
  assert counts == {"train": 6, "val": 6, "test": 3}
  assert statistics["splits"]["val"]["rated"] == 2
  assert sum(statistics["splits"]["val"]["clusters"].values()) == 6
  again = tmp_path / "again"
  waymo_writer.write_shard(again / "shard", SETTINGS, "train", [0])
  name = "training_world.tfrecord-00000-of-00002"
  assert (again / "shard").read_bytes() == (folder / name).read_bytes()


def test_states_are_those_of_the_drive(drive):
  past, future = waymo_writer.states(drive, 7.0)
  state = drive.at([7.0, 5.0, 8.25, 12.0])
  places = geometry.into_frame(
    state.ego_translation, state.ego_translation[0], state.ego_rotation[0]
  )
  np.testing.assert_allclose(past[7, :2], places[1, :2], atol=1e-4)  # 2 s back
  np.testing.assert_allclose(future[4], places[2], atol=1e-4)
  np.testing.assert_allclose(future[19], places[3], atol=1e-4)
  assert past[:-1, 0].max() < 0 <= future[:, 0].min() + 1e-3


def test_calibrations_agree_with_the_pictures():
  rng = np.random.default_rng(0)
  ego_place = np.array([12.0, -7.0, 0.0])
  ego_turn = geometry.multiply_quaternions(geometry.yaw_quaternion(0.7), (0.9999, 0, 0.01, 0))
  for name in waymo_e2e.CAMERAS:
    camera, calibration = waymo_writer.mount(name, 486)
    local = rng.uniform([5, -3, -2], [30, 3, 2], (40, 3))  # camera frame: x ahead, y left, z up
    ego = local @ calibration.extrinsic[:3, :3].T + calibration.extrinsic[:3, 3]
    f_u, f_v, c_u, c_v = calibration.intrinsic[:4]
    u, v = c_u - f_u * local[:, 1] / local[:, 0], c_v - f_v * local[:, 2] / local[:, 0]
    world = geometry.out_of_frame(ego, ego_place, ego_turn)
    eye = painter.Eye(camera, ego_place, ego_turn)
    points, _, _ = eye.pictures(np.stack([world] * 3, 1))
    # Fixed point with 4 bits, in which the middle of a pixel is whole.
    np.testing.assert_allclose(points[:, 0] / 16 + 0.5, np.stack([u, v], -1), atol=0.05)
    assert (calibration.width, calibration.height) == camera.image_size == eye.size


def test_intents_follow_the_route(drive):
  path = np.concatenate(
    [
      np.stack([np.arange(0, 100, town.STEP), np.zeros(200)], -1),
      np.stack([np.full(200, 100.0), np.arange(0, 100, town.STEP)], -1),
    ]
  )

  def intent(points, place):
    class Route:
      paths = points[None]

    return waymo_e2e.INTENTS[waymo_writer.intent(Route, np.array(place))]

  assert intent(path, (20.0, 0.5)) == "straight"
  assert intent(path, (80.0, 0.5)) == "left"
  assert intent(path * (1, -1), (80.0, 0.5)) == "right"
  assert intent(path, (100.0, 30.0)) == "straight"
  assert intent(path, (100.0, 99.5)) == "straight"  # the end


def test_a_signal_changes_the_front_image(drive):
  renderer = render.Renderer(drive)
  camera, _ = waymo_writer.mount("FRONT", 324)
  times = np.linspace(4.5, 14.7, 12)
  state = drive.at(times)
  differ = 0
  for k in range(len(times)):
    # The same scene under other signals.
    red, green = (
      renderer.image(renderer.moment(state, k, t), camera).astype(int)
      for t in (times[k], times[k] + town._CYCLE / 2)
    )
    differ += np.abs(red - green).max() > 60
  assert differ >= 6


def test_embedded_data_set(tmp_path, monkeypatch):
  monkeypatch.setenv("VISTRAJ_JAX_CACHE", str(tmp_path))
  monkeypatch.setattr(waymo_writer, "SETTINGS", SETTINGS)
  monkeypatch.setattr(embedded.os, "cpu_count", lambda: 1)
  root = embedded.root("vlm_waypoint")
  cfg = {"visual": "image", "camera": "FRONT", "image_size": 0, "root": str(root)}
  batch = waymo_e2e.load(cfg, "val", {}).gather(np.arange(6))
  assert batch["image"].shape == (6, 100, 90, 3)
  assert embedded.root("vlm_waypoint") == root
