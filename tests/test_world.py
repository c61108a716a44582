"""The simulated drive is plausible and repeatable; its cameras and embedded data agree with it."""

import json

import numpy as np
import pytest
import standing

from vistraj_jax.core import geometry
from vistraj_jax.data import trackssm
from vistraj_jax.prepare import detector, embedded
from vistraj_jax.prepare.world import cameras, driving, nuscenes_writer, town
from vistraj_jax.tracking import mot_files

TIMES = np.arange(0, 10, 1 / 12)
SMALL = {
  "version": 1,
  "scenes": {"train": 1, "val": 1},
  "seconds": 2.0,
  "moving": 25,
  "parked": 10,
  "seed": 5,
  "sweeps": [],
}


@pytest.fixture(scope="module")
def drive():
  return driving.simulate(8, 10.0, 110, 30)


@pytest.fixture(scope="module")
def state(drive):
  return drive.at(TIMES)


def test_repeatable_and_seeded(drive):
  again, other = driving.simulate(8, 10.0, 110, 30), driving.simulate(9, 10.0, 110, 30)
  assert again.class_names == drive.class_names
  np.testing.assert_array_equal(again.distance, drive.distance)
  assert other.class_names != drive.class_names


def test_all_classes_take_part(drive):
  assert set(drive.class_names) == set(mot_files.CLASSES) == set(driving.SIZES)
  assert drive.class_names[0] == "car" and len(drive.class_names) > 80
  lengths = {name: drive.size_wlh[i, 1] for i, name in enumerate(drive.class_names)}
  assert lengths["pedestrian"] < lengths["bicycle"] < lengths["car"] < lengths["bus"]


def test_accelerations_and_speeds_are_those_of_traffic(drive, state):
  acceleration = np.diff(drive.speeds, axis=0) / 0.1
  assert acceleration.max() < 2.0 and acceleration.min() > -7.1
  assert np.quantile(acceleration, 0.01) > -4.0
  walkers = np.array(drive.class_names) == "pedestrian"
  assert state.speed[:, walkers].max() < 2.5 and state.speed.max() < 20
  assert (state.speed.mean(0) == 0).sum() >= 15  # parked
  assert 1.0 < state.speed[:, 0].mean()  # the ego car gets somewhere


def test_motion_is_continuous(state):
  step = np.linalg.norm(np.diff(state.center, axis=0), axis=-1) * 12
  np.testing.assert_allclose(step, (state.speed[:-1] + state.speed[1:]) / 2, atol=1.2)
  turn = np.abs(np.angle(np.exp(1j * np.diff(state.yaw, axis=0)))) * 12
  assert np.quantile(turn, 0.999) < 2.5  # rad/s


def test_any_sampling_times_agree(drive, state):
  few = drive.at(TIMES[[7, 60]])
  np.testing.assert_allclose(few.center, state.center[[7, 60]])
  np.testing.assert_allclose(few.ego_rotation, state.ego_rotation[[7, 60]])
  with pytest.raises(ValueError, match="outside 0..10"):
    drive.at([11.0])


def test_vehicles_rarely_touch(drive, state):
  vehicles = [i for i, n in enumerate(drive.class_names) if n in ("car", "truck", "bus")]
  center, yaw = state.center[::6, vehicles, :2], state.yaw[::6, vehicles]
  apart = np.linalg.norm(center[:, :, None] - center[:, None], axis=-1)
  aligned = np.cos(yaw[:, :, None] - yaw[:, None]) > 0.9
  length = drive.size_wlh[vehicles, 1]
  behind = np.abs(
    np.einsum(
      "tijk,tik->tij",
      center[:, None] - center[:, :, None],
      np.stack([-np.sin(yaw), np.cos(yaw)], -1),
    )
  )
  near = (length[:, None] + length) / 2
  touching = (apart < near) & aligned & (behind < 1.2)  # one behind the other in a lane
  touching &= ~np.eye(len(vehicles), dtype=bool)
  assert touching.mean() < 1e-4


def test_nobody_drives_through_houses(drive, state):
  center = state.center[:, :, None, :2]
  inside = ((center > drive.buildings[:, :2]) & (center < drive.buildings[:, 2:])).all(-1)
  assert not inside.any()


def test_vehicles_stop_at_red():
  place = town.Town(block=100.0, seed=1)
  junction = np.array([[3, 4]])
  greens = np.array(
    [
      [place.green(junction, np.array([axis]), t)[0] for t in np.arange(0, 48, 0.5)]
      for axis in (0, 1)
    ]
  )
  assert not greens.all(0).any()  # never both axes
  assert (greens.sum(1) == 2 * 9 / 0.5).all()  # 9 s green in every 24 s


def test_paths_keep_to_the_right():
  place = town.Town(block=100.0, seed=0)
  path = town.drive(place, np.random.default_rng(0), (0, 0), (1, 0), town.LANES[0], 60)
  np.testing.assert_allclose(path.points[:100, 1], -1.75)  # eastbound: south of the axis
  np.testing.assert_allclose(np.linalg.norm(np.diff(path.points, axis=0), axis=1), 0.5, atol=0.02)
  np.testing.assert_allclose(path.stops[0], 100 - 14 - 14 - 1.0)
  np.testing.assert_array_equal(path.junctions[0], [1, 0])


