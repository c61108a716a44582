"""launch.report magvit: which predictor of future video is good for what, clean and cluttered.

All variants of one training set and seed predict in the codes of one tokenizer, so that they differ
in the prediction alone; only the joint one trains it further.
"""

import json
import pathlib

from launch import command_line, grid
from vistraj_jax.core import checks, files

VARIANTS = ("full", "joint_i3d", "slowfast", "tokens", "pooled", "factorised")
LABELS = {
  "full": "latents",
  "joint_i3d": "latents, tokenizer trained, I3D",
  "slowfast": "latents, SlowFast",
  "tokens": "codes, masked generation",
  "pooled": "pooled latents",
  "factorised": "latents, factorised attention",
}
LEVELS = {"none": "clean", "light": "light", "moderate": "moderate", "heavy": "heavy"}
CEILING = "tokenizer's ceiling"
_BASELINES = ("black", "copy_last", "straight_line")
_TABLES = (("psnr", "PSNR (dB)", 2), ("iou", "IoU of the foreground", 3))
_TABLES += (("centre_error", "Error of the centre (px)", 2), ("mse_target", "MSE of the target", 4))
NOTE = (
  "Mean over {seeds} seed(s), with the standard deviation over them, of the split {split!r}; a "
  "column is a test set, with the number of its windows. The centre's error is of those frames in "
  "which a centre is found. Black, copy last and straight line learn nothing; the ceiling is the "
  "true future as the tokenizer of the first row decodes it."
)


def add_arguments(parser):
  """Adds the arguments of the command."""
  add = parser.add_argument
  add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS[:4]), help="rows")
  add("--grid", help="JSON list of rows in place of --variants, see above")
  add("--seeds", nargs="+", type=int, default=[0], help="of tokenizers and predictors")
  known = ", ".join(LEVELS)
  for option, default in (("--train", ["none"]), ("--test", list(LEVELS))):
    add(
      option,
      nargs="+",
      default=default,
      metavar="DATA",
      help=f"data sets: FOLDER[:LABEL], or a level of clutter of the embedded one ({known})",
    )
  add("--split", default="test", help="split of the test sets")
  add("--frames", type=int, default=9, help="of the past, and of the future; 4k+1")
  add("--image_size", type=int, default=32, help="px of the square crops")
  add(
    "--tokenizer", help="a finished one for all rows; default: one is trained a seed and data set"
  )
  add(
    "--tokenizer_arguments", default="", help="further arguments of its launch.train, in one text"
  )
  add("--evaluate_arguments", default="", help="further arguments of launch.evaluate videos")
  text = "after --: settings of all rows, such as -- --config.model.dtype=bfloat16"
  add("settings", nargs="*", help=text)


def report(args):
  """Runs what is missing, writes and prints the tables; returns 0."""
  from vistraj_jax.metrics import report as tables

  rows = grid.read(args.grid) if args.grid else _rows(args)
  checks.require(
    len(set(args.seeds)) == len(args.seeds), f"--seeds: {args.seeds} repeat; give each once."
  )
  train, test = (
    _folders(option, getattr(args, option), args.image_size) for option in ("train", "test")
  )
  runs = {where: {} for where in train}
  for where, root in train.items():
    for row in rows:
      seeds = [_run(row, seed, where, root, test, args) for seed in args.seeds]
      found = {label: [one[label] for one in seeds] for label in test}
      runs[where].setdefault(CEILING, _arranged(found, "ceiling"))
      runs[where][row["label"]] = _arranged(found, "predicted")
  baselines = {name.replace("_", " "): _arranged(found, name) for name in _BASELINES}
  windows = {label: own[0]["windows"] for label, own in found.items()}
  note = NOTE.format(seeds=len(args.seeds), split=args.split)
  text = ["# Future video", note]
  for score, title, digits in _TABLES:
    table = _table(runs, baselines, windows, score, digits)
    text += [f"## {title}", tables.as_markdown(table)]
    print(f"\n{title}\n{tables.as_text(table)}")
  out = pathlib.Path(args.out)
  plain = {"seeds": args.seeds, "split": args.split, "windows": windows}
  plain |= {"train": {k: str(v) for k, v in train.items()}, "runs": runs, "baselines": baselines}
  files.write_text(out / "report.json", json.dumps(plain, indent=1) + "\n")
  files.write_text(out / "report.md", "\n\n".join(text) + "\n")
  print(f"\n{note}\nwritten: {out / 'report.md'}, {out / 'report.json'}")
  return 0


def _rows(args):
  return [
    {"label": LABELS[name], "arguments": [f"--config=configs/magvit.py:{name}"]}
    for name in args.variants
  ]


def _folders(option, names, side):
  """Returns {label: folder}; levels of clutter are made on first use, `side` px wide."""
  from vistraj_jax.prepare import embedded

  found = {}
  for name in names:
    if name in LEVELS:
      one = {LEVELS[name]: embedded.root("magvit", {"clutter": name, "size": side})}
    else:
      one = command_line.labelled(f"--{option}", [name])
    checks.require(
      not one.keys() & found.keys(),
      f"--{option}: two data sets are called {next(iter(one))!r}; give one another name, "
      "FOLDER:LABEL.",
    )
    found |= one
  return found


def _run(row, seed, where, root, test, args):
  """Does all steps of one row, training set and seed; returns {test set: scores}."""
  label = f"{row['label']}, trained on {where}, seed {seed}"
  data = {"root": root, "past": args.frames, "future": args.frames, "image_size": args.image_size}
  common = [*(f"--config.data.{k}={v}" for k, v in data.items()), f"--config.seed={seed}"]
  tokenizer = args.tokenizer
  if not tokenizer:
    tokenizer = grid.folder(args.out, f"tokenizer {where}") / f"seed{seed}"
    arguments = ["--config=configs/magvit_tokenizer.py", *args.tokenizer_arguments.split()]
    grid.train([*arguments, *common], tokenizer, f"tokenizer of {label}")
  workdir = grid.folder(args.out, f"{row['label']} {where}") / f"seed{seed}"
  start = ["--config.run=predictor", "--config.phases.predictor.start_from=init"]
  start.append(f"--config.model.tokenizer.checkpoint={tokenizer}")
  grid.train([*row["arguments"], *start, *common, *args.settings], workdir, label)
  scores = workdir / "scores"
  grid.once(
    ["evaluate", "videos"],
    ["--split", args.split, *args.evaluate_arguments.split()]
    + ["--data", *(f"{folder}:{name}" for name, folder in test.items())],
    ["--run", workdir, "--out", scores],
    scores / "scores.md",
    label,
  )
  return {name: json.loads((scores / f"{name}.json").read_text()) for name in test}


def _arranged(found, predictor):
  """{test set: [report of each seed]} -> {test set: {score: [number of each seed]}}."""
  return {
    label: grid.by_metric([one["scores"][predictor] for one in seeds])
    for label, seeds in found.items()
  }


def _table(runs, baselines, windows, score, digits):
  """Returns the rows [run, trained on, a cell for each test set], header first."""
  rows = [["run", "trained on", *(f"{name} (n = {n:,})" for name, n in windows.items())]]
  for where, some in {**runs, "-": baselines}.items():
    for label, tests in some.items():
      rows.append([label, where, *(grid.cell(tests[name][score], digits) for name in windows)])
  return rows
