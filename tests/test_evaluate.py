"""The scoring command on a tiny data set: files written, tables, baselines, bad input."""

import json
import subprocess
import sys

import pytest
import tracks

from launch import evaluate
from vistraj_jax.core import checks
from vistraj_jax.metrics import protocols, report
from vistraj_jax.tracking import mot_files

FAR = (400.0, 0.0, 40.0, 80.0)


def _write(path, rows):
  mot_files.write_table(path, tracks.table(*rows))


@pytest.fixture
def data(tmp_path):
  """Two sequences of 10 frames with a car and a pedestrian, and two runs."""
  truth = tracks.track(1, range(1, 11)) + tracks.track(2, range(1, 11), FAR, class_id=4)
  switch = [(*row[:1], 9 if row[0] > 5 else 1, *row[2:]) for row in truth if row[4] == 0]
  for name in ("a", "b"):
    folder = tmp_path / "val" / name
    mot_files.write_sequence_info(folder, mot_files.SequenceInfo(name, 12, 10, 640, 480))
    _write(folder / "gt" / "gt.txt", truth)
    _write(tmp_path / "perfect" / "data" / f"{name}.txt", truth)
    _write(tmp_path / "switch" / f"{name}.txt", switch)  # files without a data folder
  return tmp_path


def _run(data, *runs, protocol="nuscenes"):
  folders = [str(data / run) for run in runs]
  arguments = ["--truth", str(data / "val"), "--protocol", protocol, "--out", str(data / "out")]
  assert evaluate.main([*arguments, "--predictions", *folders]) == 0
  scores = json.loads((data / "out" / "scores.json").read_text())
  assert list(scores["protocols"]) == [protocol]
  assert scores["alphas"] == protocols.ALPHAS.tolist()
  return scores["protocols"][protocol]


def _refused(*arguments, **keywords):
  with pytest.raises(checks.InputError) as error:
    _run(*arguments, **keywords)
  return str(error.value)


def test_runs_stand_side_by_side(data, capsys):
  scores = _run(data, "perfect", "switch:constant velocity")
  assert scores["sequences"] == {"a": 10, "b": 10}
  perfect, other = scores["runs"]["perfect"], scores["runs"]["constant velocity"]
  car = perfect["classes"]["car"]["COMBINED"]
  assert car["HOTA"]["HOTA"] == [1.0] * 19 and car["summary"]["IDTP"] == 20
  car = other["classes"]["car"]
  assert car["COMBINED"]["summary"]["IDSW"] == 2 and car["COMBINED"]["summary"]["MOTA"] == 0.9
  assert car["sequences"]["b"]["summary"]["IDF1"] == 0.5
  over = other["over_classes"]
  assert over["detection_averaged"]["summary"]["MOTA"] == (20 - 2) / 40
  assert over["class_averaged_nonempty"]["summary"]["MOTA"] == 0.45
  assert over["sequences"]["a"]["summary"]["FN"] == 10
  assert perfect["missing"] == perfect["unknown"] == []

  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "protocol nuscenes, 2 sequences, 20 frames; ratios in percent"
  header, *rows = (line.split() for line in lines[1:-1])
  assert header[:3] == ["class", "run", "HOTA"]
  firsts = " ".join(row[0] for row in rows)
  assert firsts == "mean constant all constant car constant pedestrian constant"
  assert rows[4][1:3] == ["perfect", "100.00"]
  assert rows[0][:5] == ["mean", "of", "classes", "perfect", "100.00"]  # of two, not of seven
  markdown = (data / "out" / "scores.md").read_text()
  assert "| car | constant velocity |" in markdown and "| b | perfect | 100.00 |" in markdown
  assert "truck" not in markdown  # no such box anywhere


