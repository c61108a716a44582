"""prepare nuscenes, end to end: layout, numbers, runners, interruption, bad scenes."""

import json
import re

import numpy as np
import nuscenes_tables
import pytest

from launch import prepare
from vistraj_jax.core import checks
from vistraj_jax.data import trackssm
from vistraj_jax.prepare.nuscenes import database, dataset, tracks
from vistraj_jax.tracking import mot_files

VERSION = "v1.0-mini"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  path = tmp_path_factory.mktemp("data") / "nuscenes"
  return nuscenes_tables.write(path, keyframes=4, objects=12, images=True)


@pytest.fixture
def small(tmp_path):
  """A database of its own for tests that spoil it."""
  return nuscenes_tables.write(tmp_path / "nuscenes", keyframes=2, objects=3, images=True)


def _prepare(root, out, **kwargs):
  return dataset.prepare(root, out, **{"version": VERSION, **kwargs})


def _truth(folder, length):
  return mot_files.read_table(folder / "gt" / "gt.txt", "truth", length)


def _bytes(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not path.is_symlink()
  }


def test_layout_and_numbers(root, tmp_path):
  out = tmp_path / "out"
  statistics = _prepare(root, out, detections=True, images=True)
  total = statistics["splits"]["val"]
  assert list(statistics["splits"]) == ["val"] and statistics["skipped"] == {}
  assert (total["sequences"], total["frames"]) == (12, 12 * 19)
  assert total["boxes"] == total["keyframe_boxes"] + total["interpolated_boxes"] > 100
  assert total["keyframe_share"] == pytest.approx(total["expected_keyframe_share"])
  assert total["annotations"] == 2 * 6 * 4 * 12
  assert total["keyframe_boxes"] + sum(total["rejected"].values()) == total["annotations"]
  assert total["rejected"]["category"] == 2 * 6 * 4 * 1  # object 7 of 12 is a barrier
  for group in ("classes", "cameras", "scenes"):
    assert sum(g["keyframe_boxes"] for g in total[group].values()) == total["keyframe_boxes"]
  names = [f"{scene}_{camera}" for scene in total["scenes"] for camera in total["cameras"]]
  assert (out / "seqmaps" / "val.txt").read_text().split() == ["name", *sorted(names)]
  for name in names:
    folder = out / "val" / name
    info = mot_files.read_sequence_info(folder)
    assert (info.frame_rate, info.length, info.width, info.height) == (12, 19, 1600, 900)
    truth = _truth(folder, 19)
    ids = json.loads((folder / "instances.json").read_text())
    assert list(ids.values()) == list(range(1, len(ids) + 1))
    assert sorted(set(truth.track_id)) == list(ids.values())
    first = [truth.frame[truth.track_id == i].min() for i in ids.values()]
    assert first == sorted(first)
    rows = (folder / "gt" / "gt.txt").read_text().splitlines()
    assert all(re.fullmatch(r"\d+,\d+(,\d+\.\d\d){4},1,[0-6],[1-4],-1", row) for row in rows)
    images = sorted((folder / "img1").iterdir())
    assert [p.name for p in images] == [f"{i:06d}.jpg" for i in range(1, 20)]
    assert all(p.resolve().is_file() and name.split("_", 1)[1] in str(p.resolve()) for p in images)
    assert "samples" in str(images[6].resolve()) and "sweeps" in str(images[7].resolve())
    mot_files.read_table(folder / "det" / "det.txt", "detection", 19)
  track = next(iter(trackssm.read_tracks(out, "val")))
  np.testing.assert_array_equal(track["is_keyframe"], (track["frames"] - 1) % 6 == 0)
  name = track["sequence"].decode()
  truth = _truth(out / "val" / name, 19)
  own = truth.select(truth.track_id == track["track_id"])
  np.testing.assert_allclose(track["boxes"], own.box_xywh, atol=1e-4)
  assert name.endswith(track["camera"].decode())


