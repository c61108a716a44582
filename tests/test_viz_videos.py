"""Pictures of predicted videos and of codes: sizes, contents, commands and refusals."""

import json

import numpy as np
import pytest

from launch import plot
from vistraj_jax.core import checks
from vistraj_jax.viz import codes, future_video

PAST, FUTURE, SIDE = 5, 4, 16


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
  path = tmp_path_factory.mktemp("predicted") / "predictions.npz"
  rng = np.random.default_rng(0)
  past = rng.integers(0, 256, (3, PAST, SIDE, SIDE, 3), np.uint8)
  truth = np.zeros((3, FUTURE, SIDE, SIDE, 3), np.uint8)
  truth[..., 0] = 200  # red
  predicted = {"network": truth + np.uint8(20), "copy_last": past[:, -1:].repeat(FUTURE, 1)}
  future_video.write_predictions(path, past, truth, predicted, 5, ["a", "b", "c"])
  return path


def test_predictions_there_and_back(predictions):
  found = future_video.read_predictions(predictions)
  assert list(found["predicted"]) == ["network", "copy_last"] and found["ids"].tolist() == [*"abc"]
  assert future_video.frame_rate(found) == 5 and found["past"].shape[1] == PAST
  assert future_video.frame_rate({"fps": 0}) == 10


def test_strips_show_each_frame_where_it_belongs(predictions):
  found = future_video.read_predictions(predictions)
  picture = future_video.strips(found, [0, 2], columns=3, side=SIDE)
  frame, header, gap = SIDE + 1, 14, 4
  assert picture.shape == (header + 2 * 3 * frame + 2 * gap, 6 * frame + gap, 3)
  first = picture[header : header + SIDE, :SIDE, ::-1]
  np.testing.assert_array_equal(first, found["past"][0, 0])
  second = picture[header : header + SIDE, frame : frame + SIDE, ::-1]
  np.testing.assert_array_equal(second, found["past"][0, 2])
  right = 3 * frame + gap
  assert picture[header + 3, right + 3].tolist() == [0, 0, 200]  # truth, blue green red
  assert picture[header + frame + 3, right + 3].tolist() == [20, 20, 220]  # below it the network
  big = future_video.strips(found, [0], columns=2, side=40)
  assert big.shape[0] == header + 3 * (3 * SIDE + 1)  # grown by a whole number


def test_films_have_even_sides_and_show_the_past_first(predictions):
  found = future_video.read_predictions(predictions)
  pictures = list(future_video.frames(found, [1], side=SIDE))
  assert len(pictures) == PAST + FUTURE
  assert all(side % 2 == 0 for side in pictures[0].shape[:2])
  np.testing.assert_array_equal(pictures[0][16 : 16 + SIDE, :SIDE, ::-1], found["past"][1, 0])
  assert pictures[PAST][20, 3].tolist() == [0, 0, 200]
  assert pictures[PAST][20, SIDE + 1 + 3].tolist() == [20, 20, 220]


def test_horizon(tmp_path):
  scores = {
    "network": {"psnr": [30, 28], "iou": [0.9, np.nan]},
    "copy_last": {"psnr": [25, 20]},
  }
  figure = future_video.draw_horizon(scores, tmp_path / "h.png")
  shown = [ax for ax in figure.axes if ax.get_visible()]
  assert [ax.get_title() for ax in shown] == ["PSNR (dB)", "IoU of the foreground"]
  network, copied = shown[0].get_lines()
  assert (network.get_linestyle(), copied.get_linestyle()) == ("-", "--")
  assert network.get_xydata().tolist() == [[1, 30], [2, 28]]
  (legend,) = figure.legends  # one for all panels
  assert [text.get_text() for text in legend.get_texts()] == ["network", "copy last"]
  with pytest.raises(checks.InputError, match="no scores by horizon"):
    future_video.draw_horizon({"network": {"mse": [1]}}, tmp_path / "no.png")


