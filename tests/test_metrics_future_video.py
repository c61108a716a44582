"""Scores of future frames: cases by hand, masked rows, trivial predictors, the discs' table."""

import json

import jax
import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.metrics import frechet
from vistraj_jax.metrics import future_video as scores
from vistraj_jax.prepare.world import moving, shapes, video_writer

RED_ON_BLACK = np.array([[[0, 0, 0], [255, 0, 0]]])
RED_ON_WHITE = np.array([[[255, 255, 255], [255, 0, 0]]])


def _known(frames, size, **changes):
  """Knowledge of one video: a centre at (1, 1), no mask."""
  return {
    "foreground": np.zeros((1, frames, size, size), np.uint8),
    "foreground_valid": np.zeros(1),
    "centre": np.ones((1, frames, 2)),
    "centre_valid": np.ones((1, frames)),
    "colours": RED_ON_BLACK,
    **changes,
  }


def _square(frames, size, top, left, side=2):
  video = np.zeros((1, frames, size, size, 3), np.float32)
  video[:, :, top : top + side, left : left + side, 0] = 1
  return video


def test_matte_is_the_share_of_the_targets_colour():
  red = np.zeros((1, 1, 1, 5, 3), np.float32)
  red[..., 0] = [0, 0.25, 1, 0.6, 0.5]
  red[..., 1] = [0, 0, 0, 0.6, 0.4]  # yellow is another colour, orange still a red
  np.testing.assert_allclose(
    scores.matte(red, RED_ON_BLACK)[0, 0, 0], [0, 0.25, 1, 0, 0.5], atol=1e-6
  )
  on_white = np.float32([[1, 1, 1], [1, 0, 0], [1, 0.5, 0.5], [0.4, 0.4, 0.4]])
  found = scores.matte(on_white[None, None, None], RED_ON_WHITE)[0, 0, 0]
  np.testing.assert_allclose(found, [0, 1, 0.5, 0.6], atol=1e-6)


def test_scores_by_hand():
  target, predicted = _square(1, 4, 0, 0), _square(1, 4, 0, 1)  # one px to the right
  known = _known(1, 4, centre=np.full((1, 1, 2), 0.5))
  found = {name: float(v[0, 0]) for name, (v, _) in scores.scores(predicted, target, known).items()}
  assert found["iou"] == pytest.approx(2 / 6)
  assert found["centre_error"] == pytest.approx(1) and found["centre_found"] == 1
  assert found["mse"] == pytest.approx(4 / 48) and found["mae"] == pytest.approx(4 / 48)
  assert found["mse_target"] == pytest.approx(2 / 4 / 3)  # two of four pixels, one of three colours
  assert found["mse_background"] == pytest.approx(2 / 12 / 3)
  same = scores.scores(target, target, known)
  assert same["iou"][0] == 1 and same["ssim"][0] == pytest.approx(1) and same["mse"][0] == 0


@pytest.mark.parametrize("colour", ["red", "yellow"])
def test_objects_of_other_colours_are_no_foreground(colour):
  """The true future has nothing to lose by discs that have a part of the target's colour."""
  settings = {"objects": 4, "colours": [colour], "frames": 6, "size": 48, "radius": 0.08}
  clips = [video_writer.clip(video_writer.complete(settings), "test", k) for k in range(6)]
  field = lambda name: np.stack([clip[name] for clip in clips])  # noqa: E731
  video = field("videos").astype(np.float32) / 255
  known = {"foreground": field("masks"), "foreground_valid": np.ones(6)}
  known |= {"centre": field("centres"), "centre_valid": field("centre_valid")}
  found = scores.foreground_scores(video, video, {**known, "colours": field("colours")})
  assert found["iou"][0].min() == 1 and found["centre_error"][0].max() < 0.5


def test_stored_mask_rules_the_foreground():
  target = _square(1, 4, 0, 0)
  mask = np.zeros((1, 1, 4, 4), np.uint8)
  mask[..., :2, :2] = scores.TARGET
  mask[..., 2:, 2:] = 2  # other objects are background
  covered = np.zeros_like(target)  # the truth shows nothing of the target: something is over it
  known = _known(1, 4, foreground=mask, foreground_valid=np.ones(1))
  assert scores.scores(target, covered, known)["iou"][0] == 1
  without = scores.scores(target, covered, {**known, "foreground_valid": np.zeros(1)})
  assert without["iou"][0] == 0


