"""What each protocol takes into account: flags, classes, distractors and regions."""

import numpy as np
import pytest
import tracks

from vistraj_jax.core import checks
from vistraj_jax.metrics import protocols
from vistraj_jax.tracking import mot_files

FAR = (900.0, 0.0, 40.0, 80.0)
ROWS = range(1, 6)


def _counts(result):
  return [result["summary"][name] for name in ("TP", "FN", "FP")]


def _score(truth, prediction, protocol, class_name=None):
  return protocols.score_sequence(
    tracks.table(*truth), tracks.table(*prediction), 10, protocol, class_name
  )


def test_truth_with_flag_0_is_left_out_and_its_predictions_are_false():
  truth = tracks.track(1, ROWS) + tracks.track(2, ROWS, FAR, score=0.0)
  prediction = tracks.track(1, ROWS) + tracks.track(2, ROWS, FAR)
  result = _score(truth, prediction, "plain")
  assert _counts(result) == [5, 0, 5]
  count = {"Dets": 10, "GT_Dets": 5, "IDs": 2, "GT_IDs": 1, "Frames": 10}
  assert result["Count"] == count


@pytest.mark.parametrize(
  ("class_id", "mot17", "mot20"), [(1, 5, 5), (3, 5, 5), (6, 5, 0), (7, 0, 0), (12, 0, 0)]
)
def test_motchallenge_removes_predictions_on_distractors(class_id, mot17, mot20):
  truth = tracks.track(1, ROWS, class_id=1) + tracks.track(2, ROWS, FAR, 0.0, class_id)
  prediction = tracks.track(1, ROWS, class_id=-1) + tracks.track(2, ROWS, FAR, class_id=-1)
  assert _counts(_score(truth, prediction, "mot17")) == [5, 0, mot17]
  assert _counts(_score(truth, prediction, "mot20")) == [5, 0, mot20]


def test_motchallenge_keeps_a_prediction_that_fits_a_person_better():
  truth = tracks.track(1, ROWS, class_id=1) + tracks.track(2, ROWS, tracks.shifted(0.6), 0.0, 8)
  result = _score(truth, tracks.track(5, ROWS, class_id=-1), "mot17")
  assert _counts(result) == [5, 0, 0]


def test_classes_are_scored_apart():
  truth = tracks.track(1, ROWS, class_id=0) + tracks.track(2, ROWS, FAR, class_id=4)
  prediction = tracks.track(1, ROWS, class_id=0) + tracks.track(2, ROWS, FAR, class_id=0)
  by_class = protocols.score_classes(tracks.table(*truth), tracks.table(*prediction), 10)
  assert list(by_class) == list(mot_files.CLASSES)
  assert _counts(by_class["car"]) == [5, 0, 5]
  assert _counts(by_class["pedestrian"]) == [0, 5, 0]
  assert _counts(by_class["truck"]) == [0, 0, 0]
  one = _score(truth, prediction, "nuscenes", "car")
  np.testing.assert_equal(one, by_class["car"])
  averages = protocols.average_classes(by_class)
  assert averages["class_averaged"]["summary"]["IDR"] == 1 / 7
  assert averages["class_averaged_nonempty"]["summary"]["IDR"] == 1 / 2
  assert averages["detection_averaged"]["summary"]["IDR"] == 1 / 2


def test_kitti_neighbours_and_flagged_truth_take_predictions_away():
  van, hidden = (300.0, 0.0, 90.0, 60.0), (600.0, 0.0, 90.0, 60.0)
  truth = [
    *tracks.track(1, ROWS, class_id=0),
    *tracks.track(2, ROWS, van, 0.0, 7),
    *tracks.track(3, ROWS, hidden, 0.0, 0),
  ]
  prediction = tracks.track(1, ROWS) + tracks.track(2, ROWS, van) + tracks.track(3, ROWS, hidden)
  prediction += tracks.track(4, [1], FAR)
  assert _counts(_score(truth, prediction, "kitti", "car")) == [5, 0, 1]
  people = [(*row[:4], 4) for row in prediction]
  sitting = tracks.track(2, ROWS, van, 0.0, 8)
  assert _counts(_score(sitting, people, "kitti", "pedestrian")) == [0, 0, 11]


def test_kitti_ignores_low_and_covered_boxes_unless_they_match():
  low, region = (300.0, 0.0, 90.0, 25.0), (600.0, 0.0, 100.0, 100.0)
  truth = [*tracks.track(1, ROWS, low), *tracks.track(9, ROWS, region, 0.0, 9)]
  inside, outside = (660.0, 0.0, 60.0, 50.0), (670.0, 0.0, 60.0, 50.0)  # 40/60 and 30/60 covered
  prediction = [
    *tracks.track(1, ROWS, low),
    *tracks.track(2, [1, 2], (0.0, 0.0, 90.0, 25.0)),
    *tracks.track(3, [1, 2], inside),
    *tracks.track(4, [1, 2, 3], outside),
  ]
  assert _counts(_score(truth, prediction, "kitti", "car")) == [5, 0, 3]


def test_summary_averages_hota_over_thresholds():
  prediction = tracks.track(1, ROWS, tracks.shifted(0.62))
  result = _score(tracks.track(1, ROWS), prediction, "plain")
  assert result["summary"]["HOTA"] == pytest.approx(12 / 19)
  assert result["summary"]["HOTA(0)"] == 1.0
  assert result["summary"]["TP"] == result["CLEAR"]["CLR_TP"] == 5


