"""Overlaps and frame matchings against hand-computed values and a plain loop."""

import numpy as np
import pytest
import tracks
from scipy.optimize import linear_sum_assignment

from vistraj_jax.core import checks
from vistraj_jax.metrics import overlaps


def _iou(a, b):
  width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
  height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
  common = max(width, 0) * max(height, 0)
  return common / (a[2] * a[3] + b[2] * b[3] - common) if common else 0.0


def test_iou_of_two_boxes_by_hand():
  found = overlaps.find(
    tracks.table((1, 5, (0, 0, 10, 10))),
    tracks.table((1, 2, (5, 0, 10, 10)), (1, 3, (10, 0, 10, 10)), (2, 2, (0, 0, 10, 10))),
    length=2,
  )
  assert found.iou.tolist() == [50 / 150]  # touching edges and other frames do not overlap
  assert (found.pair_truth.tolist(), found.pair_prediction.tolist()) == ([0], [0])
  assert (found.num_truth_ids, found.num_prediction_ids) == (1, 2)


def test_boxes_without_area_overlap_nothing():
  flat = tracks.table((1, 1, (0, 5, 10, 0)), (1, 2, (5, 5, 0, 0)))
  big = tracks.table((1, 1, (0, 0, 20, 20)))
  assert len(overlaps.find(flat, big, 1).iou) == len(overlaps.find(flat, flat, 1).iou) == 0


@pytest.mark.parametrize("block", [1, 300, 2**18])
def test_all_pairs_of_a_crowd_are_found(block, monkeypatch):
  monkeypatch.setattr(overlaps, "_BLOCK_PAIRS", block)
  truth, prediction = tracks.crowd(0)
  found = overlaps.find(truth, prediction, 45)
  got = {
    (truth.frame[i], truth.track_id[i], prediction.track_id[j]): iou
    for i, j, iou in zip(
      overlaps.by_frame(truth)[found.pair_truth],
      overlaps.by_frame(prediction)[found.pair_prediction],
      found.iou,
      strict=True,
    )
  }
  want = {}
  for i in range(len(truth)):
    for j in np.flatnonzero(prediction.frame == truth.frame[i]):
      iou = _iou(truth.box_xywh[i], prediction.box_xywh[j])
      if iou:
        want[truth.frame[i], truth.track_id[i], prediction.track_id[j]] = iou
  assert got.keys() == want.keys() and len(want) > 500
  np.testing.assert_allclose([got[key] for key in want], list(want.values()), rtol=1e-12)


@pytest.mark.parametrize("bonus", [0.0, 1000.0])
def test_matching_of_a_crowd_equals_a_plain_loop(bonus):
  truth, prediction = tracks.crowd(1)
  o = overlaps.find(truth, prediction, 40)
  pairs = np.flatnonzero(o.iou >= 0.3)
  got = overlaps.match(o, pairs, o.iou[pairs], bonus)
  want, partner = [], {}
  for frame in range(40):
    here = pairs[o.truth_frame[o.pair_truth[pairs]] == frame]
    rows = np.flatnonzero(o.truth_frame == frame)
    columns = np.flatnonzero(o.prediction_frame == frame)
    score = np.zeros((len(rows), len(columns)))
    index = np.full(score.shape, -1)
    for pair in here:
      i, j = o.pair_truth[pair], o.pair_prediction[pair]
      kept = partner.get(o.truth_id[i]) == o.prediction_id[j]
      score[i - rows[0], j - columns[0]] = o.iou[pair] + bonus * kept
      index[i - rows[0], j - columns[0]] = pair
    chosen = index[linear_sum_assignment(score, maximize=True)]
    chosen = sorted(chosen[chosen >= 0].tolist())
    want += chosen
    partner = {o.truth_id[o.pair_truth[p]]: o.prediction_id[o.pair_prediction[p]] for p in chosen}
  assert got.tolist() == want
  without = overlaps.match(o, pairs, o.iou[pairs])
  assert (got.tolist() == without.tolist()) == (bonus == 0.0)


def test_keep_drops_rows_and_their_pairs():
  truth, prediction = tracks.crowd(2)
  everything = overlaps.find(truth, prediction, 40)
  rng = np.random.default_rng(0)
  rows = [rng.random(len(side)) < 0.6 for side in (truth, prediction)]
  kept = everything.keep(
    *(r[overlaps.by_frame(t)] for r, t in zip(rows, (truth, prediction), strict=True))
  )
  direct = overlaps.find(truth.select(rows[0]), prediction.select(rows[1]), 40)
  for name in ("truth_frame", "truth_id", "prediction_id", "pair_truth", "pair_prediction", "iou"):
    np.testing.assert_array_equal(getattr(kept, name), getattr(direct, name), err_msg=name)


def test_share_inside_the_region_that_covers_most():
  boxes = tracks.table((2, 1, (0, 0, 10, 10)), (1, 1, (0, 0, 10, 10)), (1, 2, (50, 0, 0, 10)))
  regions = tracks.table(
    (1, 1, (0, 0, 3, 10)), (1, 1, (6, 0, 40, 10)), (1, 1, (40, 0, 20, 20)), (2, 1, (-5, -5, 50, 50))
  )
  assert overlaps.share_inside(regions, boxes, 2).tolist() == [0.4, 0.0, 1.0]  # by frame


def test_frames_outside_and_repeated_ids_are_named():
  good = tracks.table((1, 1, tracks.BOX))
  with pytest.raises(checks.InputError, match="prediction: a row lies in frame 4; .* 1 to 3"):
    overlaps.find(good, tracks.table((4, 1, tracks.BOX)), 3)
  with pytest.raises(checks.InputError, match="truth: a row lies in frame 0"):
    overlaps.find(tracks.table((0, 1, tracks.BOX)), good, 3)
  twice = tracks.table((2, 7, tracks.BOX), (1, 7, tracks.BOX), (2, 7, (0, 0, 1, 1)))
  with pytest.raises(checks.InputError, match="truth: id 7 is in frame 2 twice"):
    overlaps.find(twice, good, 3)