def test_frames_without_foreground_and_centre_have_no_weight():
  empty = np.zeros((1, 2, 4, 4, 3), np.float32)
  known = _known(2, 4, centre_valid=np.array([[1, 0]]))
  found = scores.scores(empty, empty, known)
  assert found["iou"][1].tolist() == [[0, 0]] and found["mse_target"][1].tolist() == [[0, 0]]
  assert found["centre_error"][1].tolist() == [[0, 0]]  # nothing was found
  assert found["centre_found"][1].tolist() == [[1, 0]]
  totals = scores.Totals()
  totals.add(found, np.ones(1))
  summary = totals.summary()
  assert np.isnan(summary["iou"]) and np.isnan(summary["centre_error"])
  assert summary["centre_found"] == 0 and summary["psnr"] == pytest.approx(100)


def test_totals_add_rows_of_several_batches_and_leave_masked_ones_out():
  value = {"mse": (np.array([[1.0, 3.0], [np.nan, 9.0]]), np.ones((2, 2)))}
  more = {"mse": (np.array([[2.0, 5.0]]), np.array([[1.0, 0.0]]))}
  totals = scores.Totals()
  totals.add(value, np.array([1, 0]))
  totals.add(more, np.ones(1))
  assert totals.summary()["mse"] == pytest.approx((1 + 3 + 2) / 3)
  assert totals.summary()["psnr"] == pytest.approx(-10 * np.log10(2))
  np.testing.assert_allclose(totals.by_horizon()["mse"], [1.5, 3])


def test_jax_gives_what_numpy_gives():
  rng = np.random.default_rng(0)
  a, b = rng.random((2, 2, 2, 8, 8, 3)).astype(np.float32)
  known = _known(2, 8) | {"colours": np.repeat(RED_ON_WHITE, 2, 0), "foreground_valid": np.zeros(2)}
  known["centre"], known["centre_valid"] = np.ones((2, 2, 2)), np.ones((2, 2))
  known["foreground"] = np.zeros((2, 2, 8, 8), np.uint8)
  ours = scores.scores(a, b, known)
  theirs = jax.jit(scores.scores)(a, b, known)
  for name, pair in ours.items():
    for one, other in zip(pair, theirs[name], strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=name)


def test_comparison_has_the_network_beside_what_learns_nothing():
  rng = np.random.default_rng(0)
  video = np.concatenate([_square(1, 12, 4, k) for k in range(5)], 1).repeat(2, 0)
  video[1] = rng.random(video[1].shape)  # the second row is padding
  batch = {
    "video": (255 * video).astype(np.uint8),
    "foreground": np.zeros((2, 5, 12, 12), np.uint8),
    "foreground_valid": np.zeros(2),
    "centre": np.stack([np.full(5, 4.5), np.arange(5) + 0.5], -1)[None].repeat(2, 0),
    "centre_valid": np.ones((2, 5)),
    "colours": RED_ON_BLACK.repeat(2, 0),
    "mask": np.array([1, 0]),
  }
  comparison = scores.Comparison()
  comparison.add(batch, 3, {"network": video[:, 3:] * 0.8})
  report = json.loads(json.dumps(comparison.report()))
  assert report["windows"] == 1
  assert list(report["scores"]) == ["network", *scores.BASELINES]
  network, line, black = (report["scores"][k] for k in ("network", "straight_line", "black"))
  assert network["iou"] == 1 and network["centre_error"] == pytest.approx(0, abs=1e-5)
  assert network["mse"] == pytest.approx(0.04 * 4 / 144 / 3) and line["mse"] == 0
  assert black["centre_error"] is None and black["mse_target"] == pytest.approx(1 / 3)
  assert report["horizon"]["copy_last"]["centre_error"] == pytest.approx([1, 2])
  rows = scores.as_rows(report)
  assert rows[0][2] == "PSNR dB" and rows[3][0] == "grey" and rows[2][6] == "-"
  assert all(len(row) == len(rows[0]) for row in rows)


