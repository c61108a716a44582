"""Probes a frozen two-stream encoder: how well do its features tell what was done between frames?

examples:
  python -m launch.probe --encoder runs/two_stream --data data/egodex --split test --out runs/probe
  python -m launch.probe --encoder runs/two_stream --data data/libero --gaps 1 5 10 --out runs/probe

Of data with hand joints the target is the position change of every joint, in m; of data with an
end effector its position change, its turn R_t^-1 R_{t+k} as axis times angle, and the gripper
command. Features are computed once per split and gap and kept in {out}/features. Heads learn on one
part of the videos and are scored on others: two names of --split, or one that is divided 80/20.
Every number stands beside those of the same network with random weights and of the mean action.

probes:     linear; mlp (one hidden layer of 256); attentive (a learned query a stream over patches)
readouts:   mean patch, CLS, of both streams side by side (_concat), averaged, or of one stream;
            fused_* after the fusion (no loss reaches fused_cls: a random projection)

Writes to --out: probe.json and probe.md. R2 is pooled over all numbers of the target, after the
last epoch, with a 95 % bootstrap interval over videos; "best" is the best epoch on the scored
videos, which is optimistic.
"""

import functools
import json
import pathlib

from launch import command_line
from vistraj_jax.core import checks, files

# As in models.two_stream, which --help need not wait for.
PROBES = ("linear", "mlp", "attentive")


def main(argv=None):
  """Runs the probes and prints their table; returns 0."""
  args = _parser().parse_args(argv)
  command_line.require_folder(args.out)
  checks.require(len(args.split) <= 2, f"--split: {args.split}; give one split, or two.")
  checks.require(args.pairs >= 1, f"--pairs: {args.pairs} received, 1 or more allowed.")

  from launch import runtime, two_stream_features
  from vistraj_jax.data import two_stream, two_stream_actions
  from vistraj_jax.metrics import report

  runtime.configure()
  data = two_stream_features.data_root(args.data)
  sources = [two_stream.Trajectories(data, split) for split in args.split]
  checks.require(
    len({source.fps for source in sources}) == 1,
    f"--split: {args.split} of {data} have {[source.fps for source in sources]} frames a second, "
    "so that a gap would be different times; choose splits of one rate.",
  )
  motions = [two_stream_actions.read_motions(source) for source in sources]
  encoder = two_stream_features.load_encoder(args.encoder)
  encoders = {"trained": encoder, "random": two_stream_features.randomized(encoder, args.seed)}
  result = {
    "encoder": str(args.encoder),
    "data": data,
    "split": args.split,
    "frame_rate": sources[0].fps,
    "settings": {
      name: getattr(args, name)
      for name in ("epochs", "batch_size", "lr", "weight_decay", "pairs", "seed")
    },
    "gaps": {str(gap): _gap(gap, sources, motions, encoders, args) for gap in args.gaps},
  }
  out = pathlib.Path(args.out)
  rows = table(result)
  groups = next(iter(result["gaps"].values()))["groups"]
  head = (
    f"{args.encoder} on {data}, split {' -> '.join(args.split)}, {sources[0].fps:g} frames/s; "
    f"target: {', '.join(groups)}."
  )
  files.write_text(out / "probe.json", json.dumps(report.plain(result), indent=2) + "\n")
  files.write_text(out / "probe.md", f"# Action probes\n\n{head}\n\n{report.as_markdown(rows)}\n")
  print(head)
  print(report.as_text(rows))
  print(f"written: {out / 'probe.json'}, {out / 'probe.md'}")
  return 0


def table(result):
  """Returns the rows of strings of what `main` writes, the header first."""
  groups = next(iter(result["gaps"].values()))["groups"]
  rows = [["gap, weights", "probe", "R2", "95 % interval", "best", "MSE", "cosine", *groups]]
  rows[0][7:] = [f"R2 {name}" for name in groups]
  for gap, found in result["gaps"].items():
    scored = {"mean": {"mean action": found["mean_action"]}}
    scored |= {name: found[name] for name in ("random", "trained")}
    for weights, by_probe in scored.items():
      for probe, one in by_probe.items():
        between = one.get("interval")
        shown = f"{between[0]:.3f} to {between[1]:.3f}" if between else "-"
        best = f"{one['best_r2']:.3f}" if "best_r2" in one else "-"
        numbers = [f"{one['mse']:.3g}", f"{one['cosine']:.3f}"]
        numbers += [f"{one[f'r2/{name}']:.3f}" for name in groups]
        rows.append([f"{gap}, {weights}", probe, f"{one['r2']:.3f}", shown, best, *numbers])
  return rows


