"""Overlaps by hand, and assignments against brute force over all pairings."""

import itertools

import numpy as np

from vistraj_jax.tracking import associate


def test_iou_counts_pixels_by_hand():
  a = np.array([[0.0, 0, 9, 9], [0, 0, 9, 9]])
  b = np.array([[0.0, 0, 9, 9], [5, 0, 9, 9], [10, 0, 9, 9], [9, 9, 0, 0]])
  # 10 x 10 pixels each: equal; 5 of 15 columns shared; touching but apart; one pixel of 100.
  wanted = [1.0, 50 / 150, 0.0, 1 / 100]
  np.testing.assert_allclose(associate.iou_pixels(a, b), [wanted, wanted], rtol=1e-12)


def test_a_negative_side_overlaps_nothing():
  a = np.array([[0.0, 0, -11, 9], [0, 0, -2, -2]])
  np.testing.assert_array_equal(
    associate.iou_pixels(a, np.array([[0.0, 0, 9, 9], [0, 0, 0, 0]])), np.zeros((2, 2))
  )


def test_iou_of_nothing_has_the_right_shape():
  assert associate.iou_pixels(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


def test_cosine_cost_by_hand():
  a = associate.unit_vectors(np.array([[3.0, 0], [0, 0]]))
  b = associate.unit_vectors(np.array([[1.0, 0], [0, 2], [-5, 0]]))
  np.testing.assert_allclose(associate.cosine_cost(a, b), [[0, 0.5, 1], [0.5, 0.5, 0.5]])


def test_pairs_at_the_threshold_are_dropped():
  rows, columns, single_rows, single_columns = associate.assign(np.array([[0.5, 0.9]]), 0.5)
  assert (len(rows), len(columns)) == (0, 0)
  assert (single_rows.tolist(), single_columns.tolist()) == ([0], [0, 1])


def test_total_is_least_not_each_pair():
  # Row 0 alone would take column 0; together 0-1 and 1-0 cost 0.5 instead of 0.1 + limit 0.8.
  rows, columns, _, _ = associate.assign(np.array([[0.1, 0.3], [0.2, 0.9]]), 0.8)
  assert list(zip(rows, columns, strict=True)) == [(0, 1), (1, 0)]


def test_assignment_equals_brute_force():
  rng = np.random.RandomState(0)
  for _ in range(300):
    shape = rng.randint(0, 5, 2)
    cost = rng.uniform(0, 1, shape)
    cost[rng.uniform(size=shape) < 0.2] = np.inf
    threshold = rng.uniform(0.2, 0.9)
    rows, columns, single_rows, single_columns = associate.assign(cost, threshold)
    assert (cost[rows, columns] < threshold).all()
    assert sorted([*rows, *single_rows]) == list(range(shape[0]))
    assert sorted([*columns, *single_columns]) == list(range(shape[1]))
    # A pair saves threshold - cost against leaving both single.
    saved = (threshold - cost[rows, columns]).sum()
    np.testing.assert_allclose(saved, _best_saving(cost, threshold), atol=1e-12)


def _best_saving(cost, threshold):
  if cost.shape[0] > cost.shape[1]:
    cost = cost.T
  gain = np.maximum(threshold - cost, 0.0)
  orders = itertools.permutations(range(cost.shape[1]), cost.shape[0])
  return max(sum(gain[i, j] for i, j in enumerate(order)) for order in orders)
