"""`launch.convert two_stream`: checkpoints of the original projects to weights files and back."""

from vistraj_jax.core import checks

# The variant of configs/two_stream.py that a layout is read as, unless --variant says another.
_VARIANTS = {
  "policy": "base",
  "predictor": "base",
  "per_stream_patch": "v6",
  "single_stream": "single_stream",
  "videomae": "videomae",
}
_CHANNELS_PER_HEAD = 64  # in the original
_READOUT = "fused_patch_mean"  # of the original's policies


def run(args):
  """Converts as `args` of launch.convert say; returns 0.

  Raises:
    InputError: a kind of file that is not made, or a checkpoint of another network.
  """
  checks.choice("--to", args.to, ("weights", "torch"))
  return _to_torch(args) if args.to == "torch" else _to_weights(args)


def _to_weights(args):
  from vistraj_jax.convert import read_torch, two_stream
  from vistraj_jax.core import trained, weights

  checkpoint = read_torch.read_checkpoint(args.checkpoint)
  tensors, layout, key = two_stream.state_of(checkpoint, args.checkpoint)
  model = _settings(args, two_stream.settings_of(tensors, layout), layout)
  variables, dropped = two_stream.from_torch(
    tensors, layout, _shapes(model, layout, tensors), args.checkpoint
  )
  place = f"under {key!r}" if key else "bare"
  print(f"{args.checkpoint}: state dict {place}; {_summary(variables, model)}")
  if dropped:
    print(f"left out, for this variant has no such part: {len(dropped)} tensors, {dropped[0]}, ...")
  if layout == "policy":
    _policy(variables["params"], model).save(args.out, model)
  else:
    statistics = variables.get(trained.STATISTICS)
    tree = variables["params"] | ({trained.STATISTICS: statistics} if statistics else {})
    weights.save_weights(args.out, tree, args.system, model)
  print(f"written: {args.out}")
  return 0


def _to_torch(args):
  from vistraj_jax.convert import two_stream, write_torch
  from vistraj_jax.core import trained

  checks.require(
    not args.variant and not args.num_heads,
    "--variant, --num_heads: our weights say what they are; leave the options out.",
  )
  variables, model = trained.load_variables(args.checkpoint)
  if "readout" in model:
    variables, model = _unfolded(variables["params"], model, args.checkpoint)
  layout = two_stream.layout_of(variables["params"], model)
  checkpoint = two_stream.to_torch(variables, layout, args.checkpoint)
  print(f"{args.checkpoint}: {_summary(variables, model)}")
  write_torch.write_checkpoint(args.out, checkpoint)
  count = len(checkpoint["model_state_dict"])
  print(f"written: {args.out} ({count} tensors under 'model_state_dict')")
  return 0


def _policy(params, model):
  """Returns the `policy.Policy` of {"encoder", "fusion", "head"}; its actions are the head's."""
  from vistraj_jax.models.two_stream import policy, settings

  params = dict(params)
  head_params = params.pop("head")
  head = policy.ActionHead(actions=head_params["out"]["bias"].shape[0])
  return policy.Policy(settings.make(model), {"params": params}, head, head_params, _READOUT)


def _unfolded(arrays, config, where):
  """Returns (variables, config.model) as the original has them, of a file of `Policy.save`.

  The original's head gives actions in their own units, so ours takes mean and scale in.
  """
  model = config["model"]
  checks.require(
    config["readout"] == _READOUT and model["streams"] == "two",
    f"{where}: a policy of streams={model['streams']!r} that reads {config['readout']!r}; the "
    f"original layout has only that of two streams that reads {_READOUT!r}.",
  )
  out, scale = arrays["head"]["out"], arrays["scale"]
  out = {"kernel": out["kernel"] * scale, "bias": out["bias"] * scale + arrays["mean"]}
  return {"params": {**arrays["encoder"], "head": {**arrays["head"], "out": out}}}, model


def _settings(args, found, layout):
  """Returns config.model: of the variant, with all that the checkpoint itself says."""
  from configs import two_stream as config_file

  variant = checks.choice("--variant", args.variant or _VARIANTS[layout], config_file.VARIANTS)
  model = config_file.get_config(variant).model
  found["num_heads"] = args.num_heads or max(1, found["embed_dim"] // _CHANNELS_PER_HEAD)
  for name, value in found.items():
    *path, last = name.split(".")
    node = model
    for part in path:
      node = node[part]
    node[last] = value
  return model.to_dict()


def _shapes(model, layout, tensors):
  """Returns {name: shape} of the network's variables, without computing anything."""
  import jax
  import jax.numpy as jnp

  from vistraj_jax.models.two_stream import policy, settings

  network = settings.make(model)
  image = jnp.zeros((1, model["image_size"], model["image_size"], 3))
  inputs = (image, image)
  if layout == "videomae":
    inputs = (*inputs, jnp.zeros((1, network.num_patches)))
  rng = jax.random.PRNGKey(0)
  variables = jax.eval_shape(network.init, rng, *inputs)
  trees = [variables["params"], variables.get("batch_stats", {})]
  if layout == "policy":
    head = policy.ActionHead(actions=tensors["action_head.mlp.8.bias"].shape[0])
    width = tensors["action_head.mlp.0.weight"].shape[1]
    params = {name: tree for name, tree in trees[0].items() if name != "decoder"}
    trees = [{**params, "head": jax.eval_shape(head.init, rng, jnp.zeros((1, width)))["params"]}]
  return {
    "/".join(key.key for key in path): leaf.shape
    for tree in trees
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }


def _summary(variables, model):
  from vistraj_jax.core import weights

  parts = {
    part: sum(leaf.size for leaf in weights.flatten({part: tree}).values())
    for part, tree in variables["params"].items()
  }
  total = sum(parts.values())
  shown = ", ".join(f"{name} {count:,}" for name, count in parts.items() if count > total // 1000)
  return (
    f"streams {model['streams']}, image {model['image_size']} px, width {model['embed_dim']}, "
    f"depth {model['depth']}, heads {model['num_heads']}; {total:,} parameters ({shown})"
  )
