"""launch.report two_stream: what the variants of the two-stream system are good for.

Every variant is trained with every seed, its frozen encoder probed, a policy learned on it and let
act. A variant may win by its loss and lose by all the rest.
"""

import json
import pathlib

from launch import grid
from vistraj_jax.core import checks, files

VARIANTS = ("a", "b", "c", "d", "v6", "single_stream", "videomae")
LABELS = {
  "a": "A patches only",
  "b": "B + current frame",
  "c": "C + last CLS",
  "d": "D CLS of three depths",
  "v6": "v6 a decoder a stream",
  "single_stream": "single stream",
  "videomae": "VideoMAE",
}
RANDOM = "random weights"
_MEAN = ("mean_action", "mean_action")
_PRETRAINING = {
  "loss": "loss/val",
  "MSE": "mse/val",
  "PSNR": "psnr/val",
  "PSNR of copy": "psnr/copy",
  "SSIM": "ssim/val",
}
_READOUT = "patch_mean_concat"  # of linear and mlp probes in the table, where it was probed
_STRONGEST = ("mlp", "attentive", "linear")
NOTE = (
  "Mean over {seeds} seed(s), with the standard deviation over them. R2 of probes of the frozen "
  "encoder at gap {gap}, on videos the heads have not seen: of the change of position (of an end "
  "effector or of all joints of a hand) by every kind of probe; of an end effector's rotation and "
  "gripper command, where they are known, by one. The three are never pooled: the command, -1 or "
  "1, would outweigh the rest. Linear and mlp probes read {readout} unless the column says "
  "otherwise; further readouts are in probe.json of every run. Untrained: of the row's own network "
  "with random weights; the row of random weights is of the first row's network. Policy MSE: of "
  "actions held out, over all their numbers, the gripper's among them. The networks differ in "
  "what they compute, see the second table. Its losses cannot be compared between all rows: that "
  "of VideoMAE is of masked patches, that of two decoders the mean of both. Nor can its image "
  "scores where rows draw other gaps, as v6 does: the PSNR of copying img_t on a row's own pairs "
  "stands beside; the rows of copy and img_t + M are of the first row's pairs. With M of four "
  "channels img_t + M is the frame to be predicted."
)
ACTED = (
  "Success and progress, the share of the way to its square that the block goes, are of {episodes} "
  "episodes a seed."
)
_ACTED = {"success": "rate", "progress": "mean_progress"}  # column: its name in rollout.json
_DIGITS = (("loss", 5), ("MSE", 5), ("PSNR", 2), ("PSNR of copy", 2), ("SSIM", 4))


def add_arguments(parser):
  """Adds the arguments of the command."""
  add = parser.add_argument
  add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="rows of the table")
  text = "of the variants; v6 of full size wants trajectories of more than 60 frames"
  add("--size", choices=("full", "small"), default="full", help=text)
  add("--grid", help="JSON list of rows in place of --variants and --size, see above")
  add("--seeds", nargs="+", type=int, default=[0], help="of pretraining, probes and policies")
  add("--data", default="embedded:libero", help="for probes and policies, see launch.probe")
  add("--gap", type=int, default=10, help="frames between the two frames of a probe")
  add("--source", default="embedded", help="environments of the policies, see launch.policy")
  add("--instruction", help="the task to learn; the first in the alphabet if absent")
  add("--probe_arguments", default="", help="further arguments of launch.probe, in one text")
  add("--policy_arguments", default="", help="further arguments of launch.policy train")
  add("--episodes", type=int, default=50, help="of every policy; 0: policies do not act")
  text = "after --: settings of all rows, such as -- --config.phases.pretrain.epochs=8"
  add("settings", nargs="*", help=text)