def test_straight_line_moves_the_foreground_and_stops_at_the_border():
  past = np.concatenate([_square(1, 8, 3, left) for left in (0, 1, 2)], 1)
  past[..., 2] = 0.25  # blue everywhere is not of the target
  colours = np.array([[[0, 0, 64], [255, 0, 64]]])
  found = scores.straight_line(past, 5, colours)[0, ..., 0]
  lefts = [np.flatnonzero(frame.any(0))[0] for frame in found]
  assert lefts == [3, 4, 5, 6, 6] and (found.sum((1, 2)) == 4).all()
  nothing = np.zeros_like(past)
  assert not scores.straight_line(nothing, 2, colours).any()
  one = np.concatenate([nothing[:, :2], past[:, 2:]], 1)  # seen once: it stays
  np.testing.assert_array_equal(scores.straight_line(one, 1, colours)[:, 0], one[:, -1])


@pytest.mark.slow
def test_table_of_the_discs():
  """What the originals' data gives to predictors that learn nothing."""
  rng = np.random.RandomState(0)
  draw = lambda: [*(rng.randint(20, 40) for _ in range(2)), *rng.uniform(-2, 2, 2)]  # noqa: E731
  centres = moving.disc_centres(np.array([draw() for _ in range(100)]), 50, 128, 5)
  totals = {name: scores.Totals() for name in scores.BASELINES}
  for one in centres:
    thing = shapes.Shape(one, 5, (255, 0, 0), mask=scores.TARGET)
    frames, masks = video_writer.render([thing], 50, 128)
    video = frames[None].astype(np.float32) / 255
    known = {"foreground": masks[None, 25:], "centre": one[None, 25:], "colours": RED_ON_BLACK}
    known |= {"foreground_valid": np.ones(1), "centre_valid": np.ones((1, 25))}
    trivial = scores.trivial_predictions(video[:, :25], 25, RED_ON_BLACK)
    for name, predicted in trivial.items():
      found = scores.foreground_scores(predicted, video[:, 25:], known)
      found["mse"] = ((predicted - video[:, 25:]) ** 2).mean((2, 3, 4)), np.ones((1, 25))
      totals[name].add(found, np.ones(1))
  found = {name: total.summary() for name, total in totals.items()}
  assert found["black"]["psnr"] == pytest.approx(27.83, abs=0.01)
  assert found["grey"]["psnr"] == pytest.approx(6.02, abs=0.01)
  assert found["copy_last"]["psnr"] == pytest.approx(26.3, abs=0.05)
  assert found["straight_line"]["psnr"] == pytest.approx(40.6, abs=0.5)
  assert found["straight_line"]["iou"] == pytest.approx(0.954, abs=0.005)
  assert found["straight_line"]["centre_error"] == pytest.approx(0.19, abs=0.02)
  assert found["black"]["iou"] == 0 and found["black"]["centre_found"] == 0


@pytest.mark.parametrize(
  ("shift", "psnr", "iou"), [(4, 28.1, 0.36), (2, 30.9, 0.60), (1, 33.5, 0.76)]
)
def test_discs_that_are_off(shift, psnr, iou):
  def put(column):
    disc = shapes.Shape(np.array([60, column]), 5, (255, 0, 0))
    return video_writer.render([disc], 1, 128)[0][None] / np.float32(255)

  found = scores.scores(put(60 + shift), put(60), _known(1, 128))
  assert -10 * np.log10(found["mse"][0]) == pytest.approx(psnr, abs=0.06)
  assert found["iou"][0] == pytest.approx(iou, abs=0.01)


def test_frechet_distance_by_hand():
  # Variances 2 and 8 of one feature, means 1 apart: 1 + 2 + 8 - 2 * sqrt(16).
  a, b = np.array([[1.0], [3.0], [5.0], [3.0]]), np.array([[0.0], [4.0], [8.0], [4.0]])
  variance = [x.var(ddof=1) for x in (a, b)]
  want = 1 + sum(variance) - 2 * np.sqrt(variance[0] * variance[1])
  assert frechet.distance(a, b) == pytest.approx(want)
  assert frechet.summary(a, b[:3])["n"] == 3 and not frechet.summary(a, b)["stable"]
  for wrong, sentence in (
    (a[:1], "1 clips received, two or more"),
    (np.hstack([a, a]), "shape"),
    (a * np.nan, "not finite"),
  ):
    with pytest.raises(checks.InputError, match=sentence):
      frechet.distance(a, wrong)
