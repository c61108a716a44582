"""First-match tables, means over valid examples, durations, atomic outputs."""

import numpy as np
import pytest

from vistraj_jax.core import checks, files, mean, rules, steps

TREE = {"encoder": {"kernel": 1, "bias": 2}, "decoder": {"bias": 3}}


def test_first_match_wins():
  table = (("encoder/.*", "frozen"), (".*bias", "small"), (".*", "big"))
  with pytest.raises(checks.InputError, match=r"where: pattern '\.\*' is the first match of none"):
    rules.match(table, TREE, "where")
  assert rules.match(table[:2], TREE, "where") == {
    "encoder": {"kernel": "frozen", "bias": "frozen"},
    "decoder": {"bias": "small"},
  }


def test_any_value_may_be_in_a_table():
  assert rules.match(((".*", None),), {"a": 1}, "w") == {"a": None}
  assert rules.match(((".*", (None, "model")),), {"a": 1}, "w") == {"a": (None, "model")}


def test_uncovered_name_and_misspelt_pattern():
  with pytest.raises(checks.InputError, match="no rule covers parameter 'decoder/bias'; end the"):
    rules.match((("encoder/.*", 1),), TREE, "config.x")
  with pytest.raises(checks.InputError, match=r"'encodr/.*' .* names are \['decoder', 'encoder'\]"):
    rules.match((("encodr/.*", 1), (".*", 2)), TREE, "config.x")


def test_mean_ignores_masked_rows_even_nan():
  first = mean.Mean.of(np.array([1.0, 3.0, np.nan]), np.array([1.0, 1.0, 0.0]))
  second = mean.Mean.of(np.array([5.0, np.inf, 9.0]), np.array([1.0, 0.0, 0.0]))
  total = first + second
  assert (float(total.total), float(total.count)) == (9.0, 3.0)
  assert float(total.value) == 3.0  # not the mean of means, 3.5


@pytest.mark.parametrize(
  "settings, wanted",
  [({"steps": 7}, 7), ({"epochs": 2}, 20), ({"epochs": 0.5}, 5), ({"examples": 33}, 4)],
)
def test_durations(settings, wanted):
  assert steps.duration(settings, "", "w", batch_size=10, num_examples=105) == wanted


def test_duration_errors():
  sizes = dict(batch_size=10, num_examples=100)
  with pytest.raises(checks.InputError, match=r"give exactly one of \['steps'.*received \[\]"):
    steps.duration({}, "", "config.phases.full", **sizes)
  with pytest.raises(checks.InputError, match=r"received \['warmup_steps', 'warmup_epochs'\]"):
    steps.duration({"warmup_steps": 1, "warmup_epochs": 1}, "warmup", "w", **sizes)
  with pytest.raises(checks.InputError, match=r"w.steps: -1 received"):
    steps.duration({"steps": -1}, "", "w", **sizes)
  assert steps.duration({}, "warmup", "w", default=0, **sizes) == 0


def test_checks_write_sentences():
  with pytest.raises(checks.InputError, match=r"config.a: 'x' is not allowed; choose one of \['y'"):
    checks.choice("config.a", "x", ("y", "z"))
  with pytest.raises(checks.InputError, match=r"boxes: shape \(2, 3\) received, \('any', 4\)"):
    checks.shape("boxes", np.zeros((2, 3)), (None, 4))


def test_failed_writes_leave_nothing(tmp_path):
  path = tmp_path / "out.txt"
  files.write_text(path, "old")
  with pytest.raises(OSError, match="disk full"), files.atomic_path(path) as temporary:
    temporary.write_text("half")
    raise OSError("disk full")
  assert path.read_text() == "old"
  folder = tmp_path / "run"
  with files.atomic_folder(folder) as temporary:
    (temporary / "a").write_text("1")
  with pytest.raises(OSError), files.atomic_folder(folder) as temporary:
    (temporary / "b").write_text("2")
    raise OSError("disk full")
  assert sorted(p.name for p in tmp_path.iterdir()) == ["out.txt", "run"]
  assert [p.name for p in folder.iterdir()] == ["a"]
