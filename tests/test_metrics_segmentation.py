"""J and F of masks: hand-computed cases, and the official code's numbers on real results."""

import json

import numpy as np
import pytest
import real_data

from vistraj_jax.data import frames
from vistraj_jax.metrics import segmentation


def _square(left, side=10, size=(40, 60)):
  mask = np.zeros(size, bool)
  mask[15 : 15 + side, left : left + side] = True
  return mask


def test_region():
  assert segmentation.region(_square(10), _square(10)) == 1
  assert segmentation.region(_square(10), _square(15)) == pytest.approx(50 / 150)
  assert segmentation.region(_square(10), _square(30)) == 0
  nothing = np.zeros((40, 60), bool)
  assert segmentation.region(nothing, nothing) == 1
  assert segmentation.region(nothing, _square(10)) == 0


def test_boundary():
  one = _square(10)
  # The tolerance is ceil(0.008 * 72.1) = 1 px.
  assert segmentation.boundary(one, one) == segmentation.boundary(one, _square(11)) == 1
  assert segmentation.boundary(one, _square(30)) == 0
  nothing = np.zeros_like(one)
  assert segmentation.boundary(nothing, nothing) == 1
  assert segmentation.boundary(nothing, one) == segmentation.boundary(one, nothing) == 0
  # Two px apart: the upper and lower edges still cover each other but for their ends.
  assert 0.3 < segmentation.boundary(one, _square(12)) < 0.7


def test_outline_of_a_square():
  edge = segmentation.outline(_square(2, side=2, size=(20, 6))[14:19])
  want = [" ...  ", " . .  ", " ...  ", "      ", "      "]
  np.testing.assert_array_equal(edge, [[c == "." for c in row] for row in want])


def test_summary():
  found = segmentation.summary([1.0, 0.8, 0.6, 0.4, 0.2])
  assert found["mean"] == pytest.approx(0.6) and found["recall"] == pytest.approx(0.6)
  assert found["decay"] == pytest.approx(0.9 - 0.3)


@pytest.mark.parametrize("name", ["car-shadow", "motocross-jump"])
def test_official_numbers(name):
  root = real_data.folder("davis")
  want = json.loads((root / "expected_jf.json").read_text())["sequences"][name]
  for i in range(0, len(want["frames"]), 5):
    file = want["frames"][i] + ".png"
    mask = frames.read_labels(root / "osvos" / name / file) > 0
    truth = frames.read_labels(root / "Annotations" / "480p" / name / file) > 0
    assert segmentation.region(mask, truth) == pytest.approx(want["J"][i], abs=1e-12)
    assert segmentation.boundary(mask, truth) == pytest.approx(want["F"][i], abs=1e-12)
