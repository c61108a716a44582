"""HOTA, CLEAR and Identity against numbers of the published evaluation code."""

import csv
import json
import pathlib

import numpy as np
import pytest
import real_data

from vistraj_jax.core import checks
from vistraj_jax.metrics import protocols
from vistraj_jax.tracking import mot_files

GOLDEN = pathlib.Path(__file__).parent / "golden"
CASES = sorted(path.parent for path in (GOLDEN / "metrics").glob("*/expected.json"))
SCORES = [case for case in CASES if not case.name.startswith("error_")]
ERRORS = [case for case in CASES if case.name.startswith("error_")]


def _expected(case):
  return json.loads((case / "expected.json").read_text())


def _tables(case, expected):
  """Returns {sequence: (truth, prediction, length)}."""
  return {
    name: (
      mot_files.read_table(case / one["gt"], "truth", one["num_frames"]),
      mot_files.read_table(case / one["pred"], "prediction", one["num_frames"]),
      one["num_frames"],
    )
    for name, one in expected["sequences"].items()
  }


def _check(got, want, where, tolerance=1e-9):
  """Compares nested dicts: whole numbers exactly, others within `tolerance`."""
  for name, value in want.items():
    if isinstance(value, dict):
      _check(got[name], value, f"{where} {name}", tolerance)
    else:
      exact = all(isinstance(v, int) for v in np.ravel(value).tolist())
      np.testing.assert_allclose(
        got[name], value, rtol=0, atol=0 if exact else tolerance, err_msg=f"{where} {name}"
      )


def _with_combined(results):
  return results | {"COMBINED": protocols.combine(results.values())}


@pytest.mark.parametrize("case", SCORES, ids=lambda case: case.name)
def test_equals_published_numbers(case):
  expected = _expected(case)
  np.testing.assert_array_equal(protocols.ALPHAS, expected["alphas"])
  tables = _tables(case, expected)
  if expected["protocol"] != "per_class":
    results = {
      name: protocols.score_sequence(*one, protocol=expected["protocol"])
      for name, one in tables.items()
    }
    _check(_with_combined(results), expected["expected"], case.name)
    if "by_hand" in expected:
      (only,) = results.values()
      _check(only["summary"], expected["by_hand"], f"{case.name} by hand")
    return

  scores = {name: protocols.score_classes(*one) for name, one in tables.items()}
  pooled = {}
  for number, class_name in zip(expected["classes"], mot_files.CLASSES, strict=True):
    one = _with_combined({name: by_class[class_name] for name, by_class in scores.items()})
    pooled[class_name] = one["COMBINED"]
    _check(one, expected["expected_by_class"][str(number)], f"{case.name} {class_name}")
  averages = protocols.average_classes(pooled)
  _check(averages, expected["expected_over_classes"], f"{case.name} over classes")
  together = {name: protocols.score_sequence(*one) for name, one in tables.items()}
  _check(_with_combined(together), expected["expected_ignoring_class"], case.name)


@pytest.mark.parametrize("case", ERRORS, ids=lambda case: case.name)
def test_bad_files_are_refused_with_their_place(case):
  expected = _expected(case)
  with pytest.raises(checks.InputError) as error:
    (tables,) = _tables(case, expected).values()
    protocols.score_sequence(*tables, protocol=expected["protocol"])
  sentence = str(error.value)
  if "class_mot17" in case.name:  # found by the protocol, which sees tables, not files
    assert "class" in sentence and "in frame 2" in sentence and "'mot17' allows" in sentence
  else:
    file = "gt.txt" if "truth" in case.name else "pred.txt"
    assert f"{case.name}/{file}:" in sentence


def test_classes_of_two_sequences_equal_published_numbers():
  case = GOLDEN / "trackssm" / "track_metrics"
  manifest, arrays = json.loads((case / "manifest.json").read_text()), np.load(case / "io.npz")
  config = manifest["config"]
  scores = []
  for sequence in ("seq0", "seq1"):
    truth, prediction = (
      mot_files.Table.of(rows[:, 0], rows[:, 1], rows[:, 2:6], rows[:, 6], rows[:, 7])
      for rows in (arrays[f"gt_{sequence}"], arrays[f"tracker_{sequence}"])
    )
    scores.append(protocols.score_classes(truth, prediction, config["frames"], "nuscenes"))
  names = [mot_files.CLASSES[number] for number in config["classes"]]
  pooled = {name: protocols.combine([score[name] for score in scores]) for name in names}
  averages = protocols.average_classes(pooled)
  rows = [*pooled.values(), averages["class_averaged"], averages["detection_averaged"]]
  columns = [column.split(".") for column in config["columns"]]
  table = [[np.mean(row[metric][field]) for metric, field in columns] for row in rows]
  np.testing.assert_allclose(table, arrays["table"], **manifest["tolerance"])
  for field, output in (("HOTA", "hota_alpha"), ("AssA", "assa_alpha")):
    curves = [result["HOTA"][field] for result in pooled.values()]
    np.testing.assert_allclose(curves, arrays[output], **manifest["tolerance"])


def test_kitti_rules_equal_published_numbers():
  case = GOLDEN / "kitti_scores"
  expected = _expected(case)
  length = expected["num_frames"]
  truth = mot_files.read_table(case / "gt.txt", "truth", length)
  prediction = mot_files.read_table(case / "pred.txt", "prediction", length)
  results = protocols.score_classes(truth, prediction, length, "kitti")
  _check(results, expected["expected"], "kitti")


def test_real_mot17_tracker_equals_published_numbers():
  root = real_data.folder("mot17")
  results = {}
  for folder in mot_files.find_sequences(root):
    length = mot_files.read_sequence_info(folder).length
    file = root / "tracker_output" / f"{folder.name}.txt"
    truth = mot_files.read_table(folder / "gt" / "gt.txt", "truth", length)
    prediction = mot_files.read_table(file, "prediction", length)
    results[folder.name] = protocols.score_sequence(truth, prediction, length, "mot17")
  with open(root / "tracker_output" / "expected_trackeval.csv") as file:
    expected = {row.pop("seq"): row for row in csv.DictReader(file)}
  compared = 0
  for sequence, result in _with_combined(results).items():
    for column, value in expected[sequence].items():
      compared += 1
      got = _column(result, column)
      assert got == pytest.approx(float(value), abs=1e-6), f"{sequence} {column}"
  assert compared >= 2000


def _column(result, column):
  """Returns the value of a column like HOTA___50 (threshold 0.5), HOTA___AUC (mean) or MOTA."""
  field, _, alpha = column.partition("___")
  if alpha == "AUC":
    return np.mean(result["HOTA"][field])
  if alpha:
    return result["HOTA"][field][round(int(alpha) / 5) - 1]
  (found,) = (
    metric[field] for name, metric in result.items() if field in metric and name != "summary"
  )
  return found
