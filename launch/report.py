"""Compares runs: trains what is missing, scores every run on the same frames, prints one table.

examples:
  python -m launch.report waypoints --runs runs/ego:ego-only runs/siglip:SigLIP --out report
  python -m launch.report grid --grid grid.json --out report
  python -m launch.report layers --features features/smolvlm --out report/layers

waypoints  scores finished runs of configs/vlm_waypoint.py beside the ego-motion baselines, and
           compares each with the first by a paired bootstrap over sequences.
grid       trains the rows of a JSON list [{"label": "SigLIP, LoRA r16", "arguments":
           ["--config=configs/vlm_waypoint.py:lora", "--config.model.lora.rank=16"]}, ...], each by
           a process of launch.train in {out}/runs, then scores them. The same command goes on
           where it was interrupted; finished rows are left alone.
layers     trains one head for every hidden state in a folder of features.

Writes to --out: report.md, report.json, and pictures; with frames.npz the scores of every frame.
"""

import functools
import json
import pathlib
import re
import subprocess
import sys

from launch import command_line
from vistraj_jax.core import checks, files

WAYPOINTS = "Scores finished waypoint runs on the same frames, beside ego-motion baselines."
GRID = "Trains the rows of a grid that are not finished, then scores all of them."
LAYERS = "Trains one head for every hidden state in a folder of features, and draws the curve."


def main(argv=None):
  """Runs one report and prints its table."""
  args = _parser().parse_args(argv)
  return {"waypoints": _waypoints, "grid": _grid, "layers": _layers}[args.command](args)


def _parser():
  parser = command_line.parser(__doc__)
  commands = parser.add_subparsers(dest="command", required=True, metavar="waypoints|grid|layers")
  add = functools.partial(commands.add_parser, formatter_class=command_line.HelpFormatter)
  waypoints = add("waypoints", help="table of finished runs", description=WAYPOINTS)
  waypoints.add_argument(
    "--runs", required=True, nargs="+", metavar="RUN[:LABEL]", help="folders of launch.train"
  )
  grid = add("grid", help="train a grid, then its table", description=GRID)
  grid.add_argument("--grid", required=True, help="JSON list of rows, see above")
  for one in (waypoints, grid):
    one.add_argument("--split", default="val", help="split to score")
    one.add_argument("--batch_size", type=int, default=256, help="frames at once")
    one.add_argument("--samples", type=int, default=10_000, help="resamples of the bootstrap")
  layers = add("layers", help="ablation over hidden states", description=LAYERS)
  layers.add_argument("--features", required=True, help="folder of launch.encode")
  layers.add_argument(
    "settings", nargs="*", help="settings of launch.train, such as --config.phases.head.epochs=4"
  )
  for one in (waypoints, grid, layers):
    one.add_argument("--out", required=True, help="folder to write")
  return parser


def _waypoints(args):
  return _report(_labelled(args.runs), args)


def _grid(args):
  rows = _read_grid(args.grid)
  runs = {}
  for row in rows:
    workdir = pathlib.Path(args.out) / "runs" / re.sub(r"[^\w.-]+", "_", row["label"])
    _train(row["arguments"], workdir, row["label"])
    runs[row["label"]] = workdir
  return _report(runs, args)


def _layers(args):
  from vistraj_jax.data import features
  from vistraj_jax.metrics import report
  from vistraj_jax.viz import trajectories

  header = features.read_header(args.features, "val")
  checks.require(
    len(header.layers) > 1 and header.pooling != "tokens",
    f"--features: {args.features} holds one hidden state; encode with --layers all.",
  )
  out, base = pathlib.Path(args.out), "--config=configs/vlm_waypoint.py:features"
  found = {}
  for layer in header.layers:
    number = layer if layer >= 0 else max(header.layers) + 1  # -1 stands for the last
    workdir = out / "runs" / f"layer{number:02d}"
    settings = [f"--config.data.features={args.features}", f"--config.data.layer={layer}"]
    _train([base, "--config.data.root=", *settings, *args.settings], workdir, f"layer {layer}")
    found[number] = _best_metrics(workdir)
  found = dict(sorted(found.items()))
  rows = [["hidden state", "", "ADE@3s (m)", "ADE@5s (m)"]]
  rows += [
    [str(k), "", f"{m['ade_3s/val']:.3f}", f"{m['ade_5s/val']:.3f}"] for k, m in found.items()
  ]
  some = next(iter(found.values()))
  for name in ("constant_velocity", "constant_acceleration", "constant_turn_rate"):
    values = [f"{some[f'{key}/{name}']:.3f}" for key in ("ade_3s", "ade_5s")]
    rows.append([name.replace("_", " "), "baseline", *values])
  curves = {"head": {k: m["ade_5s/val"] for k, m in found.items()}}
  curves["constant_velocity"] = {0: some["ade_5s/constant_velocity"]}
  trajectories.draw_layers(curves, out / "layers.png")
  files.write_text(out / "report.json", json.dumps(found, indent=2) + "\n")
  text = f"# Hidden states of {header.encoder}\n\n{report.as_markdown(rows)}\n"
  files.write_text(out / "report.md", text)
  print(report.as_text(rows))
  print(f"written: {out / 'report.md'}, {out / 'report.json'}, {out / 'layers.png'}")
  return 0


