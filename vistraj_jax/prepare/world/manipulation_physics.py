"""Quasi-static pushing of square blocks on a table by the tips of two fingers.

Nothing has inertia: a block moves only while something pushes it. The pressure under a block is
taken by an ellipsoidal limit surface: under a force f at r from its centre the block moves along f
and turns by (r x f) / c^2, c being the mean distance of its bottom from its centre (Lynch, Maekawa
and Tanie, "Manipulation and active sensing by pushing using tactile feedback", 1992). A contact
sticks as long as its force stays within the friction cone, and slides on the cone's edge beyond.
Lengths are in m, angles in rad, seen from above: x, y, anti-clockwise yaw.
"""

import numpy as np

BLOCK = 0.05  # side of a block
BLOCK_HEIGHT = 0.04
FINGER = 0.008  # radius of a finger
FRICTION = 0.3  # of a finger on a block; blocks slide on each other without
_HALF = BLOCK / 2
_TURNING = 0.3826 * BLOCK  # mean distance of a square's points from its centre
_STEP = 0.002  # longest way of a finger in one go
_ROUNDS = 4  # of settling several contacts
_AXES = np.array([(1.0, 0), (0, 1)])
_CORNERS = _HALF * np.array([(-1.0, -1), (1, -1), (1, 1), (-1, 1)])


def push(blocks, start, end):
  """Moves fingers through blocks.

  Args:
    blocks: [K, 3] x, y, yaw.
    start, end: [F, 2], places of the fingers before and after; they go straight.

  Returns:
    [K, 3], where the blocks are then.
  """
  blocks = np.array(blocks, np.float64)
  way = end - start
  reach = np.linalg.norm(way, axis=1).max() + FINGER + np.sqrt(2) * _HALF
  apart = np.linalg.norm(blocks[:, None, :2] - start, axis=-1).min(1)
  if apart.min() > reach:
    return blocks
  count = max(1, int(np.ceil(np.linalg.norm(way, axis=1).max() / _STEP)))
  for k in range(1, count + 1):
    _settle(blocks, start + way * (k / count), way / count)
  return blocks


def moved(contact, normal, depth, slide):
  """How far a block moves when it is pushed at one point.

  Args:
    contact: [2], from the centre of the block.
    normal: [2], unit, into the block.
    depth: how far the contact must move along it.
    slide: [2], how far what pushes moves across it meanwhile.

  Returns:
    [3]: x, y, yaw. The contact goes along where friction can hold it.
  """
  turn = np.array([-contact[1], contact[0]]) / _TURNING
  compliance = np.eye(2) + np.outer(turn, turn)  # force -> way of the contact
  force = np.linalg.solve(compliance, depth * normal + slide)
  along = force @ normal
  across = force - along * normal
  size = np.linalg.norm(across)
  if size > FRICTION * max(along, 0.0):
    force = normal + FRICTION * across / size
    force *= depth / (normal @ compliance @ force)
  return np.append(force, turn @ force / _TURNING)


def fingers(hand):
  """Places [2, 2] of the two fingers, left and right, of hand [5] x, y, z, yaw, width."""
  left = np.array([-np.sin(hand[3]), np.cos(hand[3])]) * (hand[4] / 2 + FINGER)
  return np.stack([hand[:2] + left, hand[:2] - left])


def touches(blocks, finger):
  """Whether a finger at [2] stands in or on a block: bool [K]."""
  return np.array([_contact(block, finger) is not None for block in blocks])


def corners(blocks):
  """Corners [K, 4, 2] of blocks [K, 3], anti-clockwise."""
  return _CORNERS @ _turned(blocks[:, 2]).swapaxes(1, 2) + blocks[:, None, :2]


def _settle(blocks, fingers, way):
  """Moves blocks, in place, out of the fingers, and then out of each other."""
  pushed = set()
  for round_ in range(_ROUNDS):
    still = True
    for finger, step in zip(fingers, way, strict=True):
      for k, block in enumerate(blocks):
        found = _contact(block, finger)
        if found is None:
          continue
        contact, normal, depth = found
        slide = step - (step @ normal) * normal if round_ == 0 else np.zeros(2)
        block += moved(contact, normal, depth, slide)
        pushed.add(k)
        still = False
    if still:
      break
  # A pushed block pushes others, they push on; nothing pushes back what the fingers hold.
  waiting = sorted(pushed)
  while waiting:
    first = waiting.pop(0)
    for k in range(len(blocks)):
      if k in pushed:
        continue
      found = _overlap(blocks[first], blocks[k])
      if found is not None:
        contact, normal, depth = found
        blocks[k] += _pushed_smoothly(contact, normal, depth)
        pushed.add(k)
        waiting.append(k)


def _pushed_smoothly(contact, normal, depth):
  """As `moved`, without friction: [3]."""
  turn = np.array([-contact[1], contact[0]]) / _TURNING
  force = normal * depth / (1 + (turn @ normal) ** 2)
  return np.append(force, turn @ force / _TURNING)


def _contact(block, finger):
  """Where a finger presses a block: (point from its centre [2], normal [2], depth), or None."""
  offset = finger - block[:2]
  if offset @ offset > (np.sqrt(2) * _HALF + FINGER) ** 2:
    return None
  turn = _turned(block[2])
  local = offset @ turn
  nearest = local.clip(-_HALF, _HALF)
  away = local - nearest
  distance = np.linalg.norm(away)
  if distance >= FINGER:
    return None
  if distance > 0:
    return turn @ nearest, turn @ (-away / distance), FINGER - distance
  axis = int(np.argmax(np.abs(local)))  # its middle is inside: out by the nearest side
  side = 1.0 if local[axis] > 0 else -1.0
  depth = _HALF - abs(local[axis]) + FINGER
  nearest[axis] = side * _HALF
  return turn @ nearest, turn @ (-side * _AXES[axis]), depth


def _overlap(first, second):
  """Where `first` presses `second`: (point from the centre of `second`, normal, depth), or None."""
  offset = second[:2] - first[:2]
  if offset @ offset >= 2 * BLOCK**2:
    return None
  axes = np.concatenate([_turned(first[2]).T, _turned(second[2]).T])
  axes *= np.where(axes @ offset < 0, -1, 1)[:, None]
  square_a, square_b = corners(np.stack([first, second]))
  depth = (square_a @ axes.T).max(0) - (square_b @ axes.T).min(0)
  if depth.min() <= 0:
    return None
  best = int(np.argmin(depth))
  inside = np.concatenate([square_a[_inside(square_a, second)], square_b[_inside(square_b, first)]])
  point = inside.mean(0) if len(inside) else (first[:2] + second[:2]) / 2
  return point - second[:2], axes[best], float(depth[best])


def _inside(points, block):
  return (np.abs((points - block[:2]) @ _turned(block[2])) <= _HALF + 1e-9).all(1)


def _turned(yaw):
  """Rotation matrices [..., 2, 2] of angles [...]."""
  cos, sin = np.cos(yaw), np.sin(yaw)
  return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
