"""Line plots: what is drawn into which panel, and refusals."""

import json

import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.viz import curves, hota

ALPHAS = np.arange(1, 20) * 0.05


def _rows():
  rows = []
  for step in (10, 20, 30, 40):
    row = {"step": step, "phase": "decoder" if step <= 20 else "full", "epoch": 0.1, "time": 1.0}
    row |= {"loss/train": 1 / step, "loss/giou/train": 2 / step, "lr/decoder": 1e-3}
    row |= {"examples/s": 400.0, "steps/s": 4.0}
    if step > 20:
      row |= {"lr/encoder": 1e-4, "loss/val": 0.5, "iou/val": 0.8, "iou/identity": 0.7}
    rows.append(row)
  return rows


def _write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def _panel(figure, title):
  return next(ax for ax in figure.axes if ax.get_title() == title)


def _series(ax):
  """Lines of the legend by their label."""
  return {line.get_label(): line for line in ax.get_lines() if line.get_label()[0] != "_"}


def test_panels_series_and_phases(tmp_path):
  figure = curves.draw_training({"a": _rows()}, tmp_path / "a.png")
  assert [ax.get_title() for ax in figure.axes] == [
    "loss",
    "loss terms",
    "mean IoU of the next box",
    "learning rate",
    "speed (examples/s)",
  ]
  loss = _series(_panel(figure, "loss"))
  assert set(loss) == {"train", "val"}
  np.testing.assert_array_equal(loss["train"].get_xdata(), [10, 20, 30, 40])
  np.testing.assert_allclose(loss["train"].get_ydata(), [0.1, 0.05, 1 / 30, 0.025])
  overlap = _series(_panel(figure, "mean IoU of the next box"))
  assert overlap["identity"].get_linestyle() == "--" and overlap["val"].get_linestyle() == "-"
  # One dotted line, where the second phase starts, and both names above.
  for ax in figure.axes:
    dotted = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted] == [20]
    assert [text.get_text() for text in ax.texts] == ["decoder", "full"]
    assert ax.get_xlabel() == "step (over all phases)"
  assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_learning_rates_are_parted_between_phases(tmp_path):
  figure = curves.draw_training({"a": _rows()}, tmp_path / "a.png")
  line = _series(_panel(figure, "learning rate"))["decoder"]
  np.testing.assert_array_equal(np.isnan(line.get_ydata()), [False, False, True, False, False])


def test_one_evaluation_gives_visible_baselines(tmp_path):
  row = {"step": 0, "phase": "a", "iou/identity": 0.7, "iou/val": 0.1, "iou/train": 0.2}
  figure = curves.draw_training({"a": [row]}, tmp_path / "a.png")
  lines = _series(figure.axes[0])
  assert list(lines) == ["train", "val", "identity"]
  assert all(line.get_marker() == "." for line in lines.values())


def test_several_runs_share_one_baseline(tmp_path):
  figure = curves.draw_training({"a": _rows(), "b": _rows()}, tmp_path / "a.png")
  overlap = _series(_panel(figure, "mean IoU of the next box"))
  assert set(overlap) == {"a: val", "b: val", "identity"}
  assert overlap["a: val"].get_color() != overlap["b: val"].get_color()


def test_phase_starts():
  assert curves.phase_starts(_rows()) == [("decoder", 0), ("full", 20)]


def test_read_log_of_a_folder_and_a_cut_last_line(tmp_path):
  path = _write(tmp_path / "run" / "log.jsonl", _rows())
  assert curves.read_log(tmp_path / "run") == _rows()
  path.write_text(path.read_text()[:-5])
  assert curves.read_log(path) == _rows()[:-1]


@pytest.mark.parametrize(
  ("text", "sentence"),
  [
    ("", r"log\.jsonl: the log is empty"),
    ('{"step": 1, "phase": "a"}\nnonsense\n{"step": 2, "phase": "a"}\n', r"log\.jsonl:2: no JSON"),
    ('{"loss/train": 1.0}\n', r"log\.jsonl:1: an object with an integer 'step'"),
  ],
)
def test_bad_logs(tmp_path, text, sentence):
  path = tmp_path / "log.jsonl"
  path.write_text(text)
  with pytest.raises(checks.InputError, match=sentence):
    curves.read_log(path)


def test_missing_log_and_log_without_scalars(tmp_path):
  with pytest.raises(checks.InputError, match=r"none/log.jsonl: there is no such log"):
    curves.read_log(tmp_path / "none/log.jsonl")
  with pytest.raises(checks.InputError, match=r"\['a'\] hold no scalars"):
    curves.draw_training({"a": [{"step": 1, "phase": "x"}]}, tmp_path / "a.png")
  assert not (tmp_path / "a.png").exists()


def scores(level):
  """Scores of two runs, whose HOTA is `level` at the first threshold and falls to 0."""

  def result(factor):
    values = {name: (factor * (1 - ALPHAS)).tolist() for name in ("HOTA", "DetA", "AssA")}
    return {"HOTA": values}

  runs = {}
  for name, factor in (("kalman", level / 2), ("trackssm", level)):
    runs[name] = {
      "classes": {"car": {"COMBINED": result(factor / 2)}},
      "over_classes": {"detection_averaged": result(factor)},
    }
  return {"protocol": "kitti", "alphas": ALPHAS.tolist(), "runs": runs}


def test_hota_lines_and_means(tmp_path):
  figure = hota.draw_hota(scores(0.8), tmp_path / "hota.png")
  assert len(figure.axes) == 3 and (tmp_path / "hota.png").exists()
  # Mean of 1 - alpha over 0.05 .. 0.95 is 0.5.
  lines = _series(figure.axes[0])
  assert set(lines) == {"kalman (20.0)", "trackssm (40.0)"}
  assert lines["kalman (20.0)"].get_linestyle() == "--"
  np.testing.assert_allclose(lines["trackssm (40.0)"].get_ydata(), 80 * (1 - ALPHAS))
  assert "alpha" in figure.axes[0].get_xlabel() and "%" in figure.axes[0].get_ylabel()
  figure = hota.draw_hota(scores(0.8), tmp_path / "car.png", "car")
  assert set(_series(figure.axes[0])) == {"kalman (10.0)", "trackssm (20.0)"}


def test_hota_sentences(tmp_path):
  with pytest.raises(checks.InputError, match=r"'bus' is not allowed; choose one of \['car'\]"):
    hota.draw_hota(scores(0.8), tmp_path / "a.png", "bus")
  with pytest.raises(checks.InputError, match=r"scores\.json: there is no such file"):
    hota.read_scores(tmp_path / "scores.json")
  path = tmp_path / "scores.json"
  path.write_text("{")
  with pytest.raises(checks.InputError, match=r"scores\.json: no JSON"):
    hota.read_scores(path)
  path.write_text('{"HOTA": 1}')
  with pytest.raises(checks.InputError, match=r"scores\.json: has no 'protocols' and 'alphas'"):
    hota.read_scores(tmp_path)


def test_one_protocol_of_several_is_read(tmp_path):
  low, high = scores(0.4), scores(0.8)
  found = {"first": {"runs": low["runs"]}, "second": {"runs": high["runs"]}}
  path = tmp_path / "scores.json"
  path.write_text(json.dumps({"alphas": low["alphas"], "protocols": found}))
  assert hota.read_scores(tmp_path) == low | {"protocol": "first"}
  assert hota.read_scores(path, "second") == high | {"protocol": "second"}
  with pytest.raises(checks.InputError, match=r"'third' is not allowed; choose one of \['first'"):
    hota.read_scores(path, "third")
