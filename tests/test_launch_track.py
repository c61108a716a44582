"""`python -m launch.track` end to end on small MOT folders."""

import json
import sys
import types

import numpy as np
import pytest

from launch import track
from vistraj_jax.core import checks
from vistraj_jax.tracking import mot_files


@pytest.fixture
def data(tmp_path):
  """Two cameras of three crossing objects, 40 frames at 12 Hz, truth and noisy detections."""
  rng = np.random.RandomState(0)
  for camera in ("CAM_BACK", "CAM_FRONT"):
    folder = tmp_path / "data" / "val" / f"scene_{camera}"
    mot_files.write_sequence_info(
      folder, mot_files.SequenceInfo(folder.name, 12.0, 40, 640, 480, class_base=0)
    )
    frame = np.repeat(np.arange(1, 41), 3)
    track_id = np.tile([1, 2, 3], 40)
    x = np.array([50, 300, 100])[track_id - 1] + np.array([6, -6, 0])[track_id - 1] * frame
    y = 100.0 * track_id
    box = np.stack([x, y, 0 * x + 40, 0 * x + 60], axis=1).astype(float)
    class_id = np.array([0, 0, 4])[track_id - 1]
    truth = mot_files.Table.of(frame, track_id, box, class_id=class_id)
    mot_files.write_table(folder / "gt" / "gt.txt", truth)
    found = mot_files.Table.of(
      frame, 0 * frame - 1, box + rng.normal(0, 1, box.shape), 0.9 + 0 * x, class_id
    )
    mot_files.write_table(folder / "det" / "det.txt", found)
  return tmp_path / "data" / "val"


def _run(data, tmp_path, *more, detections="truth", motion="kalman"):
  arguments = ["--data", data, "--detections", detections, "--motion", motion]
  arguments += ["--out", tmp_path / "run", *more]
  return track.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("motion", ["kalman", "constant_velocity", "identity"])
def test_truth_boxes_give_the_truth_back(data, tmp_path, motion, capsys):
  assert _run(data, tmp_path, motion=motion) == 0
  for folder in mot_files.find_sequences(data):
    table = mot_files.read_table(tmp_path / "run" / "data" / f"{folder.name}.txt", "prediction", 40)
    truth = mot_files.read_table(folder / "gt" / "gt.txt", "truth", 40)
    for name in ("frame", "track_id", "box_xywh", "score", "class_id"):
      np.testing.assert_array_equal(getattr(table, name), getattr(truth, name))
  last = capsys.readouterr().out.strip().splitlines()[-1]
  assert (
    last.startswith("tracked 2 sequences, 80 frames, 240 boxes in 6 tracks") and "frames/s" in last
  )


def test_detections_and_the_files_beside_them(data, tmp_path):
  stale = tmp_path / "run" / "data" / "old_sequence.txt"
  stale.parent.mkdir(parents=True)
  stale.write_text("")
  _run(data, tmp_path, "--preset", "bot", "--no-class_gate", "--max_lost_s", 0.5, detections="det")
  assert not stale.exists()
  lines = (tmp_path / "run" / "data" / "scene_CAM_BACK.txt").read_text().splitlines()
  assert len(lines) == 120
  assert all(len(line.split(",")) == 10 and line.endswith(",1,-1") for line in lines)
  assert len(lines[0].split(",")[2].split(".")[1]) == 2
  config = json.loads((tmp_path / "run" / "experiment_config.json").read_text())
  assert config["tracker"]["lost_policy"] == "freeze" and not config["tracker"]["class_gate"]
  assert config["tracker"]["max_lost_s"] == 0.5
  assert config["arguments"]["motion"] == "kalman"
  times = json.loads((tmp_path / "run" / "timing.json").read_text())
  assert (times["frames"], times["warm_up_frames_excluded"]) == (30, 10)
  assert times["sequences_side_by_side_mean"] == 2
  assert 0 < times["track_ms"]["median"] <= times["track_ms"]["p95"]
  assert set(times["detect_ms"]) == set(times["total_ms"]) == {"mean", "median", "p95"}


