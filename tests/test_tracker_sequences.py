"""Sequences side by side, detections from files, gap filling, frame times."""

import numpy as np
import pytest
import real_data

from vistraj_jax.core import checks
from vistraj_jax.metrics import protocols
from vistraj_jax.tracking import (
  detections,
  interpolate,
  mot_files,
  motion_models,
  sequences,
  timing,
)
from vistraj_jax.tracking.settings import PRESETS


def _sequence(name, length, seed, size=(640, 480), frame_rate=12.0):
  """Returns a `SequenceInput` of five moving objects with misses, and empty frames at the start."""
  rng = np.random.RandomState(seed)
  rows = []
  start, speed = rng.uniform(50, 300, (5, 2)), rng.uniform(-3, 3, (5, 2))
  for frame in range(4, length + 1):
    for k in range(5):
      if rng.uniform() < 0.8:
        x, y = start[k] + frame * speed[k] + rng.normal(0, 1, 2)
        rows.append((frame, -1, x, y, 40, 60, rng.uniform(0.3, 1), k % 2))
  rows = np.array(rows)
  table = mot_files.Table.of(rows[:, 0], rows[:, 1], rows[:, 2:6], rows[:, 6], rows[:, 7])
  info = mot_files.SequenceInfo(name, frame_rate, length, *size)
  return detections.SequenceInput(name, info, table)


def _same(a, b):
  for field in ("frame", "track_id", "box_xywh", "score", "class_id"):
    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.mark.parametrize("motion", motion_models.NAMES)
@pytest.mark.parametrize("preset", PRESETS)
def test_lockstep_equals_separate_runs(motion, preset):
  inputs = [
    _sequence("a", 30, 0),
    _sequence("b", 50, 1, size=(1600, 900)),
    _sequence("c", 41, 2, frame_rate=2.0),
  ]
  model = motion_models.make(motion)
  together = sequences.track_sequences(inputs, PRESETS[preset], model)
  for one, table in zip(inputs, together, strict=True):
    assert len(table)
    _same(table, sequences.track_sequences([one], PRESETS[preset], model)[0])


def test_one_motion_call_per_frame_for_all_sequences():
  calls = []

  def predict(boxes, counts, image_size):
    calls.append((len(boxes), sorted({tuple(size) for size in image_size.tolist()})))
    return boxes[:, -1]

  inputs = [_sequence("a", 30, 0), _sequence("b", 30, 1, size=(1600, 900))]
  sequences.track_sequences(
    inputs, PRESETS["byte"], motion_models.learned(predict, history=5, name="net")
  )
  assert 20 < len(calls) <= 30
  assert max(count for count, _ in calls) > 5
  assert calls[-1][1] == [(640.0, 480.0), (1600.0, 900.0)]


def test_a_sequence_without_detections_has_no_tracks():
  info = mot_files.SequenceInfo("none", 12.0, 20, 640, 480)
  inputs = [detections.SequenceInput("none", info, mot_files.Table.of()), _sequence("a", 30, 0)]
  frames = []
  tables = sequences.track_sequences(
    inputs, PRESETS["byte"], motion_models.make("kalman"), lambda *row: frames.append(row)
  )
  assert (len(tables[0]), len(tables[1]) > 0) == (0, True)
  assert [row[0] for row in frames] == [2] * 20 + [1] * 10


def test_equal_names_are_an_error():
  with pytest.raises(checks.InputError, match=r"\['a', 'a'\] need different names"):
    sequences.track_sequences(
      [_sequence("a", 9, 0), _sequence("a", 9, 1)], PRESETS["byte"], motion_models.make("identity")
    )


def _folder(tmp_path, length=4):
  folder = tmp_path / "data" / "s1"
  mot_files.write_sequence_info(folder, mot_files.SequenceInfo("s1", 10.0, length, 640, 480))
  return folder


def _write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def test_truth_hides_ids_and_takes_flagged_rows(tmp_path):
  folder = _folder(tmp_path)
  _write(
    folder / "gt" / "gt.txt",
    "1,7,10,20,30,40,1,4,0.5\n2,7,10,20,30,40,0,4,1\n2,9,1,2,4,40,1,4,1\n3,9,1,2,5,5,1,0,1\n",
  )
  one = detections.read_sequence(folder, "truth")
  assert one.detections.frame.tolist() == [1, 3]  # flag 0 and a side of 4 px are left out
  frames = list(one.frames())
  assert [len(frame.score) for frame in frames] == [1, 0, 1, 0]
  assert frames[0].score.tolist() == [1.0] and frames[0].class_id.tolist() == [4]
  with pytest.raises(checks.InputError, match="--score_range: truth has no scores"):
    detections.read_sequence(folder, "truth", score_range=(0, 2))


