"""Scenes read from nuScenes tables: values, files, and a sentence for everything that is wrong."""

import dataclasses

import numpy as np
import nuscenes_tables
import pytest

from vistraj_jax.core import checks
from vistraj_jax.prepare.nuscenes import database, splits
from vistraj_jax.prepare.nuscenes import scene as scenes

VERSION = "v1.0-mini"


@pytest.fixture
def root(tmp_path):
  return nuscenes_tables.write(tmp_path / "nuscenes", keyframes=3, objects=3)


def _read(root, name="scene-0103"):
  return database.Database(root, VERSION).scene(name)


def test_scene_and_its_file(root, tmp_path):
  def empty_visibility(records):
    records[0]["visibility_token"] = ""

  nuscenes_tables.edit(root, "sample_annotation", empty_visibility)
  scene = _read(root)
  np.testing.assert_allclose(scene.time - scene.time[0], [0, 0.5, 1])
  np.testing.assert_array_equal(scene.keyframe, [0, 0, 0, 1, 1, 1, 2, 2, 2])
  assert set(scene.category) == {"vehicle.car", "human.pedestrian.adult", "vehicle.truck"}
  assert scene.visibility.tolist() == [0, 2, 3, 2, 3, 4, 3, 4, 1]
  assert len(set(scene.instance[:3])) == 3 and (scene.instance[:3] == scene.instance[3:6]).all()
  assert sorted(scene.cameras) == sorted(database.CAMERAS)
  camera = scene.cameras["CAM_FRONT_LEFT"]
  assert camera.image_size == (1600, 900) and len(camera.time) == 13
  np.testing.assert_array_equal(np.flatnonzero(camera.is_keyframe), [0, 6, 12])
  assert camera.file[6].startswith("samples/CAM_FRONT_LEFT/scene-0103")
  path = tmp_path / "scene.npz"
  scenes.save(path, scene)
  again = scenes.load(path, ["CAM_FRONT_LEFT"])
  assert list(again.cameras) == ["CAM_FRONT_LEFT"] and list(scenes.load(path).cameras)
  for field in dataclasses.fields(scenes.Scene):
    if field.name != "cameras":
      np.testing.assert_array_equal(getattr(again, field.name), getattr(scene, field.name))
  for field in dataclasses.fields(scenes.Camera):
    value = getattr(again.cameras["CAM_FRONT_LEFT"], field.name)
    np.testing.assert_array_equal(value, getattr(camera, field.name))


def test_scene_without_annotations(root, tmp_path):
  nuscenes_tables.edit(root, "sample_annotation", list.clear)
  scenes.save(tmp_path / "scene.npz", _read(root))
  assert scenes.load(tmp_path / "scene.npz").instance.shape == (0,)


def test_frames_lie_over_the_nearest_images():
  camera = scenes.Camera(
    *(None, None, (2, 2)),
    time=np.array([0, 0.1, 0.5, 1.1]),
    ego_pose=None,
    is_keyframe=np.array([True, False, True, True]),
    file=None,
  )
  nearest, time = camera.frames(4)
  np.testing.assert_allclose(time, [0, 0.125, 0.25, 0.375, 0.5, 0.65, 0.8, 0.95, 1.1])
  np.testing.assert_array_equal(nearest, [0, 1, 1, 2, 2, 2, 2, 3, 3])
  np.testing.assert_array_equal(camera.frames(1)[0], [0, 2, 3])


def test_splits():
  dev = {s: splits.scene_names("v1.0-trainval", s) for s in ("train", "val", "test")}
  seed = {s: splits.scene_names("v1.0-trainval", s, "seed") for s in ("train", "val", "test")}
  assert [len(dev[s]) for s in dev] == [630, 70, 150] and [len(seed[s]) for s in seed] == [
    700,
    150,
    150,
  ]
  assert sorted(dev["train"] + dev["val"]) == sorted(seed["train"])
  assert not set(dev["train"]) & set(dev["val"])
  assert dev["test"] == seed["test"] == seed["val"]
  assert splits.scene_names(VERSION, "val") == ["scene-0103", "scene-0916"]
  assert len(splits.scene_names(VERSION, "train")) == 8