@pytest.mark.parametrize(
  ("call", "parts"),
  [
    (lambda t: protocols.score_sequence(t, t, 10, "mot18"), ["protocol", "'mot18'", "mot17"]),
    (lambda t: protocols.score_sequence(t, t, 10, "kitti"), ["class", "None", "'bicycle'"]),
    (lambda t: protocols.score_sequence(t, t, 10, "kitti", "van"), ["'van'", "'car'"]),
    (lambda t: protocols.score_sequence(t, t, 10, "mot17"), ["truth: class 0 in frame 1", "1 to"]),
    (lambda t: protocols.score_sequence(t, t, 3), ["truth", "frame 5", "1 to 3"]),
    (lambda t: protocols.combine([]), ["combine", "at least one"]),
    (lambda t: protocols.average_classes({}), ["average_classes", "at least one"]),
  ],
)
def test_wrong_calls_are_named(call, parts):
  with pytest.raises(checks.InputError) as error:
    call(tracks.table(*tracks.track(1, ROWS)))
  for part in parts:
    assert part in str(error.value)


def test_predictions_without_a_class_column_are_refused_by_class():
  rows = tracks.track(1, ROWS)
  with pytest.raises(checks.InputError, match="prediction: class -1 .* allows classes 0 to 6"):
    _score(rows, tracks.track(1, ROWS, class_id=-1), "nuscenes", "car")


def _keyframe_scores(prediction, frame_rate=12.0, length=13):
  """Summaries of (all frames, keyframes) of one car that stands in frames 1..length."""
  truth = tracks.table(*tracks.track(1, range(1, length + 1)))
  return [
    protocols.score_classes(truth, tracks.table(*prediction), length, name, frame_rate)["car"]
    for name in ("nuscenes", "nuscenes_keyframes")
  ]


def test_a_switch_between_keyframes_is_not_seen_on_keyframes():
  # Keyframes of 13 frames at 12 Hz are 1, 7 and 13.
  prediction = tracks.track(1, [1, 2, *range(6, 14)]) + tracks.track(9, [3, 4, 5])
  every, keyframes = _keyframe_scores(prediction)
  assert (every["summary"]["IDSW"], every["summary"]["MOTA"]) == (2, 11 / 13)
  assert keyframes["summary"]["IDSW"] == 0
  assert keyframes["summary"]["HOTA"] == keyframes["summary"]["MOTA"] == 1.0
  count = {"Dets": 3, "GT_Dets": 3, "IDs": 1, "GT_IDs": 1, "Frames": 3}
  assert keyframes["Count"] == count


def test_a_switch_that_lasts_is_seen_on_keyframes():
  prediction = tracks.track(1, range(1, 9)) + tracks.track(9, range(9, 14))
  every, keyframes = _keyframe_scores(prediction)
  assert every["summary"]["IDSW"] == keyframes["summary"]["IDSW"] == 1
  assert keyframes["summary"]["MOTA"] == pytest.approx(1 - 1 / 3)
  assert keyframes["summary"]["IDF1"] == pytest.approx(2 / 3)
  # Two matches whose ids share 2 of 3 boxes, one whose ids share 1 of 3: (2/3 + 2/3 + 1/3) / 3.
  assert keyframes["summary"]["AssA"] == pytest.approx(5 / 9)
  assert keyframes["summary"]["HOTA"] == pytest.approx((5 / 9) ** 0.5)


def test_gaps_count_on_the_frames_that_are_scored():
  between, at_keyframe = [1, *range(7, 14)], [*range(1, 7), *range(8, 14)]
  for frames, wanted in ((between, [(5, 0), (0, 0)]), (at_keyframe, [(1, 0), (1, 0)])):
    # A second car keeps every frame alive: frames without any prediction count no fragments.
    truth = tracks.table(*tracks.track(1, range(1, 14)), *tracks.track(2, range(1, 14), FAR))
    prediction = tracks.table(*tracks.track(1, frames), *tracks.track(2, range(1, 14), FAR))
    got = []
    for name in ("nuscenes", "nuscenes_keyframes"):
      result = protocols.score_classes(truth, prediction, 13, name, 12.0)["car"]["summary"]
      got.append((result["FN"], result["IDSW"]))
      assert result["Frag"] == (1 if result["FN"] else 0)
    assert got == wanted


def test_at_2_hz_every_frame_is_a_keyframe():
  prediction = tracks.track(1, range(1, 9)) + tracks.track(9, range(9, 14))
  every, keyframes = _keyframe_scores(prediction, frame_rate=2)
  np.testing.assert_equal(every, keyframes)
  _, one = _keyframe_scores(tracks.track(1, range(1, 7)), frame_rate=12, length=6)
  assert one["Count"]["Frames"] == one["Count"]["GT_Dets"] == 1  # only frame 1


@pytest.mark.parametrize("frame_rate", [None, 1, 3, 11.99, 0])
def test_keyframes_need_a_multiple_of_their_rate(frame_rate):
  with pytest.raises(checks.InputError) as error:
    _keyframe_scores(tracks.track(1, range(1, 14)), frame_rate)
  for part in (f"frame rate: {frame_rate} Hz", "'nuscenes_keyframes'", "multiple of 2 Hz"):
    assert part in str(error.value)


def test_frames_beyond_the_end_are_refused_before_keyframes_are_taken():
  with pytest.raises(checks.InputError, match="prediction: a row lies in frame 14; .* 1 to 13"):
    _keyframe_scores(tracks.track(1, [14]))