def test_detections_without_classes_and_with_other_scores(tmp_path):
  folder = _folder(tmp_path)
  _write(
    folder / "det" / "det.txt",
    "2,-1,5,5,20,20,75,-1,-1,-1\n1,-1,1,1,20,20,-20,-1,-1,-1\n1,-1,9,9,20,20,140,-1,-1,-1\n",
  )
  with pytest.raises(checks.InputError, match=r"det.txt: scores reach from -20 to 140.*range"):
    detections.read_sequence(folder, "det")
  one = detections.read_sequence(folder, "det", score_range=(0, 100), class_id=4)
  frames = list(one.frames())
  assert frames[0].score.tolist() == [0.0, 1.0] and frames[1].score.tolist() == [0.75]
  assert frames[0].class_id.tolist() == [4, 4]
  with pytest.raises(checks.InputError, match="--score_range: 5 1 is not allowed"):
    detections.read_sequence(folder, "det", score_range=(5, 1))


def test_a_folder_of_seven_column_files(tmp_path):
  folder = _folder(tmp_path)
  _write(tmp_path / "yolo" / "s1.txt", "3,5,6,20,30,0.7,2\n1,1,2,20,30,0.4,0\n")
  one = detections.read_sequence(folder, tmp_path / "yolo")
  assert one.detections.frame.tolist() == [3, 1]
  third = list(one.frames())[2]
  assert third.box_xywh.tolist() == [[5, 6, 20, 30]] and third.class_id.tolist() == [2]
  _write(tmp_path / "yolo" / "s1.txt", "3,5,6,20,30,0.7\n")
  with pytest.raises(checks.InputError, match="s1.txt:1: 6 columns; 7 are needed"):
    detections.read_sequence(folder, tmp_path / "yolo")
  _write(tmp_path / "yolo" / "s1.txt", "1,5,6,20,30,0.7,0\n3,5,x,20,30,0.7,0\n")
  with pytest.raises(checks.InputError, match="s1.txt:2: '3,5,x,20,30,0.7,0' is not all numbers"):
    detections.read_sequence(folder, tmp_path / "yolo")
  _write(tmp_path / "yolo" / "s1.txt", "5,5,6,20,30,0.7,0\n")
  with pytest.raises(checks.InputError, match=r"frame 5, box .* needs a frame of 1\.\.4"):
    detections.read_sequence(folder, tmp_path / "yolo")


def test_a_folder_of_files_per_frame(tmp_path):
  folder = _folder(tmp_path)
  _write(tmp_path / "yolo" / "s1" / "000002.txt", "0 5 6 20 30 0.7\n0 50 6 20 30 0.8\n")
  _write(tmp_path / "yolo" / "s1" / "000004.txt", "")
  one = detections.read_sequence(folder, tmp_path / "yolo", class_id=3)
  frames = list(one.frames())
  assert [len(frame.score) for frame in frames] == [0, 2, 0, 0]
  assert frames[1].score.tolist() == [0.7, 0.8] and frames[1].class_id.tolist() == [3, 3]
  _write(tmp_path / "yolo" / "s1" / "notes.txt", "")
  with pytest.raises(checks.InputError, match="notes.txt: the name is no frame number"):
    detections.read_sequence(folder, tmp_path / "yolo")


def test_detections_that_are_not_there(tmp_path):
  folder = _folder(tmp_path)
  with pytest.raises(checks.InputError, match="--detections: 'truht' is neither 'truth', 'det'"):
    detections.read_sequence(folder, "truht")
  (tmp_path / "empty").mkdir()
  with pytest.raises(checks.InputError, match="holds neither s1.txt nor a folder s1"):
    detections.read_sequence(folder, tmp_path / "empty")
  with pytest.raises(checks.InputError, match="det.txt: no such detection file"):
    detections.read_sequence(folder, "det")


def test_embeddings_and_camera_motion_follow_their_rows(tmp_path):
  folder = _folder(tmp_path)
  _write(
    folder / "det" / "det.txt",
    "2,-1,5,5,20,20,0.7\n1,-1,1,1,2,20,0.7\n1,-1,9,9,20,20,0.7\n2,-1,8,8,20,20,0.7\n",
  )
  looks = np.arange(8, dtype=np.float32).reshape(4, 2)
  camera = np.tile(np.eye(2, 3), (4, 1, 1))
  for name, array in (("looks", looks), ("camera", camera)):
    (tmp_path / name).mkdir()
    np.save(tmp_path / name / "s1.npy", array)
  one = detections.read_sequence(
    folder, "det", embeddings=tmp_path / "looks", camera_motion=tmp_path / "camera"
  )
  frames = list(one.frames())
  assert frames[0].embedding.tolist() == [[4, 5]]  # the 2 px wide box is dropped with its vector
  assert frames[1].embedding.tolist() == [[0, 1], [6, 7]]
  assert one.camera_motion.shape == (4, 2, 3)
  np.save(tmp_path / "looks" / "s1.npy", looks[:3])
  with pytest.raises(checks.InputError, match=r"s1.npy: shape \(3, 2\) received"):
    detections.read_sequence(folder, "det", embeddings=tmp_path / "looks")
  np.save(tmp_path / "camera" / "s1.npy", camera * np.nan)
  with pytest.raises(checks.InputError, match="s1.npy: holds float64 with nan"):
    detections.read_sequence(folder, "det", camera_motion=tmp_path / "camera")
  (tmp_path / "camera" / "s1.npy").write_bytes(b"nothing")
  with pytest.raises(checks.InputError, match="s1.npy: is not a NumPy array file"):
    detections.read_sequence(folder, "det", camera_motion=tmp_path / "camera")
  with pytest.raises(checks.InputError, match="s1.npy: no such file; every sequence needs one"):
    detections.read_sequence(folder, "det", camera_motion=tmp_path)