def test_trailers_stay_behind_their_trucks(drive, state):
  names = np.array(drive.class_names)
  for i in np.flatnonzero(names == "trailer"):
    assert names[i - 1] == "truck"
    gap = np.linalg.norm(state.center[:, i] - state.center[:, i - 1], axis=-1)
    joined = (drive.size_wlh[i, 1] + drive.size_wlh[i - 1, 1]) / 2 + 0.8
    assert gap.max() < joined + 0.6 and gap.min() > joined - 2.5  # closer in a bend


def test_projection_into_the_front_camera_by_hand():
  drive, state = standing.scene([(21.7, 0.0)])
  box = cameras.boxes(drive, state, cameras.RIG[0])
  # The rear face is 18 m before the lens: 1 m to each side, 1.51 m down to 0.09 m up.
  wanted = [800 - 1260 / 18, 470 - 1260 * 0.09 / 18, 2 * 1260 / 18, 1260 * 1.6 / 18]
  np.testing.assert_allclose(box[0, 1], wanted, rtol=1e-6)
  assert np.isnan(box[0, 0]).all()  # the ego car itself


def test_each_side_is_seen_by_its_camera():
  places = [(20, 0), (12, 17), (12, -17), (-20, 0), (-6, 18), (-6, -18)]
  drive, state = standing.scene(places)
  for number, camera in enumerate(cameras.RIG):
    seen = ~np.isnan(cameras.boxes(drive, state, camera)[0, 1:, 0])
    assert seen[number], camera.name
    assert seen.sum() <= 2


def test_pitch_moves_the_image_not_the_world(drive, state):
  rotation = geometry.rotation_matrix(state.ego_rotation)
  nose = rotation[:, 2, 0]  # height of the ego's x axis
  assert 1e-4 < np.abs(nose).max() < 0.04
  np.testing.assert_array_equal(state.ego_translation[:, 2], 0)


def test_detector_noise():
  n = 4000
  truth = mot_files.Table.of(
    frame=np.arange(n) + 1,
    track_id=np.ones(n),
    box_xywh=np.tile([500, 300, 100, 80.0], (n, 1)),
    class_id=np.zeros(n),
    visibility=np.repeat([1.0, 0.2], n // 2),
  )
  found = detector.detect(truth, n, cameras.IMAGE_SIZE, np.random.default_rng(0))
  real = np.abs(found.box_xywh - truth.box_xywh[0]).max(1) < 40
  assert 0.25 * n < (~real).sum() < 0.35 * n  # false alarms: 0.3 a frame
  clear = real & (found.frame <= n // 2)
  assert 0.95 < clear.sum() / (n / 2) <= 1 and (real & ~clear).sum() / (n / 2) < 0.85
  assert found.score[clear].mean() > found.score[real & ~clear].mean() + 0.2
  center = found.box_xywh[clear, 0] + found.box_xywh[clear, 2] / 2
  spread = np.quantile(np.abs(center - 550), 0.68)  # one standard deviation, 2 % of 100 px
  assert abs(np.median(center) - 550) < 0.2 and 1.8 < spread < 2.2
  assert (found.track_id == -1).all() and (found.score < 1).all()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  """The embedded data sets of a small world."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("VISTRAJ_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setattr(nuscenes_writer, "SETTINGS", SMALL)
    patch.setattr(embedded.os, "cpu_count", lambda: 1)
    embedded.root("trackssm")
    yield patch


def test_embedded_data_set_is_made_once(cache):
  root = embedded.trackssm_root()
  assert root.parent == embedded.cache_folder()
  stamp = (root / "dataset_stats.json").stat().st_mtime_ns
  assert embedded.trackssm_root() == root
  assert (root / "dataset_stats.json").stat().st_mtime_ns == stamp


def test_embedded_records_are_those_of_the_folders(cache):
  root = embedded.trackssm_root()
  assert (embedded.nuscenes_root() / nuscenes_writer.VERSION / "sample.json").is_file()
  statistics = json.loads((root / "dataset_stats.json").read_text())
  for split in ("train", "val"):
    folders = mot_files.find_sequences(root / split)
    truth = {f.name: mot_files.read_table(f / "gt" / "gt.txt", "truth", 25) for f in folders}
    assert statistics["splits"][split]["boxes"] == sum(map(len, truth.values()))
    assert all((folder / "det" / "det.txt").is_file() for folder in folders)
    tracks = list(trackssm.read_tracks(root, split))
    assert len(tracks) == statistics["splits"][split]["tracks"] > 10
    for track in tracks:
      name = track["sequence"].decode()
      assert name.endswith("_" + track["camera"].decode()) and track["camera"]
      mine = truth[name].select(truth[name].track_id == track["track_id"])
      np.testing.assert_array_equal(mine.frame, track["frames"])
      np.testing.assert_allclose(mine.box_xywh, track["boxes"], atol=1e-3)
      np.testing.assert_array_equal(track["is_keyframe"], (track["frames"] - 1) % 6 == 0)


def test_other_settings_make_another_data_set(cache):
  root = embedded.trackssm_root()
  cache.setattr(nuscenes_writer, "SETTINGS", {**SMALL, "seed": 6, "scenes": {"train": 1}})
  assert embedded.trackssm_root() != root
