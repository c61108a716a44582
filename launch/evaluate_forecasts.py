"""Score predicted futures against what agents did, runs side by side and beside simple motion.

  python -m launch.evaluate forecasts --forecasts runs/bev runs/camera:camera --out scores --devkit

A run is a folder of launch.predict, its predictions.npz, or the folder of a run with forecasts/ in
it; its name in the tables is the folder's, or what follows the colon. All runs must have predicted
the same agents. Baselines: constant position, constant velocity, constant turn rate.

Writes to --out:
  scores.json  {"agents", "classes": {class: {"agents", "runs": {run: {score: mean}}}}, "worse":
    sentences about runs that constant velocity beats, "differences": {run: minADE_5 less that of
    the first run, with a 95 % interval over scenes}, "devkit": {run: {score: mean}}}; scores:
    min_ade_k, min_fde_k (m), miss_rate_k (a future misses if any of its points is 2 m or more away)
    of the k most probable futures, brier_min_fde (m), mode_accuracy, nll
  scores.md    the same numbers as tables
"""

import json
import pathlib
import sys

from launch import command_line
from vistraj_jax.core import checks, files


def main(arguments=None):
  """Runs the command line; returns 0."""
  args = _parser().parse_args(arguments)
  command_line.require_folder(args.out)
  from vistraj_jax.data import forecasts
  from vistraj_jax.metrics import bootstrap, report
  from vistraj_jax.metrics import forecasts as scoring

  sources = command_line.labelled("--forecasts", args.forecasts)
  taken = set(sources) & set(scoring.agent_motion.BASELINES)
  checks.require(
    not taken, f"--forecasts: {sorted(taken)} is a baseline's name; write RUN:LABEL with another."
  )
  found = {label: forecasts.load(path) for label, path in sources.items()}
  _check_same_agents(found)
  scores = scoring.score(found)
  worse = scoring.warnings(scores)
  result = {"agents": scores[scoring.ALL]["agents"], "classes": scores, "worse": worse}
  rows = scoring.table(scores)
  markdown = ["# Futures", "Errors in m, shares in percent; k most probable futures."]
  markdown += [*(f"- {sentence}" for sentence in worse), report.as_markdown(rows)]
  printed = [report.as_text(rows)]
  if len(found) > 1 and len(set(next(iter(found.values()))["scene"])) > 1:
    compared = scoring.differences(found)
    result["differences"] = {label: one._asdict() for label, one in compared.items()}
    title = f"minADE_5 less that of {next(iter(found))}, paired bootstrap over scenes"
    markdown += [f"## {title}", report.as_markdown(bootstrap.table(compared))]
    printed.append(f"\n{title}\n{report.as_text(bootstrap.table(compared))}")
  if args.devkit:
    result["devkit"], largest = _devkit(found, sources)
    sentence = f"The devkit's own metrics on the challenge files differ by {largest:.1e} at most."
    markdown.append(sentence)
    printed.append(sentence)
  out = pathlib.Path(args.out)
  files.write_text(out / "scores.json", json.dumps(result) + "\n")
  files.write_text(out / "scores.md", "\n\n".join(markdown) + "\n")
  for sentence in worse:
    print(f"warning: {sentence}", file=sys.stderr)
  print("\n".join(printed))
  print(f"written: {out / 'scores.json'}, {out / 'scores.md'}")
  return 0


def _parser():
  parser = command_line.parser(__doc__, prog="launch.evaluate forecasts")
  add = parser.add_argument
  add("--forecasts", required=True, nargs="+", metavar="RUN[:LABEL]", help="what to score")
  add("--devkit", action="store_true", help="also score challenge.json by nuscenes-devkit")
  add("--out", required=True, help="folder for scores.json and scores.md")
  return parser


def _check_same_agents(found):
  labels = list(found)
  first = found[labels[0]]
  for label in labels[1:]:
    for name in ("instance_token", "sample_token"):
      checks.require(
        first[name].tolist() == found[label][name].tolist(),
        f"--forecasts: {labels[0]!r} and {label!r} predict other agents ({len(first[name]):,} and "
        f"{len(found[label][name]):,}); predict the same split of the same data.",
      )
    steps = [run["future_xy"].shape[1] for run in (first, found[label])]
    checks.require(
      steps[0] == steps[1],
      f"--forecasts: {labels[0]!r} predicts {steps[0]} steps, {label!r} {steps[1]}; compare runs "
      "of one horizon.",
    )


def _devkit(found, sources):
  """Returns the devkit's scores of every run, and their largest difference to ours."""
  import numpy as np

  from vistraj_jax.data import forecasts
  from vistraj_jax.metrics import prediction
  from vistraj_jax.prepare.nuscenes import challenge

  scores, largest = {}, 0.0
  for label, run in found.items():
    whole = run["future_valid"].all()
    checks.require(
      whole, "--devkit: some agents have missing future steps, which it cannot leave out."
    )
    path = forecasts.find(sources[label]).with_name("challenge.json")
    checks.require(path.is_file(), f"{path}: no such file; write it with launch.predict.")
    future = challenge.to_global(run["future_xy"], run["anchor_pose"])
    pairs = zip(run["instance_token"].tolist(), run["sample_token"].tolist(), strict=True)
    truth = dict(zip(pairs, future, strict=True))
    scores[label] = challenge.devkit_scores(path, truth, prediction.COUNTS, prediction.MISS)
    own = prediction.scores(
      challenge.to_global(run["futures"], run["anchor_pose"]),
      run["probabilities"].astype(np.float64),
      future,
      run["future_valid"],
    )
    for name, value in scores[label].items():
      largest = max(largest, abs(value - float(own[name].mean())))
  return scores, largest
