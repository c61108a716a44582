"""MOTChallenge folders and KITTI labels -> records, splits, reports; wrong input; interruption."""

import errno
import json
import os

import numpy as np
import pytest
import real_data

from launch import command_line
from launch import prepare as launch_prepare
from vistraj_jax.core import checks
from vistraj_jax.data import trackssm
from vistraj_jax.prepare import kitti, mot, runner
from vistraj_jax.tracking import mot_files


def _rows(track_id, frames, flag=1, class_id=1):
  return [f"{f},{track_id},{10 * f},{20},{30},{40},{flag},{class_id},0.5" for f in frames]


def _sequence(folder, rows, length=30, detections=None):
  info = mot_files.SequenceInfo(folder.name, 14, length, 640, 480)
  mot_files.write_sequence_info(folder, info)
  (folder / "gt").mkdir()
  (folder / "gt" / "gt.txt").write_text("\n".join(rows) + "\n")
  if detections is not None:
    (folder / "det").mkdir()
    (folder / "det" / "det.txt").write_text("\n".join(detections) + "\n")
  return folder


@pytest.fixture
def source(tmp_path):
  root = tmp_path / "source"
  detections = [f"{f},-1,1,2,3,4,0.5" for f in range(1, 31)]
  a = [*_rows(1, range(1, 31)), *_rows(2, range(3, 8)), *_rows(3, range(1, 31), 0, 8)]
  _sequence(root / "seq-a", a, detections=detections)
  _sequence(root / "seq-b", _rows(7, [*range(1, 10), *range(20, 28)]))
  return root


def _prepare(source, out, **kwargs):
  return mot.prepare(source, out, **{"split_by": "halves", "classes": (1,), **kwargs})


def test_halves(source, tmp_path):
  out = tmp_path / "out"
  statistics = _prepare(source, out)
  train, val = statistics["splits"]["train"], statistics["splits"]["val"]
  # seq-a, first half: id 1 has 15 rows (9 windows), id 2 has 5 rows (short); seq-b: 9 rows.
  counts = {"sequences": 2, "frames": 30, "boxes": 29, "tracks": 2, "windows": 12}
  of_class = {"boxes": 29, "tracks": 2, "windows": 12, "short_tracks": 1}
  assert train == {**counts, "short_tracks": 1, "classes": {"1": of_class}}
  assert (val["boxes"], val["tracks"], val["windows"]) == (23, 2, 11)
  assert json.loads((out / "dataset_stats.json").read_text()) == statistics
  assert not (out / ".prepare").exists()
  for split, first in (("train", 1), ("val", 16)):
    folder = out / split / "seq-a"
    info = mot_files.read_sequence_info(folder)
    assert (info.name, info.length, info.frame_rate) == ("seq-a", 15, 14)
    truth = mot_files.read_table(folder / "gt" / "gt.txt", "truth", 15)
    one = truth.select(truth.track_id == 1)
    np.testing.assert_array_equal(one.frame, np.arange(1, 16))
    np.testing.assert_array_equal(one.box_xywh[:, 0], 10.0 * np.arange(first, first + 15))
    assert (truth.class_id == 8).sum() == 15  # distractors stay for the scorer
    assert len(mot_files.read_table(folder / "det" / "det.txt", "detection", 15)) == 15
  tracks = list(trackssm.read_tracks(out, "val"))
  assert [(t["sequence"], int(t["track_id"])) for t in tracks] == [(b"seq-a", 1), (b"seq-b", 7)]
  np.testing.assert_array_equal(tracks[1]["frames"], np.arange(20, 28) - 15)
  np.testing.assert_allclose(tracks[0]["boxes"][0], [160, 20, 30, 40])
  np.testing.assert_allclose(tracks[0]["visibility"], 0.5)


def test_sequences_and_folders(source, tmp_path):
  statistics = _prepare(source, tmp_path / "a", split_by="sequences", val=("seq-b",))
  assert statistics["splits"]["train"]["windows"] == 24
  assert statistics["splits"]["val"]["windows"] == 3 + 2  # two runs of 9 and 8 rows
  again = _prepare(tmp_path / "a", tmp_path / "b", split_by="folders")
  assert again["splits"] == statistics["splits"]


