"""Units of preparation that fail: in a worker, killed, on a full disk, in another's folder."""

import contextlib
import os
import signal

import pytest

from vistraj_jax.core import checks
from vistraj_jax.data import trackssm
from vistraj_jax.prepare import runner


def _bytes(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not path.is_symlink()
  }


def _fails(*arguments):
  raise checks.InputError(f"{arguments[0]}: wrong.")


def test_bad_input_in_a_worker_of_beam(tmp_path):
  with pytest.raises(checks.InputError, match=r"^b: wrong\.$"):
    runner.run(
      tmp_path / "out",
      name="trackssm",
      spec=trackssm.SPEC,
      description="",
      settings={},
      units=[runner.Unit("val", "b", ("b",))],
      work=_fails,
      summarize=None,
      beam=["--runner=DirectRunner"],
    )


def _dies():
  os.kill(os.getpid(), signal.SIGKILL)


def _run(out, work, **kwargs):
  units = [runner.Unit("val", "b", ())]
  return runner.resume(out, units=units, work=work, finish=lambda *_: {}, **kwargs)


def test_a_worker_that_is_killed(tmp_path):
  with pytest.raises(checks.InputError, match="--processes: one of 2 was killed, .* with fewer"):
    _run(tmp_path / "out", _dies, settings={}, processes=2)


def _interrupted():
  raise KeyboardInterrupt


def test_an_interrupted_worker_of_beam(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    _run(tmp_path / "out", _interrupted, settings={}, beam=["--runner=DirectRunner"])


def _full_disk():
  raise OSError(28, "No space left on device")


def test_a_full_disk_names_the_unit(tmp_path):
  with pytest.raises(OSError, match=r"No space left on device: 'val b'"):
    _run(tmp_path / "out", _full_disk, settings={})


def _second_fails(number):
  if number == 2:
    raise checks.InputError("unit 2: wrong.")
  return [], number


def test_other_settings_go_on_only_with_the_same_records(tmp_path):
  units = [runner.Unit("val", f"{number}", (number,)) for number in (1, 2)]

  def prepare(work, **settings):
    def finish(_, results):
      return {"found": [part["result"] for _, part in results]}

    return runner.resume(tmp_path, settings=settings, units=units, work=work, finish=finish)

  def again(number):
    assert number == 2  # the first is finished
    return [], 20

  with pytest.raises(checks.InputError, match="unit 2"):
    prepare(_second_fails, size=8, keep_going=False)
  before = _bytes(tmp_path)
  with pytest.raises(checks.InputError, match=r"an interrupted preparation with other \['size'\]"):
    prepare(again, size=9, keep_going=True)
  assert _bytes(tmp_path) == before
  assert prepare(again, size=8, keep_going=True)["found"] == [1, 20]
  with pytest.raises(checks.InputError, match=r"prepared with other \['keep_going'\]"):
    prepare(again, size=8, keep_going=False)  # it may have left something out


def test_another_source_starts_over_and_says_so(tmp_path, capsys):
  units = [runner.Unit("val", f"{number}", (number,)) for number in (1, 2)]
  for inputs in ("a", "b"):
    with pytest.raises(checks.InputError, match="unit 2"):
      runner.resume(
        tmp_path, settings={"inputs": inputs}, units=units, work=_second_fails, finish=None
      )
  assert f"{tmp_path}: starts over, for the source has changed" in capsys.readouterr().err


def test_other_settings_after_a_run_that_finished_nothing(tmp_path):
  with pytest.raises(OSError):
    _run(tmp_path / "out", _full_disk, settings={"size": 8})
  _run(tmp_path / "out", lambda: ([], {}), settings={"size": 9})


def test_other_commands_and_damaged_files_in_the_output_folder(tmp_path):
  for state, file in (("unfinished", ".prepare/settings.json"), ("finished", runner.STATISTICS)):
    out = tmp_path / state
    with contextlib.suppress(OSError):
      _run(out, _full_disk if state == "unfinished" else lambda: ([], {}), settings={"a": 1})
    before = _bytes(out)
    assert file in before
    with pytest.raises(checks.InputError, match="holds what another command, .* give another"):
      _run(out, _full_disk, settings={"b": 1})
    assert _bytes(out) == before
    for text in ("{", "[]", "[1]", "3"):
      (out / file).write_text(text)
      with pytest.raises(checks.InputError, match=f"{file}: damaged; delete .* or give another"):
        _run(out, _full_disk, settings={"a": 1})
