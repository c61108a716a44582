"""KITTI's 3-D labels: corners and projection by hand, and the real labels against each other."""

import numpy as np
import pytest
import real_data

from benchmarks import kitti_projection
from vistraj_jax.core import checks
from vistraj_jax.prepare import kitti_boxes

# A car 2 m wide, 4 m long, 1.5 m high; the middle of its underside lies 1 m below the camera.
ROW = "{frame} 3 {kind} 1 2 -1.5 10 20 30 50 1.5 2 4 0 1 10 {turn}"
PROJECTION = np.array([[100, 0, 50], [0, 100, 40], [0, 0, 1.0]]), np.array([0.1, 0, 0])


def _labels(tmp_path, *rows):
  path = tmp_path / "0000.txt"
  path.write_text("".join(f"{row}\n" for row in rows))
  return path


def test_corners_by_hand(tmp_path):
  path = _labels(
    tmp_path,
    "0 -1 DontCare -1 -1 -10 1 2 3 4 -1000 -1000 -1000 -10 -1 -1 -1",
    ROW.format(frame=5, kind="Car", turn=0),
    "",
    ROW.format(frame=6, kind="Van", turn=np.pi / 2),
  )
  boxes = kitti_boxes.read(path)
  assert boxes.kind.tolist() == ["Car", "Van"] and boxes.frame.tolist() == [5, 6]
  assert boxes.truncated.tolist() == [1, 1] and boxes.occluded.tolist() == [2, 2]
  np.testing.assert_array_equal(boxes.box_xyxy[0], [10, 20, 30, 50])
  low, high = boxes.corners.min(1), boxes.corners.max(1)
  np.testing.assert_allclose(low, [[-2, -0.5, 9], [-1, -0.5, 8]], atol=1e-12)
  np.testing.assert_allclose(high, [[2, 1, 11], [1, 1, 12]], atol=1e-12)
  # The first four corners are the front: to the right, and with a quarter turn to the camera.
  np.testing.assert_allclose(boxes.corners[0, :4, 0], 2)
  np.testing.assert_allclose(boxes.corners[1, :4, 2], 8)


def test_projection_by_hand():
  # Three cars: ahead, half beyond the left edge, and reaching behind the camera.
  bottom = np.array([[0, 1, 10], [-7, 1, 10], [1, 1, 1]], float)
  corners = kitti_boxes.corners(bottom, np.tile([2, 4, 1.5], (3, 1)), np.zeros(3))
  corners[2, :4, 2] = -1
  box, behind = kitti_boxes.project(corners, PROJECTION, (101, 81))
  # Nearest corners at z = 9: x from -1.9 to 2.1, y from -0.5 to 1.
  near = 100 / 9
  np.testing.assert_allclose(box[0], [50 - 1.9 * near, 40 - 0.5 * near, 50 + 2.1 * near, 40 + near])
  assert box[1, 0] == 0 and 0 < box[1, 2] < 50
  assert behind.tolist() == [False, False, True]
  far = kitti_boxes.project(corners[:1] + [100, 0, 0], PROJECTION, (101, 81))[0]
  assert np.isnan(far).all()
  iou, across, upright = kitti_boxes.compare(
    np.array([[0, 0, 10, 10], [0, 0, 1, 1]], float), np.array([[2, 0, 10, 13], [np.nan] * 4])
  )
  np.testing.assert_allclose(iou, [80 / (100 + 104 - 80), 0])
  assert (across[0], upright[0]) == (2, 3) and np.isnan(across[1])


def test_calibration(tmp_path):
  path = tmp_path / "c.txt"
  p2 = "100 0 50 10 0 100 40 0 0 0 1 0"
  path.write_text(f"P1: {p2.replace('10 0 100', '99 0 100')}\nP2: {p2}\nR_rect 1 0 0\n")
  for got, wanted in zip(kitti_boxes.read_projection(path), PROJECTION, strict=True):
    np.testing.assert_allclose(got, wanted)


@pytest.mark.parametrize(
  ("text", "sentence"),
  [
    ("P1: 1\n", r"c\.txt: holds no line P2; give a file"),
    ("P2: 1 2 3\n", r"c\.txt: P2 has 3 numbers; 12 are needed"),
    ("P2: 1 x 3\n", r"c\.txt: P2: could not convert string to float: 'x'; write numbers"),
    ("P2: nan 1\n", r"c\.txt: P2: a number is nan or inf"),
  ],
)
def test_wrong_calibration(tmp_path, text, sentence):
  (tmp_path / "c.txt").write_text(text)
  with pytest.raises(checks.InputError, match=sentence):
    kitti_boxes.read_projection(tmp_path / "c.txt")


def test_wrong_labels(tmp_path):
  with pytest.raises(checks.InputError, match=r"0001\.txt: no such label file"):
    kitti_boxes.read(tmp_path / "0001.txt")
  with pytest.raises(checks.InputError, match=r"0001\.txt: no such calibration file"):
    kitti_boxes.read_projection(tmp_path / "0001.txt")
  good = ROW.format(frame=0, kind="Car", turn=0)
  with pytest.raises(checks.InputError, match=r"0000\.txt:2: 16 columns; 17 are needed"):
    kitti_boxes.read(_labels(tmp_path, good, good.rpartition(" ")[0]))
  with pytest.raises(checks.InputError, match=r"0000\.txt:1: could not convert.*'far'"):
    kitti_boxes.read(_labels(tmp_path, ROW.format(frame=0, kind="Car", turn="far")))


def test_real_labels_agree_with_their_projection():
  columns = kitti_projection.measure(real_data.folder("kitti_tracking"))
  front, people = ~columns["behind"], columns["kind"] == "Pedestrian"
  assert len(front) == 47262 and (~front).sum() == 200
  rigid = front & ~people
  low, middle = np.quantile(columns["iou"][rigid], (0.05, 0.5))
  assert low > 0.955 and middle > 0.97
  for name in ("across", "upright"):
    middle, high = np.nanquantile(columns[name][rigid], (0.5, 0.95))
    assert middle < 0.6 and high < 2.5
  # Of people the 2-D label encloses the body and the 3-D label the stride: heights agree.
  assert np.nanquantile(columns["upright"][people], 0.95) < 1.0
  assert np.nanmedian(columns["across"][people]) > 5
  for kind in np.unique(columns["kind"][rigid]):
    own = columns["iou"][rigid & (columns["kind"] == kind)]
    assert np.median(own) > 0.955, kind
  text = kitti_projection.table(columns)
  assert "| Car | 27,300 |" in text and "| a corner behind the camera | 200 |" in text
