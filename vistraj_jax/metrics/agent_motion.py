"""Futures of an agent from its past positions alone: it stays, or goes on, straight or turning.

Positions are [..., T, 2] in m at 2 Hz, oldest first, the last one known; answers [..., steps, 2],
the first 0.5 s later, in the same frame. Takes any array type with the standard array interface.
"""

from vistraj_jax.core import motion
from vistraj_jax.metrics import ego_motion

SECONDS = 0.5  # between positions


def constant_position(past_xy, past_valid, steps):
  """It stays where it was last."""
  del past_valid
  xp = past_xy.__array_namespace__()
  return xp.broadcast_to(past_xy[..., -1:, :], (*past_xy.shape[:-2], steps, 2))


def constant_velocity(past_xy, past_valid, steps):
  """The last displacement goes on; see `core.motion.last_step`."""
  xp = past_xy.__array_namespace__()
  number = 1 + xp.arange(steps, dtype=past_xy.dtype)
  step = motion.last_step(past_xy, past_valid)[..., None, :]
  return past_xy[..., -1:, :] + number[:, None] * step


def constant_turn_rate(past_xy, past_valid, steps):
  """The last speed and the turn between the last two displacements go on.

  Straight on where one of the last three positions is missing, and below 0.5 m/s, where the turn
  is mostly noise.
  """
  xp = past_xy.__array_namespace__()
  step = motion.last_step(past_xy, past_valid)
  straight = constant_velocity(past_xy, past_valid, steps)
  if past_xy.shape[-2] < 3:
    return straight
  known = (past_valid[..., -2] > 0) & (past_valid[..., -3] > 0)
  before = past_xy[..., -2, :] - past_xy[..., -3, :]
  cross = before[..., 0] * step[..., 1] - before[..., 1] * step[..., 0]
  turn = xp.where(known, xp.atan2(cross, xp.sum(before * step, axis=-1)), 0.0)
  # The displacement is the velocity half a step ago.
  cos, sin = xp.cos(turn / 2), xp.sin(turn / 2)
  vx, vy = step[..., 0] / SECONDS, step[..., 1] / SECONDS
  vx, vy = cos * vx - sin * vy, sin * vx + cos * vy
  rate = turn / SECONDS
  last = past_xy[..., -1, :]
  state = xp.stack([last[..., 0], last[..., 1], vx, vy, -rate * vy, rate * vx], axis=-1)
  turning = ego_motion.constant_turn_rate(state[..., None, :], steps, SECONDS)
  is_slow = xp.sqrt(vx**2 + vy**2) <= ego_motion.SLOWEST_TURN
  return xp.where(is_slow[..., None, None], straight, turning)


BASELINES = {
  "constant_position": constant_position,
  "constant_velocity": constant_velocity,
  "constant_turn_rate": constant_turn_rate,
}
