"""The sanity check of a conversion: images under the frames, numbers, pictures, sentences."""

import types

import av
import cv2
import numpy as np
import nuscenes_tables
import pytest
import real_data

from launch import prepare
from vistraj_jax.core import checks
from vistraj_jax.prepare.nuscenes import boxes, check, database
from vistraj_jax.prepare.nuscenes.scene import Camera
from vistraj_jax.tracking import mot_files
from vistraj_jax.viz import keyframe_boxes

KEYFRAMES = 4
CAR, PERSON = 0, 4


def _camera(keyframes=KEYFRAMES):
  """Keyframes every 0.5 s from 100.0 s on; of the sweeps, 3 instead of 5 in every interval."""
  times, is_keyframe = [], []
  for k in range(keyframes):
    times.append(100 + 0.5 * k)
    is_keyframe.append(True)
    if k + 1 < keyframes:
      times += [100 + 0.5 * k + part for part in (0.08, 0.25, 0.42)]
      is_keyframe += [False] * 3
  files = [
    f"{'samples' if key else 'sweeps'}/{t:.2f}.jpg"
    for t, key in zip(times, is_keyframe, strict=True)
  ]
  n = len(times)
  return Camera(
    sensor_pose=np.array([0, 0, 0, 1, 0, 0, 0.0]),
    intrinsic=np.eye(3),
    image_size=(320, 180),
    time=np.array(times),
    ego_pose=np.zeros((n, 7)),
    is_keyframe=np.array(is_keyframe),
    file=np.array(files),
    token=np.array(files),
  )


def _table():
  """Car 1 in all keyframes, with 60 px in the last interval; person 2 in keyframes 0, 1 and 3."""
  keyframe, track_id = np.array([0, 1, 2, 3, 0, 1, 3]), np.array([1, 1, 1, 1, 2, 2, 2])
  box = np.array(
    [
      *[(40 + 6 * k, 60, 80, 40) for k in (0, 1, 2, 12)],
      *[(220, 90 + 6 * k, 20, 50) for k in (0, 1, 3)],
    ]
  )
  classes = np.where(track_id == 1, CAR, PERSON)
  return boxes.keyframes_to_frames(keyframe, track_id, box, classes, np.full(7, 4))[0]


def _scene():
  category = np.array(["vehicle.car"] * 4 + ["human.pedestrian.adult"] * 4 + ["animal"] * 2)
  return types.SimpleNamespace(
    name="scene-0103", category=category, cameras={"CAM_FRONT": _camera()}
  )


@pytest.fixture
def prepared(tmp_path, monkeypatch):
  """A prepared folder, the images, and a database without tables."""
  for name in ("scene-0103_CAM_FRONT", "scene-0103_CAM_BACK", "scene-0916_CAM_BACK"):
    folder = tmp_path / "out" / "val" / name
    mot_files.write_sequence_info(folder, mot_files.SequenceInfo(name, 12, 19, 320, 180))
    mot_files.write_table(folder / "gt" / "gt.txt", _table())
  for i, file in enumerate(_camera().file):
    path = tmp_path / "nuscenes" / str(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((180, 320, 3), 10 * i, np.uint8))
  fake = types.SimpleNamespace(scene=lambda name: _scene())
  monkeypatch.setattr(database, "Database", lambda dataroot, version: fake)
  return tmp_path


def _check(folder, *more):
  arguments = ["check", "--dataroot", folder / "nuscenes", "--data", folder / "out"]
  return prepare.main([str(a) for a in (*arguments, "--out", folder / "check", *more)])


def test_every_frame_lies_over_the_image_nearest_in_time():
  info = mot_files.SequenceInfo("a", 12, 19, 320, 180)
  frames, interval = check.frames_of(_camera(), info)
  assert interval == 6 and len(frames) == 19
  assert [(f.number, f.keyframe, f.step) for f in frames[:8]] == [
    *((1, 0, 0), (2, 0, 1), (3, 0, 2), (4, 0, 3), (5, 0, 4), (6, 0, 5), (7, 1, 0), (8, 1, 1))
  ]
  # Frames at 0, 83, 167, 250, 333, 417 and 500 ms; images at 0, 80, 250, 420 and 500 ms.
  wanted = ["samples/100.00", "sweeps/100.08", "sweeps/100.25", "sweeps/100.25", "sweeps/100.25"]
  wanted += ["sweeps/100.42", "samples/100.50"]
  assert [f.image for f in frames[:7]] == [f"{name}.jpg" for name in wanted]
  np.testing.assert_allclose([f.offset_s for f in frames[1:4]], [-1 / 300, 1 / 12, 0], atol=1e-9)
  frames, interval = check.frames_of(_camera(1), mot_files.SequenceInfo("a", 12, 1, 320, 180))
  assert [(f.number, f.step, f.image) for f in frames] == [(1, 0, "samples/100.00.jpg")]
  frames, interval = check.frames_of(_camera(), mot_files.SequenceInfo("a", 2, 4, 320, 180))
  assert interval == 1 and [f.step for f in frames] == [0] * 4


