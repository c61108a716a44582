"""HOTA on scenes small enough for paper."""

import math

import numpy as np
import pytest
import tracks

from vistraj_jax.metrics import hota, overlaps


def _score(truth, prediction, length=10):
  return hota.score(overlaps.find(tracks.table(*truth), tracks.table(*prediction), length))


def test_perfect_tracker_scores_one_everywhere():
  result = _score(tracks.track(1, range(1, 6)), tracks.track(9, range(1, 6)))
  for name in hota.RATIOS:
    np.testing.assert_array_equal(result[name], np.ones(19), err_msg=name)
  assert result["HOTA_TP"].tolist() == [5] * 19
  assert [result[name] for name in hota.SCALARS] == [1.0, 1.0, 1.0]


def test_one_switch_of_number_in_the_middle():
  # Each half shares 2 of the track's 4 boxes: AssA = 2/4, HOTA = sqrt(1/2).
  result = _score(tracks.track(1, range(1, 5)), tracks.track(1, [1, 2]) + tracks.track(2, [3, 4]))
  assert result["DetA"][9] == 1.0
  assert result["AssA"][9] == pytest.approx(0.5)
  assert (result["AssRe"][9], result["AssPr"][9]) == (0.5, 1.0)
  assert result["HOTA"][9] == pytest.approx(math.sqrt(0.5))


def test_overlap_of_exactly_six_tenths_counts_up_to_that_threshold():
  box = (0.0, 0.0, 80.0, 10.0)
  result = _score([(1, 1, box)], [(1, 1, (20.0, 0.0, 80.0, 10.0))])  # 60 / 100
  assert result["HOTA"].tolist() == [1.0] * 12 + [0.0] * 7
  assert result["LocA"].tolist() == pytest.approx([0.6] * 12 + [1.0] * 7)
  assert result["HOTA_FN"].tolist() == result["HOTA_FP"].tolist() == [0] * 12 + [1] * 7


def test_misses_and_false_boxes():
  # 4 matches, 1 miss, 2 false boxes of another number.
  far = (900.0, 0.0, 10.0, 10.0)
  result = _score(
    tracks.track(1, range(1, 6)), tracks.track(1, range(1, 5)) + tracks.track(2, [1, 2], far)
  )
  assert (result["DetRe"][0], result["DetPr"][0]) == (4 / 5, 4 / 6)
  assert result["DetA"][0] == 4 / 7
  assert result["AssA"][0] == pytest.approx(4 / 5)
  assert result["OWTA"][0] == pytest.approx(4 / 5)


def test_matching_prefers_the_track_that_fits_over_the_whole_sequence():
  # In frame 4 number 2 lies closer, but number 1 follows the object everywhere else.
  near = tracks.shifted(0.8)
  truth = tracks.track(1, range(1, 5))
  prediction = [*tracks.track(1, [1, 2, 3]), (4, 1, near), (4, 2, tracks.shifted(0.9))]
  result = _score(truth, prediction)
  assert result["AssA"][0] == pytest.approx(1.0)
  assert result["LocA"][0] == pytest.approx((3 + 0.8) / 4)


@pytest.mark.parametrize("side", ["truth", "prediction", "both"])
def test_empty_sides(side):
  rows = tracks.track(1, range(1, 4))
  truth = [] if side in ("truth", "both") else rows
  prediction = [] if side in ("prediction", "both") else rows
  result = _score(truth, prediction)
  assert result["HOTA"].tolist() == [0.0] * 19 and result["LocA"].tolist() == [1.0] * 19
  assert result["HOTA_FN"].tolist() == [len(truth)] * 19
  assert result["HOTA_FP"].tolist() == [len(prediction)] * 19


def test_pooling_weights_association_by_matches_and_averaging_does_not():
  perfect = _score(tracks.track(1, range(1, 4)), tracks.track(1, range(1, 4)))  # 3 matches
  switch = _score([*tracks.track(1, [1, 2])], [*tracks.track(1, [1]), *tracks.track(2, [2])])
  assert switch["AssA"][0] == 0.5  # 2 matches
  assert hota.combine([perfect, switch])["AssA"][0] == pytest.approx((3 * 1 + 2 * 0.5) / 5)
  averaged = hota.average([perfect, switch])
  assert averaged["AssA"][0] == 0.75 and averaged["HOTA_TP"][0] == 5
  assert averaged["HOTA(0)"] == pytest.approx((1 + math.sqrt(0.5)) / 2)