def test_camera_motion_reaches_the_tracker():
  # A thing at rest; the camera pans faster and faster, further than it is wide.
  frame = np.arange(1, 7)
  shift = np.array([0, 100, 160, 230, 310, 400.0])
  box = np.stack([200 + np.cumsum(shift), 0 * frame, 0 * frame + 50, 0 * frame + 50], axis=1)
  table = mot_files.Table.of(frame, 0 * frame - 1, box, class_id=0 * frame)
  info = mot_files.SequenceInfo("pan", 10.0, 6, 640, 480)
  matrices = np.tile(np.eye(2, 3), (6, 1, 1))
  matrices[:, 0, 2] = shift
  motion = motion_models.make("identity")
  for camera, wanted in ((matrices, [1] * 6), (None, [1])):
    one = detections.SequenceInput("pan", info, table, camera_motion=camera)
    tracks = sequences.track_sequences([one], PRESETS["byte"], motion)[0]
    assert tracks.track_id.tolist() == wanted


def test_yolox_outputs_by_hand():
  rows = np.array([[10.0, 20, 30, 60, 0.8, 0.5, 2], [0, 0, 8, 8, 1, 1, 0], [0, 0, 8, 8, 1, 1, 9]])
  # An image of 1600 x 900 in a canvas of 800 x 800: scale 0.5.
  found = detections.from_yolox(rows, (800, 800), (1600, 900), coco=True)
  np.testing.assert_allclose(found.box_xywh, [[20, 40, 40, 80], [0, 0, 16, 16]])
  np.testing.assert_allclose(found.score, [0.4, 1.0])
  assert found.class_id.tolist() == [0, 4]  # COCO's car and person; 9 (traffic light) is dropped
  assert detections.from_yolox(rows, (800, 800), (1600, 900)).class_id.tolist() == [2, 0, 9]


def test_gaps_are_filled_by_straight_lines():
  frame = np.array([1, 2, 5, 25, 26])
  boxes = np.stack([10.0 * frame, 0 * frame, 0 * frame + 5, frame + 1], axis=1)
  score = np.array([0.9, 0.8, 0.6, 1.0, 1.0])
  track = mot_files.Table.of(frame, 0 * frame + 3, boxes, score, 0 * frame + 2)
  filled = interpolate.fill_gaps(track, max_gap=20, min_rows=4)
  assert filled.frame.tolist() == [1, 2, 3, 4, 5, 25, 26]  # 5 -> 25 is 20 frames: left open
  np.testing.assert_allclose(filled.box_xywh[:, 0], 10.0 * filled.frame)
  np.testing.assert_allclose(filled.box_xywh[:, 3], filled.frame + 1)
  assert filled.score[2:4].tolist() == [0.6, 0.6] and set(filled.class_id) == {2}
  assert len(interpolate.fill_gaps(track, max_gap=21, min_rows=4)) == 26
  assert len(interpolate.fill_gaps(track, max_gap=20, min_rows=5)) == 5


def test_gaps_of_one_track_do_not_join_another():
  frame = np.array([1, 3, 6, 8])
  table = mot_files.Table.of(frame, [1, 1, 2, 2], np.ones((4, 4)))
  filled = interpolate.fill_gaps(table, min_rows=1)
  rows = list(zip(filled.frame, filled.track_id, strict=True))
  assert rows == [(1, 1), (2, 1), (3, 1), (6, 2), (7, 2), (8, 2)]
  assert len(interpolate.fill_gaps(mot_files.Table.of())) == 0


def test_frame_times_leave_the_warm_up_out():
  times = timing.FrameTimes()
  for k in range(110):
    times.add(6, 0.001, 5.0 if k < 10 else 0.001 * (k - 9))
  summary = times.summary()
  assert (summary["frames"], summary["warm_up_frames_excluded"]) == (100, 10)
  assert summary["track_ms"]["mean"] == pytest.approx(50.5)
  assert summary["track_ms"]["p95"] == pytest.approx(95.05)
  assert summary["total_ms"]["median"] == pytest.approx(51.5)


def test_real_pedestrians_keep_their_ids():
  folder = real_data.folder("mot17/train/MOT17-09-FRCNN")
  one = detections.read_sequence(folder, "truth")
  truth = mot_files.read_table(folder / "gt" / "gt.txt", "truth", one.info.length)
  scores = {}
  for name in motion_models.NAMES:
    table = sequences.track_sequences([one], PRESETS["byte"], motion_models.make(name))[0]
    result = protocols.score_sequence(truth, table, one.info.length, protocol="mot17")
    scores[name] = result["summary"]["HOTA"]
  assert min(scores.values()) > 0.8
  assert min(scores["kalman"], scores["constant_velocity"]) > scores["identity"]