def test_numbers_by_hand():
  info = mot_files.SequenceInfo("a", 12, 19, 320, 180)
  frames, interval = check.frames_of(_camera(), info)
  found = check.numbers(_scene(), _table(), frames, interval)
  assert (found["keyframe_boxes"], found["interpolated_boxes"], found["tracks"]) == (7, 20, 2)
  assert (found["annotations"], found["annotations_of_classes"]) == (10, 8)
  # Runs of 4, 2 and 1 keyframes: 7 / (19 + 7 + 1).
  assert found["runs"] == 3
  assert found["keyframe_share"] == found["expected_share"] == 7 / 27
  assert found["image_offset_s"] == pytest.approx(1 / 12)
  assert found["jump_px"] == pytest.approx(10.0) and found["median_jump_px"] == pytest.approx(1.0)
  assert found["jump_track"] == 1 and 14 <= found["jump_frame"] <= 19
  text = check.report(found, interval)
  assert "7 on keyframes, 20 interpolated, 2 tracks" in text and "note:" not in text
  assert "70.0 % of the scene's 10 annotations" in text and "87.5 % of the 8" in text
  assert "25.93 % of the rows; n/(6n-5) over the 3 runs" in text and "gives 25.93 %" in text


@pytest.mark.parametrize("fault", ["rows across the gap", "rows lost"])
def test_a_wrong_interpolation_shows_in_the_keyframe_share(fault):
  table = _table()
  if fault == "rows lost":
    table = table.select(~((table.track_id == 1) & (table.frame == 3)))
  else:
    gap = np.arange(8, 13)
    lengthened = {"frame": gap, "track_id": 0 * gap + 2, "box_xywh": np.ones((5, 4))}
    table = mot_files.Table.of(
      **{name: np.concatenate([getattr(table, name), rows]) for name, rows in lengthened.items()}
    )
  frames, interval = check.frames_of(_camera(), mot_files.SequenceInfo("a", 12, 19, 320, 180))
  found = check.numbers(_scene(), table, frames, interval)
  assert "note: the keyframe share" in check.report(found, interval)


def test_a_sequence_without_boxes():
  frames, interval = check.frames_of(_camera(), mot_files.SequenceInfo("a", 12, 19, 320, 180))
  found = check.numbers(_scene(), mot_files.Table.of(), frames, interval)
  assert found["keyframe_boxes"] == 0 and np.isnan(found["jump_px"])
  assert "jump" not in check.report(found, interval)


def test_evenly_spread_keyframes_have_frames_behind_them():
  assert check.spread(5, 41) == [0, 10, 20, 29, 39]
  assert check.spread(5, 3) == [0, 1] and check.spread(5, 1) == [0]


def _sequence(tmp_path):
  info = mot_files.SequenceInfo("a", 12, 19, 320, 180)
  frames, _ = check.frames_of(_camera(), info)
  return keyframe_boxes.Sequence(
    "a", 320, 180, 12, frames, _table(), mot_files.CLASSES, tmp_path / "nuscenes"
  )


def _has(picture, colour):
  return (np.abs(picture.astype(int) - colour) <= 2).all(-1)


def test_keyframes_are_solid_and_the_frames_between_dashed(prepared):
  sequence = _sequence(prepared)
  own = keyframe_boxes.colour(CAR)
  keyframe = keyframe_boxes.picture(sequence, 7, 320)
  assert keyframe.shape == (180, 320, 3)
  assert _has(keyframe[100, 46:126], own).all()  # the lower edge of the box at 46, 60, 80, 40
  between = keyframe_boxes.picture(sequence, 10, 320)
  assert 0.35 < _has(between[100, 49:129], own).mean() < 0.75  # half way to 52
  assert not _has(keyframe_boxes.picture(sequence, 10, 320)[100:142, 220:240], own).any()
  # The image below: the sweep at 0.75 s is the 7th file.
  assert abs(int(between[150, 300].mean()) - 60) < 4
  assert len({keyframe_boxes.colour(i) for i in range(7)}) == 7


