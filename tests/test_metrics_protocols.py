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
  one = _score(truth, prediction, "per_class", "car")
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


def test_predictions_without_a_class_column_are_refused_per_class():
  rows = tracks.track(1, ROWS)
  with pytest.raises(checks.InputError, match="prediction: class -1 .* allows classes 0 to 6"):
    _score(rows, tracks.track(1, ROWS, class_id=-1), "per_class", "car")
