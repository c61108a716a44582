"""Grids of runs: rows of a file, steps that run once each, and what their logs say."""

import json
import pathlib
import re
import statistics
import subprocess
import sys

from vistraj_jax.core import checks, files

TRAINED = "resources.json"  # what launch.train writes last


def read(path):
  """Returns the rows of a JSON file, [{"label": text, "arguments": [text]}].

  Raises:
    InputError: no file, no JSON, another form, or labels that repeat.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"--grid: {path}: no such file.")
  try:
    rows = json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise checks.InputError(f"--grid: {path}: no JSON ({error}).") from None
  fits = isinstance(rows, list) and all(
    isinstance(row, dict)
    and isinstance(row.get("label"), str)
    and isinstance(row.get("arguments"), list)
    for row in rows
  )
  checks.require(
    fits and rows, f'--grid: {path}: a list of {{"label": text, "arguments": [text]}} is wanted.'
  )
  labels = [row["label"] for row in rows]
  checks.require(len(set(labels)) == len(labels), f"--grid: {path}: labels repeat: {labels}.")
  return rows


def labelled(runs):
  """Returns {label: folder} of the arguments RUN[:LABEL]."""
  found = {}
  for run in runs:
    folder, colon, label = run.rpartition(":")
    if not colon or pathlib.Path(run).is_dir():
      folder, label = run, pathlib.Path(run).resolve().name
    checks.require(
      label and label not in found,
      f"--runs: {run!r} has an empty label or one that is taken; write RUN:LABEL.",
    )
    found[label] = pathlib.Path(folder)
  return found


def folder(out, label):
  """Returns the folder of a row."""
  return pathlib.Path(out) / "runs" / re.sub(r"[^\w.-]+", "_", label)


def train(arguments, workdir, label):
  """Trains a row in `workdir`, unless that is done."""
  once(["train"], arguments, [f"--workdir={workdir}"], workdir / TRAINED, label)


def once(command, arguments, folders, result, label):
  """Runs a command of launch, unless its result is there.

  It runs in a process of its own, so that its memory and its failures are its own. Beside the
  result its arguments are noted: a result of other ones is refused.

  Args:
    command: name of a module of launch, and of its command where it has several.
    arguments: what decides the result, list of text.
    folders: further arguments, that say where things lie.
    result: file that the command writes last.
    label: names the run in messages.

  Raises:
    InputError: the command failed, or the result was made by other arguments.
  """
  arguments, note = [str(a) for a in arguments], result.with_suffix(".arguments.json")
  if result.is_file():
    before = json.loads(note.read_text()) if note.is_file() else arguments
    checks.require(
      before == arguments,
      f"{result}: made with {_others(before, arguments)}, now {_others(arguments, before)} is "
      "wanted; choose another --out, or delete this folder.",
    )
    print(f"{label}: finished before, in {result.parent}")
    return
  module, *rest = command
  line = [sys.executable, "-m", f"launch.{module}", *rest, *arguments, *map(str, folders)]
  done = subprocess.run(line)
  what = "training" if command == ["train"] else f"launch.{' '.join(command)}"
  checks.require(
    done.returncode == 0 and result.is_file(),
    f"{label}: {what} did not finish (exit status {done.returncode}): {' '.join(line)}.",
  )
  files.write_text(note, json.dumps(arguments) + "\n")


def log_rows(workdir):
  """Returns the rows of a run's log."""
  return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def best_metrics(workdir):
  """Returns the metrics of the evaluation with the smallest loss."""
  rows = log_rows(workdir)
  return min((row for row in rows if "loss/val" in row), key=lambda row: row["loss/val"])


def step_seconds(workdir):
  """Returns the median time of a training step, s."""
  speeds = [row["steps/s"] for row in log_rows(workdir) if "steps/s" in row]
  return 1 / statistics.median(speeds)


def by_metric(seeds):
  """Turns [{metric: number} of each seed] into {metric: [number of each seed]}."""
  return {name: [own[name] for own in seeds] for name in seeds[0]}


def cell(values, digits):
  """Returns the mean over seeds, with the standard deviation of several; "-" of none."""
  values = [value for value in values or () if value is not None]
  if not values:
    return "-"
  mean = f"{statistics.fmean(values):.{digits}f}"
  return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def _others(some, than):
  return " ".join(a for a in some if a not in than) or "nothing more"
