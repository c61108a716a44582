"""Closed loops of a saved policy in the generated manipulation world, beside its baselines."""

_ACTIONS = 7  # numbers that `manipulation.Environment.step` takes


def run(path, args):
  """Lets the policy and its baselines act in the same episodes.

  Args:
    path: policy file.
    args: of `launch.policy rollout`.

  Returns:
    (JSON-able result, pictures uint8 [S, S, 3] of the first episodes, frames a second). Progress is
    the share of the way to its square that the block has gone in the end: 0 where nobody has
    touched it, negative where it is farther than before.

  Raises:
    InputError: no policy for this robot.
  """
  import numpy as np
  import tqdm

  from vistraj_jax.data import images
  from vistraj_jax.metrics import success
  from vistraj_jax.models.two_stream import policy as policies
  from vistraj_jax.prepare.world import manipulation_expert

  policy = policies.load(path, actions=_ACTIONS)
  worlds = _worlds(path, policy.about, args.source)
  seen = (policy.image_size, policy.image_size)
  random = np.random.default_rng(args.seed)
  actors = {
    "policy": lambda world, frame: policy.step(images.resized(frame, seen)),
    "scripted_expert": lambda world, frame: manipulation_expert.act(world),
    "mean_action": lambda world, frame: policy.arrays["mean"],
    "random_actions": lambda world, frame: random.uniform(-1, 1, _ACTIONS),
  }
  found, pictures = {}, []
  with tqdm.tqdm(total=len(actors) * args.episodes, unit="episode", delay=3) as bar:
    for name, actor in actors.items():
      bar.set_description(name.replace("_", " "))
      outcomes = []
      for k in range(args.episodes):
        policy.reset()
        film = pictures if name == "policy" and k < args.videos else None
        world = worlds[k % len(worlds)]
        outcomes.append(_episode(world, args.first_seed + k, actor, name == "policy", film))
        bar.update()
      rate_of = success.wilson(sum(good for good, _, _ in outcomes), len(outcomes))
      found[name] = {
        **rate_of._asdict(),
        "mean_steps": float(np.mean([steps for _, steps, _ in outcomes])),
        "mean_progress": float(np.mean([progress for _, _, progress in outcomes])),
        "episodes": [bool(good) for good, _, _ in outcomes],
        "progress": [progress for _, _, progress in outcomes],
      }
  result = {
    "policy": str(path),
    "source": str(args.source),
    "tasks": [world.settings.task for world in worlds],
    "first_seed": args.first_seed,
    "success": found,
  }
  return result, pictures, worlds[0].settings.rate


def _worlds(path, about, source):
  """Returns the environments of the tasks that a policy has learned, seen by its camera."""
  import dataclasses
  import pathlib

  from vistraj_jax.core import checks
  from vistraj_jax.prepare import embedded
  from vistraj_jax.prepare.world import manipulation, manipulation_libero

  checks.require(
    about.get("instructions"),
    f"{path}: does not say which tasks it has learned, nor at which rate (what launch.convert has "
    "made of another project's policy does not); only policies of launch.policy train act here.",
  )
  folder = embedded.demonstrations("libero") if source == "embedded" else pathlib.Path(source)
  files = sorted(folder.rglob("*.hdf5"))
  checks.require(
    files,
    f"--source: {folder}: no file *.hdf5; give the folder of launch.prepare manipulation.",
  )
  known = {world.settings.task: world for world in map(manipulation_libero.environment, files)}
  missing = [task for task in about["instructions"] if task not in known]
  checks.require(
    not missing,
    f"--source: {folder} has the tasks {list(known)[:2]} and so on, not {missing[:1]}, which "
    f"{path} has learned; give the folder that its demonstrations were made of.",
  )
  camera = about.get("camera") or manipulation.CAMERAS[0]  # where none was noted, it was this one
  worlds = [
    manipulation.Environment(dataclasses.replace(known[task].settings, camera=camera))
    for task in about["instructions"]
  ]
  rate = worlds[0].settings.rate
  checks.require(
    abs(rate - about["frame_rate"]) < 0.01,
    f"{path}: learned at {about['frame_rate']:g} steps a second, {folder} runs at {rate:g}; the "
    "same action would move another way.",
  )
  return worlds


def _episode(world, seed, actor, needs_frames, film):
  """Returns (success, steps, progress); frames are painted only where somebody looks at them."""
  import numpy as np

  frame, done, good = world.reset(seed), False, False
  far = world.distance
  while not done:
    action = actor(world, frame)
    if film is not None:
      film.append(np.repeat(np.repeat(frame[..., ::-1], 2, 0), 2, 1))
    if needs_frames:
      frame, done, good = world.step(action)
    else:
      done, good = world.advance(action)
  return good, world.steps, 1 - world.distance / far