def test_command_prints_the_report(source, tmp_path, capsys):
  out = tmp_path / "out"
  arguments = ["mot", "--source", str(source), "--out", str(out)]
  launch_prepare.main(arguments)
  report = capsys.readouterr().out
  assert "short_tracks" in report and "class 1" in report and str(out) in report
  before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
  launch_prepare.main(arguments)  # finished: nothing is made again
  assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
  assert capsys.readouterr().out == report


def test_processes_and_beam_make_the_same_bytes(source, tmp_path):
  _prepare(source, tmp_path / "a")
  _prepare(source, tmp_path / "b", processes=2)
  _prepare(source, tmp_path / "c", beam=["--runner=DirectRunner"])
  files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
  assert len(files) > 10
  for name in files:
    if (tmp_path / "a" / name).is_file():
      for other in ("b", "c"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / other / name).read_bytes(), name


def test_mot15_files_without_classes(tmp_path):
  rows = [f"{f},1,5,5,10,10,1,-4.15,{f}.5,0" for f in range(1, 9)]
  _sequence(tmp_path / "s" / "old", rows)
  statistics = _prepare(tmp_path / "s", tmp_path / "o", split_by="sequences", classes=(-1,))
  assert statistics["splits"]["train"]["classes"]["-1"]["windows"] == 2


def test_shards_are_limited_in_size(source, tmp_path, monkeypatch):
  monkeypatch.setattr(runner, "SHARD_BYTES", 100)
  _prepare(source, tmp_path / "o")
  names = sorted(p.name for p in (tmp_path / "o").glob("trackssm-train*"))
  assert names == [f"trackssm-train.tfrecord-0000{i}-of-00002" for i in (0, 1)]
  assert len(list(trackssm.read_tracks(tmp_path / "o", "train"))) == 2


# Wrong input


def test_wrong_folders(source, tmp_path):
  out = tmp_path / "out"
  with pytest.raises(checks.InputError, match=r"sorce: no such folder; .* holds \['source'\]"):
    _prepare(tmp_path / "sorce", out)
  (tmp_path / "empty").mkdir()
  with pytest.raises(checks.InputError, match="empty: holds no sequence; .*seqinfo.ini"):
    _prepare(tmp_path / "empty", out)
  with pytest.raises(checks.InputError, match="need .*/<split>/<sequence> with a split of .*'val'"):
    _prepare(source, out, split_by="folders")
  with pytest.raises(checks.InputError, match=r"val sequence 'seq_b' .*nearest: \['seq-b'"):
    _prepare(source, out, split_by="sequences", val=("seq_b",))
  with pytest.raises(checks.InputError, match=r"\['seq-a'\] are named for val and for test"):
    _prepare(source, out, split_by="sequences", val=("seq-a",), test=("seq-a",))
  (source / "seq-b" / "gt" / "gt.txt").rename(source / "seq-b" / "gt" / "truth.txt")
  with pytest.raises(checks.InputError, match="seq-b/gt/gt.txt: no such truth file"):
    _prepare(source, out)


@pytest.mark.parametrize(
  ("row", "sentence"),
  [
    ("", "gt.txt: holds no box; remove this sequence or complete the file"),
    ("1,1,x,2,3,4,1,1,1", "gt.txt:1: left is 'x'"),
    ("1,1,nan,2,3,4,1,1,1", "gt.txt:1: left is nan"),
    ("1,1,1,2,-3,4,1,1,1", "gt.txt:1: width is -3"),
    ("1,1,1,2,3,4,1,1,1\n1,1,1,2,3,4,1,1,1", "gt.txt:2: id 1 is in frame 1 twice"),
    ("31,1,1,2,3,4,1,1,1", "gt.txt:1: frame is 31; .* 1 to 30"),
  ],
)
def test_wrong_rows_end_the_command(source, tmp_path, row, sentence, capsys):
  (source / "seq-b" / "gt" / "gt.txt").write_text(row + "\n")
  arguments = ["mot", "--source", str(source), "--out", str(tmp_path / "out")]
  with pytest.raises(SystemExit, match=sentence) as stopped:
    command_line.run(lambda: launch_prepare.main(arguments))
  assert str(stopped.value).startswith("error: ") and "\n" not in str(stopped.value)
  assert not list((tmp_path / "out").glob("*.tfrecord-*"))
  assert not (tmp_path / "out" / "dataset_stats.json").exists()