def test_one_at_a_time_gives_the_same_tracks(data, tmp_path):
  _run(data, tmp_path, detections="det")
  before = {p.name: p.read_text() for p in (tmp_path / "run" / "data").iterdir()}
  _run(data, tmp_path, "--parallel_sequences", 1, detections="det")
  assert before == {p.name: p.read_text() for p in (tmp_path / "run" / "data").iterdir()}


def test_interpolate_gaps(data, tmp_path):
  path = data / "scene_CAM_BACK" / "gt" / "gt.txt"
  rows = path.read_text().splitlines()
  path.write_text("".join(f"{row}\n" for row in rows if not row.startswith(("20,", "21,"))))
  for more, count in (((), 114), (("--interpolate_gaps",), 120)):
    _run(data, tmp_path, *more)
    lines = (tmp_path / "run" / "data" / "scene_CAM_BACK.txt").read_text().splitlines()
    assert len(lines) == count


def _network(monkeypatch, frame_rate):
  """Puts a network in place that predicts constant velocity; returns its record of calls."""
  calls = {"load": [], "predict": 0}

  def load(path, pad="first"):
    def predict(boxes, counts, image_size):
      calls["predict"] += 1
      assert boxes.shape[1:] == (6, 4) and boxes.dtype == np.float32
      return 2 * boxes[:, -1] - boxes[:, -2]

    calls["load"].append((path, pad))
    predict.history = 5
    predict.frame_rate = frame_rate
    return predict

  module = types.SimpleNamespace(load=load)
  monkeypatch.setitem(sys.modules, "vistraj_jax.models.trackssm.predict", module)
  import vistraj_jax.models.trackssm as package

  monkeypatch.setattr(package, "predict", module, raising=False)
  return calls


@pytest.mark.parametrize("frame_rate, warned", [(None, False), (12.0, False), (30.0, True)])
def test_a_learned_motion(data, tmp_path, monkeypatch, capsys, frame_rate, warned):
  calls = _network(monkeypatch, frame_rate)
  _run(data, tmp_path, "--weights", "run/weights", "--pad", "last", motion="trackssm")
  assert calls["load"] == [("run/weights", "last")]
  assert calls["predict"] == 39  # one call per frame for both cameras; none in the first frame
  captured = capsys.readouterr()
  assert "with motion trackssm" in captured.out
  assert ("trained at 30 Hz" in captured.err) == warned


@pytest.fixture
def keyframes(tmp_path):
  """One sequence at 2 Hz: a car moves on, another stands and hides for 1 s and then for 3 s."""
  folder = tmp_path / "keyframes" / "scene_CAM_FRONT"
  mot_files.write_sequence_info(folder, mot_files.SequenceInfo(folder.name, 2.0, 24, 1600, 900))
  moving = [(f, 1, (40.0 * f, 100.0, 200.0, 100.0)) for f in range(1, 25)]
  seen = [*range(1, 7), *range(9, 15), *range(21, 25)]
  standing = [(f, 2, (600.0, 500.0, 80.0, 80.0)) for f in seen]
  frame, track_id, box = zip(*moving, *standing, strict=True)
  truth = mot_files.Table.of(frame, track_id, box, class_id=np.zeros(len(frame)))
  mot_files.write_table(folder / "gt" / "gt.txt", truth)
  return folder.parent


