"""Compares runs: trains what is missing, scores every run on the same frames, prints one table.

examples:
  python -m launch.report waypoints --runs runs/ego:ego-only runs/siglip:SigLIP --out report
  python -m launch.report grid --grid grid.json --out report
  python -m launch.report layers --features features/smolvlm --out report/layers
  python -m launch.report two_stream --size small --seeds 0 1 2 --out report/two_stream
  python -m launch.report magvit --seeds 0 1 2 --out report/magvit

waypoints  scores finished runs of configs/vlm_waypoint.py beside the ego-motion baselines, and
           compares each with the first by a paired bootstrap over sequences.
grid       trains the rows of a JSON list [{"label": "SigLIP, LoRA r16", "arguments":
           ["--config=configs/vlm_waypoint.py:lora", "--config.model.lora.rank=16"]}, ...], each by
           a process of launch.train in {out}/runs, then scores them. The same command goes on
           where it was interrupted; finished rows are left alone.
layers     trains one head for every hidden state in a folder of features.
two_stream trains the variants of configs/two_stream.py (or the rows of --grid) with every seed,
           probes their encoders, trains policies on them and lets these act: encoders are compared
           by what they are good for, not only by the loss of pretraining. Goes on like grid.
magvit     trains tokenizers and the variants of configs/magvit.py (or the rows of --grid) with
           every seed, on clean or cluttered videos, and scores all of them on clean and on
           cluttered ones. Goes on like grid.

Writes to --out: report.md, report.json, and pictures; waypoints and grid also frames.npz, the
scores of every frame, two_stream also bars.json, [{"run", "metric": {name: [values per seed]}}].
"""

import functools
import json
import pathlib

from launch import command_line, grid, magvit_report, two_stream_report
from vistraj_jax.core import checks, files

WAYPOINTS = "Scores finished waypoint runs on the same frames, beside ego-motion baselines."
GRID = "Trains the rows of a grid that are not finished, then scores all of them."
TWO_STREAM = "Trains and transfers the variants of the two-stream system, and compares them."
MAGVIT = "Trains and scores the variants of future video, on clean and on cluttered videos."
LAYERS = "Trains one head for every hidden state in a folder of features, and draws the curve."

_LAYERS_BATCH = 256  # frames at once


def main(argv=None):
  """Runs one report and prints its table."""
  args = _parser().parse_args(argv)
  command_line.require_folder(args.out)
  commands = {"waypoints": _waypoints, "grid": _grid, "layers": _layers}
  commands |= {"two_stream": two_stream_report.report, "magvit": magvit_report.report}
  return commands[args.command](args)


def _parser():
  parser = command_line.parser(__doc__)
  commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
  add = functools.partial(commands.add_parser, formatter_class=command_line.HelpFormatter)
  waypoints = add("waypoints", help="table of finished runs", description=WAYPOINTS)
  waypoints.add_argument(
    "--runs", required=True, nargs="+", metavar="RUN[:LABEL]", help="folders of launch.train"
  )
  rows = add("grid", help="train a grid, then its table", description=GRID)
  rows.add_argument("--grid", required=True, help="JSON list of rows, see above")
  for one in (waypoints, rows):
    one.add_argument("--split", default="val", help="split to score")
    one.add_argument("--batch_size", type=int, default=256, help="frames at once")
    one.add_argument("--samples", type=int, default=10_000, help="resamples of the bootstrap")
  layers = add("layers", help="ablation over hidden states", description=LAYERS)
  layers.add_argument("--features", required=True, help="folder of launch.encode")
  layers.add_argument(
    "settings", nargs="*", help="after --: settings, such as -- --config.phases.head.epochs=4"
  )
  streams = add("two_stream", help="ablation of two-stream encoders", description=TWO_STREAM)
  two_stream_report.add_arguments(streams)
  videos = add("magvit", help="ablation of future video", description=MAGVIT)
  magvit_report.add_arguments(videos)
  for one in (waypoints, rows, layers, streams, videos):
    one.add_argument("--out", required=True, help="folder to write")
  return parser


def _waypoints(args):
  return _report(grid.labelled(args.runs), args)


def _grid(args):
  runs = {}
  for row in grid.read(args.grid):
    workdir = runs[row["label"]] = grid.folder(args.out, row["label"])
    grid.train(row["arguments"], workdir, row["label"])
  return _report(runs, args)


def _layers(args):
  from launch import runtime, waypoint_scores
  from vistraj_jax.data import features
  from vistraj_jax.metrics import report, waypoints
  from vistraj_jax.viz import trajectories

  header = features.read_header(args.features, "val")
  checks.require(
    len(header.layers) > 1 and header.pooling != "tokens",
    f"--features: {args.features} holds one hidden state; encode with --layers all.",
  )
  out, base = pathlib.Path(args.out), "--config=configs/vlm_waypoint.py:features"
  workdirs = {}
  for layer in header.layers:
    number = layer if layer >= 0 else max(header.layers) + 1  # -1 stands for the last
    workdirs[number] = out / "runs" / f"layer{number:02d}"
    settings = [f"--config.data.features={args.features}", f"--config.data.layer={layer}"]
    settings = [base, "--config.data.root=", *settings, *args.settings]
    grid.train(settings, workdirs[number], f"layer {layer}")
  runtime.configure()
  runs = {str(number): workdir for number, workdir in sorted(workdirs.items())}
  scored = waypoint_scores.score_runs(runs, "val", _LAYERS_BATCH)
  columns = scored.columns
  groups = (columns["intent"], columns["cluster"], scored.frames.clusters)
  baselines = waypoints.score_baselines(columns)
  found = {
    label: waypoints.summarize(scores, *groups)
    for label, scores in {**scored.scores, **baselines}.items()
  }
  rows = [["hidden state", "ADE@3s (m)", "ADE@5s (m)"]]
  rows += [
    [label.replace("_", " "), f"{one['ade_3s']:.3f}", f"{one['ade_5s']:.3f}"]
    for label, one in found.items()
  ]
  curves = {"head": {int(k): found[k]["ade_5s"] for k in scored.scores}}
  curves["constant_velocity"] = {0: found["constant_velocity"]["ade_5s"]}
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
  table, compared = waypoint_scores.table(result), bootstrap.table(differences)
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


if __name__ == "__main__":
  command_line.run(main)