def test_other_contents_of_the_output_folder_are_kept(source, tmp_path):
  with pytest.raises(checks.InputError, match="is not empty and holds no prepared data"):
    _prepare(source, source)
  _prepare(source, tmp_path / "out")
  with pytest.raises(checks.InputError, match=r"prepared with other \['classes'\]; delete it"):
    _prepare(source, tmp_path / "out", classes=(8,))
  with open(source / "seq-b" / "gt" / "gt.txt", "a") as f:
    f.write("29,9,1,2,3,4,1,1,1\n")
  with pytest.raises(checks.InputError, match=r"prepared with other \['inputs'\]"):
    _prepare(source, tmp_path / "out")


def test_corrected_input_starts_over(source, tmp_path):
  gt = source / "seq-b" / "gt" / "gt.txt"
  rows = gt.read_text()
  gt.write_text(rows.replace("7,200,", "7,left,"))
  with pytest.raises(checks.InputError, match="left is 'left'"):
    _prepare(source, tmp_path / "out")
  gt.write_text(rows)
  statistics = _prepare(source, tmp_path / "out", split_by="sequences", val=("seq-a",))
  assert statistics["splits"]["train"]["windows"] == 5
  assert sorted(p.name for p in (tmp_path / "out").glob("*/*")) == ["seq-a", "seq-b"]


