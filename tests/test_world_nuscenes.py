"""The database the world writes: the devkit opens it, its links hold, its truth is the world's."""

import json

import matplotlib
import numpy as np
import pytest

from vistraj_jax.core import geometry
from vistraj_jax.data import point_clouds
from vistraj_jax.prepare.nuscenes import devkit_tables
from vistraj_jax.prepare.world import bodies, cameras, nuscenes_tables, nuscenes_writer

matplotlib.use("Agg")
SMALL = {
  **nuscenes_writer.SETTINGS,
  "scenes": {"train": 1, "val": 0, "test": 1},
  "seconds": 1.5,
  "sweeps": ["test"],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  out = tmp_path_factory.mktemp("world") / "nuscenes"
  nuscenes_writer.write(out, SMALL)
  return out


@pytest.fixture(scope="module")
def nusc(root):
  devkit = pytest.importorskip("nuscenes.nuscenes")
  return devkit.NuScenes("v1.0-trainval", str(root), verbose=False)


@pytest.fixture(scope="module")
def worlds():
  """{scene: (drive, shift)}."""
  found = {}
  for number, (_, name) in enumerate(nuscenes_writer.scenes(SMALL)):
    drive = nuscenes_writer.simulate(SMALL, number)
    found[name] = drive, nuscenes_writer.shift(drive)
  return found


def _agents(nusc, scene, drive):
  """{annotation token: agent}."""
  of = {nuscenes_tables.instance_token(scene["name"], k): k for k in range(len(drive.class_names))}
  found = {}
  for row in nusc.sample_annotation:
    if nusc.get("sample", row["sample_token"])["scene_token"] == scene["token"]:
      found[row["token"]] = of[row["instance_token"]]
  return found


def test_official_names_and_sizes(nusc):
  from nuscenes.utils.splits import create_splits_scenes

  official = create_splits_scenes()
  names = [scene["name"] for scene in nusc.scene]
  assert names == [official["train"][0], official["val"][0]]
  assert [scene["nbr_samples"] for scene in nusc.scene] == [4, 4]
  assert all(log["location"] == "simulated-town" for log in nusc.log)
  assert len(nusc.sample) == 8 and len(nusc.category) == 23 and len(nusc.attribute) == 8
  per_scene = 6 * (6 * 3 + 1) + 5 * 3 + 1
  assert len(nusc.sample_data) == len(nusc.ego_pose) == 2 * per_scene
  assert len(nusc.calibrated_sensor) == 14 and len(nusc.map) == 2


def test_every_token_resolves_and_chains_run_in_time(nusc):
  tables = {name: {row["token"] for row in getattr(nusc, name)} for name in devkit_tables.TABLES}
  for name, tokens in tables.items():
    assert len(tokens) == len(getattr(nusc, name)), name
    assert name == "visibility" or all(len(t) == 32 and int(t, 16) >= 0 for t in tokens)
  foreign = {
    "first_sample_token": "sample",
    "last_sample_token": "sample",
    "first_annotation_token": "sample_annotation",
    "last_annotation_token": "sample_annotation",
  }
  for name in devkit_tables.TABLES:
    rows = {row["token"]: row for row in getattr(nusc, name)}
    for row in rows.values():
      for key, value in row.items():
        if key in ("prev", "next"):
          back = {"prev": "next", "next": "prev"}[key]
          assert value == "" or rows[value][back] == row["token"]
        elif key.endswith("_token"):
          assert value in tables[foreign.get(key, key.removesuffix("_token"))], (name, key)
        elif key.endswith("_tokens"):
          assert set(value) <= tables[{"log_tokens": "log", "attribute_tokens": "attribute"}[key]]
  for name in ("sample", "sample_data"):
    for row in getattr(nusc, name):
      if row["next"]:
        later = nusc.get(name, row["next"])
        assert later["timestamp"] > row["timestamp"]
        if name == "sample_data":
          assert later["calibrated_sensor_token"] == row["calibrated_sensor_token"]
  for instance in nusc.instance:
    token, count = instance["first_annotation_token"], 0
    while token:
      row = nusc.get("sample_annotation", token)
      assert row["instance_token"] == instance["token"]
      token, last, count = row["next"], token, count + 1
    assert count == instance["nbr_annotations"] and last == instance["last_annotation_token"]


def test_devkit_lookups(nusc):
  for kind, field in (("scene", "name"), ("log", "logfile"), ("category", "name")):
    row = getattr(nusc, kind)[1]
    assert nusc.field2token(kind, field, row[field]) == [row["token"]]
  sample = nusc.sample[2]
  assert set(sample["data"]) == {camera.name for camera in cameras.RIG} | {"LIDAR_TOP"}
  assert sample["anns"]
  for log in nusc.log:
    assert nusc.get("map", log["map_token"])["log_tokens"] == [log["token"]]


def test_times_poses_and_files(nusc, root, worlds):
  for scene in nusc.scene:
    drive, shift = worlds[scene["name"]]
    first = nusc.get("sample", scene["first_sample_token"])
    for channel, rate in [*((camera.name, 12) for camera in cameras.RIG), ("LIDAR_TOP", 10)]:
      row = nusc.get("sample_data", first["data"][channel])
      assert row["prev"] == ""
      chain = [row]
      while chain[-1]["next"]:
        chain.append(nusc.get("sample_data", chain[-1]["next"]))
      stamps = np.array([r["timestamp"] for r in chain]) - first["timestamp"]
      times = np.arange(1.5 * rate + 1) / rate
      np.testing.assert_allclose(stamps, times * 1e6, atol=0.51)
      state = drive.at(times)
      for k, r in enumerate(chain):
        pose = nusc.get("ego_pose", r["ego_pose_token"])
        assert pose["timestamp"] == r["timestamp"]
        wanted = state.ego_translation[k] + shift
        np.testing.assert_allclose(pose["translation"], wanted, atol=1e-6)
        np.testing.assert_allclose(pose["rotation"], state.ego_rotation[k], atol=1e-8)
        sample = nusc.get("sample", r["sample_token"])
        assert r["is_key_frame"] == (sample["timestamp"] == r["timestamp"])
        # What lies between two keyframes belongs to the later one.
        assert 0 <= sample["timestamp"] - r["timestamp"] < 500_000
        made = r["is_key_frame"] or scene["name"] == nusc.scene[1]["name"]
        assert (root / r["filename"]).is_file() == made
        assert r["filename"].startswith("samples/" if r["is_key_frame"] else "sweeps/")
      keyframes = [r["timestamp"] for r in chain if r["is_key_frame"]]
      assert keyframes == [first["timestamp"] + 500_000 * k for k in range(4)]
  listed = {row["filename"] for row in nusc.sample_data} | {row["filename"] for row in nusc.map}
  there = {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}
  extra = {p for p in there - listed if not p.startswith("v1.0-trainval/")}
  assert extra == {"dataset_stats.json"}
  assert sorted(p.stem for p in (root / "v1.0-trainval").iterdir()) == sorted(devkit_tables.TABLES)


def test_annotations_are_the_agents(nusc, worlds):
  seen = set()
  for scene in nusc.scene:
    drive, shift = worlds[scene["name"]]
    first = nusc.get("sample", scene["first_sample_token"])["timestamp"]
    for token, agent in _agents(nusc, scene, drive).items():
      row = nusc.get("sample_annotation", token)
      time = (nusc.get("sample", row["sample_token"])["timestamp"] - first) / 1e6
      state = drive.at([time])
      np.testing.assert_allclose(row["translation"], state.center[0, agent] + shift, atol=1e-6)
      np.testing.assert_allclose(row["size"], drive.size_wlh[agent], atol=1e-6)
      box = nusc.get_box(token)
      turn = box.orientation.yaw_pitch_roll[0] - state.yaw[0, agent]
      assert abs(np.angle(np.exp(1j * turn))) < 1e-7
      assert np.hypot(*(state.center - state.ego_translation[:, None])[0, agent, :2]) < 80
      assert row["num_radar_pts"] == 0 and len(row["attribute_tokens"]) == 1
      doing = nusc.get("attribute", row["attribute_tokens"][0])["name"]
      name = drive.class_names[agent]
      assert name.removesuffix("cycle") in row["category_name"]
      assert agent != 0  # the ego car
      if name in ("car", "truck", "bus", "trailer"):
        assert doing.startswith("vehicle.")
        assert (doing == "vehicle.moving") == (state.speed[0, agent] > 0.2)
      elif name == "pedestrian":
        assert (doing == "pedestrian.moving") == (state.speed[0, agent] > 0.2)
      if row["prev"] and row["next"] and doing == "vehicle.moving":
        velocity = np.linalg.norm(nusc.box_velocity(token)[:2])
        assert abs(velocity - state.speed[0, agent]) < 1.5
      seen.add(row["category_name"])
  assert {"vehicle.car", "human.pedestrian.adult", "vehicle.bus.rigid"} <= seen


def test_boxes_in_images_are_those_of_the_cameras(nusc, worlds):
  compared = 0
  for scene in nusc.scene:
    drive, _ = worlds[scene["name"]]
    agents = _agents(nusc, scene, drive)
    sample = nusc.get("sample", scene["last_sample_token"])
    state = drive.at([1.5])
    for camera in cameras.RIG:
      view = cameras.boxes(drive, state, camera)[0]
      _, boxes, intrinsic = nusc.get_sample_data(sample["data"][camera.name])
      for box in boxes:
        wanted = view[agents[box.token]]
        corners = box.corners().T[None]
        got = geometry.visible_box(corners, box.center[2:], intrinsic, cameras.IMAGE_SIZE)[0]
        np.testing.assert_allclose(got, wanted, atol=0.01)
        compared += not np.isnan(wanted[0])
  assert compared > 20


def test_points_and_visibility(nusc, root, worlds):
  from nuscenes.utils.data_classes import LidarPointCloud
  from nuscenes.utils.geometry_utils import points_in_box

  levels = set()
  for sample in nusc.sample[::3]:
    path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
    points = point_clouds.read_points(path)
    np.testing.assert_array_equal(LidarPointCloud.from_file(path).points, points[:, :4].T)
    assert len(points) > 20_000
    for box in boxes:
      row = nusc.get("sample_annotation", box.token)
      assert points_in_box(box, points[:, :3].T).sum() == row["num_lidar_pts"]
      levels.add(row["visibility_token"])
  assert levels >= {"1", "4"}
  sweeps = sorted((root / "sweeps" / "LIDAR_TOP").iterdir())
  assert len(sweeps) == 12 and len(point_clouds.read_points(sweeps[0])) > 20_000


def test_levels_of_visibility():
  levels = [nuscenes_tables.visibility_token(s) for s in (0, 0.39, 0.4, 0.6, 0.79, 0.8, 1)]
  assert levels == ["1", "1", "2", "3", "3", "4", "4"]


def test_images_show_the_objects_in_their_colour(nusc, root, worlds):
  import cv2

  checked = 0
  for scene in nusc.scene:
    drive, _ = worlds[scene["name"]]
    agents = _agents(nusc, scene, drive)
    sample = nusc.get("sample", scene["first_sample_token"])
    for camera in cameras.RIG:
      path, boxes, intrinsic = nusc.get_sample_data(sample["data"][camera.name])
      image = cv2.imread(path)
      assert image.shape == (900, 1600, 3)
      for box in boxes:
        row = nusc.get("sample_annotation", box.token)
        agent = agents[box.token]
        paint = bodies.paint(drive.class_names[agent], agent)
        (x, y) = geometry.project(box.center, intrinsic)[0]
        clear = box.center[2] < 40 and row["visibility_token"] == "4" and 9 < x < 1590
        strong = np.ptp(paint) / paint.max() > 0.4  # unlike anything else in the street
        if not (clear and strong and drive.class_names[agent] in ("car", "trailer")):
          continue
        patch = image[int(y) - 3 : int(y) + 4, int(x) - 8 : int(x) + 9].reshape(-1, 3).astype(float)
        like = patch @ paint / np.linalg.norm(patch, axis=1) / np.linalg.norm(paint)
        assert np.quantile(like, 0.9) > 0.93, (scene["name"], camera.name, agent)
        checked += 1
  assert checked >= 2


def test_devkit_renders(nusc, tmp_path):
  sample = nusc.sample[0]
  front, top = sample["data"]["CAM_FRONT"], sample["data"]["LIDAR_TOP"]
  nusc.render_sample_data(front, out_path=str(tmp_path / "camera.png"), verbose=False)
  nusc.render_sample_data(
    top, out_path=str(tmp_path / "lidar.png"), underlay_map=False, verbose=False
  )
  clear = [
    token
    for token in sample["anns"]
    if nusc.get("sample_annotation", token)["visibility_token"] == "4"
    and any(
      token in [b.token for b in nusc.get_sample_data(sample["data"][c.name])[1]]
      for c in cameras.RIG
    )
  ]
  nusc.render_annotation(clear[0], out_path=str(tmp_path / "annotation.png"))
  nusc.render_pointcloud_in_image(
    sample["token"], out_path=str(tmp_path / "points.png"), verbose=False
  )
  for name in ("camera", "lidar", "annotation", "points"):
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_ego_car_drives_on_the_map(nusc, worlds):
  for scene in nusc.scene:
    log = nusc.get("log", scene["log_token"])
    mask = nusc.get("map", log["map_token"])["mask"]
    drive, shift = worlds[scene["name"]]
    way = drive.at(np.linspace(0, 1.5, 20)).ego_translation + shift
    assert mask.is_on_mask(way[:, 0], way[:, 1]).all()
    house = (drive.buildings[:, :2] + drive.buildings[:, 2:]) / 2
    near = np.abs(house + shift[:2] - way[0, :2]).max(1) < 90
    assert near.any()
    inside = house[near] + shift[:2]
    assert not mask.is_on_mask(inside[:, 0], inside[:, 1]).any()


def test_prediction_helper(nusc, worlds):
  from nuscenes.prediction import PredictHelper

  helper = PredictHelper(nusc)
  scene = nusc.scene[0]
  drive, shift = worlds[scene["name"]]
  agents = _agents(nusc, scene, drive)
  sample = nusc.get("sample", nusc.get("sample", scene["first_sample_token"])["next"])
  checked = 0
  for token in sample["anns"]:
    row = nusc.get("sample_annotation", token)
    if not (row["prev"] and row["next"] and nusc.get("sample_annotation", row["next"])["next"]):
      continue
    agent, instance = agents[token], row["instance_token"]
    truth = drive.at([0.0, 1.0, 1.5]).center[:, agent] + shift
    past = helper.get_past_for_agent(instance, sample["token"], 0.5, in_agent_frame=False)
    future = helper.get_future_for_agent(instance, sample["token"], 1.0, in_agent_frame=False)
    np.testing.assert_allclose(past, truth[:1, :2], atol=1e-5)
    np.testing.assert_allclose(future, truth[1:, :2], atol=1e-5)
    step = np.linalg.norm(drive.at([0.5]).center[0, agent] + shift - truth[0])
    velocity = helper.get_velocity_for_agent(instance, sample["token"])
    np.testing.assert_allclose(velocity, step / 0.5, atol=1e-4)
    checked += 1
  assert checked > 10


def test_official_tracking_evaluation_of_the_truth(nusc, root, tmp_path):
  pytest.importorskip("motmetrics")
  from nuscenes.eval.common.config import config_factory
  from nuscenes.eval.common.loaders import load_gt
  from nuscenes.eval.tracking.data_classes import TrackingBox
  from nuscenes.eval.tracking.evaluate import TrackingEval

  config = config_factory("tracking_nips_2019")  # also tells the devkit the names of classes
  truth = load_gt(nusc, "val", TrackingBox)
  assert len(truth.sample_tokens) == 4 and len(truth.all) > 20
  for box in truth.all:
    box.tracking_score = 1.0
  results = {
    "meta": {f"use_{k}": k == "lidar" for k in ("camera", "lidar", "radar", "map", "external")},
    "results": truth.serialize(),
  }
  path = tmp_path / "results.json"
  path.write_text(json.dumps(results, default=list))
  evaluation = TrackingEval(
    config,
    str(path),
    "val",
    str(tmp_path),
    "v1.0-trainval",
    str(root),
    verbose=False,
  )
  metrics, _ = evaluation.evaluate()
  summary = metrics.serialize()
  there = [name for name, value in summary["label_metrics"]["recall"].items() if value == 1.0]
  assert "car" in there
  for name in there:
    assert summary["label_metrics"]["mota"][name] == pytest.approx(1.0)
    assert summary["label_metrics"]["amota"][name] > 0.99
    assert summary["label_metrics"]["ids"][name] == 0
