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
    if field.name not in ("cameras", "lidar"):
      np.testing.assert_array_equal(getattr(again, field.name), getattr(scene, field.name))
  for field in dataclasses.fields(scenes.Camera):
    value = getattr(again.cameras["CAM_FRONT_LEFT"], field.name)
    np.testing.assert_array_equal(value, getattr(camera, field.name))


def test_scene_without_annotations(root, tmp_path):
  last = _read(root, "scene-0916").sample.tolist()

  def of_the_other(records):
    records[:] = [row for row in records if row["sample_token"] in last]

  nuscenes_tables.edit(root, "sample_annotation", of_the_other)
  scenes.save(tmp_path / "scene.npz", _read(root))
  assert scenes.load(tmp_path / "scene.npz").instance.shape == (0,)


def test_frames_lie_over_the_nearest_images():
  camera = scenes.Camera(
    *(None, None, (2, 2)),
    time=np.array([0, 0.1, 0.5, 1.1]),
    ego_pose=None,
    is_keyframe=np.array([True, False, True, True]),
    file=None,
    token=None,
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
  with pytest.raises(checks.InputError, match=r"map.json: map .* names .*town.png., no file in"):
    database.Database(root, VERSION)
  (root / VERSION / "ego_pose.json").unlink()
  with pytest.raises(checks.InputError, match=r"the tables \['ego_pose.json'\] are missing"):
    database.Database(root, VERSION)


@pytest.mark.parametrize(
  ("table", "text", "sentence"),
  [
    ("sample", '[{"token": "a",', "sample.json: damaged, no valid JSON at line 1, column 16"),
    ("map", "[", "map.json: damaged, no valid JSON at line 1"),
    *((t, b"\xff\xfe", f"{t}.json: damaged, no text at byte 0") for t in ("sample", "map")),
    *(
      (t, text, f"{t}.json: is no list of records with a token each")
      for t in ("scene", "map")
      for text in ("null", "{}", "[1]", '[{"token": 1}]')
    ),
    ("map", '[{"token": "a"}]', "map.json: map a names None, no file in"),
    ("map", '[{"token": "a", "filename": "maps"}]', "map.json: map a names 'maps', no file in"),
    ("map", "[]", "nuscenes-devkit cannot open the tables .IndexError"),
    *(
      (t, "[]", f"{t}.json: holds no record, so there is nothing to prepare; download")
      for t in ("scene", "sample", "sample_data", "sample_annotation")
    ),
    ("instance", '[{"tokem": "a"}]', "instance.json: is no list of records with a token each"),
    ("sample_data", '[{"token": "a"}]', "nuscenes-devkit cannot open the tables .KeyError: '"),
  ],
)
def test_damaged_tables(root, table, text, sentence):
  path = root / VERSION / f"{table}.json"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
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
    ("sample_annotation", "size", [1, 2, float("nan")], "size is .*nan.*; 3 finite numbers of 0"),
    *(
      ("sample_annotation", field, [1e200] * width, rf"{field} is \[1e\+200, .*beyond 1e\+08")
      for field, width in (("translation", 3), ("size", 3), ("rotation", 4))
    ),
    ("ego_pose", "translation", [0, 0, -1e9], "ego_pose .*: translation is .* none beyond"),
    ("sample", "timestamp", 1e30, r"timestamp is 1e\+30; .*, none beyond 1e\+18"),
    ("sample_annotation", "rotation", [1e-200, 0, 0, 0], "a quaternion other than 0 wanted"),
    ("sample_annotation", "rotation", [0, 0, 0, 0], "a quaternion other than 0 wanted"),
    ("instance", "category_token", "x", "instance .*category_token 'x' points to no record of cat"),
    ("sample_annotation", "visibility_token", [1], r"visibility_token \[1\]; '1' to '4' or an emp"),
    (
      "sample_annotation",
      "size",
      [-1, 2, 3],
      r"size is \[-1, 2, 3\]; 3 finite numbers of 0 or more",
    ),
    ("sample", "timestamp", "noon", "sample .*: timestamp is noon; 1 finite number wanted"),
    ("sample", "timestamp", None, "sample .*: timestamp is None; 1 finite number wanted"),
    ("scene", "nbr_samples", "many", "nbr_samples is many; 1 whole number above 0 wanted"),
    ("sample_data", "timestamp", "noon", "sample_data .*: timestamp is noon; 1 finite number"),
    ("sample_data", "width", "wide", "sample_data .*: width is wide; 1 whole number above 0"),
    ("sample_data", "height", 0.5, "sample_data .*: height is 0.5; 1 whole number above 0"),
    ("sample_data", "filename", None, "filename is None; a path with an ending such as .jpg"),
    ("calibrated_sensor", "camera_intrinsic", [[0] * 3] * 3, "3 x 3 numbers, focal lengths ab"),
    ("category", "name", None, "category 'None' is unknown; tracked are"),
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
    ("sample_data", "width", 10, r"CAM_FRONT has the image sizes .*\(10, 900\)"),
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


@pytest.mark.parametrize("name", [None, 5, "scene-0916"])
def test_every_scene_needs_a_name_of_its_own(root, name):
  nuscenes_tables.edit(root, "scene", lambda records: records[0].update(name=name))
  with pytest.raises(checks.InputError, match=f"scene.json: scene .* has the name {name!r}; every"):
    _read(root)


def test_missing_field(root):
  nuscenes_tables.edit(root, "sample_data", lambda records: records[0].pop("filename"))
  with pytest.raises(checks.InputError, match="scene-0103: a record lacks the field 'filename'"):
    _read(root)
