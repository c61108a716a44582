"""`launch.convert i3d`, `slowfast` and `i3d_inception`: public networks for videos."""

from vistraj_jax.core import checks


def run(args):
  """Converts as `args` of launch.convert say; returns 0.

  Raises:
    InputError: a kind of file that is not made, or a checkpoint that is not exactly the network's.
  """
  checks.choice("--to", args.to, ("weights",))
  from vistraj_jax.convert import read_torch, video_resnet
  from vistraj_jax.core import weights
  from vistraj_jax.encoders import video_shapes

  checkpoint = read_torch.read_checkpoint(args.checkpoint)
  want = video_shapes.shapes(args.system)
  tree = video_resnet.from_torch(checkpoint, args.system, want, args.checkpoint)
  count = sum(
    leaf.size
    for name, leaf in weights.flatten(tree).items()
    if not name.endswith(("/mean", "/var"))
  )
  print(f"{args.checkpoint}: {args.system}, {count:,} parameters")
  weights.save_weights(args.out, tree, args.system, {})
  print(f"written: {args.out}")
  return 0