@pytest.fixture
def cameras(tmp_path):
  """Two scenes of two cameras at 12 Hz, 13 frames, and a third camera that never sees anything.

  The run follows the cars of CAM_FRONT, with another id in frames 3 to 5, and misses CAM_BACK.
  """
  truth = tracks.track(1, range(1, 14)) + tracks.track(2, range(1, 14), FAR, class_id=4)
  switch = [(*row[:1], 9 if row[0] in (3, 4, 5) else 1, *row[2:]) for row in truth if row[4] == 0]
  for scene in ("scene-0001_", "scene-0002-"):  # both ways to write a name
    for camera, rows, found in (
      ("CAM_BACK", truth, []),
      ("CAM_BACK_LEFT", [], []),
      ("CAM_FRONT", truth, switch),
    ):
      name = f"{scene}{camera}"
      folder = tmp_path / "val" / name
      mot_files.write_sequence_info(folder, mot_files.SequenceInfo(name, 12, 13, 1600, 900))
      _write(folder / "gt" / "gt.txt", rows)
      _write(tmp_path / "run" / "data" / f"{name}.txt", found)
  return tmp_path


def test_cameras_and_keyframes_in_one_run(cameras, capsys):
  names = ["nuscenes", "nuscenes_keyframes"]
  arguments = ["--truth", cameras / "val", "--predictions", cameras / "run"]
  arguments += ["--protocol", *names, "--out", cameras / "out"]
  assert evaluate.main([str(argument) for argument in arguments]) == 0
  scores = json.loads((cameras / "out" / "scores.json").read_text())["protocols"]
  assert list(scores) == names
  assert set(scores["nuscenes"]["sequences"].values()) == {13}
  assert set(scores["nuscenes_keyframes"]["sequences"].values()) == {3}
  every, keyframes = (scores[name]["runs"]["run"]["cameras"] for name in names)
  assert list(every) == ["CAM_BACK", "CAM_BACK_LEFT", "CAM_FRONT"]
  car, on_keyframes = (of["CAM_FRONT"]["classes"]["car"]["summary"] for of in (every, keyframes))
  assert (car["IDSW"], car["TP"], car["FN"]) == (4, 26, 0)
  assert (on_keyframes["IDSW"], on_keyframes["TP"], on_keyframes["MOTA"]) == (0, 6, 1.0)
  assert every["CAM_BACK"]["classes"]["pedestrian"]["summary"]["FN"] == 26
  front = every["CAM_FRONT"]["over_classes"]
  assert front["detection_averaged"]["summary"]["FN"] == 26  # pedestrians
  assert front["class_averaged_nonempty"]["summary"]["MOTA"] == (1 - 4 / 26) / 2
  assert every["CAM_BACK_LEFT"]["over_classes"]["detection_averaged"]["Count"]["GT_Dets"] == 0

  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "protocol nuscenes, 6 sequences, 78 frames; ratios in percent"
  assert "protocol nuscenes_keyframes, 6 sequences, 18 frames; ratios in percent" in lines
  empty, front = (
    [line.split() for line in lines if line.startswith(f"{camera} ")]
    for camera in ("CAM_BACK_LEFT", "CAM_FRONT")
  )
  assert empty == [["CAM_BACK_LEFT", "run", *["-"] * len(report.COLUMNS)]] * 2
  switches = 2 + [title for title, _, _ in report.COLUMNS].index("IDSW")
  assert [row[switches] for row in front] == ["4", "0"]
  markdown = (cameras / "out" / "scores.md").read_text()
  assert "| CAM_FRONT car | run | 100.00 |" in markdown and "CAM_BACK_LEFT car" not in markdown
  assert "| CAM_FRONT mean | run | 50.00 |" in markdown  # of cars and the missed pedestrians
  assert "## Protocol nuscenes_keyframes, 6 sequences" in markdown


def test_keyframes_of_an_odd_frame_rate_are_refused(data):
  info = mot_files.SequenceInfo("b", 25, 10, 640, 480)
  mot_files.write_sequence_info(data / "val" / "b", info)
  sentence = _refused(data, "perfect", protocol="nuscenes_keyframes")
  assert "b/seqinfo.ini: frame rate: 25.0 Hz" in sentence and "multiple of 2 Hz" in sentence


def test_one_class_protocol_has_no_averages(data, capsys):
  scores = _run(data, "perfect", protocol="plain")
  assert scores["runs"]["perfect"]["classes"]["all"]["COMBINED"]["summary"]["TP"] == 40
  out = capsys.readouterr().out
  assert "mean of classes" not in out and "all" in out and "camera" not in out