def test_code_counts(tmp_path):
  np.save(tmp_path / "counts.npy", np.array([0, 5, 0, 20]))
  counts, number, tokens = codes.read_counts(tmp_path / "counts.npy")
  assert counts.tolist() == [20, 5] and (number, tokens) == (4, 25)
  usage = {"counts": [[9, 7], [3, 1]], "of": 1024, "tokens": 10}
  (tmp_path / "report.json").write_text(json.dumps({"code_usage": usage}))
  counts, number, tokens = codes.read_counts(tmp_path / "report.json")
  assert counts.tolist() == [7, 1] and (number, tokens) == (1024, 10)
  figure = codes.draw_code_usage({"a": (counts, number, tokens)}, tmp_path / "codes.png")
  (line,) = figure.axes[1].get_lines()
  assert line.get_ydata().tolist() == [70, 80] and (tmp_path / "codes.png").stat().st_size
  for name, content, sentence in (
    ("zero.npy", np.zeros(4, int), "no code occurs"),
    ("float.npy", np.ones(4), r"float64 \(4,\) received; give integer counts"),
  ):
    np.save(tmp_path / name, content)
    with pytest.raises(checks.InputError, match=sentence):
      codes.read_counts(tmp_path / name)
  (tmp_path / "other.json").write_text("{}")
  with pytest.raises(checks.InputError, match="no report with code_usage"):
    codes.read_counts(tmp_path / "other.json")
  with pytest.raises(checks.InputError, match="there is no such file of code counts"):
    codes.read_counts(tmp_path / "missing.npy")


def test_commands(tmp_path, predictions, capsys):
  import av

  out = {name: str(tmp_path / name) for name in ("s.png", "f.mp4", "h.png", "c.png")}
  plot.main(["videos", "--predictions", str(predictions), "--out", out["s.png"], "--count", "2"])
  plot.main(
    [
      *("videos", "--predictions", str(predictions), "--out", out["f.mp4"]),
      *("--names", "b", "--predictors", "network"),
    ]
  )
  printed = capsys.readouterr().out
  assert "(2 videos)" in printed and "(9 frames, 5 Hz, 1 videos)" in printed
  with av.open(out["f.mp4"]) as film:
    assert len(list(film.decode(video=0))) == PAST + FUTURE
  horizon = {"horizon": {"network": {"psnr": [1, 2]}, "black": {"psnr": [3, 4]}}}
  for name in ("one", "two"):
    (tmp_path / f"{name}.json").write_text(json.dumps(horizon))
  scores = [f"{tmp_path}/one.json:first", f"{tmp_path}/two.json:second"]
  plot.main(["horizon", "--scores", *scores, "--out", out["h.png"]])
  assert "(3 predictors)" in capsys.readouterr().out  # the baseline once
  np.save(tmp_path / "counts.npy", np.arange(5))
  plot.main(["codes", "--counts", f"{tmp_path}/counts.npy:codes", "--out", out["c.png"]])

  def refused(sentence, *arguments):
    with pytest.raises(checks.InputError, match=sentence):
      plot.main([*arguments])

  shown = ("videos", "--predictions", str(predictions), "--out", out["s.png"])
  refused("--names: d is not there", *shown, "--names", "d")
  refused("--predictors: 'other' is not allowed", *shown, "--predictors", "other")
  refused("--columns: 1 is not allowed", *shown, "--columns", "1")
  refused("a picture ends in '.png'", *shown[:-1], str(tmp_path / "s.gif"))
  refused("no readable .npz file", "videos", "--predictions", __file__, "--out", out["s.png"])
  refused("holds no 'horizon'", "horizon", "--scores", f"{predictions}:a", "--out", out["h.png"])


def test_predictions_that_are_refused(tmp_path, predictions):
  truth = np.zeros((1, 2, 4, 4, 3), np.uint8)
  with pytest.raises(checks.InputError, match="cannot be called 'past'"):
    future_video.write_predictions(tmp_path / "a.npz", truth, truth, {"past": truth}, 1, ["a"])
  with pytest.raises(checks.InputError, match="network: shape"):
    future_video.write_predictions(
      tmp_path / "a.npz", truth, truth, {"network": truth[:, :1]}, 1, ["a"]
    )
  np.savez(tmp_path / "b.npz", past=truth, truth=truth, fps=1.0, ids=np.array(["a"]))
  with pytest.raises(checks.InputError, match="holds no prediction"):
    future_video.read_predictions(tmp_path / "b.npz")
  np.savez(tmp_path / "c.npz", past=truth)
  with pytest.raises(checks.InputError, match=r"no array \['truth', 'fps', 'ids'\]"):
    future_video.read_predictions(tmp_path / "c.npz")
