"""Futures from the ego state alone: stand still, constant velocity, acceleration, turn rate.

The past is [..., 16, 6] (x, y, vx, vy, ax, ay at 4 Hz, oldest first; m, m/s, m/s2; ego frame at
t = 0: x ahead, y to the left). Answers are [..., T, 2] m, `interval` s apart, the first after one
interval. Works on any array type with the standard array interface.
"""

STEP_SECONDS = 0.25
SLOWEST_TURN = 0.5  # m/s; below it the direction of the velocity is noise
FASTEST_TURN = 1.0  # rad/s


def stand_still(past, steps=20):
  """The ego stays where it is."""
  xp = past.__array_namespace__()
  return xp.zeros((*past.shape[:-2], steps, 2), dtype=past.dtype)


def constant_velocity(past, steps=20, interval=STEP_SECONDS):
  """The last velocity goes on."""
  seconds = _seconds(past, steps, interval)[:, None]
  return past[..., -1:, :2] + seconds * past[..., -1:, 2:4]


def constant_acceleration(past, steps=20, interval=STEP_SECONDS):
  """The last velocity and acceleration vectors go on; a car that comes to a stop stays there."""
  return _arc(past, steps, interval, turns=False)


def constant_turn_rate(past, steps=20, interval=STEP_SECONDS):
  """The last turn rate and acceleration along the path go on; it never drives backwards."""
  return _arc(past, steps, interval, turns=True)


BASELINES = {
  "stand_still": stand_still,
  "constant_velocity": constant_velocity,
  "constant_acceleration": constant_acceleration,
  "constant_turn_rate": constant_turn_rate,
}


def _arc(past, steps, interval, turns):
  """Path of constant acceleration along the path, turning at a constant rate or not at all.

  The turn rate is the share of the acceleration across the velocity, over the speed.
  """
  xp = past.__array_namespace__()
  velocity, acceleration = past[..., -1, 2:4], past[..., -1, 4:6]
  speed = xp.sqrt(xp.sum(velocity**2, axis=-1))
  safe = xp.maximum(speed, xp.asarray(SLOWEST_TURN, dtype=past.dtype))
  # A car at rest speeds up ahead, along +x.
  moving = speed > SLOWEST_TURN
  ahead = xp.where(
    moving[..., None], velocity / safe[..., None], xp.asarray([1.0, 0.0], dtype=past.dtype)
  )
  along = xp.sum(acceleration * ahead, axis=-1)
  across = acceleration[..., 1] * ahead[..., 0] - acceleration[..., 0] * ahead[..., 1]
  rate = xp.where(moving, xp.clip(across / safe, -FASTEST_TURN, FASTEST_TURN), 0 * speed)
  if not turns:
    rate = 0 * rate

  # Distance driven in each step: exact for constant acceleration, zero after the stop.
  ends = _seconds(past, steps, interval)
  starts = ends - interval

  def driven(seconds):
    stop = xp.where(along < 0, speed / xp.where(along < 0, -along, 1 + 0 * along), 1e9 + 0 * along)
    t = xp.minimum(seconds, stop[..., None])
    return speed[..., None] * t + 0.5 * along[..., None] * t**2

  lengths = driven(ends) - driven(starts)
  heading = rate[..., None] * (starts + interval / 2)  # of the middle of each step
  cos, sin = xp.cos(heading), xp.sin(heading)
  x = lengths * (cos * ahead[..., :1] - sin * ahead[..., 1:])
  y = lengths * (sin * ahead[..., :1] + cos * ahead[..., 1:])
  return past[..., -1:, :2] + xp.cumulative_sum(xp.stack([x, y], axis=-1), axis=-2)


def _seconds(past, steps, interval):
  xp = past.__array_namespace__()
  return interval * (1 + xp.arange(steps, dtype=past.dtype))
