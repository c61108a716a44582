"""Predictions of waypoint runs on one split, their scores, and the rows of the table of runs."""

import json
import pathlib
import statistics
from typing import Any, NamedTuple

from vistraj_jax.core import checks

LEGEND = (
  "ADE and FDE in m to the driven future; RFS is the rater feedback score, mean over clusters. "
  "Oracle is the best of several proposals, known only afterwards; all else is selected."
)


class Scored(NamedTuple):
  """Runs scored on the same frames.

  Attributes:
    frames: `waymo_e2e.Frames` of the split.
    columns: its states, {field: array [B, ...]}.
    scores: {label: `waypoints.score_frames`}.
    predictions: {label: selected futures [B, 20, 2] m}.
    about: {label: parameters, speed and memory of the run}.
  """

  frames: Any
  columns: dict
  scores: dict
  predictions: dict
  about: dict


def score_runs(runs, split, batch_size):
  """Predicts and scores a split by every run.

  Args:
    runs: {label: folder of launch.train}.
    split: name of the split.
    batch_size: frames at once.

  Raises:
    InputError: a folder that holds no waypoint run, or runs on different frames.
  """
  from vistraj_jax.metrics import waypoints

  first, scores, predictions, about = None, {}, {}, {}
  for label, folder in runs.items():
    config = read_config(folder)
    frames = load_frames(config, split)
    if first is None:
      first, base = frames, label
    checks.require(
      frames.names.tolist() == first.names.tolist(),
      f"{folder}: run {label!r} is on {len(frames)} frames of {split}, run {base!r} on "
      f"{len(first)}, not the same; compare runs on the same data.",
    )
    selected, proposals, parameters = predict(folder, frames, batch_size, label)
    predictions[label] = selected
    scores[label] = waypoints.score_frames(selected, frames.states, proposals)
    about[label] = {"parameters": parameters, **_resources(folder)}
  return Scored(first, first.states, scores, predictions, about)


def read_config(folder):
  """Returns the config of a run as nested dicts."""
  folder = pathlib.Path(folder)
  paths = [f / "config.json" for f in (folder, folder.parent) if (f / "config.json").is_file()]
  checks.require(paths, f"{folder}: neither the folder of a run nor of one of its phases.")
  config = json.loads(paths[0].read_text())
  checks.require(
    config["task"] == "vlm_waypoint",
    f"{folder}: a run of {config['task']!r}; a run of 'vlm_waypoint' is wanted.",
  )
  return config


def load_frames(config, split):
  """Returns the frames that a run reads, of any split."""
  from vistraj_jax.data import waymo_e2e

  return waymo_e2e.load(config["data"], split, config["model"])


def predict(folder, frames, batch_size, label):
  """Returns (selected [B, 20, 2], proposals [B, K, 20, 2] or None, trained parameters)."""
  import jax
  import numpy as np
  import tqdm

  from vistraj_jax.models.vlm_waypoint import network

  net, params = network.load(folder)
  call = network.make_predict(net, params)
  wanted = ("past", "intent", "image", "features", "tokens")
  selected, proposals = [], []
  size = min(batch_size, len(frames))
  for start in tqdm.trange(0, len(frames), size, desc=label, unit="batch"):
    rows = np.minimum(np.arange(start, start + size), len(frames) - 1)  # one size: one program
    batch = {name: value for name, value in frames.gather(rows).items() if name in wanted}
    out, count = call(batch), min(size, len(frames) - start)
    selected.append(np.asarray(out.selected)[:count])
    if net.head_name == "proposals":
      proposals.append(out.xy[:count])
  parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
  return np.concatenate(selected), np.concatenate(proposals) if proposals else None, parameters


def predict_rows(folder, frames, rows):
  """Returns the `Proposals` of some frames, int [B]."""
  from vistraj_jax.models.vlm_waypoint import network

  call = network.make_predict(*network.load(folder))
  wanted = ("past", "intent", "image", "features", "tokens")
  return call({name: value for name, value in frames.gather(rows).items() if name in wanted})


def table(result):
  """Rows of strings, the header first, of {label: summary}; what is not known is "-"."""
  intents = list(dict.fromkeys(name for run in result.values() for name in run["by_intent"]))
  has_oracle = any(run["oracle_ade_5s"] is not None for run in result.values())
  head = ["run", "trained parameters", "ADE@3s", "ADE@5s", "FDE@5s"]
  head += ["oracle ADE@5s"] * has_oracle + [f"ADE@5s {name}" for name in intents]
  rows = [[*head, "RFS", "s/epoch", "peak memory (GiB)"]]
  for label, run in result.items():
    row = [label.replace("_", " "), f"{run['parameters']:,}" if "parameters" in run else "-"]
    row += [_number(run[name], 3) for name in ("ade_3s", "ade_5s", "fde_5s")]
    row += [_number(run["oracle_ade_5s"], 3)] * has_oracle
    row += [_number(run["by_intent"].get(name, {}).get("ade_5s"), 3) for name in intents]
    row += [_number(run["rfs"], 3), _number(run.get("epoch_seconds"), 1)]
    rows.append([*row, _number(run.get("peak_memory_gib"), 2)])
  return rows


def _resources(folder):
  """Median seconds of an epoch of the last phase, and the peak memory of training."""
  run = folder if (folder / "config.json").is_file() else folder.parent
  rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
  speeds = [
    row["examples/s"] for row in rows if "examples/s" in row and row["phase"] == rows[-1]["phase"]
  ]
  examples = json.loads((run / "data_set.json").read_text())["train"]["examples"]
  found = {"epoch_seconds": examples / statistics.median(speeds)} if speeds else {}
  if (run / "resources.json").is_file():
    found["peak_memory_gib"] = (
      json.loads((run / "resources.json").read_text())["peak_bytes"] / 2**30
    )
  return found


def _number(value, digits):
  return "-" if value is None or value != value else f"{value:.{digits}f}"
