"""`launch.convert pointpillars`: a public LiDAR detector's network up to its map from above."""

from vistraj_jax.core import checks


def run(args):
  """Converts as `args` of launch.convert say; returns 0.

  Raises:
    InputError: a kind of file that is not made, or a checkpoint that is not exactly the network's.
  """
  checks.choice("--to", args.to, ("weights",))
  from vistraj_jax.convert import read_torch, xmem_trajectory
  from vistraj_jax.core import weights
  from vistraj_jax.encoders import pointpillars

  checkpoint = read_torch.read_checkpoint(args.checkpoint)
  tensors, left_out = xmem_trajectory.detector_tensors(checkpoint, args.checkpoint)
  fields = xmem_trajectory.pillar_fields(tensors, args.checkpoint)
  want = pointpillars.shapes(pointpillars.PointPillars(**fields))
  tree = xmem_trajectory.from_torch(tensors, "pillars", want, args.checkpoint)
  count = sum(leaf.size for leaf in weights.flatten(tree).values())
  print(f"{args.checkpoint}: {count:,} numbers; left out: {left_out or 'nothing'}")
  weights.save_weights(args.out, tree, "pointpillars", fields)
  print(f"written: {args.out}")
  return 0