def test_full_disk_then_goes_on(source, tmp_path, monkeypatch):
  out, calls = tmp_path / "out", []
  convert = mot.convert_sequence

  def disk_fills_up(*arguments):
    calls.append(arguments)
    if len(calls) == 3:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return convert(*arguments)

  monkeypatch.setattr(mot, "convert_sequence", disk_fills_up)
  with pytest.raises(SystemExit, match="error: .*No space left on device"):
    arguments = ["mot", "--source", str(source), "--out", str(out)]
    command_line.run(lambda: launch_prepare.main(arguments))
  assert not list(out.glob("trackssm-*"))
  (out / "train" / ".seq-a.half").mkdir()  # what a kill would leave
  (out / ".trackssm-val.tfrecord-00000-of-00001.half").write_bytes(b"x")
  statistics = _prepare(source, out)
  assert len(calls) == 5  # two units were finished, the failed one and the last ran
  monkeypatch.undo()
  assert statistics["splits"] == _prepare(source, tmp_path / "whole")["splits"]
  names = {p.relative_to(out) for p in out.rglob("*")}
  assert names == {p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*")}


# KITTI

_CAR = "{} 3 Car 0 1 -1.7 100.5 150 200.5 210 1.5 1.6 3.7 2.9 1.5 13.1 -1.5"
_DONT_CARE = "{} -1 DontCare -1 -1 -10 1 2 3 4 -1000 -1000 -1000 -10 -1 -1 -1"


def _labels(root, name="0001", lines=None):
  (root / "label_02").mkdir(parents=True, exist_ok=True)
  if lines is None:
    lines = [form.format(f) for f in range(9) for form in (_CAR, _DONT_CARE, _DONT_CARE)]
    lines.append("4 5 Van 0 0 -1.7 1 2 3 4 1.5 1.6 3.7 2.9 1.5 13.1 -1.5")
  (root / "label_02" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_kitti(tmp_path):
  _labels(tmp_path / "k")
  folders = []
  for type_id, score in ((2, 0.0), (1, 2.0)):
    folders.append(tmp_path / f"det{type_id}")
    folders[-1].mkdir()
    (folders[-1] / "0001.txt").write_text(f"0,{type_id},10,20,30.5,60,{score},1,1,1,1,1,1,1,1\n")
  out = tmp_path / "out"
  command = ["kitti", "--source", str(tmp_path / "k"), "--out", str(out), "--detections"]
  launch_prepare.main([*command, *map(str, folders)])
  folder = out / "val" / "0001"
  info = mot_files.read_sequence_info(folder)
  assert (info.length, info.width, info.height, info.frame_rate) == (447, 1242, 375, 10)
  truth = mot_files.read_table(folder / "gt" / "gt.txt", "truth", 447)
  car = truth.select(truth.class_id == 0)
  np.testing.assert_array_equal(car.frame, np.arange(1, 10))
  np.testing.assert_array_equal(car.box_xywh[0], [100.5, 150, 100, 60])
  assert (car.score == 1).all() and (car.visibility == 0.6).all()
  other = truth.select(truth.class_id != 0)
  assert (other.score == 0).all() and sorted(set(other.class_id)) == [7, 9]
  ignored = other.track_id[other.class_id == 9]
  assert len(set(ignored)) == 18 and ignored.min() > 5  # ids of their own
  detections = mot_files.read_table(folder / "det" / "det.txt", "detection", 447)
  np.testing.assert_allclose(detections.score, [0.5, 1 / (1 + np.exp(-2))], rtol=1e-5)
  np.testing.assert_array_equal(detections.class_id, [0, 4])
  np.testing.assert_array_equal(detections.box_xywh[0], [10, 20, 20.5, 40])
  tracks = list(trackssm.read_tracks(out, "val"))
  assert len(tracks) == 1 and len(tracks[0]["frames"]) == 9


@pytest.mark.parametrize(
  ("line", "sentence"),
  [
    (_CAR.format(447), "0001.txt:1: frame is 447; the sequence has frames 0 to 446"),
    (_CAR.format("x"), "0001.txt:1: frame is 'x'; write a number"),
    (_CAR.format(0).replace("100.5", "nan"), "0001.txt:1: left is nan"),
    (_CAR.format(0).replace("100.5", "1e300"), r"0001.txt:1: left is 1e300; .* within 1e\+08"),
    (_CAR.format(0).replace("100.5", "300"), "0001.txt:1: box .* has a negative size"),
    (_CAR.format(0).replace("Car", "car"), "0001.txt:1: type: 'car' is not allowed"),
    (_CAR.format(0) + "\n" + _CAR.format(0), "0001.txt:2: id 3 is in frame 0 twice .line 1."),
    ("0 3 Car", "0001.txt:1: 3 columns, at least 17 wanted"),
    ("", "0001.txt: holds no label"),
  ],
)
def test_wrong_kitti_labels(tmp_path, line, sentence):
  _labels(tmp_path, lines=[line])
  with pytest.raises(checks.InputError, match=sentence):
    kitti.prepare(tmp_path, tmp_path / "out")


def test_wrong_kitti_folders(tmp_path):
  with pytest.raises(checks.InputError, match="label_02: no such folder"):
    kitti.prepare(tmp_path, tmp_path / "out")
  _labels(tmp_path, "0030")
  with pytest.raises(checks.InputError, match="0030.txt: no KITTI training sequence"):
    kitti.prepare(tmp_path, tmp_path / "out")
  _labels(tmp_path / "k")
  with pytest.raises(checks.InputError, match="nowhere: no such folder of detections"):
    kitti.prepare(tmp_path / "k", tmp_path / "o", detections=[tmp_path / "nowhere"])
  (tmp_path / "det").mkdir()
  with pytest.raises(checks.InputError, match="det/0001.txt: no such file; every sequence needs"):
    kitti.prepare(tmp_path / "k", tmp_path / "o", detections=[tmp_path / "det"])


# Real data


def test_real_mot17_halves(tmp_path):
  root = real_data.folder("mot17") / "train"
  statistics = _prepare(root, tmp_path / "out")
  rows = [
    mot_files.read_table(f / "gt" / "gt.txt", "truth") for f in mot_files.find_sequences(root)
  ]
  people = sum(((t.class_id == 1) & (t.score == 1)).sum() for t in rows)
  boxes = sum(split["boxes"] for split in statistics["splits"].values())
  assert boxes == people == 112_297
  written = (tmp_path / "out").glob("*/*/gt/gt.txt")
  assert sum(len(p.read_text().splitlines()) for p in written) == sum(map(len, rows))
  examples = trackssm.load({"root": tmp_path / "out"}, "train", {"history": 5})
  assert len(examples) == statistics["splits"]["train"]["windows"] == 56_134
  # The target is not in the condition: it equals the newest box only where people stand still.
  boxes = examples.gather(np.arange(len(examples)))["boxes"]
  assert np.mean((boxes[:, -1] == boxes[:, -2]).all(-1)) < 0.5


def test_real_kitti(tmp_path):
  root = real_data.folder("kitti_tracking")
  folders = sorted(root.glob("pointrcnn_*"))
  statistics = kitti.prepare(root, tmp_path / "out", detections=folders)
  assert statistics["splits"]["val"]["sequences"] == 11
  assert statistics["splits"]["train"]["sequences"] == 10
  cars = [split["classes"]["0"]["boxes"] for split in statistics["splits"].values()]
  assert sum(cars) == 27_300
  lines = sum(len(p.read_text().splitlines()) for f in folders for p in f.glob("*.txt"))
  written = (tmp_path / "out").glob("*/*/det/det.txt")
  assert sum(len(p.read_text().splitlines()) for p in written) == lines