def test_keyframes_alone_and_filters(root, tmp_path):
  slow = _prepare(root, tmp_path / "slow", target_fps=2, cameras=("CAM_BACK",))
  fast = _prepare(root, tmp_path / "fast", cameras=("CAM_BACK",))
  total = slow["splits"]["val"]
  assert total["interpolated_boxes"] == 0 and total["keyframe_share"] == 1
  assert total["keyframe_boxes"] == fast["splits"]["val"]["keyframe_boxes"]
  name = "scene-0103_CAM_BACK"
  info = mot_files.read_sequence_info(tmp_path / "slow" / "val" / name)
  assert (info.frame_rate, info.length) == (2, 4)
  every = _truth(tmp_path / "slow" / "val" / name, 4)
  twelve = _truth(tmp_path / "fast" / "val" / name, 19)
  twelve = twelve.select((twelve.frame - 1) % 6 == 0)
  np.testing.assert_array_equal(every.box_xywh, twelve.box_xywh)
  clear = _prepare(root, tmp_path / "clear", target_fps=2, cameras=("CAM_BACK",), min_visibility=4)
  total = clear["splits"]["val"]
  assert 0 < total["keyframe_boxes"] < slow["splits"]["val"]["keyframe_boxes"]
  assert total["rejected"]["visibility"] > 0


def _still_scene():
  """A camera at the origin looks along +x at a car 20 m ahead; the ego turns in between."""
  turn = [0, 0, 0.1, 0.2, 0.1, 0, 0]  # rad, at 7 images
  ego = np.zeros((7, 7))
  ego[:, 3], ego[:, 6] = np.cos(np.array(turn) / 2), np.sin(np.array(turn) / 2)
  camera = tracks.scenes.Camera(
    sensor_pose=np.array([0, 0, 0, 0.5, -0.5, 0.5, -0.5]),
    intrinsic=np.array([[1000.0, 0, 800], [0, 1000, 450], [0, 0, 1]]),
    image_size=(1600, 900),
    time=np.arange(7) / 12,
    ego_pose=ego,
    is_keyframe=np.array([True, *[False] * 5, True]),
    file=np.array([f"{i}.jpg" for i in range(7)]),
    token=np.array([f"{i}" for i in range(7)]),
  )
  n = 2
  return tracks.scenes.Scene(
    name="scene-0001",
    sample=np.array(["first", "second"]),
    time=np.array([0, 0.5]),
    keyframe=np.arange(n),
    instance=np.array(["a"] * n),
    category=np.array(["vehicle.car"] * n),
    translation=np.array([[20.0, 0, 0], [20, 0, 0]]),
    size_wlh=np.tile([2.0, 4, 1.5], (n, 1)),
    rotation=np.array([[1.0, 0, 0, 0], [-1, 0, 0, 0]]),  # the same rotation
    visibility=np.array([4, 3]),
    cameras={"CAM_FRONT": camera},
  )


def test_boxes_follow_the_images_in_pose3d():
  scene = _still_scene()
  flat = tracks.camera_tracks(scene, "CAM_FRONT", tracks.Conversion())
  solid = tracks.camera_tracks(scene, "CAM_FRONT", tracks.Conversion(interpolation="pose3d"))
  np.testing.assert_array_equal(flat.table.frame, solid.table.frame)
  np.testing.assert_array_equal(flat.table.visibility, 3)
  np.testing.assert_array_equal(solid.table.visibility, 3)
  np.testing.assert_array_equal(flat.is_keyframe, solid.is_keyframe)
  middle = [t.table.box_xywh[:, 0] + t.table.box_xywh[:, 2] / 2 for t in (flat, solid)]
  np.testing.assert_allclose(middle[0], 800, atol=0.01)
  np.testing.assert_allclose(middle[1][[0, 1, 5, 6]], 800, atol=0.01)
  # Turned left by 0.2 rad, what was ahead is 1000 tan(0.2) px further right.
  assert middle[1][3] == pytest.approx(800 + 1000 * np.tan(0.2), abs=5)
  assert solid.ids == flat.ids == {"a": 1}


