"""Writing the world's database: the same bytes every time, continued after a stop, bad settings."""

import json

import pytest

from launch import prepare
from vistraj_jax.core import checks
from vistraj_jax.prepare.world import lidar, nuscenes_writer

TINY = {
  **nuscenes_writer.SETTINGS,
  "scenes": {"train": 1, "val": 0, "test": 1},
  "seconds": 0.5,
  "moving": 40,
  "parked": 10,
  "sweeps": ["train"],
}


def _contents(root):
  return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_repeatable_and_continued(tmp_path, monkeypatch):
  nuscenes_writer.write(tmp_path / "whole", TINY)
  wanted = _contents(tmp_path / "whole")
  out = tmp_path / "broken"
  scan, calls = lidar.scan, []

  def fail(*arguments):
    calls.append(1)
    if len(calls) == 8:  # in the second scene: the first has 6 sweeps
      raise OSError(28, "No space left on device", "somewhere")
    return scan(*arguments)

  monkeypatch.setattr(lidar, "scan", fail)
  with pytest.raises(OSError, match="No space left"):
    nuscenes_writer.write(out, TINY)
  assert not (out / "v1.0-trainval").exists()
  first = next((out / "samples" / "CAM_FRONT").glob("simulated-0001*"))
  stamp = first.stat().st_mtime_ns
  monkeypatch.setattr(lidar, "scan", scan)
  nuscenes_writer.write(out, TINY)
  assert first.stat().st_mtime_ns == stamp  # the finished scene was kept
  assert _contents(out) == wanted
  nuscenes_writer.write(out, TINY)  # finished: nothing happens
  assert first.stat().st_mtime_ns == stamp
  with pytest.raises(checks.InputError, match="prepared with other"):
    nuscenes_writer.write(out, {**TINY, "seed": 9})


def test_bad_settings(tmp_path):
  for change, sentence in (
    ({"seconds": 0.2}, "--seconds: 0.2 received; give 0.5 to 600"),
    ({"seconds": float("nan")}, "--seconds: nan received"),
    ({"seconds": float("inf")}, "--seconds: inf received"),
    ({"moving": -1}, "--moving: -1 received; give 0 to 1000"),
    ({"parked": -1}, "--parked: -1 received; give 0 to 1000"),
    ({"seed": -1}, "--seed: -1 received; give 0 to"),
    ({"seed": 10**30}, "--seed: 10+ received"),
    ({"scenes": {"train": 0, "val": 0, "test": 0}}, "no scenes at all"),
    ({"scenes": {"train": 1, "val": 71, "test": 0}}, "--val: 71 scenes received; give 0 to 70"),
    ({"sweeps": ["dev"]}, "--sweeps: 'dev' is not allowed"),
  ):
    with pytest.raises(checks.InputError, match=sentence):
      nuscenes_writer.write(tmp_path / "out", {**TINY, **change})
  assert not (tmp_path / "out").exists()


def test_command(tmp_path, capsys):
  out = tmp_path / "out"
  command = ["world", "--out", str(out), "--train", "1", "--val", "0", "--test", "0"]
  command += ["--seconds", "0.5", "--moving", "40", "--parked", "10", "--seed", "8", "--sweeps"]
  prepare.main(command)
  printed = capsys.readouterr().out
  assert "scenes 1 (1 train, 0 val, 0 test), keyframes 2" in printed
  assert "images 12, LiDAR sweeps 2" in printed and "images/s" in printed
  rows = json.loads((out / "v1.0-trainval" / "sample_annotation.json").read_text())
  total = next(line for line in printed.splitlines() if line.startswith("all ")).split()[1:]
  levels = [row["visibility_token"] for row in rows]
  assert [int(n) for n in total] == [len(rows), *(levels.count(k) for k in "1234")]
  prepare.main(command)  # finished: the table again, no speed
  assert "images/s" not in capsys.readouterr().out
  with pytest.raises(checks.InputError, match="prepared with other"):
    prepare.main([*command[:-1], "--sweeps", "train"])
