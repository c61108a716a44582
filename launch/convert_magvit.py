"""`launch.convert magvit_tokenizer` and `lpips`: tokenizers and what judges their pictures."""

import sys

from vistraj_jax.core import checks


def run(args):
  """Converts as `args` of launch.convert say; returns 0.

  Raises:
    InputError: a kind of file that is not made, or a checkpoint that is not exactly a tokenizer's.
  """
  if args.system == "lpips":
    checks.choice("--to", args.to, ("weights",))
    return _lpips(args)
  checks.choice("--to", args.to, ("weights", "torch"))
  return _to_torch(args) if args.to == "torch" else _to_weights(args)


def _to_weights(args):
  from vistraj_jax.convert import magvit, read_torch
  from vistraj_jax.core import weights

  checkpoint = read_torch.read_checkpoint(args.checkpoint, lazy=True)
  plan = magvit.plan(checkpoint, args.weights, args.checkpoint)
  if plan.weights == "raw" and args.weights == "ema":
    print(
      f"warning: {args.checkpoint}: has no moving average of the weights; the last ones are taken.",
      file=sys.stderr,
    )
  print(f"{args.checkpoint}: {_summary(plan.shapes, plan.config)}{_kind(plan.weights)}")
  weights.save_one_by_one(args.out, plan.shapes, plan.read, args.system, plan.config)
  print(f"written: {args.out}")
  return 0


def _to_torch(args):
  from vistraj_jax.convert import magvit, write_torch
  from vistraj_jax.models.magvit import frozen

  found = frozen.load(args.checkpoint)
  checkpoint = magvit.to_torch(found.params, found.config, args.checkpoint)
  print(f"{args.checkpoint}: {_summary(magvit.tree_shapes(found.config), found.config)}")
  write_torch.write_checkpoint(args.out, checkpoint)
  ((key, state),) = checkpoint.items()
  print(f"written: {args.out} ({len(state)} tensors under {key!r})")
  return 0


def _lpips(args):
  from vistraj_jax.convert import lpips as converter
  from vistraj_jax.convert import read_torch
  from vistraj_jax.core import weights
  from vistraj_jax.encoders import lpips

  checkpoint = read_torch.read_checkpoint(args.checkpoint, lazy=True)
  tree = converter.from_torch(checkpoint, lpips.shapes(), args.checkpoint)
  weights.save_weights(args.out, tree, lpips.SYSTEM, {})
  count = sum(leaf.size for leaf in weights.flatten(tree).values())
  print(f"{args.checkpoint}: LPIPS, {count:,} parameters\nwritten: {args.out}")
  return 0


def _summary(shapes, config):
  import math

  fields = ", ".join(f"{name} {value}" for name, value in config.items())
  count = sum(math.prod(shape) for shape in shapes.values())
  return f"{fields}; {len(shapes)} tensors, {count:,} parameters"


def _kind(which):
  return {"ema": "; moving average of the weights", "raw": "; last weights", "": ""}[which]