def test_missing_files_count_as_misses_and_unknown_ones_are_named(data, capsys):
  (data / "perfect" / "data" / "b.txt").rename(data / "perfect" / "data" / "c.txt")
  run = _run(data, "perfect")["runs"]["perfect"]
  assert (run["missing"], run["unknown"]) == (["b"], ["c"])
  assert run["classes"]["car"]["COMBINED"]["summary"]["FN"] == 10
  warnings = capsys.readouterr().err
  assert "warning: run 'perfect' has no file for 1 of 2 sequences" in warnings
  assert "misses: b." in warnings and "not scored: c." in warnings
  assert "misses: b." in (data / "out" / "scores.md").read_text()


def test_classes_may_count_from_one(data):
  for name in ("a", "b"):
    info = mot_files.SequenceInfo(name, 12, 10, 640, 480, class_base=1)
    mot_files.write_sequence_info(data / "val" / name, info)
    for path in (data / "val" / name / "gt" / "gt.txt", data / "perfect" / "data" / f"{name}.txt"):
      rows = mot_files.read_table(path, "truth")
      mot_files.write_table(path, mot_files.Table(**{**vars(rows), "class_id": rows.class_id + 1}))
  classes = _run(data, "perfect")["runs"]["perfect"]["classes"]
  assert classes["pedestrian"]["COMBINED"]["summary"]["TP"] == 20
  assert classes["truck"]["COMBINED"]["Count"]["GT_Dets"] == 0


def test_wrong_folders_and_names_are_refused(data):
  assert "gone is no folder" in _refused(data, "gone")
  assert "two runs are called 'perfect'" in _refused(data, "perfect", "perfect")
  assert "empty label" in _refused(data, "perfect:")
  (data / "other").mkdir()
  (data / "other" / "x.txt").write_text("")
  sentence = _refused(data, "other")
  assert "holds no file of a sequence" in sentence and "['x']" in sentence and "['a'," in sentence
  assert not (data / "out").exists()


def test_the_same_name_in_two_splits_is_refused(data):
  for split in ("x", "y"):
    mot_files.write_sequence_info(
      data / "splits" / split / "a", mot_files.SequenceInfo("a", 12, 10, 640, 480)
    )
  (data / "val").rename(data / "old")
  (data / "splits").rename(data / "val")
  assert "same name; name one split" in _refused(data, "perfect")


def test_bad_rows_and_classes_name_their_file(data):
  path = data / "perfect" / "data" / "b.txt"
  path.write_text("1,1,0,0,5,5,1,9,1,-1\n")
  sentence = _refused(data, "perfect")
  assert "b.txt: prediction: class 9 in frame 1; protocol 'nuscenes' allows" in sentence
  path.write_text("1,1,0,0,5,5,1,0,1,-1\n11,1,0,0,5,5,1,0,1,-1\n")
  assert f"{path}:2: frame is 11; write a frame from 1 to 10" in _refused(data, "perfect")
  (data / "val" / "a" / "gt" / "gt.txt").unlink()
  assert "gt.txt: no such truth file" in _refused(data, "perfect")
  assert not (data / "out").exists()


def test_command_ends_in_one_sentence(data):
  command = [sys.executable, "-m", "launch.evaluate", "--truth", str(data / "vla")]
  ended = subprocess.run(
    [*command, "--predictions", str(data / "perfect"), "--out", str(data / "out")],
    capture_output=True,
    text=True,
  )
  assert ended.returncode == 1 and ended.stdout == ""
  assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
  assert "vla: no such folder" in ended.stderr and "'val'" in ended.stderr


def test_protocols_of_the_command_are_those_of_the_library():
  assert set(evaluate.PROTOCOLS) == set(protocols.PROTOCOLS)


def test_tables_align_and_leave_repeats_blank():
  rows = [["class", "run", "HOTA"], ["car", "a", "1.00"], ["car", "long", "100.00"]]
  assert report.as_text(rows).splitlines() == [
    "class  run     HOTA",
    "car    a       1.00",
    "       long  100.00",
  ]
  assert report.as_markdown(rows).splitlines()[1:3] == [
    "| --- | --- | ---: |",
    "| car | a | 1.00 |",
  ]
