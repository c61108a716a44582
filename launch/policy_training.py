"""Behaviour cloning on a two-stream encoder: demonstrations -> `Policy`, scored on other ones."""

import pathlib

from vistraj_jax.core import checks


def train(args):
  """Learns a policy.

  Args:
    args: of `launch.policy train`.

  Returns:
    (`policy.Policy`, config.model of its encoder, JSON-able result: errors of held-out steps in
    the units of the actions, beside the mean action and the copied last action).

  Raises:
    InputError: no demonstrations of the instruction, records without actions, or a readout that
      the network does not have.
  """
  import jax
  import numpy as np

  from launch import two_stream_features
  from vistraj_jax.models.two_stream import policy as policies
  from vistraj_jax.models.two_stream import probes

  encoder = two_stream_features.load_encoder(args.encoder)
  if args.weights == "random":
    encoder = two_stream_features.randomized(encoder, args.seed)
  sources, parts = _demonstrations(args)
  mean, scale = probes.standard(parts[0].action)
  data = [{"action": part.action, "mean": mean, "scale": scale} for part in parts]
  head = policies.ActionHead(actions=len(mean))
  learn = _unfrozen if args.unfrozen else _frozen
  params, fitted = learn(encoder, head, sources, parts, data, args)
  policy = policies.Policy(
    encoder.network,
    {"params": jax.device_get(params["encoder"])},
    head,
    jax.device_get(params["head"]),
    args.readout,
    mean,
    scale,
  )
  policy.about = {
    "encoder": str(args.encoder),
    "weights": args.weights,
    "unfrozen": args.unfrozen,
    "frame_rate": sources[0].fps,
    "camera": sources[0].camera,
    "instructions": sorted(set(parts[0].instruction.tolist())),
  }
  held = parts[1]
  candidates = {
    "policy": fitted.outputs,
    "mean_action": np.broadcast_to(mean, held.action.shape),
    "copy_last_action": held.previous,
  }
  result = {
    **policy.about,
    "data": str(args.data),
    "readout": args.readout,
    "seed": args.seed,
    "epochs": args.epochs,
    "demonstrations": [len(np.unique(part.video)) for part in parts],
    "steps": [len(part.action) for part in parts],
    "scores": {name: _scores(value, held) for name, value in candidates.items()},
    "best_epoch": fitted.best_epoch,
    "best_mse": min(fitted.scores),
    "losses": fitted.losses,
    "held_out_mse": fitted.scores,
  }
  return policy, encoder.model, result


