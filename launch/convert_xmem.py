"""`launch.convert xmem`: public XMem checkpoints to weights files and back."""

from vistraj_jax.core import checks


def run(args):
  """Converts as `args` of launch.convert say; returns 0.

  Raises:
    InputError: a kind of file that is not made, or a checkpoint that is not exactly XMem's.
  """
  checks.choice("--to", args.to, ("weights", "torch"))
  return _to_torch(args) if args.to == "torch" else _to_weights(args)


def _to_weights(args):
  from vistraj_jax.convert import read_torch, xmem
  from vistraj_jax.core import weights

  checks.require(
    not args.single_object, "--single_object: it goes with --to torch; leave the option out."
  )
  checkpoint = read_torch.read_checkpoint(args.checkpoint)
  tree, config, key = xmem.from_torch(checkpoint, args.checkpoint)
  place = f"under {key!r}" if key else "bare"
  print(f"{args.checkpoint}: state dict {place}; {_summary(xmem, tree, config)}")
  weights.save_weights(args.out, tree, args.system, config)
  print(f"written: {args.out}")
  return 0


def _to_torch(args):
  from vistraj_jax.convert import write_torch, xmem
  from vistraj_jax.models.xmem import network

  tree, config = network.read(args.checkpoint)
  state = xmem.to_torch(tree, config, args.checkpoint, args.single_object)
  print(f"{args.checkpoint}: {_summary(xmem, tree, config)}")
  write_torch.write_checkpoint(args.out, state)
  print(f"written: {args.out} ({len(state)} tensors)")
  return 0


def _summary(xmem, tree, config):
  counts = xmem.parameter_counts(tree)
  sizes = ", ".join(f"{name} {config[f'{name}_dim']}" for name in ("key", "value", "hidden"))
  parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
  return f"{sizes}; {sum(counts.values()):,} parameters ({parts})"