@pytest.mark.parametrize("preset", ["byte", "bot"])
@pytest.mark.parametrize("motion", ["identity", "constant_velocity", "kalman", "trackssm"])
def test_keyframes_at_2_hz(keyframes, tmp_path, monkeypatch, capsys, motion, preset):
  _network(monkeypatch, 12.0)
  more = ["--weights", "w"] if motion == "trackssm" else []
  _run(keyframes, tmp_path, "--preset", preset, *more, motion=motion)
  rows = mot_files.read_table(tmp_path / "run" / "data" / "scene_CAM_FRONT.txt", "prediction", 24)
  moving = rows.box_xywh[:, 1] == 100
  assert len(set(rows.track_id[moving].tolist())) == 1 and moving.sum() == 24
  ids = dict(zip(rows.frame[~moving].tolist(), rows.track_id[~moving].tolist(), strict=True))
  # The buffer is 1 s, so 2 frames here: the first absence is bridged, the second is not.
  assert ids[6] == ids[9] == ids[14] != ids[24]
  warned = "trained at 12 Hz" in capsys.readouterr().err
  assert warned == (motion == "trackssm")


@pytest.mark.parametrize(
  "more, motion, wanted",
  [
    ((), "trackssm", "--weights: motion trackssm needs"),
    (("--weights", "w"), "kalman", "--weights: motion kalman does not use it"),
    (("--pad", "last"), "kalman", "--pad: motion kalman does not use it"),
    (("--first_cost", "1.5"), "kalman", "first_cost: 1.5 is not allowed"),
    (("--min_side", "nan"), "kalman", "--min_side: nan is not allowed; choose a size in px"),
    (("--min_side=-1",), "kalman", "--min_side: -1.0 is not allowed"),
    (("--max_detections", "2"), "kalman", "scene_CAM_BACK, frame 1: 3 detections exceed"),
    (("--parallel_sequences", "0"), "kalman", "--parallel_sequences: 0"),
    (("--camera_motion", "nowhere"), "kalman", "nowhere/scene_CAM_BACK.npy: no such file"),
  ],
)
def test_bad_settings_end_in_one_sentence_and_write_nothing(data, tmp_path, more, motion, wanted):
  with pytest.raises(checks.InputError, match=wanted):
    _run(data, tmp_path, *more, motion=motion)
  assert not (tmp_path / "run").exists()


def test_bad_folders(data, tmp_path):
  with pytest.raises(checks.InputError, match="no such folder"):
    _run(tmp_path / "dta", tmp_path)
  (data / "scene_CAM_BACK").rename(data.parent / "val2")
  second = data.parent / "test" / "scene_CAM_FRONT"
  mot_files.write_sequence_info(second, mot_files.SequenceInfo("x", 12.0, 40, 640, 480))
  mot_files.write_table(second / "gt" / "gt.txt", mot_files.Table.of())
  (data.parent / "val2" / "seqinfo.ini").unlink()
  with pytest.raises(checks.InputError, match="several splits .* same name; name one split"):
    _run(data.parent, tmp_path)


def test_help_lists_presets_side_by_side(capsys):
  with pytest.raises(SystemExit) as stop:
    track.main(["--help"])
  assert stop.value.code == 0
  text = " ".join(capsys.readouterr().out.split())
  assert "[byte 0.7, bot 0.5]" in text and "example:" in text and "px" in text


def test_saved_predictions_are_the_expected_boxes(data, tmp_path):
  _run(data, tmp_path, "--save_predictions", motion="identity")
  for folder in mot_files.find_sequences(data):
    name = f"{folder.name}.txt"
    tracks = mot_files.read_table(tmp_path / "run" / "data" / name, "prediction", 40)
    expected = mot_files.read_table(tmp_path / "run" / "predicted" / name, "prediction", 40)
    # Identity expects every object where it was in the frame before; nothing in the first frame.
    before = tracks.select(tracks.frame < 40)
    order = np.lexsort((before.track_id, before.frame))
    np.testing.assert_array_equal(expected.frame, before.frame[order] + 1)
    np.testing.assert_array_equal(expected.track_id, before.track_id[order])
    np.testing.assert_array_equal(expected.box_xywh, before.box_xywh[order])
  _run(data, tmp_path)
  assert not (tmp_path / "run" / "predicted").exists()  # would not belong to the new tracks