@pytest.mark.parametrize(
  ("arguments", "sentence"),
  [
    (("v1.0-test", "test"), "'v1.0-test' has no public annotations; choose v1.0-trainval"),
    (("v2.0", "val"), "--version: 'v2.0' is not allowed"),
    ((VERSION, "test"), r"--split \(v1.0-mini\): 'test' is not allowed; choose .*'train', 'val'"),
    ((VERSION, "val", "odd"), "--split_policy: 'odd' is not allowed"),
  ],
)
def test_wrong_splits(arguments, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    splits.scene_names(*arguments)


def test_missing_files(root):
  with pytest.raises(checks.InputError, match="nowhere: no such folder; give the folder"):
    database.Database(root / "nowhere", VERSION)
  with pytest.raises(checks.InputError, match=r"v1.0-trainval: no such version; .*\['v1.0-mini'\]"):
    database.Database(root, "v1.0-trainval")
  (root / "maps" / "town.png").unlink()
  with pytest.raises(checks.InputError, match=r"map.json: map .*town.png, which does not exist"):
    database.Database(root, VERSION)
  (root / VERSION / "ego_pose.json").unlink()
  with pytest.raises(checks.InputError, match=r"the tables \['ego_pose.json'\] are missing"):
    database.Database(root, VERSION)


@pytest.mark.parametrize(
  ("table", "text", "sentence"),
  [
    ("sample", '[{"token": "a",', "sample.json: damaged, no valid JSON at line 1, column 16"),
    ("map", "[", "map.json: damaged, no valid JSON at line 1"),
    ("map", "[]", "nuscenes-devkit cannot open the tables .IndexError"),
    ("instance", '[{"tokem": "a"}]', "nuscenes-devkit cannot open the tables .KeyError: 'token'"),
  ],
)
def test_damaged_tables(root, table, text, sentence):
  (root / VERSION / f"{table}.json").write_text(text)
  with pytest.raises(checks.InputError, match=sentence):
    database.Database(root, VERSION)


@pytest.mark.parametrize(
  ("table", "field", "value", "sentence"),
  [
    (
      "sample_annotation",
      "instance_token",
      "x",
      "instance_token 'x' points to no record of in",
    ),
    ("sample_annotation", "sample_token", "x", "sample_token 'x' points to no record of sample"),
    ("sample_annotation", "visibility_token", "9", "visibility_token '9'; '1' to '4' or an empty"),
    ("sample_annotation", "translation", [1, 2], r"translation is \[1, 2\]; 3 finite numbers"),
    ("sample_annotation", "size", [1, 2, float("nan")], "size is .*nan.*; 3 finite numbers"),
    ("sample_annotation", "rotation", [0, 0, 0, 0], "a quaternion other than 0 wanted"),
    ("instance", "category_token", "x", "instance .*category_token 'x' points to no record of cat"),
    ("sample", "next", "x", "sample .*: next 'x' points to no record of sample"),
    ("sample", "next", "", "1 samples follow each other where scene.json counts 3"),
    ("sample", "timestamp", 2e15, "the times of its keyframes do not rise"),
    ("scene", "first_sample_token", "x", "first_sample_token 'x' points to no record of sample"),
    ("sample_data", "ego_pose_token", "x", "ego_pose_token 'x' points to no record of ego_pose"),
    ("sample_data", "sample_token", "x", "sample_token 'x' points to no record of sample"),
    ("sample_data", "calibrated_sensor_token", "x", "calibrated_sensor_token 'x' points to no rec"),
    (
      "sample_data",
      "is_key_frame",
      False,
      r"CAM_FRONT has images of keyframes \[1, 2\] where 0 to 2",
    ),
    ("sample_data", "width", 10, r"CAM_FRONT has 1 calibrations and the image sizes .*\(10, 900\)"),
    ("calibrated_sensor", "sensor_token", "x", "sensor_token 'x' points to no record of sensor;"),
    ("ego_pose", "rotation", "north", "ego_pose .*: rotation is north; a quaternion"),
    (
      "category",
      "name",
      "vehicle.spaceship",
      "category 'vehicle.spaceship' is unknown; tracked are",
    ),
  ],
)
def test_a_bad_record_is_named_and_spoils_its_scene_only(root, table, field, value, sentence):
  # The first record of every table belongs to scene-0103.
  nuscenes_tables.edit(root, table, lambda records: records[0].update({field: value}))
  opened = database.Database(root, VERSION)
  with pytest.raises(checks.InputError, match=f"^scene-0103: .*{sentence}") as raised:
    opened.scene("scene-0103")
  assert opened.strays == [] and "\n" not in str(raised.value)
  if table != "category":  # both scenes have cars
    assert opened.scene("scene-0916").name == "scene-0916"


def test_records_of_no_scene(root):
  def cut(records):
    records[0] |= {"sample_token": "x", "prev": "y", "next": ""}

  nuscenes_tables.edit(root, "sample_annotation", cut)
  (sentence,) = database.Database(root, VERSION).strays
  assert (
    sentence.startswith("no scene: sample_annotation") and "'x' points to no record" in sentence
  )


def test_twice_in_a_keyframe_and_unknown_scene(root):
  nuscenes_tables.edit(root, "sample_annotation", lambda r: r.append({**r[0], "token": "again"}))
  with pytest.raises(checks.InputError, match="annotation again: instance .* twice in keyframe 0"):
    _read(root)
  with pytest.raises(checks.InputError, match=r"holds no 'scene-0913'; nearest: .*'scene-0916'"):
    _read(root, "scene-0913")


def test_missing_field(root):
  nuscenes_tables.edit(root, "sample_data", lambda records: records[0].pop("width"))
  with pytest.raises(checks.InputError, match="scene-0103: a record lacks the field 'width'"):
    _read(root)