def _demonstrations(args):
  """Returns ([source of each part], [`Steps` to learn from, `Steps` to score])."""
  from launch import two_stream_features
  from vistraj_jax.data import two_stream, two_stream_actions

  data = two_stream_features.data_root(args.data)
  checks.require(len(args.split) <= 2, f"--split: {args.split}; give one split, or two.")
  sources = [two_stream.Trajectories(data, split) for split in args.split]
  rates = [source.fps for source in sources]
  checks.require(
    len(set(rates)) == 1,
    f"--split: {args.split} of {args.data} have {rates} steps a second; choose splits of one rate.",
  )
  motions = [two_stream_actions.read_motions(source) for source in sources]
  parts = [two_stream_actions.demonstration_steps(own) for own in motions]
  if args.instruction is not None:
    known = sorted({motion.instruction for own in motions for motion in own})
    checks.choice("--instruction", args.instruction, known)
    parts = [part.where(part.instruction == args.instruction) for part in parts]
  if len(parts) == 1:
    scored = two_stream_actions.held_out(parts[0].video)
    parts, sources = [parts[0].where(~scored), parts[0].where(scored)], sources * 2
  for part, split in zip(parts, args.split * (2 // len(args.split)), strict=True):
    checks.require(
      len(part.action) > 0,
      f"--instruction: {args.instruction!r} has no demonstration in split {split!r} of "
      f"{args.data}; prepare more, or another --val_share.",
    )
  widths = [part.action.shape[1] for part in parts]
  checks.require(
    len(set(widths)) == 1, f"--split: {args.split} have actions of {widths} numbers; one is wanted."
  )
  return sources, parts


def _frozen(encoder, head, sources, parts, data, args):
  """Learns the head on features that are computed once; returns (params, `Fitted`)."""
  from launch import two_stream_features
  from vistraj_jax.data import two_stream_actions
  from vistraj_jax.models.two_stream import policy as policies

  for source, part, own, name in zip(sources, parts, data, ("learned", "held"), strict=True):
    pairs = two_stream_actions.FramePairs(source, part.index, encoder.model["image_size"])
    found = two_stream_features.features(
      encoder,
      pairs,
      part.index,
      pathlib.Path(args.out) / "features",
      name,
      batch_size=args.encode_batch,
    )
    own["x"] = found[checks.choice("--readout", args.readout, found)]
  start = _start(head, data[0]["x"][:1], args)
  fitted = _fit(policies.Cloning(head), start, data, args)
  return {"encoder": encoder.params, "head": fitted.params}, fitted


def _unfrozen(encoder, head, sources, parts, data, args):
  """Learns encoder and head together, from frames on the device; returns as `_frozen`."""
  import jax
  import numpy as np

  from vistraj_jax.models.two_stream import policy as policies

  size = encoder.model["image_size"]
  image = np.zeros((1, size, size, 3), np.uint8)
  seen = jax.eval_shape(
    lambda p: policies.features(encoder.network, {"params": p}, image, image, args.readout),
    encoder.params,
  )
  for source, part, own in zip(sources, parts, data, strict=True):
    own |= _resident(source, part, size)
  start = {
    "encoder": encoder.params,
    "head": _start(head, np.zeros(seen.shape, np.float32), args),
  }
  problem = policies.UnfrozenCloning(head, encoder.network, args.readout)
  fitted = _fit(problem, start, data, args)
  return fitted.params, fitted


def _start(head, example, args):
  import jax

  from vistraj_jax.nn import initializers

  return initializers.init(head, jax.random.PRNGKey(args.seed), example)["params"]


def _fit(problem, start, data, args):
  from vistraj_jax.train import fit

  return fit.fit(
    problem,
    start,
    *data,
    count=len(data[0]["action"]),
    epochs=args.epochs,
    batch_size=args.batch_size,
    optimizer=fit.AdamW(args.lr, args.weight_decay, cosine=True),
    seed=args.seed,
    label="policy",
  )


def _resident(source, part, size):
  """Returns {"frames": uint8 [F, S, S, 3], every frame once; "pair": rows of it, int32 [N, 2]}."""
  import numpy as np
  import tqdm

  from vistraj_jax.data import two_stream_actions

  pairs = two_stream_actions.FramePairs(source, part.index, size)
  places = np.concatenate([part.index[:, :2], part.index[:, ::2]])
  known, inverse = np.unique(places, axis=0, return_inverse=True)
  frames = np.empty((len(known), size, size, 3), np.uint8)
  for i, place in enumerate(tqdm.tqdm(known.tolist(), desc="frames", unit="frame", delay=3)):
    frames[i] = pairs.frame(place)
  return {"frames": frames, "pair": inverse.reshape(2, -1).T.astype(np.int32)}


def _scores(predicted, held):
  """Returns errors over all held-out steps, with the interval of the MSE over demonstrations."""
  import numpy as np

  from vistraj_jax.metrics import bootstrap

  error = predicted.astype(np.float64) - held.action
  found = {
    "mse": float((error**2).mean()),
    "l1": float(abs(error).mean()),
    "mse_by_number": (error**2).mean(0),
    "l1_by_number": abs(error).mean(0),
  }
  if len(set(held.video.tolist())) > 1:
    sums = np.stack([(error**2).mean(1), np.ones(len(error))], 1)
    between = bootstrap.interval(sums, held.video, lambda s: s[:, 0] / s[:, 1], 2000)
    found["mse_interval"] = [between.low, between.high]
  return found