def _report(runs, args):
  import numpy as np

  from launch import runtime, waypoint_scores
  from vistraj_jax.metrics import bootstrap, report, waypoints
  from vistraj_jax.viz import trajectories

  runtime.configure()
  scored = waypoint_scores.score_runs(runs, args.split, args.batch_size)
  frames, columns = scored.frames, scored.columns
  baselines = waypoints.score_baselines(columns)
  groups = (columns["intent"], columns["cluster"], frames.clusters)
  result = {
    label: {**waypoints.summarize(scores, *groups), **scored.about.get(label, {})}
    for label, scores in {**baselines, **scored.scores}.items()
  }
  first = next(iter(runs))
  differences = {
    label: bootstrap.paired(
      scored.scores[first]["ade_5s"],
      scored.scores[label]["ade_5s"],
      columns["sequence"],
      args.samples,
    )
    for label in runs
    if label != first and len(frames.sequences) > 1
  }
  table, compared = waypoint_scores.table(result), waypoint_scores.difference_table(differences)
  out = pathlib.Path(args.out)
  head = (
    f"{args.split}: {len(frames):,} frames of {len(frames.sequences)} sequences, "
    f"{int(columns['has_future'].sum()):,} with a driven future, "
    f"{result[first]['rated']:,} rated."
  )
  sections = [f"# Waypoints\n\n{head} {waypoint_scores.LEGEND}", report.as_markdown(table)]
  if differences:
    sections += [
      f"## ADE@5s less that of {first}\n\nPaired bootstrap over sequences, 95 % interval.",
      report.as_markdown(compared),
    ]
  files.write_text(out / "report.md", "\n\n".join(sections) + "\n")
  plain = {
    "split": args.split,
    "frames": len(frames),
    "runs": result,
    "differences": {label: value._asdict() for label, value in differences.items()},
  }
  files.write_text(out / "report.json", json.dumps(report.plain(plain), indent=2) + "\n")
  per_frame = {
    f"{label}/{name}": values
    for label, scores in scored.scores.items()
    for name, values in scores.items()
  }
  with files.atomic_path(out / "frames.npz") as path:
    np.savez(path, name=frames.names, **per_frame)
  trajectories.draw_horizon(result, out / "horizon.png")
  trajectories.draw_intents(result, out / "intents.png")
  print(head)
  print(report.as_text(table))
  if differences:
    print(f"\nADE@5s less that of {first} (m), paired bootstrap over sequences")
    print(report.as_text(compared))
  names = ("report.md", "report.json", "frames.npz", "horizon.png", "intents.png")
  print(f"written: {', '.join(str(out / name) for name in names)}")
  return 0


def _train(arguments, workdir, label):
  """Trains in a process of its own, so that its memory and its failures are its own."""
  if (workdir / "resources.json").is_file():
    print(f"{label}: finished before, in {workdir}")
    return
  command = [sys.executable, "-m", "launch.train", *arguments, f"--workdir={workdir}"]
  done = subprocess.run(command)
  checks.require(
    done.returncode == 0 and (workdir / "resources.json").is_file(),
    f"{label}: training did not finish (exit status {done.returncode}): {' '.join(command)}.",
  )


def _read_grid(path):
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


def _labelled(runs):
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


def _best_metrics(workdir):
  """Returns the metrics of the evaluation with the smallest loss."""
  rows = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
  return min((row for row in rows if "loss/val" in row), key=lambda row: row["loss/val"])


if __name__ == "__main__":
  command_line.run(main)
