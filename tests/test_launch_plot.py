"""`launch.plot` from files to files, on tiny data."""

import json

import av
import cv2
import numpy as np
import pytest

from launch import plot
from vistraj_jax.core import checks
from vistraj_jax.tracking import mot_files

CAMERAS = ("CAM_BACK", "CAM_FRONT", "CAM_FRONT_LEFT")


@pytest.fixture
def data(tmp_path):
  """Two scenes of three cameras, 8 frames; a run whose tracks equal the truth."""
  for scene in ("scene-0001", "scene-0002"):
    for camera in CAMERAS:
      name = f"{scene}_{camera}"
      info = mot_files.SequenceInfo(name, 12.0, 8, 320, 180)
      folder = tmp_path / "val" / name
      folder.mkdir(parents=True)
      mot_files.write_sequence_info(folder, info)
      frames = np.arange(1, 9)
      boxes = np.stack([10.0 * frames, 0 * frames + 50, 0 * frames + 60, 0 * frames + 40], 1)
      table = mot_files.Table.of(frames, 0 * frames + 3, boxes, class_id=0 * frames)
      mot_files.write_table(folder / "gt" / "gt.txt", table)
      mot_files.write_table(tmp_path / "run" / "data" / f"{name}.txt", table)
  return tmp_path


def _tracks(data, *arguments):
  base = ["tracks", "--data", data / "val", "--run", data / "run", "--width", 480]
  return plot.main([str(a) for a in (*base, "--out", data / "t.mp4", *arguments)])


def _frames(path):
  with av.open(str(path)) as container:
    return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def test_tracks_of_the_first_scene(data, capsys):
  assert _tracks(data, "--truth") == 0
  frames = _frames(data / "t.mp4")
  assert len(frames) == 8 and frames[0].shape == (2 * 136 + 26, 480, 3)
  assert cv2.imread(str(data / "t.png")).shape[1] > 1800
  printed = capsys.readouterr().out
  assert "8 frames, 3 sequences, 12 Hz" in printed and "t.png (frames 1, 2, 4, 5, 7, 8)" in printed
  # Front cameras come first, as around the car.
  names = [camera.name for camera in plot._cameras(_args(data))]
  assert names == [f"scene-0001_{c}" for c in ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_BACK")]


def _args(data, *arguments):
  base = ["tracks", "--data", data / "val", "--run", data / "run", "--out", "a.mp4"]
  return plot._parser().parse_args([str(a) for a in (*base, *arguments)])


def test_chosen_sequence_and_frames(data):
  _tracks(data, "--sequences", "scene-0002_CAM_BACK", "--first", 3, "--last", 6)
  frames = _frames(data / "t.mp4")
  assert len(frames) == 4 and frames[0].shape == (270 + 26, 480, 3)


def test_predicted_boxes_and_images_are_found(data):
  name = "scene-0001_CAM_FRONT"
  table = mot_files.read_table(data / "run" / "data" / f"{name}.txt", "prediction")
  mot_files.write_table(data / "run" / "predicted" / f"{name}.txt", table)
  folder = data / "val" / name / "img1"
  folder.mkdir()
  for frame in range(1, 9):
    cv2.imwrite(str(folder / f"{frame:06d}.jpg"), np.full((180, 320, 3), 200, np.uint8))
  (camera,) = plot._cameras(_args(data, "--sequences", name))
  assert len(camera.predicted.frame) == 8 and camera.images == folder and camera.truth is None
  _tracks(data, "--sequences", name)
  assert abs(int(_frames(data / "t.mp4")[0][200, 240].mean()) - 200) < 6


@pytest.mark.parametrize(
  ("arguments", "sentence"),
  [
    (
      ["--sequences", "scene-9"],
      r"--sequences: 'scene-9' is not allowed; choose one of \['scene-0",
    ),
    (["--first", 9], r"--first 9 --last 8: no frames; there are frames 1 to 8"),
    (["--first", 0], r"--first 0 --last \d+: no frames; there are frames 1 to"),
    (["--width", 10], r"--width: 10 is not allowed"),
    (["--width", 10**6], r"--width: 1000000 is not allowed; choose 64 to 4096"),
    (["--trail", "inf"], r"--trail: inf is not allowed; choose 0 to 600"),
    (["--trail", "nan"], r"--trail: nan is not allowed"),
    (["--out", "t.avi"], r"--out: t\.avi does not end in '\.mp4'"),
    (["--run", "nowhere"], r"nowhere/data/scene-0001_CAM_FRONT_LEFT\.txt: no such prediction file"),
  ],
)
def test_bad_input(data, arguments, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    _tracks(data, *arguments)
  assert not (data / "t.mp4").exists() and not (data / "t.png").exists()


def test_missing_image_leaves_no_video(data):
  (data / "val" / "scene-0001_CAM_FRONT" / "img1").mkdir()
  with pytest.raises(checks.InputError, match=r"000001\.jpg: no readable image"):
    _tracks(data)
  assert not (data / "t.mp4").exists()


def _log(folder):
  folder.mkdir()
  rows = [{"step": s, "phase": "a", "epoch": s, "time": s, "loss/train": 1.0} for s in (1, 2)]
  (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return folder


def test_curves_of_two_runs(tmp_path, capsys):
  one, two = _log(tmp_path / "one"), _log(tmp_path / "two")
  out = tmp_path / "c.png"
  logs = [str(one), f"{two / 'log.jsonl'}:other"]
  assert plot.main(["curves", "--logs", *logs, "--out", str(out)]) == 0
  assert cv2.imread(str(out)).shape[2] == 3
  assert "4 log lines of 2 runs" in capsys.readouterr().out
  with pytest.raises(checks.InputError, match="two runs are called 'one'"):
    plot.main(["curves", "--logs", str(one), str(one), "--out", str(out)])
  with pytest.raises(checks.InputError, match="there is no such log"):
    plot.main(["curves", "--logs", str(tmp_path / "none"), "--out", str(out)])
  with pytest.raises(checks.InputError, match=r"does not end in '\.png'"):
    plot.main(["curves", "--logs", str(one), "--out", "c.pdf"])


def test_labels_of_logs(tmp_path):
  folder = _log(tmp_path / "one")
  assert plot._labelled(str(folder)) == (folder, "one")
  assert plot._labelled(str(folder / "log.jsonl")) == (folder / "log.jsonl", "one")
  assert plot._labelled(f"{folder}:A") == (folder, "A")


def test_hota_from_a_file(tmp_path, capsys):
  from test_viz_curves import scores

  path, out = tmp_path / "scores.json", tmp_path / "h.png"
  one = scores(0.6)
  path.write_text(
    json.dumps({"alphas": one["alphas"], "protocols": {"kitti": {"runs": one["runs"]}}})
  )
  assert plot.main(["hota", "--scores", str(path), "--class_name", "car", "--out", str(out)]) == 0
  assert cv2.imread(str(out)) is not None and "2 runs" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["curves"], ["hota"], ["tracks"]])
def test_help(command, capsys):
  with pytest.raises(SystemExit):
    plot.main([*command, "--help"])
  assert ("--out" if command else "examples:") in capsys.readouterr().out