def report(args):
  """Runs what is missing, writes and prints the tables; returns 0."""
  from vistraj_jax.metrics import report as tables

  rows = grid.read(args.grid) if args.grid else _rows(args)
  checks.require(
    len(set(args.seeds)) == len(args.seeds), f"--seeds: {args.seeds} repeat; give each once."
  )
  words = _instruction(args)
  found, baselines = {}, {}
  for number, row in enumerate(rows):
    seeds = [_run(row, seed, number == 0, words, args) for seed in args.seeds]
    found[row["label"]] = grid.by_metric([own for own, _ in seeds])
    for name in seeds[0][1]:
      baselines[name] = grid.by_metric([others[name] for _, others in seeds])
  found |= baselines
  costs = {row["label"]: _cost(_workdir(args, row, args.seeds[0])) for row in rows}
  bars = [{"run": label, "metric": metrics} for label, metrics in found.items()]
  transfer, pretraining = _transfer_table(found), _pretraining_table(found, costs)
  note = NOTE.format(seeds=len(args.seeds), gap=args.gap, readout=_READOUT)
  if args.episodes:
    note = f"{note} {ACTED.format(episodes=args.episodes)}"
  text = "\n\n".join(
    (
      "# Two-stream encoders",
      f"{note} Task: {words!r}.",
      "## What the encoders are good for",
      tables.as_markdown(transfer),
      "## Pretraining",
      tables.as_markdown(pretraining),
    )
  )
  out = pathlib.Path(args.out)
  plain = {"seeds": args.seeds, "gap": args.gap, "instruction": words, "runs": found}
  plain["costs"] = costs
  files.write_text(out / "report.json", json.dumps(plain, indent=2) + "\n")
  files.write_text(out / "bars.json", json.dumps(bars, indent=2) + "\n")
  files.write_text(out / "report.md", text + "\n")
  print(f"{note}\n\n{tables.as_text(transfer)}\n\n{tables.as_text(pretraining)}")
  print(
    "written: " + ", ".join(str(out / f"{n}") for n in ("report.md", "report.json", "bars.json"))
  )
  return 0


def _rows(args):
  end = "" if args.size == "full" else ",small"
  return [
    {"label": LABELS[name], "arguments": [f"--config=configs/two_stream.py:{name}{end}"]}
    for name in args.variants
  ]


def _instruction(args):
  """Returns the task that policies learn: one with demonstrations in both splits."""
  from launch import two_stream_features
  from vistraj_jax.data import two_stream, two_stream_actions

  root = two_stream_features.data_root(args.data)
  sources = [two_stream.Trajectories(root, split) for split in ("train", "val")]
  tasks = [{m.instruction for m in two_stream_actions.read_motions(one)} for one in sources]
  known = sorted(tasks[0] & tasks[1])
  checks.require(
    known, f"--data: {root} has no task in both splits; prepare more, or another --val_share."
  )
  if args.instruction is None:
    return known[0]
  return checks.choice("--instruction", args.instruction, known)


def _workdir(args, row, seed):
  return grid.folder(args.out, row["label"]) / f"seed{seed}"


def _run(row, seed, is_first, words, args):
  """Does all steps of one row and seed.

  Returns:
    ({metric: number} of the row, {label: {metric: number}} of what it is compared with; empty but
    for the first row).
  """
  workdir, label = _workdir(args, row, seed), f"{row['label']}, seed {seed}"
  grid.train([*row["arguments"], *args.settings, f"--config.seed={seed}"], workdir, label)
  common = ["--data", args.data, "--seed", seed]
  probe = workdir / "probe" / "probe.json"
  grid.once(
    ["probe"],
    [*common, "--gaps", args.gap, *args.probe_arguments.split()],
    ["--encoder", workdir, "--out", probe.parent],
    probe,
    label,
  )
  scores = json.loads(probe.read_text())["gaps"][str(args.gap)]
  learned, acted = _policy("pretrained", workdir / "policy", workdir, common, words, label, args)
  metrics = grid.best_metrics(workdir)
  own = {name: metrics[key] for name, key in _PRETRAINING.items() if key in metrics}
  own |= r2(scores["trained"]) | _untrained(r2(scores["random"]))
  own |= _transferred(learned, acted, "policy", "policy")
  if not is_first:
    return own, {}
  mean = r2(dict.fromkeys(scores["trained"], scores["mean_action"]))  # one, whatever the probe
  others = {
    "mean action": {**mean, **_transferred(learned, acted, *_MEAN)},
    "copy last action": {"policy MSE": learned["scores"]["copy_last_action"]["mse"]},
  }
  if acted:
    for name in ("random_actions", "scripted_expert"):
      others[name.replace("_", " ")] = _acted(acted, name)
  for label_of, key in (("copy img_t", "copy"), ("img_t + M", "add_motion")):
    named = {"PSNR": f"psnr/{key}", "SSIM": f"ssim/{key}", "MSE": f"mse/{key}"}
    others[label_of] = {name: metrics[k] for name, k in named.items() if k in metrics}
  learned, acted = _policy("random", workdir / "random", workdir, common, words, label, args)
  control = r2(scores["random"]) | _transferred(learned, acted, "policy", "policy")
  return own, {RANDOM: control, **others}


