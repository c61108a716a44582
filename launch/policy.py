"""Trains a policy on a two-stream encoder from demonstrations, and lets it act.

examples:
  python -m launch.policy train --encoder runs/two_stream --data data/libero --out runs/policy
  python -m launch.policy train --encoder runs/two_stream --data data/libero --out runs/scratch \\
    --weights random --unfrozen
  python -m launch.policy rollout --policy runs/policy --source libero_generated \\
    --out runs/policy/rollout

train    frames of steps i-1 and i -> action i. The encoder is frozen and deterministic, its
         features are computed once; --unfrozen trains it too (all frames then lie on the device),
         --weights random begins without pretraining. Scored on other demonstrations: two names of
         --split, or one that is divided 80/20. Writes policy.safetensors and policy.json.
rollout  success in the generated manipulation world, in the environments that the demonstrations'
         HDF5 files name (the same camera, rate and places), beside the scripted expert, the mean
         action and random actions in the same episodes. Writes rollout.json and rollout.mp4.

The policy is not told the instruction: give --instruction to learn one task of several.
A low error of actions says little: copying the last action does well too. Success says more.
"""

import functools
import json
import pathlib

from launch import command_line
from vistraj_jax.core import checks, files

FILE = "policy.safetensors"
TRAIN = "Learns actions from demonstrations and scores them on others."
ROLLOUT = "Counts successes in the generated manipulation world."


def main(argv=None):
  """Runs one of the two commands; returns 0."""
  args = _parser().parse_args(argv)
  command_line.require_folder(args.out)
  from launch import runtime

  runtime.configure()
  return {"train": _train, "rollout": _rollout}[args.command](args)


def _parser():
  parser = command_line.parser(__doc__)
  commands = parser.add_subparsers(dest="command", required=True, metavar="train|rollout")
  make = functools.partial(commands.add_parser, formatter_class=command_line.HelpFormatter)
  train = make("train", help="learn from demonstrations", description=TRAIN)
  add = train.add_argument
  add("--encoder", required=True, help="run of configs/two_stream.py, or a weights file")
  add("--data", required=True, help="folder of launch.prepare libero; or embedded")
  add("--split", nargs="+", default=["train", "val"], help="learn on the first, score the second")
  add("--instruction", help="only the demonstrations of this task")
  add("--weights", choices=("pretrained", "random"), default="pretrained", help="of the encoder")
  add("--unfrozen", action="store_true", help="train the encoder too")
  add("--readout", default="patch_mean_concat", help="what the head reads, see launch.probe")
  add("--epochs", type=int, default=50, help="over the steps of the demonstrations")
  add("--batch_size", type=int, default=32, help="steps of demonstrations a step of training")
  add("--lr", type=float, default=1e-4, help="learning rate of AdamW, falls to 0 as a cosine")
  add("--weight_decay", type=float, default=0.01, help="of AdamW")
  add("--encode_batch", type=int, default=64, help="pairs a call of the frozen encoder")
  rollout = make("rollout", help="act in the generated world", description=ROLLOUT)
  add = rollout.add_argument
  add("--policy", required=True, help="folder of train, or its policy.safetensors")
  add(
    "--source",
    required=True,
    help="folder of launch.prepare manipulation --layout libero, which the policy's data are made "
    "of; or embedded",
  )
  add("--episodes", type=int, default=50, help="in all")
  add("--first_seed", type=int, default=10**9, help="episode k has this seed + k")
  add("--videos", type=int, default=4, help="episodes in rollout.mp4; 0 for none")
  for one in (train, rollout):
    one.add_argument("--seed", type=int, default=0, help="of all random numbers but episodes")
    one.add_argument("--out", required=True, help="folder to write")
  return parser


def _train(args):
  from launch import policy_training
  from vistraj_jax.metrics import report

  policy, model, result = policy_training.train(args)
  out = pathlib.Path(args.out)
  policy.save(out / FILE, model)
  files.write_text(out / "policy.json", json.dumps(report.plain(result), indent=2) + "\n")
  rows = [["predictor", "", "MSE", "L1"]]
  rows += [
    [name.replace("_", " "), "", f"{one['mse']:.4f}", f"{one['l1']:.4f}"]
    for name, one in result["scores"].items()
  ]
  print(
    f"{result['steps'][1]:,} steps of {result['demonstrations'][1]} held-out demonstrations, in "
    f"the units of the actions; learned from {result['demonstrations'][0]}"
  )
  print(report.as_text(rows))
  print(f"written: {out / FILE}, {out / 'policy.json'}")
  return 0


def _rollout(args):
  from launch import policy_rollout
  from vistraj_jax.metrics import report
  from vistraj_jax.viz import video

  checks.require(args.episodes >= 1, f"--episodes: {args.episodes} received, 1 or more allowed.")
  path = pathlib.Path(args.policy)
  result, pictures, rate = policy_rollout.run(path / FILE if path.is_dir() else path, args)
  out, written = pathlib.Path(args.out), ["rollout.json"]
  files.write_text(out / "rollout.json", json.dumps(report.plain(result), indent=2) + "\n")
  if pictures:
    video.write_video(out / "rollout.mp4", pictures, rate)
    written.append("rollout.mp4")
  rows = [["who acts", "", "success (%)", "95 % interval", "progress (%)", "episodes", "steps"]]
  for name, one in result["success"].items():
    between = f"{100 * one['low']:.0f} to {100 * one['high']:.0f}"
    progress, steps = f"{100 * one['mean_progress']:.0f}", f"{one['mean_steps']:.0f}"
    shown = [f"{100 * one['rate']:.0f}", between, progress, str(one["trials"]), steps]
    rows.append([name.replace("_", " "), "", *shown])
  print(report.as_text(rows))
  print("written: " + ", ".join(str(out / name) for name in written))
  return 0


if __name__ == "__main__":
  command_line.run(main)
