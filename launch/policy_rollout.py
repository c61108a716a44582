"""Closed loops of a saved policy in the generated manipulation world, beside its baselines."""

_ACTIONS = 7  # numbers that `manipulation.Environment.step` takes


def run(path, args):
  """Lets the policy and its baselines act in the same episodes.

  Args:
    path: policy file.
    args: of `launch.policy rollout`.

  Returns:
    (JSON-able result, pictures uint8 [S, S, 3] of the first episodes, frames a second).

  Raises:
    InputError: no policy for this robot.
  """
  import numpy as np
  import tqdm

  from vistraj_jax.core import checks
  from vistraj_jax.data import images
  from vistraj_jax.metrics import success
  from vistraj_jax.models.two_stream import policy as policies
  from vistraj_jax.prepare.world import manipulation, manipulation_expert

  policy = policies.load(path, actions=_ACTIONS)
  rate, size = policy.about["frame_rate"], policy.about["frame_size"]
  tasks = policy.about["instructions"]
  for task in tasks:
    checks.require(
      task in manipulation.TASKS,
      f"{path}: learned {task!r}, the generated world has tasks as {manipulation.TASKS[0]!r}; roll "
      "out where the demonstrations come from.",
    )
  seen = (policy.image_size, policy.image_size)
  random = np.random.default_rng(args.seed)
  actors = {
    "policy": lambda world, frame: policy.step(images.resized(frame, seen)),
    "scripted_expert": lambda world, frame: manipulation_expert.act(world),
    "mean_action": lambda world, frame: policy.arrays["mean"],
    "random_actions": lambda world, frame: random.uniform(-1, 1, _ACTIONS),
  }
  worlds = [
    manipulation.Environment(
      manipulation.Settings(task=task, size=size, rate=rate, moving_camera=args.moving_camera)
    )
    for task in tasks
  ]
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
      rate_of = success.wilson(sum(good for good, _ in outcomes), len(outcomes))
      found[name] = {
        **rate_of._asdict(),
        "mean_steps": float(np.mean([steps for _, steps in outcomes])),
        "episodes": [bool(good) for good, _ in outcomes],
      }
  result = {
    "policy": str(path),
    "tasks": tasks,
    "first_seed": args.first_seed,
    "moving_camera": args.moving_camera,
    "success": found,
  }
  return result, pictures, rate


def _episode(world, seed, actor, needs_frames, film):
  """Returns (success, steps); frames are painted only where somebody looks at them."""
  import numpy as np

  frame, done, good = world.reset(seed), False, False
  while not done:
    action = actor(world, frame)
    if film is not None:
      film.append(np.repeat(np.repeat(frame[..., ::-1], 2, 0), 2, 1))
    if needs_frames:
      frame, done, good = world.step(action)
    else:
      done, good = world.advance(action)
  return good, world.steps