def r2(scores):
  """Chooses the R2 of the table.

  Args:
    scores: {"kind readout": scores} of one encoder in probe.json, with "r2", pooled over the
      target, and "r2/NAME" of its groups: position, rotation and gripper, or a hand's joints.

  Returns:
    {column: R2}: position (all joints of a hand) by every kind of probe, linear and mlp of one
    readout; then rotation and gripper, where they are, by one kind: see `_STRONGEST`.
  """
  chosen = {}
  for name in sorted(scores, key=lambda name: name.split()[1] != _READOUT):
    chosen.setdefault(name.split()[0], name)
  shown = {name: name.removesuffix(f" {_READOUT}").removesuffix(" patches") for name in scores}
  # Without groups of an end effector all of the target are positions.
  found = {
    f"R2 position, {shown[name]}": scores[name].get("r2/position", scores[name]["r2"])
    for name in sorted(chosen.values(), key=list(scores).index)
  }
  name = next(chosen[kind] for kind in _STRONGEST if kind in chosen)
  for group in ("rotation", "gripper"):
    if scores[name].get(f"r2/{group}") is not None:  # None where the target does not vary
      found[f"R2 {group}, {shown[name]}"] = scores[name][f"r2/{group}"]
  return found


def _untrained(scores):
  """Returns the column of what one probe finds in the row's own network before its training."""
  name = next(n for kind in _STRONGEST for n in scores if n.startswith(f"R2 position, {kind}"))
  return {f"{name}, untrained": scores[name]}


def _transferred(learned, acted, offline, closed):
  found = {"policy MSE": learned["scores"][offline]["mse"]}
  return found | _acted(acted, closed) if acted else found


def _acted(acted, actor):
  return {column: acted["success"][actor][name] for column, name in _ACTED.items()}


def _policy(weights, out, workdir, common, words, label, args):
  """Learns a policy and lets it act, if it has episodes; returns the results of both."""
  learned, acted = out / "policy.json", out / "rollout.json"
  grid.once(
    ["policy", "train"],
    [*common, "--instruction", words, "--weights", weights, *args.policy_arguments.split()],
    ["--encoder", workdir, "--out", out],
    learned,
    label,
  )
  if not args.episodes:
    return json.loads(learned.read_text()), {}
  grid.once(
    ["policy", "rollout"],
    ["--episodes", args.episodes, "--source", args.source],
    ["--policy", out, "--out", out],
    acted,
    label,
  )
  return json.loads(learned.read_text()), json.loads(acted.read_text())


def _cost(workdir):
  """Returns parameters, multiply-adds and seconds a step of a trained row."""
  import jax

  from vistraj_jax.models.two_stream import settings

  config = json.loads((workdir / "config.json").read_text())
  net = settings.make(config["model"])
  encode, forward = settings.multiply_adds(net)
  params = settings.shapes(net)["params"]
  size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
  return {
    "parameters": size(params),
    "encoder_parameters": size(settings.encoder_params(params)),
    "encoder_gmac": encode / 1e9,
    "forward_gmac": forward / 1e9,
    "step_seconds": grid.step_seconds(workdir),
    "batch_size": config["phases"]["pretrain"]["batch_size"],
  }


def _transfer_table(found):
  probes = list(dict.fromkeys(n for one in found.values() for n in one if n.startswith("R2 ")))
  closed = list(_ACTED) if any("success" in one for one in found.values()) else []
  rows = [["run", "", *probes, "policy MSE", *(f"{name} (%)" for name in closed)]]
  for label, one in found.items():
    if not one.keys() & {*probes, "policy MSE", "success"}:
      continue
    cells = [grid.cell(one.get(name), 3) for name in probes]
    cells.append(grid.cell(one.get("policy MSE"), 4))
    cells += [grid.cell([100 * value for value in one.get(name, [])], 0) for name in closed]
    rows.append([label, "", *cells])
  return rows


def _pretraining_table(found, costs):
  rows = [["run", "", "loss", "MSE", "PSNR (dB)", "of copy (dB)", "SSIM"]]
  rows[0] += ["parameters", "of the encoder", "GMAC", "of the encoder", "s/step", "pairs/step"]
  for label, one in found.items():
    if label not in costs and "PSNR" not in one:
      continue
    cells = [grid.cell(one.get(name), digits) for name, digits in _DIGITS]
    cost = costs.get(label)
    if cost:
      cells += [f"{cost['parameters']:,}", f"{cost['encoder_parameters']:,}"]
      cells += [f"{cost['forward_gmac']:.3g}", f"{cost['encoder_gmac']:.3g}"]
      cells += [f"{cost['step_seconds']:.3g}", str(cost["batch_size"])]
    else:
      cells += ["-"] * 6
    rows.append([label, "", *cells])
  return rows
