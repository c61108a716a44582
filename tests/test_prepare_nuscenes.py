"""The pure parts of the nuScenes conversion: classes, 12 fps rows, ids."""

import numpy as np
import pytest

from vistraj_jax.prepare.nuscenes import boxes as nuscenes_boxes


@pytest.mark.parametrize(
  ("category", "wanted"),
  [
    ("vehicle.car", 0),
    ("vehicle.truck", 1),
    ("vehicle.bus.bendy", 2),
    ("vehicle.bus.rigid", 2),
    ("vehicle.trailer", 3),
    ("human.pedestrian.adult", 4),
    ("human.pedestrian.police_officer", 4),
    ("human.pedestrian.stroller", 4),
    ("vehicle.motorcycle", 5),
    ("vehicle.bicycle", 6),
    ("vehicle.construction", -1),
    ("vehicle.emergency.police", -1),
    ("animal", -1),
    ("movable_object.barrier", -1),
    ("static_object.bicycle_rack", -1),
  ],
)
def test_classes(category, wanted):
  assert nuscenes_boxes.class_id(category) == wanted


def test_the_official_task_drops_three_kinds_of_pedestrians():
  names = ("adult", "child", "stroller", "wheelchair", "personal_mobility")
  found = [nuscenes_boxes.class_id(f"human.pedestrian.{n}", True) for n in names]
  assert found == [4, 4, -1, -1, -1]


def test_rows_between_keyframes_by_hand():
  # Id 5 in keyframes 0, 1 and 3 (a gap), id 2 in keyframe 1 only; rows in any order.
  table, is_keyframe = nuscenes_boxes.keyframes_to_frames(
    keyframe=[3, 1, 0, 1],
    track_id=[5, 2, 5, 5],
    box_xywh=[[90, 0, 9, 9], [1, 2, 3, 4], [0, 0, 10, 20], [60, 12, 16, 8]],
    classes=[0, 4, 0, 1],
    visibility=[1, 4, 3, 2],
  )
  five = table.select(table.track_id == 5)
  np.testing.assert_array_equal(five.frame, [1, 2, 3, 4, 5, 6, 7, 19])
  np.testing.assert_allclose(five.box_xywh[3], [30, 6, 13, 14])  # half way
  np.testing.assert_array_equal(five.class_id, [0] * 6 + [1, 0])
  np.testing.assert_array_equal(five.visibility, [2] * 6 + [1, 1])
  np.testing.assert_array_equal(table.frame[is_keyframe], [1, 7, 7, 19])
  np.testing.assert_array_equal(table.track_id[table.frame == 7], [2, 5])


@pytest.mark.parametrize("keyframes", [1, 2, 40])
def test_number_of_rows(keyframes):
  n = keyframes
  table, is_keyframe = nuscenes_boxes.keyframes_to_frames(
    np.arange(n), np.ones(n, int), np.ones((n, 4)), np.zeros(n, int), np.ones(n)
  )
  assert len(table) == 6 * (n - 1) + 1 and is_keyframe.sum() == n


def test_dense_ids():
  ids, numbers = nuscenes_boxes.dense_ids(["c0ffee", "beef", "c0ffee", "a"])
  np.testing.assert_array_equal(ids, [1, 2, 1, 3])
  assert numbers == {"c0ffee": 1, "beef": 2, "a": 3}