def test_boxes_scale_with_the_picture(prepared):
  picture = keyframe_boxes.picture(_sequence(prepared), 1, 160)
  assert picture.shape == (90, 160, 3)
  assert _has(picture[50, 22:58], keyframe_boxes.colour(CAR)).all()


def test_command_draws_sheet_and_video(prepared, capsys):
  _check(prepared, "--samples", 2, "--width", 160)
  sheet = cv2.imread(str(prepared / "check" / "scene-0103_CAM_FRONT.png"))
  assert sheet.shape == (2 * 96 + 30, 6 * 166 - 6, 3)
  with av.open(str(prepared / "check" / "scene-0103_CAM_FRONT.mp4")) as container:
    assert container.streams.video[0].average_rate == 12
    frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
  assert len(frames) == 19 and frames[0].shape == (720 + 30, 1280, 3)
  assert abs(int(frames[-1][700, 1200].mean()) - 120) < 6  # image of the last keyframe
  printed = capsys.readouterr().out
  assert "scene-0103 CAM_FRONT: 19 frames at 12 Hz" in printed
  assert "keyframe share: 25.93 %" in printed and "(keyframes 0, 2)" in printed


def test_scene_by_number_and_chosen_keyframes(prepared, capsys):
  assert check.find_sequence(prepared / "out", "CAM_BACK", "1")[0] == "scene-0916"
  assert check.find_sequence(prepared / "out", "CAM_BACK", "scene-0103")[0] == "scene-0103"
  _check(prepared, "--keyframes", 3, "--width", 160)  # the last one has no frames behind it
  sheet = cv2.imread(str(prepared / "check" / "scene-0103_CAM_FRONT.png"))
  assert sheet.shape == (96 + 30, 160, 3)


