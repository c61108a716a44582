"""CLEAR MOT on scenes small enough for paper."""

import math

import pytest
import tracks

from vistraj_jax.metrics import clear_mot, overlaps

FAR = (900.0, 0.0, 10.0, 10.0)


def _score(truth, prediction, length=10):
  return clear_mot.score(overlaps.find(tracks.table(*truth), tracks.table(*prediction), length))


def test_perfect_tracker():
  result = _score(tracks.track(1, range(1, 11)), tracks.track(4, range(1, 11)))
  assert (result["MOTA"], result["MOTP"], result["CLR_TP"], result["MT"]) == (1.0, 1.0, 10, 1)
  assert [result[name] for name in ("CLR_FN", "CLR_FP", "IDSW", "Frag", "PT", "ML")] == [0] * 6


def test_two_tracks_that_exchange_numbers_are_two_switches():
  truth = tracks.track(1, range(1, 11)) + tracks.track(2, range(1, 11), FAR)
  prediction = [
    *(tracks.track(1, range(1, 6)) + tracks.track(2, range(1, 6), FAR)),
    *(tracks.track(2, range(6, 11)) + tracks.track(1, range(6, 11), FAR)),
  ]
  result = _score(truth, prediction)
  assert result["IDSW"] == 2 and result["Frag"] == 0
  assert result["MOTA"] == (20 - 2) / 20
  assert result["MOTAL"] == pytest.approx((20 - math.log10(2)) / 20)


def test_misses_false_boxes_and_precision_of_position():
  # 10 true boxes: 8 matched at IoU 0.8, 2 missed, 3 false.
  prediction = tracks.track(1, range(1, 9), tracks.shifted(0.8)) + tracks.track(2, [1, 2, 3], FAR)
  result = _score(tracks.track(1, range(1, 11)), prediction)
  assert [result[name] for name in ("CLR_TP", "CLR_FN", "CLR_FP")] == [8, 2, 3]
  assert result["MOTA"] == (8 - 3) / 10 and result["CLR_Re"] == 0.8
  assert result["CLR_Pr"] == 8 / 11 and result["FP_per_frame"] == 0.3
  assert result["MOTP"] == pytest.approx(0.8) and result["sMOTA"] == pytest.approx((6.4 - 3) / 10)


@pytest.mark.parametrize(("matched", "kind"), [(8, "PT"), (9, "MT"), (2, "PT"), (1, "ML")])
def test_eighty_percent_is_not_mostly_and_twenty_is_partly_tracked(matched, kind):
  result = _score(tracks.track(1, range(1, 11)), tracks.track(1, range(1, matched + 1)))
  assert {name: result[name] for name in ("MT", "PT", "ML")} == {
    **{"MT": 0, "PT": 0, "ML": 0},
    kind: 1,
  }


def test_a_number_is_kept_while_its_overlap_allows_and_lost_below_one_half():
  truth = tracks.track(1, [1, 2, 3])
  better = (2, 2, tracks.BOX)
  kept = _score(truth, [(1, 1, tracks.BOX), (2, 1, tracks.shifted(0.55)), better])
  assert kept["IDSW"] == 0 and kept["MOTP_sum"] == pytest.approx(1.55)
  lost = _score(truth, [(1, 1, tracks.BOX), (2, 1, tracks.shifted(0.45)), better])
  assert lost["IDSW"] == 1 and lost["MOTP_sum"] == pytest.approx(2.0)


def test_a_switch_counts_however_long_the_gap_and_a_return_counts_again():
  truth = tracks.track(1, range(1, 11)) + tracks.track(2, range(1, 11), FAR)
  others = tracks.track(9, range(1, 11), FAR)  # keeps every frame occupied
  result = _score(truth, [*tracks.track(1, [1, 2]), *tracks.track(5, [8]), *others])
  assert result["IDSW"] == 1 and result["Frag"] == 1
  back = _score(
    truth, [*tracks.track(1, [1]), *tracks.track(5, [2]), *tracks.track(1, [3]), *others]
  )
  assert back["IDSW"] == 2 and back["Frag"] == 0


def test_a_gap_of_frames_without_any_prediction_is_no_fragmentation():
  result = _score(tracks.track(1, range(1, 11)), tracks.track(1, [1, 2, 3, 8, 9, 10]))
  assert result["Frag"] == 0 and result["CLR_FN"] == 4


def test_an_exact_half_matches():
  # Boxes 30 wide moved by 10: 20 / 40.
  result = _score([(1, 1, (0.0, 0.0, 30.0, 30.0))], [(1, 1, (10.0, 0.0, 30.0, 30.0))])
  assert result["CLR_TP"] == 1 and result["MOTP"] == 0.5


def test_empty_sides():
  rows = tracks.track(1, range(1, 4))
  missed = _score(rows, [])
  assert (missed["CLR_FN"], missed["ML"], missed["MLR"], missed["MOTA"]) == (3, 1, 1.0, 0.0)
  false = _score([], rows)
  assert (false["CLR_FP"], false["MLR"], false["MOTA"], false["CLR_Frames"]) == (3, 1.0, 0.0, 0)
  assert clear_mot.combine([missed, false])["MOTA"] == -1.0
  nothing = _score([], [])
  assert nothing["MOTA"] == nothing["CLR_TP"] == 0


def test_pooling_sums_counts_and_averaging_means_ratios():
  good = _score(tracks.track(1, range(1, 11)), tracks.track(1, range(1, 11)))
  bad = _score(tracks.track(1, [1, 2]), [*tracks.track(1, [1]), *tracks.track(2, [2], FAR)])
  assert bad["MOTA"] == 0.0
  assert clear_mot.combine([good, bad])["MOTA"] == (11 - 1) / 12
  averaged = clear_mot.average([good, bad])
  assert averaged["MOTA"] == 0.5 and averaged["CLR_FP"] == 1 and averaged["MOTP_sum"] == 5.5
