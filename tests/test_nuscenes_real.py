"""Real nuScenes: boxes published by others, and the conversion of the two mini_val scenes."""

import json

import numpy as np
import pytest
import real_data

from vistraj_jax.prepare.nuscenes import boxes, database, dataset, tracks
from vistraj_jax.tracking import mot_files


def _boxes(scene, name, rows, clip):
  camera = scene.cameras[name]
  image = np.flatnonzero(camera.is_keyframe)[scene.keyframe[rows]]
  return boxes.camera_boxes(
    scene.translation[rows],
    scene.size_wlh[rows],
    scene.rotation[rows],
    camera.ego_pose[image],
    camera.sensor_pose,
    camera.intrinsic,
    camera.image_size,
    clip,
  )


def _corners(xywh):
  return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], -1)


def test_published_boxes_of_one_frame():
  folder = real_data.folder("nuscenes_frame")
  scene = database.Database(folder, "v1.0-mini").scene("scene-0061")
  published = json.loads((folder / "expected_2d_boxes.json").read_text())["cameras"]
  worst = []
  for name, wanted in published.items():
    found = _boxes(scene, name, np.arange(len(scene.keyframe)), "hull")
    seen = np.isfinite(found[:, 0])
    distance = np.abs(
      _corners(found[seen])[:, None] - np.array([box["bbox"] for box in wanted])
    ).max(-1)
    assert len(set(distance.argmin(0))) == len(wanted)  # each has a box of its own
    worst += distance.min(0).tolist()
  assert len(worst) == 84 and max(worst) < 0.1


@pytest.fixture(scope="module")
def scenes():
  folder = real_data.folder("nuscenes_scenes")
  opened = database.Database(folder, "v1.0-mini")
  with np.load(folder / "expected_keyframe_boxes.npz") as arrays:
    expected = dict(arrays)
  return [opened.scene(name) for name in expected["scenes"]], expected


def test_boxes_of_the_devkit(scenes):
  scenes, expected = scenes
  count = 0
  for i, scene in enumerate(scenes):
    where = {key: row for row, key in enumerate(zip(scene.keyframe, scene.instance, strict=True))}
    for j, camera in enumerate(expected["cameras"]):
      own = (expected["index"][:, :2] == (i, j)).all(1)
      keys = expected["index"][own, 2:]
      rows = np.array([where[k, expected["instances"][n]] for k, n in keys])
      found = _boxes(scene, camera, rows, "hull")
      np.testing.assert_allclose(_corners(found), expected["ltrb"][own], rtol=0, atol=0.01)
      everything = _boxes(scene, camera, np.arange(len(scene.keyframe)), "hull")
      assert np.isfinite(everything[:, 0]).sum() == len(rows)  # and no further ones
      count += len(rows)
  assert count == 4830


@pytest.mark.parametrize("clip", ["corners", "hull"])
def test_conversion(scenes, tmp_path, clip):
  scenes = {scene.name: scene for scene in scenes[0]}
  source = real_data.folder("nuscenes_scenes")
  out = tmp_path / "out"
  arguments = {"version": "v1.0-mini", "split": ["val"], "clip": clip}
  statistics = dataset.prepare(source, out, **arguments)
  total = statistics["splits"]["val"]
  assert total["sequences"] == 12 and total["frames"] == 6 * (6 * 38 + 1 + 6 * 30 + 1)
  assert total["keyframe_share"] == pytest.approx(total["expected_keyframe_share"], abs=1e-12)
  assert 1 / 6 < total["keyframe_share"] < 0.25 and 0.15 < total["visible_share"] < 0.25
  for folder in sorted((out / "val").iterdir()):
    name, camera = mot_files.scene_and_camera(folder.name)
    truth = mot_files.read_table(folder / "gt" / "gt.txt", "truth", 235)
    ids = json.loads((folder / "instances.json").read_text())
    assert list(ids.values()) == list(range(1, len(ids) + 1))
    scene = scenes[name]
    rows = np.flatnonzero([boxes.class_id(category) >= 0 for category in scene.category])
    found = _boxes(scene, camera, rows, clip)
    seen = (found[:, 2:] >= 1).all(1)
    wanted = sorted(
      (6 * k + 1, ids[token], *box.round(2).tolist())
      for k, token, box in zip(
        scene.keyframe[rows][seen], scene.instance[rows][seen], found[seen], strict=True
      )
    )
    keyframes = truth.select((truth.frame - 1) % 6 == 0)
    got = np.column_stack([keyframes.frame, keyframes.track_id, keyframes.box_xywh])
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-9)
    for track_id in ids.values():
      frames = truth.frame[truth.track_id == track_id]
      n = ((frames - 1) % 6 == 0).sum()
      if len(frames) == frames[-1] - frames[0] + 1:  # no gap
        assert len(frames) == 6 * n - 5
      assert set(np.diff(frames)) <= {1, *range(12, 300, 6)}  # gaps are whole keyframes
  again = dataset.prepare(source, tmp_path / "again", **arguments, processes=2)
  assert again == statistics
  for path in out.rglob("*"):
    if path.is_file():
      assert path.read_bytes() == (tmp_path / "again" / path.relative_to(out)).read_bytes()


def test_interpolated_boxes_of_a_track(scenes):
  scene = scenes[0][0]
  found = tracks.camera_tracks(scene, "CAM_FRONT", tracks.Conversion())
  one = found.table.select(found.table.track_id == 1)
  between = one.select((one.frame >= 1) & (one.frame <= 7))
  steps = np.diff(between.box_xywh, axis=0)
  np.testing.assert_allclose(steps, np.tile(steps.mean(0), (6, 1)), atol=0.011)