@pytest.mark.parametrize(
  ("arguments", "sentence"),
  [
    (["--camera", "CAM_TOP"], r"--camera .*: 'CAM_TOP' is not allowed; choose one of \['CAM_BACK'"),
    (
      ["--scene", "scene-9"],
      r"--scene: 'scene-9' is not in .* such as \['scene-0103'\], or a numb",
    ),
    (["--scene", "1"], r"--scene: '1' is not in .* from 0 to 0"),
    (["--samples", "0"], r"--samples: 0 is not allowed; choose 1 to 1000"),
    (["--width", "1"], r"--width: 1 is not allowed; choose 64 to 4096"),
    (["--width", "1000000"], r"--width: 1000000 is not allowed; choose 64 to 4096"),
    (["--keyframes", "4"], r"--keyframes: 4 received, but scene-0103 CAM_FRONT has 0 to 3"),
    (["--keyframes", "0", "-1"], r"--keyframes: -1 received, but scene-0103 CAM_FRONT has"),
    (["--data", "nowhere"], r"nowhere: no such folder"),
  ],
)
def test_wrong_arguments(prepared, arguments, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    _check(prepared, *arguments)
  assert not (prepared / "check").exists()


def test_missing_images_are_named_and_the_numbers_still_printed(prepared, capsys):
  for name in ("sweeps/100.58.jpg", "samples/101.00.jpg"):
    (prepared / "nuscenes" / name).unlink()
  with pytest.raises(checks.InputError) as error:
    _check(prepared)
  sentence = str(error.value)
  assert f"{prepared / 'nuscenes' / 'sweeps/100.58.jpg'}: no such image (2 of the 13" in sentence
  assert "tables alone are enough for `prepare nuscenes`" in sentence
  assert "largest jump: 10.0 px" in capsys.readouterr().out
  assert not (prepared / "check").exists()


def test_a_damaged_image_leaves_no_video(prepared):
  (prepared / "nuscenes" / "sweeps" / "101.42.jpg").write_bytes(b"no image")
  with pytest.raises(checks.InputError, match=r"101\.42\.jpg: no readable image of frame 18"):
    _check(prepared, "--samples", 1)
  assert not list((prepared / "check").glob("*.mp4"))


def test_a_folder_of_another_scene_is_refused(prepared):
  folder = prepared / "out" / "val" / "scene-0103_CAM_FRONT"
  info = mot_files.SequenceInfo(folder.name, 12, 25, 320, 180)
  mot_files.write_sequence_info(folder, info)
  with pytest.raises(checks.InputError, match="25 frames at 12 Hz do not fit the 4 keyframes"):
    _check(prepared)
  for rate in (1, 11, 13):  # 13 // 2 would fit
    mot_files.write_sequence_info(folder, mot_files.SequenceInfo(folder.name, rate, 19, 320, 180))
    with pytest.raises(checks.InputError, match=f"frameRate is {rate}; .* a multiple of 2 Hz"):
      _check(prepared)
  mot_files.write_sequence_info(folder, mot_files.SequenceInfo(folder.name, 12, 19, 320, 180))
  (folder / "gt" / "gt.txt").write_text("1,1,0,0,10,10,1,9,1,-1\n")
  with pytest.raises(checks.InputError, match="gt.txt: holds class 9; .* writes 0 to 6"):
    _check(prepared)


def _prepare(dataroot, out, *more):
  arguments = ["nuscenes", "--dataroot", dataroot, "--version", "v1.0-mini", "--out", out, *more]
  prepare.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("interpolation", ["image2d", "pose3d"])
def test_from_tables_to_pictures(tmp_path, capsys, interpolation):
  root = nuscenes_tables.write(
    tmp_path / "nuscenes", scenes=("scene-0103",), keyframes=3, objects=40, images=True
  )
  for path in root.glob("s*/CAM_FRONT/*.jpg"):
    cv2.imwrite(str(path), np.zeros((900, 1600, 3), np.uint8))
  _prepare(root, tmp_path / "out", "--interpolation", interpolation)
  arguments = ["check", "--dataroot", root, "--version", "v1.0-mini", "--data", tmp_path / "out"]
  arguments += ["--width", 160, "--out", tmp_path / "check"]
  capsys.readouterr()
  prepare.main([str(argument) for argument in arguments])
  printed = capsys.readouterr().out
  assert "scene-0103 CAM_FRONT: 13 frames at 12 Hz" in printed and "120 annotations" in printed
  assert "largest image offset: 0 ms" in printed and "median" in printed
  sheet = cv2.imread(str(tmp_path / "check" / "scene-0103_CAM_FRONT.png"))
  assert sheet.shape == (2 * 96 + 30, 6 * 166 - 6, 3)
  with av.open(str(tmp_path / "check" / "scene-0103_CAM_FRONT.mp4")) as container:
    assert sum(1 for _ in container.decode(video=0)) == 13


def test_real_boxes_over_a_real_image(tmp_path, capsys):
  root = real_data.folder("nuscenes_frame")
  _prepare(root, tmp_path / "out")
  arguments = ["check", "--dataroot", root, "--version", "v1.0-mini", "--data", tmp_path / "out"]
  capsys.readouterr()
  prepare.main([str(a) for a in (*arguments, "--width", 1600, "--out", tmp_path / "check")])
  printed = capsys.readouterr().out
  assert "boxes: 27 on keyframes, 0 interpolated" in printed
  assert "39.1 % of the scene's 69 annotations" in printed
  sheet = cv2.imread(str(tmp_path / "check" / "scene-0061_CAM_FRONT.png"))
  assert sheet.shape == (900 + 6 + 30, 1600, 3)
  folder = tmp_path / "out" / "train" / "scene-0061_CAM_FRONT"
  truth = mot_files.read_table(folder / "gt" / "gt.txt", "truth")
  (truck,) = (
    truth.box_xywh[(truth.class_id == 1) & (truth.box_xywh[:, 2] > 300)].round().astype(int)
  )
  edge = sheet[truck[1] + truck[3], truck[0] : truck[0] + truck[2]]
  assert _has(edge, keyframe_boxes.colour(1)).mean() > 0.9


def test_real_scenes_without_images(tmp_path, capsys):
  root = real_data.folder("nuscenes_scenes")
  _prepare(root, tmp_path / "out", "--cameras", "CAM_FRONT")
  arguments = ["check", "--dataroot", root, "--version", "v1.0-mini", "--data", tmp_path / "out"]
  capsys.readouterr()
  with pytest.raises(checks.InputError, match="no such image .39 of the 39.* tables alone"):
    prepare.main([str(argument) for argument in (*arguments, "--out", tmp_path / "check")])
  printed = capsys.readouterr().out
  assert "scene-0103 CAM_FRONT: 229 frames at 12 Hz" in printed  # 6 (39 - 1) + 1
  assert "keyframe share: 18.00 % of the rows" in printed and "gives 18.00 %" in printed
  assert "note:" not in printed and "sweeps are missing in the tables" in printed