def test_behind_and_at_depth_zero():
  scene = _still_scene()
  # The camera's plane through the centre; behind it; beside the image; so far that it is a dot.
  for x, y, reason in (
    *((0, 0, "behind the camera"), (-20, 0, "behind the camera")),
    *((20, 60, "outside the image"), (5000, 0, "too small")),
  ):
    scene.translation[:] = (x, y, 0)
    for clip in ("corners", "hull"):
      if (x, clip) == (0, "hull"):  # half of the box is in front: it fills the image
        continue
      found = tracks.camera_tracks(scene, "CAM_FRONT", tracks.Conversion(clip=clip))
      assert [tracks.REASONS[i] for i in found.reason] == [reason] * 2
      assert len(found.table) == 0 and found.ids == {}


def test_objects_on_the_camera_plane_do_not_warn(recwarn):
  scene = _still_scene()
  scene.translation[:] = (2, 0, 0)  # the rear corners are at depth 0 exactly
  for clip in ("corners", "hull"):
    found = tracks.camera_tracks(scene, "CAM_FRONT", tracks.Conversion(clip=clip))
    assert np.isfinite(found.table.box_xywh).all()
  assert len(found.table) == 7 and not recwarn.list


def test_one_keyframe(tmp_path):
  root = nuscenes_tables.write(tmp_path / "nuscenes", keyframes=1)
  for interpolation in ("image2d", "pose3d"):
    out = tmp_path / interpolation
    statistics = _prepare(root, out, interpolation=interpolation, images=False, detections=True)
    assert statistics["splits"]["val"]["frames"] == 12
    assert mot_files.read_sequence_info(out / "val" / "scene-0103_CAM_BACK").length == 1
    assert statistics["splits"]["val"]["windows"] == 0


# Runners


def test_all_runners_write_the_same_bytes(root, tmp_path):
  arguments = ["nuscenes", "--dataroot", str(root), "--version", VERSION, "--detections"]
  arguments += ["--cameras", "CAM_FRONT", "CAM_BACK", "--split", "val"]
  runs = {
    "loop": (),
    "processes": ("--processes", "2"),
    "beam": ("--runner", "DirectRunner"),
  }
  for name, extra in runs.items():
    prepare.main([*arguments, "--out", str(tmp_path / name), *extra])
  wanted = _bytes(tmp_path / "loop")
  assert len(wanted) == 4 * 4 + 5 and "trackssm-val.tfrecord-00000-of-00001" in wanted
  assert _bytes(tmp_path / "processes") == wanted
  assert _bytes(tmp_path / "beam") == wanted


