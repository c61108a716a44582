"""Trajectories of the generated videos: discs with walls, curves in space, five motion classes.

Positions in images are row, column in px; headings turn counter-clockwise as a viewer sees it.
"""

import numpy as np

CURVES = ("linear", "circular", "helical", "parabolic")
MOTIONS = ("straight", "left_turn", "right_turn", "u_turn", "loop")
_TURNS = {"straight": 0, "left_turn": 90, "right_turn": -90, "u_turn": 180, "loop": 360}  # degrees
_NEAR, _FAR = 3.0, 6.0  # m from the camera: where curves are
_GRAVITY = 9.81  # m/s^2, downwards
_TRIES = 1000


def disc_parameters(rng, size):
  """Draws start row, start column (px), velocity of rows, of columns (px a frame): float64 [4].

  Starts are 20..39 px and velocities up to 2 px a frame for 128 px, and scale with the size.
  """
  scale = size / 128
  low, high = round(20 * scale), round(40 * scale)
  return np.concatenate([rng.integers(low, high, 2), rng.uniform(-2 * scale, 2 * scale, 2)])


def disc_centres(parameters, frames, size, radius, walls="slide", subpixel=False):
  """Moves a disc in a straight line between walls.

  Args:
    parameters: [..., 4], see `disc_parameters`.
    frames: T.
    size: px, side of the frame.
    radius: px; the centre stays `radius` from each side.
    walls: "slide" along a wall, or "bounce" off it.
    subpixel: else positions are cut to whole px, towards 0, before they meet the wall.

  Returns:
    float64 [..., T, 2].
  """
  parameters = np.asarray(parameters, np.float64)
  t = np.arange(frames)[:, None]
  free = parameters[..., None, :2] + parameters[..., None, 2:] * t
  low, high = radius, size - 1 - radius
  if walls == "bounce":
    span = high - low
    along = np.mod(free - low, 2 * span)
    free = low + np.where(along > span, 2 * span - along, along)
  free = free if subpixel else np.trunc(free)
  return np.clip(free, low, high)


def curve(kind, rng, frames, size, radius, rate):
  """Draws a curve in space that a camera sees whole.

  The pinhole camera looks along +z from the origin, x to the right, y down, m; its focal length is
  the width of the image.

  Args:
    kind: of CURVES.
    rng: NumPy generator.
    frames: T.
    size: px, side of the frame.
    radius: px that the object has halfway between the nearest and the farthest place.
    rate: frames a second.

  Returns:
    centres float64 [T, 2], radii float64 [T] in px, points float64 [T, 3] in m.
  """
  t = np.linspace(0, 1, frames)[:, None]
  metres = radius * (_NEAR + _FAR) / 2 / size
  for _ in range(_TRIES):
    points = _curve_points(kind, rng, t, (frames - 1) / rate)
    depth = points[:, 2]
    if depth.min() < _NEAR - 1:
      continue
    centres = (size - 1) / 2 + size * points[:, 1::-1] / depth[:, None]
    radii = size * metres / depth
    room = radii[:, None] + 0.5
    if ((centres >= room) & (centres <= size - 1 - room)).all():
      return centres, radii, points
  raise RuntimeError(f"{kind}: no curve in {_TRIES} stayed in the picture.")


def motion(kind, rng, frames, size, jitter):
  """Draws a path with one turn in its middle third, at constant speed.

  Args:
    kind: of MOTIONS: straight, 90 degrees left or right, 180 degrees, or 360.
    rng: NumPy generator.
    frames: T.
    size: px, side of the frame; the path keeps a tenth of it from each side.
    jitter: standard deviation of each position, as a share of the size.

  Returns:
    float64 [T, 2].
  """
  turned = np.clip(3 * np.arange(frames - 1) / max(frames - 1, 1) - 1, 0, 1)
  heading = rng.uniform(0, 2 * np.pi) + np.deg2rad(_TURNS[kind]) * turned
  if kind in ("u_turn", "loop"):  # always to the left would give the class away
    heading = heading[0] + rng.choice([-1, 1]) * (heading - heading[0])
  steps = np.stack([-np.sin(heading), np.cos(heading)], -1)
  path = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
  path -= path.min(0)
  room = 0.8 * size
  path *= room * rng.uniform(0.6, 1) / path.max()
  path += 0.1 * size + rng.uniform(0, 1, 2) * (room - path.max(0))
  path += rng.normal(0, jitter * size, path.shape)
  return np.clip(path, 0.05 * size, 0.95 * size - 1)


def _curve_points(kind, rng, t, seconds):
  """Returns points [T, 3] in m for t [T, 1] in 0..1."""
  start, end = _place(rng), _place(rng)
  if kind == "linear":
    return start + (end - start) * t
  if kind == "parabolic":
    drop = 0.5 * _GRAVITY * seconds**2
    drop *= min(1, 1.2 / drop)  # of a slow-motion camera, so that long videos see it whole
    line = start + (end - start) * t
    line[:, 1] -= (4 * drop * t * (1 - t))[:, 0]
    return line
  turns = rng.choice([-1, 1]) * rng.uniform(0.6, 1.5 if kind == "circular" else 2.5)
  angle = rng.uniform(0, 2 * np.pi) + 2 * np.pi * turns * t
  axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
  across = rng.uniform(0.3, 0.9) * (np.cos(angle) * axes[0] + np.sin(angle) * axes[1])
  if kind == "circular":
    return start + across
  return start + across + axes[2] * rng.uniform(0.8, 2) * (t - 0.5)


def _place(rng):
  return np.array([*rng.uniform(-1.2, 1.2, 2), rng.uniform(_NEAR, _FAR)])
