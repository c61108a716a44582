"""Waypoint heads between PyTorch checkpoints and weights files; adapters of trained encoders."""

import pathlib

from vistraj_jax.core import checks


def run(args):
  """Converts as the arguments of launch.convert say; prints what was found."""
  return {"weights": _to_weights, "torch": _to_torch, "adapter": _to_adapter}[args.to](args)


def _to_weights(args):
  import jax

  from vistraj_jax.convert import read_torch
  from vistraj_jax.convert import vlm_waypoint as converter
  from vistraj_jax.core import weights
  from vistraj_jax.models.vlm_waypoint import network

  checkpoint = read_torch.read_checkpoint(args.checkpoint)
  tensors = converter.head_tensors(checkpoint, args.checkpoint)
  head, shapes = converter.describe(tensors, args.checkpoint)
  net = network.Network({"head": head}, {"train": {"shapes": shapes}})
  tree = jax.eval_shape(net.init, jax.random.PRNGKey(0))["head"]
  want = {
    "/".join(key.key for key in path): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
  params = converter.from_torch(checkpoint, head["name"], want, args.checkpoint)
  count = sum(leaf.size for leaf in weights.flatten(params).values())
  print(f"{args.checkpoint}: head {head['name']!r}, {count:,} parameters, input {shapes}")
  weights.save_weights(args.out, {"head": params}, args.system, {"head": head})
  print(f"written: {args.out}")
  return 0


def _to_torch(args):
  from vistraj_jax.convert import vlm_waypoint as converter
  from vistraj_jax.convert import write_torch
  from vistraj_jax.core import trained

  params, model = trained.load(args.checkpoint)
  checks.require(
    "head" in params, f"{args.checkpoint}: holds no waypoint head; give a run of vlm_waypoint."
  )
  head = model["head"]
  changed = [name for name in ("residual", "standardize", "normalize_features") if head.get(name)]
  checks.require(
    not changed,
    f"{args.checkpoint}: its head was trained with {changed}, which the PyTorch head does not do: "
    "its weights would give other waypoints there; train with these settings False.",
  )
  content = converter.to_torch(params["head"], head["name"], args.checkpoint)
  write_torch.write_checkpoint(args.out, content)
  print(f"written: {args.out} ({len(content['state_dict'])} tensors under 'state_dict')")
  return 0


def _to_adapter(args):
  from vistraj_jax import encoders
  from vistraj_jax.convert import adapters
  from vistraj_jax.core import trained

  params, model = trained.load(args.checkpoint)
  checks.require(
    "lora" in params, f"{args.checkpoint}: holds no low-rank update; give a run with LoRA."
  )
  settings, lora = model["encoder"], model["lora"]
  encoder = encoders.make(settings["name"], **settings["fields"])
  alpha = lora["alpha"] or 2 * lora["rank"]
  adapters.save_adapter(
    args.out,
    params["lora"],
    alpha,
    settings["name"],
    encoder.shapes(),
    encoder.lora_dropout,
    settings["checkpoint"],
  )
  files = sorted(path.name for path in pathlib.Path(args.out).iterdir())
  print(f"written: {args.out} ({', '.join(files)}; rank {lora['rank']}, alpha {alpha:g})")
  return 0
