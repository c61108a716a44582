"""Benchmarks with a peer: their command line, what they write, and when they refuse."""

import json

import pytest

from benchmarks import measure, two_stream, xmem
from vistraj_jax.core import checks


def test_part_in_a_process_of_its_own(tmp_path, capfd):
  out = tmp_path / "figures.json"
  assert two_stream.main(["--smoke", "--parts", "pipeline", "--out", str(out)]) == 0
  report = json.loads(out.read_text())
  assert list(report["parts"]) == ["pipeline"]
  figures = report["parts"]["pipeline"]
  assert figures["sizes"]["batch"] == 8
  assert figures["vistraj_jax"]["pairs_per_s"] > 0
  assert "pairs_per_s" in capfd.readouterr().out


@pytest.mark.parametrize("benchmark", [two_stream, xmem])
def test_refuses(benchmark):
  with pytest.raises(checks.InputError, match="--parts check: compares with the peer"):
    benchmark.main(["--parts", "check"])
  with pytest.raises(checks.InputError, match="speed"):
    benchmark.main(["--parts", "speed"])


def test_different_networks_end_the_peer():
  measure.exit_if_different({"masks": 1e-6}, 1e-3)
  for difference in (2e-3, float("nan")):
    with pytest.raises(SystemExit, match="masks"):
      measure.exit_if_different({"loss": 0.0, "masks": difference}, 1e-3)


def test_times_leave_the_first_calls_out():
  calls = []
  assert len(measure.times(lambda: calls.append(1), 3, warm=2)) == 3
  assert len(calls) == 5
