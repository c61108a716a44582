"""Pictures of clips: where masks, points and futures are drawn; commands from files to files."""

import json

import av
import clip_data
import cv2
import matplotlib
import numpy as np
import pytest

from launch import plot, prepare
from vistraj_jax.core import checks
from vistraj_jax.data import forecasts, xmem
from vistraj_jax.viz import clips, futures

matplotlib.use("Agg")
AHEAD = np.array([[0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # camera from ego


def _clip(**changes):
  truth = np.zeros((2, 20, 30), bool)
  truth[:, 5:10, 10:20] = True
  probability = np.roll(truth.astype(float), 5, -1)
  frames = [np.zeros((20, 30, 3), np.uint8)] * 2
  values = {"name": "car", "frames": frames, "truth": truth, "known": np.array([True, True])}
  return clips.Clip(**{**values, "probability": probability, "is_camera": True, **changes})


def _agent(**changes):
  view = futures.View(
    np.zeros((20, 30, 3), np.uint8), np.array([[15.0, 0, 15], [0, 15, 10], [0, 0, 1]]), AHEAD
  )
  values = {"past": np.array([[9.0, 0], [10, 0]]), "truth": np.array([[11.0, 0], [12, 0]])}
  values |= {"futures": np.array([[[11.0, 1], [12, 2]], [[11, 0], [12, 0]]]), "name": "car"}
  return futures.Agent(**{**values, "probabilities": np.array([0.3, 0.7]), "view": view, **changes})


def test_points_from_above_lie_ahead_up_and_left_left():
  picture = clips.points_picture(np.array([[7.9, 0.1], [0.1, 7.9], [20, 0]]), 8.0, 16)
  cells = np.argwhere((picture == 158).all(-1)).tolist()
  assert cells == [[0, 7], [7, 0]]


def test_overlap_of_masks():
  clip = _clip()
  assert clips.overlap(clip, 0) == pytest.approx(25 / 75)
  empty = np.zeros((2, 20, 30), bool)
  assert np.isnan(clips.overlap(_clip(truth=empty, probability=empty), 0))


def test_masks_are_tinted_and_outlined():
  picture = clips.frame_picture(_clip(), 0, 40)
  assert picture.shape == (40, 60, 3)
  tint, outline = picture[15, 45], picture[10, 25]
  assert tint[2] > tint[1] > tint[0] > 0 and tuple(outline) == (80, 255, 80)
  unknown = clips.frame_picture(_clip(known=np.array([False, True]), probability=None), 0, 40)
  assert not unknown.any()
  sheet = clips.mask_sheet([_clip(), _clip(name="truck")], 40)
  assert sheet.shape == (2 * (40 + 40 + 4), 2 * 64, 3)
  with pytest.raises(checks.InputError, match="no clip to draw"):
    clips.mask_sheet([])


def test_the_ground_ahead_projects_below_the_horizon():
  view = _agent().view
  np.testing.assert_allclose(view.project([[15, 0], [15, 15]]), [[15, 11.5], [0, 11.5]])
  assert np.isnan(view.project([[-5.0, 0], [0.1, 0]])).all()


def test_the_most_probable_future_comes_first_and_starts_at_the_agent():
  agent = _agent(past=np.array([[np.nan, np.nan], [10, 0]]))
  ranked = agent.ranked()
  assert [probability for _, probability, _ in ranked] == [0.7, 0.3]
  np.testing.assert_array_equal(ranked[0][2], [[10, 0], [11, 0], [12, 0]])
  low, high = futures.seen_area(agent)
  np.testing.assert_array_equal((low, high), [(-8, -8), (20, 10)])
  with pytest.raises(checks.InputError, match="futures: shape"):
    _agent(probabilities=np.ones(3))


def test_a_video_shows_what_was_seen_and_then_the_futures():
  pictures = list(clips.video_pictures(_clip(), _agent(), height=64, hold=2))
  assert len(pictures) == 2 * (2 + 2) and {p.shape for p in pictures} == {(64, 96 + 64, 3)}
  assert (pictures[-1] != pictures[0])[:, 96:].any()  # the futures, from above
  assert (pictures[-1] != pictures[2])[20:, :96].any()  # and in the image


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A run's folder with predictions: constant velocity, and masks that are the truth."""
  folder = tmp_path_factory.mktemp("run")
  tables = clip_data.write(folder / "tables")
  prepare.main(clip_data.arguments(tables, folder / "clips", resolution=1.0))
  cfg = clip_data.data_config(folder / "clips", image_size=(128, 128))
  found = xmem.load(cfg, "val", None)
  rows = np.arange(len(found))
  batch = found.gather(rows)
  ahead = (batch["past_xy"][:, -1] - batch["past_xy"][:, -2])[:, None] * np.arange(1, 4)[:, None]
  arrays = {name: batch[name] for name in forecasts.ARRAYS if name in batch}
  arrays |= {"futures": (batch["last_xy"][:, None] + ahead)[:, None], "row": rows}
  arrays |= {
    "probabilities": np.ones((len(rows), 1)),
    forecasts.MASKS: 255 * batch["masks"][:, :, 0],
  }
  arrays |= {name: np.array(x) for name, x in found.strings(rows).items()}
  forecasts.save(folder / "run" / "forecasts" / forecasts.NAME, arrays)
  config = {"data": cfg, "phases": {}, "model": {}}
  (folder / "run" / "config.json").write_text(json.dumps(config))
  return folder / "run"


@pytest.mark.parametrize("command", ["masks", "futures"])
def test_commands_write_pictures(run, tmp_path, command, capsys):
  out = tmp_path / "picture.png"
  assert plot.main([command, "--run", str(run), "--count", "2", "--out", str(out)]) == 0
  assert "written: " in capsys.readouterr().out
  picture = cv2.imread(str(out))
  assert min(picture.shape[:2]) > 100 and picture.std() > 5


def test_command_writes_a_video(run, tmp_path):
  out = tmp_path / "clip.mp4"
  names = forecasts.load(run)["sample_id"].tolist()
  assert plot.main(["clip", "--run", str(run), "--names", names[1], "--out", str(out)]) == 0
  with av.open(str(out)) as container:
    assert sum(1 for _ in container.decode(video=0)) == 6 * (3 + 3)


def test_predictions_of_other_clips_are_refused(run, tmp_path):
  command = ["masks", "--run", str(run), "--out", str(tmp_path / "a.png")]
  with pytest.raises(checks.InputError, match="predictions of other clips than split 'train'"):
    plot.main([*command, "--split", "train"])
  with pytest.raises(checks.InputError, match="--names: .'nothing'. were not predicted"):
    plot.main([*command, "--names", "nothing"])