def _parser():
  parser = command_line.parser(__doc__)
  add = parser.add_argument
  add("--encoder", required=True, help="run of configs/two_stream.py, or a weights file")
  add(
    "--data",
    required=True,
    help="folder of launch.prepare egodex or libero; or embedded:libero, embedded:egodex",
  )
  add("--split", nargs="+", default=["train", "val"], help="learn on the first, score the second")
  add("--gaps", nargs="+", type=int, default=[1, 10], help="frames between the two frames")
  add("--probes", nargs="+", choices=PROBES, default=list(PROBES), help="kinds of heads")
  add("--readouts", nargs="+", help="what linear and mlp read; all that the network has if absent")
  add("--pairs", type=int, default=10_000, help="most pairs of a split, drawn at random")
  add("--epochs", type=int, default=20, help="over the pairs")
  add("--batch_size", type=int, default=256, help="pairs a step")
  add("--lr", type=float, default=1e-3, help="learning rate of AdamW")
  add("--weight_decay", type=float, default=0.01, help="of AdamW")
  add("--encode_batch", type=int, default=64, help="pairs a call of the encoder")
  add("--samples", type=int, default=2000, help="resamples of the bootstrap")
  add("--seed", type=int, default=0, help="of the heads and of the random weights")
  add("--out", required=True, help="folder to write")
  return parser


def _gap(gap, sources, motions, encoders, args):
  """Returns the scores of all probes at one gap."""
  import numpy as np

  from launch import two_stream_features
  from vistraj_jax.data import two_stream_actions

  parts = [two_stream_actions.pose_changes(own, gap, args.pairs) for own in motions]
  targets = [part.target for part in parts]
  videos = [part.video for part in parts]
  kept = [np.ones(len(target), bool) for target in targets]
  if len(parts) == 1:
    scored = two_stream_actions.held_out(videos[0])
    parts, sources, kept = parts * 2, sources * 2, [~scored, scored]
  checks.require(
    parts[0].groups == parts[1].groups,
    f"--split: {args.split} have different targets, {list(parts[0].groups)} and "
    f"{list(parts[1].groups)}; prepare them from one source.",
  )
  learned, held = (part.target[rows] for part, rows in zip(parts, kept, strict=True))
  video = parts[1].video[kept[1]]
  score = functools.partial(_scores, held, parts[1].groups, video, args.samples)
  found = {
    "pairs": [len(learned), len(held)],
    "videos": [len(np.unique(parts[0].video[kept[0]])), len(np.unique(video))],
    "groups": {name: len(columns) for name, columns in parts[1].groups.items()},
    "mean_action": score(np.broadcast_to(learned.mean(0), held.shape)),
  }
  for name, encoder in encoders.items():
    seen = []
    for part, source, rows, split in zip(parts, sources, kept, _names(args.split), strict=True):
      pairs = two_stream_actions.FramePairs(source, part.index, encoder.model["image_size"])
      values = two_stream_features.features(
        encoder,
        pairs,
        part.index,
        pathlib.Path(args.out) / "features",
        f"{split}-gap{gap}-{name}",
        with_tokens="attentive" in args.probes,
        batch_size=args.encode_batch,
      )
      seen.append({key: value[rows] for key, value in values.items()})
    found[name] = {
      probe: _probe(probe, [x[_readout(probe)] for x in seen], learned, held, score, args)
      for probe in _combinations(seen[0], args)
    }
  return found


def _names(split):
  return split if len(split) == 2 else split * 2


def _combinations(seen, args):
  """Returns the names "kind readout" of all heads."""
  from launch import two_stream_features

  known = [name for name in seen if name != two_stream_features.TOKENS]
  readouts = args.readouts or known
  for name in readouts:
    checks.choice("--readouts", name, known)
  plain = [kind for kind in args.probes if kind != "attentive"]
  found = [f"{kind} {name}" for kind in plain for name in readouts]
  return found + ["attentive patches"] * ("attentive" in args.probes)


def _readout(probe):
  from launch import two_stream_features

  kind, name = probe.split()
  return two_stream_features.TOKENS if kind == "attentive" else name


def _probe(probe, seen, learned, held, score, args):
  """Learns one head on features and targets of one part; returns its scores on the other."""
  import jax

  from vistraj_jax.models.two_stream import probes
  from vistraj_jax.nn import initializers
  from vistraj_jax.train import fit

  head = probes.make(probe.split()[0], learned.shape[1])
  common = {}
  for name, values in (("x", seen[0]), ("y", learned)):
    common[f"{name}_mean"], common[f"{name}_scale"] = probes.standard(values)
  rng = jax.random.PRNGKey(args.seed)
  fitted = fit.fit(
    probes.Problem(head),
    initializers.init(head, rng, seen[0][:1].astype("float32"))["params"],
    {"x": seen[0], "y": learned, **common},
    {"x": seen[1], "y": held, **common},
    count=len(learned),
    epochs=args.epochs,
    batch_size=args.batch_size,
    optimizer=fit.AdamW(args.lr, args.weight_decay),
    seed=args.seed,
    label=probe,
  )
  best = score(fitted.best_outputs)["r2"]
  return {**score(fitted.outputs), "best_r2": best, "best_epoch": fitted.best_epoch}


def _scores(target, groups, video, samples, predicted):
  """Returns the scores of predictions, with an interval where there are several videos."""
  from vistraj_jax.metrics import bootstrap, regression

  found = regression.scores(predicted, target, groups)
  if len(set(video)) > 1:
    sums = regression.row_sums(predicted, target)
    between = bootstrap.interval(sums, video, regression.r2_of_sums, samples)
    found["interval"] = [between.low, between.high]
  return found


if __name__ == "__main__":
  command_line.run(main)
