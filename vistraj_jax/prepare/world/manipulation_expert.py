"""The scripted expert of the manipulation world, and its demonstrations.

The expert sees the state and remembers nothing, so it recovers from anything: it goes above the
place behind the block (seen from the square), comes down, pushes towards the square and steers by
moving across; if the block slips off sideways it lifts the hand and begins again.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.prepare.world import manipulation
from vistraj_jax.prepare.world import manipulation_physics as physics

_TRAVEL = 0.075  # m, height of the tips between pushes
_BEHIND = 0.055  # m from the middle of the block to the hand that comes down
_TRIES = 20  # seeds for one demonstration


@dataclasses.dataclass
class Demonstration:
  """One successful episode of T steps; row t is what was seen and then done.

  Attributes:
    instruction: text.
    seed: of `Environment.reset`.
    rate: Hz, of rows.
    frames: {camera: uint8 [T, S, S, 3]}.
    viewpoints: T `manipulation_view.Viewpoint` of "agentview".
    actions: float32 [T, 7].
    hand: float64 [T, 5] x, y, z, yaw, width.
    joints: float64 [T, 7], rad.
    blocks: float64 [T, K, 3]; squares: float64 [S, 2].
  """

  instruction: str
  seed: int
  rate: float
  frames: dict
  viewpoints: list
  actions: np.ndarray
  hand: np.ndarray
  joints: np.ndarray
  blocks: np.ndarray
  squares: np.ndarray


def act(environment, haste=0.7):
  """Returns the expert's action [7] in an environment's present state.

  Args:
    environment: `manipulation.Environment`, reset.
    haste: share of the hand's greatest speed.
  """
  hand, rate = environment.hand, environment.settings.rate
  block = environment.blocks[environment.block]
  along, distance = manipulation.way(block, environment.squares[environment.square])
  across = np.array([-along[1], along[0]])
  place = block[:2] - _BEHIND * along
  offset = hand[:2] - block[:2]
  lateral, lag = offset @ across, -offset @ along
  turn = _nearest_turn(np.arctan2(along[1], along[0]) - hand[3])
  step = manipulation.LINEAR_SPEED / rate
  is_low = hand[2] < physics.BLOCK_HEIGHT
  has_slipped = abs(lateral) > 0.025 or lag < 0.02
  if is_low and has_slipped:
    move = np.array([*(-along * (0.3 if lag > 0 else 0.0)), 1.0]) * step
  elif is_low and abs(turn) < 0.5:
    slow = np.clip(distance / 0.05, 0.35, 1.0)
    sideways = np.clip(-2.0 * lateral * rate / 20 / step, -0.6, 0.6)
    down = np.clip((manipulation.LOW - hand[2]) / step, -1, 1)
    move = np.append(along * slow + across * sideways, down) * step
  else:
    over = place - hand[:2]
    away = np.hypot(*over)
    is_there = away < 0.008 and abs(turn) < 0.15
    height = manipulation.LOW if is_there or (away < 0.012 and is_low) else _TRAVEL
    level = over / max(away, 1e-9) * min(away, step)
    if hand[2] < physics.BLOCK_HEIGHT + 0.01 and not is_there:
      level *= 0  # up first
    move = np.append(level, np.clip(height - hand[2], -step, step))
  action = np.zeros(7)
  action[:3] = (haste * move / step).clip(-1, 1)
  action[5] = np.clip(turn * rate / manipulation.ANGULAR_SPEED / 4, -1, 1)
  is_near = is_low or np.hypot(*(place - hand[:2])) < 0.08
  action[6] = -1.0 if is_near else 1.0
  return action


def demonstrate(settings, seed, cameras=("agentview",), every=1):
  """Returns the `Demonstration` of a seed, or None where the expert fails.

  Args:
    settings: `manipulation.Settings`.
    seed: int.
    cameras: whose frames are kept, of `manipulation.CAMERAS`.
    every: keep every so many-th step.
  """
  environment = manipulation.Environment(settings)
  environment.reset(seed)
  haste = np.random.default_rng((seed, 3)).uniform(0.5, 0.9)
  rows = {name: [] for name in ("viewpoints", "actions", "hand", "joints", "blocks")}
  frames = {camera: [] for camera in cameras}
  done = False
  while not done:
    action = act(environment, haste).astype(np.float32)
    if environment.steps % every == 0:
      for camera in cameras:
        frames[camera].append(environment.frame(camera))
      rows["viewpoints"].append(environment.viewpoint())
      rows["actions"].append(action)
      rows["hand"].append(environment.hand)
      rows["joints"].append(environment.joints())
      rows["blocks"].append(environment.blocks)
    done, success = environment.advance(action)
  if not success:
    return None
  arrays = {name: np.stack(rows.pop(name)) for name in ("actions", "hand", "joints", "blocks")}
  return Demonstration(
    instruction=environment.instruction,
    seed=seed,
    rate=settings.rate / every,
    frames={camera: np.stack(pictures) for camera, pictures in frames.items()},
    squares=environment.squares,
    **rows,
    **arrays,
  )


def demonstration(settings, seed, cameras=("agentview",), every=1):
  """Returns the first success of the expert in episodes that belong to `seed`; see `demonstrate`.

  Raises:
    InputError: in none of several: the settings leave it no chance.
  """
  for k in range(_TRIES):
    found = demonstrate(settings, seed * _TRIES + k, cameras, every)
    if found is not None:
      return found
  raise checks.InputError(
    f"seed {seed}: the expert failed {_TRIES} times with noise {settings.noise} in "
    f"{settings.seconds} s; give less noise or more time."
  )


def _nearest_turn(angle):
  """The hand looks alike after half a turn: the smaller of both ways, rad."""
  return (angle + np.pi / 2) % np.pi - np.pi / 2
