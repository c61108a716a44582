"""Runs preparation: one pure function per unit of work, finished units kept, shards at the end.

A unit (a sequence, a scene) becomes one part: its records and a JSON result, in `{out}/.prepare`.
An interrupted run goes on with the units that are missing. When all are there, the parts of each
split are joined to shards, TFDS metadata and `dataset_stats.json` are written, and the parts go.
Units run in a loop, in worker processes, or on Apache Beam; the bytes are the same.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import pathlib
import shutil
import sys

from vistraj_jax.core import checks, files
from vistraj_jax.data import example, records
from vistraj_jax.prepare import beam_runner

SHARD_BYTES = 64 * 2**20
STATISTICS = "dataset_stats.json"
_PARTS = ".prepare"


@dataclasses.dataclass(frozen=True)
class Unit:
  """One piece of work: `work(*arguments)` gives the records of `name` in `split`."""

  split: str
  name: str
  arguments: tuple


def run(
  out,
  *,
  name,
  spec,
  description,
  settings,
  units,
  work,
  summarize,
  features=None,
  processes=1,
  beam=None,
):
  """Prepares a data set in folder `out`; returns its statistics.

  Args:
    out: folder; must be empty, missing, or hold this data set (finished or interrupted).
    name: data set name, the first part of shard names.
    spec: record specification (`data.example`).
    description: text of the TFDS metadata.
    settings: JSON-able dictionary of all that decides the content.
    units: list of `Unit`, names unique in their split; or a function of the folder of parts that
      returns it, and may keep files of its own there until the data set is finished.
    work: picklable function of a unit's arguments -> (list of record bytes, JSON-able result). It
      may write files of its own under `out`, atomically, and repeats them when called again.
    summarize: function of [(unit, result)] -> JSON-able dictionary, the statistics.
    features: see `example.write_tfds_metadata`.
    processes: 1 runs a plain loop.
    beam: pipeline arguments (`beam_runner`); None runs locally.

  Raises:
    InputError: the folder holds something else, or this data set with other settings; a worker
      process died.
  """

  def finish(parts, results):
    splits = {}
    for split in dict.fromkeys(unit.split for unit, _ in results):
      group = [(parts, u, r) for u, r in results if u.split == split]
      splits[split] = _join(out, name, split, group)
    example.write_tfds_metadata(out, spec, splits, description, features)
    return summarize([(u, r["result"]) for u, r in results])

  out = pathlib.Path(out)
  return resume(
    out,
    settings=settings,
    units=units,
    work=work,
    finish=finish,
    processes=processes,
    beam=beam,
  )


def resume(out, *, settings, units, work, finish, processes=1, beam=None):
  """Runs those units that folder `out` has no part of, then finishes; returns the statistics.

  Args and errors are those of `run`, but for
    finish: function of (folder of parts, [(unit, {"records": count, "result": result})]) -> the
      statistics, a JSON-able dictionary. It writes what makes the data set whole.
  """
  out = pathlib.Path(out)
  settings = json.loads(json.dumps(settings))
  if _finished(out, settings):
    return json.loads((out / STATISTICS).read_text())
  if beam is not None:
    beam_runner.check(beam)
  parts = out / _PARTS
  _remove_leftovers(out)
  files.write_text(parts / "settings.json", json.dumps(settings, indent=1, sort_keys=True))
  if callable(units):
    units = units(parts)
  _run_units(units, work, parts, processes, beam)
  results = [(unit, json.loads(_part(parts, unit).read_text())) for unit in units]
  statistics = {"settings": settings, **finish(parts, results)}
  files.write_text(out / STATISTICS, json.dumps(statistics, indent=1))
  shutil.rmtree(parts)
  return statistics


def fingerprint(paths):
  """Returns a short hash of the names and contents of those `paths` that exist."""
  digest = hashlib.sha256()
  for path in map(pathlib.Path, paths):
    if path.is_file():
      digest.update(f"{path.parent.name}/{path.name}".encode())
      with open(path, "rb") as f:
        digest.update(hashlib.file_digest(f, "sha256").digest())
  return digest.hexdigest()[:16]


def _finished(out, settings):
  """Returns whether `out` holds this data set already; raises where it holds something else.

  An interrupted run with other settings is of no use. It is thrown away if it had not finished a
  unit, or if the source has changed since; else the user decides.
  """
  if not out.exists() or (out.is_dir() and not any(out.iterdir())):
    return False
  finished, interrupted = out / STATISTICS, out / _PARTS / "settings.json"
  if finished.is_file():
    different = _different(_read_settings(out, finished, settings), settings)
    checks.require(
      not different,
      f"{out}: holds a data set prepared with other {different}; delete it or give another "
      "output folder.",
    )
    return True
  checks.require(
    interrupted.is_file(),
    f"{out}: is not empty and holds no prepared data; give a new output folder.",
  )
  different = _different(_read_settings(out, interrupted, settings), settings)
  if different:
    if any(_tells_of_source(name, settings) for name in different):
      print(f"{out}: starts over, for the source has changed since.", file=sys.stderr)
    else:
      checks.require(
        not any(interrupted.parent.glob("[!.]*-*.json")),
        f"{out}: holds an interrupted preparation with other {different}; give that command again "
        "to continue it, delete the folder or give another output folder.",
      )
    shutil.rmtree(out)
  return False


def _different(held, settings):
  """Returns the names of those settings by which two runs prepare other records, sorted."""
  different = {name for name in settings if held[name] != settings[name]}
  if settings.get("keep_going"):
    different.discard("keep_going")  # what was finished without it had nothing to leave out
  return sorted(different)


def _tells_of_source(name, settings):
  """Returns whether a setting is a fingerprint of the files to read, not a choice of the user."""
  # Where there is an `inputs_of_tables`, `inputs` is a choice.
  others = ("bytes",) if "inputs_of_tables" in settings else ("bytes", "inputs")
  return name in ("inputs_of_tables", *others)


def _read_settings(out, path, settings):
  """Returns the settings that file `path` of `out` keeps; they have to be of the same command."""
  try:
    held = json.loads(path.read_text())
    held = held["settings"] if path.name == STATISTICS else held
    damaged = not isinstance(held, dict)
  except (ValueError, TypeError, KeyError):
    damaged = True
  checks.require(not damaged, f"{path}: damaged; delete {out} or give another output folder.")
  checks.require(
    held.keys() == settings.keys(),
    f"{out}: holds what another command, or another version of this one, prepared; give another "
    "output folder.",
  )
  return held


def _remove_leftovers(out):
  """Removes what a killed run was writing: hidden names in `out`, its parts and its splits."""
  for path in [*out.glob(".*"), *out.glob("*/.*")]:
    if path.name != _PARTS:
      shutil.rmtree(path) if path.is_dir() else path.unlink()


def _part(parts, unit, extension=".json"):
  return parts / f"{unit.split}-{unit.name}{extension}"


def _run_units(units, work, parts, processes, beam):
  import tqdm

  waiting = [unit for unit in units if not _part(parts, unit).is_file()]
  with tqdm.tqdm(total=len(units), initial=len(units) - len(waiting), desc="prepare") as bar:
    if beam is not None:

      def progress():
        there = {path.name for path in parts.iterdir()}
        bar.update(sum(_part(parts, unit).name in there for unit in units) - bar.n)

      run_unit = functools.partial(_run_unit, work=work, parts=parts)
      beam_runner.run_units(waiting, run_unit, parts, beam, progress)
    elif processes <= 1:
      for unit in waiting:
        _run_unit(unit, work, parts)
        bar.update()
    else:
      _run_in_processes(waiting, work, parts, processes, bar)


def _run_in_processes(units, work, parts, processes, bar):
  # Spawned, not forked: the caller may hold JAX and its threads.
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
    futures = [pool.submit(_run_unit, unit, work, parts) for unit in units]
    try:
      for future in concurrent.futures.as_completed(futures):
        future.result()
        bar.update()
    except concurrent.futures.process.BrokenProcessPool as error:
      raise checks.InputError(
        f"--processes: one of {processes} was killed, perhaps for want of memory; give the command "
        "again with fewer, it goes on where it stopped."
      ) from error
    except BaseException:
      pool.shutdown(wait=False, cancel_futures=True)
      raise


def _run_unit(unit, work, parts):
  with files.errors_name(f"{unit.split} {unit.name}"):
    payloads, result = work(*unit.arguments)
  count = records.write_records(_part(parts, unit, ".tfrecord"), payloads)
  # Written last: its presence means that the unit is finished.
  files.write_text(_part(parts, unit), json.dumps({"records": count, "result": result}))


def _join(out, name, split, parts):
  """Joins the parts of a split to shards; returns ([records of each shard], bytes)."""
  groups, size = [[]], 0
  for folder, unit, result in parts:
    path = _part(folder, unit, ".tfrecord")
    if size >= SHARD_BYTES:
      groups, size = [*groups, []], 0
    groups[-1].append((path, result["records"]))
    size += path.stat().st_size
  total = 0
  for index, group in enumerate(groups):
    shard = records.shard_path(out, name, split, index, len(groups))
    with files.atomic_path(shard) as temporary, open(temporary, "wb") as f:
      for path, _ in group:
        with open(path, "rb") as part:
          shutil.copyfileobj(part, f)
      f.flush()
    total += shard.stat().st_size
  counts = [sum(count for _, count in group) for group in groups]
  written = len(records.TFRecordSource(records.find_shards(out, name, split)))
  if written != sum(counts):
    raise RuntimeError(f"{out}: {split} has {written} records, {sum(counts)} were made.")
  return counts, total