def test_command_reports(root, tmp_path, capsys):
  arguments = ["nuscenes", "--dataroot", str(root), "--version", VERSION, "--out"]
  prepare.main([*arguments, str(tmp_path / "a")])
  printed = capsys.readouterr()
  for text in ("rejected: category 48", "n/(fn-f+1)", "CAM_BACK_LEFT", "12 scene-cameras in"):
    assert text in printed.out
  stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*")}
  prepare.main([*arguments, str(tmp_path / "a")])
  assert {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*")} == stamps
  with pytest.raises(checks.InputError, match=r"prepared with other \['clip'\]"):
    prepare.main([*arguments, str(tmp_path / "a"), "--clip", "hull"])


def test_the_policy_that_spoils_the_test_warns(tmp_path, capsys):
  root = nuscenes_tables.write(
    tmp_path / "nuscenes", scenes=("scene-0003",), version="v1.0-trainval", keyframes=2
  )
  arguments = ["nuscenes", "--dataroot", str(root), "--cameras", "CAM_FRONT", "--out"]
  prepare.main([*arguments, str(tmp_path / "dev")])
  assert "warning" not in capsys.readouterr().err
  prepare.main([*arguments, str(tmp_path / "seed"), "--split_policy", "seed"])
  assert "warning: val and test are the same scenes" in capsys.readouterr().err
  folders = [sorted(path.name for path in (tmp_path / n).glob("[a-z]*/")) for n in ("dev", "seed")]
  assert folders == [["seqmaps", "test"], ["seqmaps", "test", "val"]]


@pytest.mark.parametrize(
  ("options", "sentence"),
  [
    (["--runner", "NoRunner"], "--runner: 'NoRunner' cannot be used"),
    (
      ["--runner", "DirectRunner", "--processes", "2"],
      "--processes: 2; with --runner DirectRunner",
    ),
    (["--runner", "DirectRunner", "--beam_options='"], "--beam_options: .* quotes that do not mat"),
    (["--beam_options=--a=1"], "--beam_options: the local runner has none"),
    (["--runner", "DirectRunner", "--beam_options=--foo=1"], r"\['foo'\] are no options of Apache"),
    (
      ["--runner", "DirectRunner", "--beam_options=--direct_running_mode=multi_threading"],
      "direct_running_mode=multi_threading loses records",
    ),
  ],
)
def test_wrong_runner_options(root, tmp_path, options, sentence):
  arguments = ["nuscenes", "--dataroot", str(root), "--version", VERSION]
  with pytest.raises(checks.InputError, match=sentence):
    prepare.main([*arguments, "--out", str(tmp_path / "out"), *options])
  assert not (tmp_path / "out").exists()


def test_beam_is_missing(root, tmp_path, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
  with pytest.raises(checks.InputError, match="Apache Beam cannot be imported .*--runner local"):
    _prepare(root, tmp_path / "out", beam=["--runner=DirectRunner"])


# Interruption


@pytest.mark.parametrize("finished", [0, 1, 5])
def test_an_interrupted_run_goes_on(root, tmp_path, monkeypatch, finished):
  wanted = _prepare(root, tmp_path / "whole")
  count = [0]
  convert = tracks.convert

  def interrupted(*arguments):
    if count[0] == finished:
      (tmp_path / "out" / "val" / ".half.x").mkdir(parents=True)
      raise KeyboardInterrupt
    count[0] += 1
    return convert(*arguments)

  monkeypatch.setattr(tracks, "convert", interrupted)
  with pytest.raises(KeyboardInterrupt):
    _prepare(root, tmp_path / "out")
  assert not (tmp_path / "out" / "dataset_stats.json").exists()
  count[0] = finished + 1
  monkeypatch.setattr(database, "Database", None)  # the tables are not opened again
  assert _prepare(root, tmp_path / "out") == wanted
  assert count[0] == 1 + 12  # finished units are kept
  assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


def test_an_interrupted_extraction_goes_on(root, tmp_path, monkeypatch):
  read = database.Database.scene
  names = []

  def interrupted(self, name, lidar):
    names.append(name)
    if len(names) == 2:
      raise KeyboardInterrupt
    return read(self, name, lidar)

  monkeypatch.setattr(database.Database, "scene", interrupted)
  with pytest.raises(KeyboardInterrupt):
    _prepare(root, tmp_path / "out")
  _prepare(root, tmp_path / "out")
  assert names == ["scene-0103", "scene-0916", "scene-0916"]
  monkeypatch.undo()
  _prepare(root, tmp_path / "whole")
  assert _bytes(tmp_path / "out") == _bytes(tmp_path / "whole")


# Bad scenes


def test_a_bad_scene_is_named_or_skipped(small, tmp_path, capsys):
  nuscenes_tables.edit(small, "instance", lambda r: r[0].update(category_token="x"))
  sentence = "scene-0103: instance .* category_token 'x' points to no record of category"
  with pytest.raises(checks.InputError, match=sentence):
    _prepare(small, tmp_path / "out")
  assert not list(tmp_path.glob("out/[!.]*"))  # the folder of parts is hidden
  arguments = ["nuscenes", "--dataroot", str(small), "--version", VERSION, "--keep_going"]
  prepare.main([*arguments, "--out", str(tmp_path / "out")])
  assert re.search(f"skipped: 1\n  scene-0103: {sentence}", capsys.readouterr().out)
  statistics = json.loads((tmp_path / "out" / "dataset_stats.json").read_text())
  assert statistics["splits"]["val"]["sequences"] == 6
  assert list(statistics["skipped"]) == ["scene-0103"]
  assert not list((tmp_path / "out" / "val").glob("scene-0103*"))


def test_all_scenes_bad_and_stray_records(small, tmp_path):
  def cut(records):
    records[0] |= {"sample_token": "x", "prev": "", "next": ""}

  nuscenes_tables.edit(small, "sample_annotation", cut)
  with pytest.raises(checks.InputError, match="no scene: sample_annotation .*sample_token 'x'"):
    _prepare(small, tmp_path / "out")
  statistics = _prepare(small, tmp_path / "out", keep_going=True)
  assert list(statistics["skipped"]) == ["record of no scene 1"]
  nuscenes_tables.edit(small, "category", lambda r: r[0].update(name="vehicle.spaceship"))
  with pytest.raises(checks.InputError, match="every scene is bad; the first: .*"):
    _prepare(small, tmp_path / "all", keep_going=True)


def test_missing_images(small, tmp_path):
  gone = sorted((small / "sweeps" / "CAM_BACK").glob("scene-0916*"))
  for path in gone[:2]:
    path.unlink()
  sentence = f"scene-0916: 2 of 7 images of CAM_BACK are missing, the first is {gone[0]}"
  with pytest.raises(checks.InputError, match=re.escape(sentence)):
    _prepare(small, tmp_path / "out", images=True)
  statistics = _prepare(small, tmp_path / "out", images=True, keep_going=True)
  assert list(statistics["skipped"]) == ["scene-0916"]
  assert _prepare(small, tmp_path / "without")["splits"]["val"]["sequences"] == 12
  slow = _prepare(small, tmp_path / "slow", images=True, target_fps=2)  # links no sweep
  assert slow["splits"]["val"]["sequences"] == 12


def test_cameras_and_sweeps_that_are_missing(small, tmp_path):
  def drop(records):
    records[:] = [r for r in records if "CAM_BACK_LEFT" not in r["filename"] and r["is_key_frame"]]

  nuscenes_tables.edit(small, "sample_data", drop)
  with pytest.raises(checks.InputError, match="scene-0103: holds no image of CAM_BACK_LEFT, only"):
    _prepare(small, tmp_path / "out")
  cameras = ("CAM_FRONT", "CAM_BACK")
  with pytest.raises(checks.InputError, match="CAM_FRONT has no sweeps .*pose3d needs; take"):
    _prepare(small, tmp_path / "out", cameras=cameras, interpolation="pose3d")
  slow = _prepare(small, tmp_path / "slow", cameras=cameras, interpolation="pose3d", target_fps=2)
  assert slow["splits"]["val"]["interpolated_boxes"] == 0
  assert _prepare(small, tmp_path / "out", cameras=cameras)["splits"]["val"]["sequences"] == 4


@pytest.mark.parametrize(
  ("arguments", "sentence"),
  [
    ({"target_fps": 7}, "--target_fps: 7; keyframes come at 2 Hz: give a multiple of 2"),
    ({"target_fps": 0}, "--target_fps: 0"),
    ({"min_visibility": 5}, "--min_visibility: 5 is not allowed"),
    ({"cameras": ("CAM_BACK", "CAM_BACK")}, "--cameras: .* has one twice; name each camera once"),
    ({"split_policy": "seed"}, "--split_policy: 'seed' is a choice of v1.0-trainval; v1.0-mini"),
    ({"cameras": ("CAM_TOP",)}, "--cameras: 'CAM_TOP' is not allowed; .*CAM_FRONT_LEFT"),
    ({"clip": "x"}, "--clip: 'x'"),
    ({"interpolation": "x"}, "--interpolation: 'x'"),
    ({"split": ["tset"]}, r"--split \(v1.0-mini\): 'tset' is not allowed"),
    ({"split": ["train"]}, "holds none of the 8 scenes of 'train'; it holds .*scene-0103"),
    ({"version": "v1.0-trainval"}, "v1.0-trainval: no such version"),
  ],
)
def test_wrong_settings(root, tmp_path, arguments, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    _prepare(root, tmp_path / "out", **arguments)
  assert not list(tmp_path.glob("out/[!.]*"))


def test_scenes_without_official_names(tmp_path):
  root = nuscenes_tables.write(tmp_path / "nuscenes", scenes=("drive-1",), keyframes=1)
  with pytest.raises(checks.InputError, match=r"no scene of the official .*\['drive-1'\]"):
    _prepare(root, tmp_path / "out")
