"""A small world for manipulation: a two-fingered hand pushes coloured blocks to coloured squares.

Made for closed loops: `Environment.reset(seed)`, then `step(action)`. The same settings and seed
give the same scene, noise and pictures. Demonstrations (`manipulation_expert`) and roll-outs are
steps of the same environment, so their cameras and actions agree. Frame of the robot: x ahead, y
left, z up, m.

Actions follow LIBERO: 7 numbers in -1..1, the change of position (in units of `LINEAR_SPEED` /
rate), of orientation (axis times angle, in units of `ANGULAR_SPEED` / rate) and the gripper (-1
opens, 1 closes). The hand always points down: of the orientation, only the turn about z is
followed.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.prepare.world import manipulation_physics as physics
from vistraj_jax.prepare.world import manipulation_view as view

LINEAR_SPEED = 0.1  # m/s, the greatest along each axis
ANGULAR_SPEED = 2.0  # rad/s
GRIPPER_SPEED = 0.06  # m/s
OPEN = 0.024  # m between the fingers
LOW, HIGH = 0.01, 0.24  # m, of the fingers' tips
REACH = ((0.22, 0.62), (-0.26, 0.26))  # m, where the hand can go
SUCCESS = 0.02  # m from the middle of the square
TASKS = tuple(
  f"push the {block} block to the {square} square"
  for block in view.BLOCKS
  for square in view.SQUARES
)
CAMERAS = ("agentview", "eye_in_hand")
_BLOCKS_WITHIN = ((0.29, 0.54), (-0.17, 0.17))  # m
_APART = 0.09  # m between blocks
_CORRIDOR = 0.075  # m beside the way of a block, without other blocks
_WAY = (0.10, 0.26)  # m from the block to its square
_BEHIND = 0.08  # m from the block, where the hand comes down
_VIEW, _TARGET = np.array([0.92, 0.0, 0.60]), np.array([0.38, 0.0, 0.03])  # m


@dataclasses.dataclass(frozen=True)
class Settings:
  """What an environment is like.

  Attributes:
    task: of `TASKS`, or "" for one drawn by the seed.
    size: px, side of the frames.
    camera: of `CAMERAS`, whose frames `reset` and `step` return.
    moving_camera: whether "agentview" moves slowly through the room; otherwise it stands still.
    rate: Hz, steps a second.
    seconds: after which an episode ends.
    spread: how far scenes of a task differ, 0..1: from 0, always the same places, to 1, anywhere.
    noise: standard deviation of what the hand does beside the action, in units of an action.
  """

  task: str = ""
  size: int = 128
  camera: str = "agentview"
  moving_camera: bool = False
  rate: float = 20.0
  seconds: float = 15.0
  spread: float = 1.0
  noise: float = 0.1

  def __post_init__(self):
    if self.task:
      checks.choice("task", self.task, TASKS)
    checks.choice("camera", self.camera, CAMERAS)
    for name, low, high in (
      ("size", 16, 1024),
      ("rate", 2, 60),
      ("seconds", 1, 600),
      ("spread", 0, 1),
      ("noise", 0, 1),
    ):
      value = getattr(self, name)
      checks.require(
        low <= value <= high, f"{name}: {value} received; give {low} to {high} for this world."
      )


class Environment:
  """One episode at a time.

  Attributes:
    settings: `Settings`.
    instruction: what is to be done in this episode, of `TASKS`.
    hand: [5]: x, y, z of the point between the fingers' tips, yaw, width between the fingers.
    blocks: [K, 3] x, y, yaw in the order of `manipulation_view.BLOCKS`.
    squares: [S, 2] in the order of `manipulation_view.SQUARES`.
    block, square: rows that the instruction names.
    steps: done so far.
    distance: m, from the middle of the block to the middle of its square.
    is_success: whether the block lies on its square.
  """

  def __init__(self, settings=None):
    self.settings = settings or Settings()
    self.steps = -1  # not reset yet

  def reset(self, seed):
    """Begins the episode of a seed (int >= 0); returns its first frame, see `frame`."""
    rng = np.random.default_rng((seed, 0))
    self._noise = np.random.default_rng((seed, 1))
    number = int(rng.integers(len(TASKS)))
    self.instruction = self.settings.task or TASKS[number]
    self.block, self.square = divmod(TASKS.index(self.instruction), len(view.SQUARES))
    self.squares, self.blocks = _scene(rng, self.block, self.square, self.settings.spread)
    x, y = (rng.uniform(*limits) for limits in ((0.28, 0.42), (-0.12, 0.12)))
    self.hand = np.array([x, y, rng.uniform(0.12, 0.18), rng.uniform(-0.4, 0.4), 0.0])
    self._sway = _Sway(np.random.default_rng((seed, 2)))
    self._viewpoint = view.looking(_VIEW, _TARGET)
    self._painter = view.Painter(
      self.settings.size,
      view.Looks.draw(rng),
      self.squares,
      list(view.SQUARES.values()),
      list(view.BLOCKS.values()),
    )
    self.steps = 0
    return self.frame()

  def step(self, action):
    """Does one step and returns (frame, done, success): `advance`, and then `frame`."""
    done, success = self.advance(action)
    return self.frame(), done, success

  def advance(self, action):
    """Does one step without painting it.

    Args:
      action: [7], see the top of this file; clipped to -1..1.

    Returns:
      (done, success).

    Raises:
      InputError: an action of another shape or with numbers that are not finite.
    """
    checks.require(self.steps >= 0, "step: the environment was not reset; call reset(seed) first.")
    action = np.asarray(action, np.float64)
    checks.shape("action", action, (7,))
    checks.require(np.isfinite(action).all(), f"action: {action.tolist()} is not finite.")
    action = action.clip(-1, 1)
    noise = self._noise.normal(size=4) * self.settings.noise
    move = (action[[0, 1, 2, 5]] + noise) / self.settings.rate
    self._move(move * ([LINEAR_SPEED] * 3 + [ANGULAR_SPEED]), action[6] / self.settings.rate)
    self.steps += 1
    done = self.is_success or self.steps >= self.settings.seconds * self.settings.rate
    return done, self.is_success

  @property
  def distance(self):
    """How far the middle of the block is from the middle of its square, m."""
    return float(np.hypot(*(self.blocks[self.block, :2] - self.squares[self.square])))

  @property
  def is_success(self):
    """Whether the middle of the block lies within `SUCCESS` of the middle of its square."""
    return self.distance < SUCCESS

  def viewpoint(self, camera="agentview"):
    """Returns the `manipulation_view.Viewpoint` of a camera now."""
    if checks.choice("camera", camera, CAMERAS) == "eye_in_hand":
      return view.hand_camera(self.hand)
    if not self.settings.moving_camera:
      return self._viewpoint
    return self._sway.at(self.steps / self.settings.rate)

  def frame(self, camera=None):
    """Returns what a camera (by default that of the settings) sees: uint8 [size, size, 3], RGB."""
    viewpoint = self.viewpoint(camera or self.settings.camera)
    return self._painter.frame(viewpoint, self.hand, self.blocks)

  def joints(self):
    """Returns the arm's seven angles, rad: base, shoulder, -, elbow, -, wrist, hand."""
    shoulder, elbow, wrist = view.arm_points(self.hand)
    base = np.arctan2(wrist[1], wrist[0])
    lifts = [np.arctan2(way[2], np.hypot(*way[:2])) for way in (elbow - shoulder, wrist - elbow)]
    bend = lifts[1] - lifts[0]
    return np.array([base, lifts[0], 0, bend, 0, -np.pi / 2 - lifts[1], self.hand[3] - base])

  def _move(self, way, opening):
    hand = self.hand.copy()
    hand[:4] += way
    hand[4] = np.clip(hand[4] - opening * GRIPPER_SPEED, 0, OPEN)
    for axis, limits in enumerate((*REACH, (LOW, HIGH))):
      hand[axis] = np.clip(hand[axis], *limits)
    tips = physics.fingers(hand)
    if hand[2] < physics.BLOCK_HEIGHT <= self.hand[2]:
      # From above, a finger comes down beside the blocks; one below it stops it on its top.
      if any(physics.touches(self.blocks, tip).any() for tip in tips):
        hand[2] = physics.BLOCK_HEIGHT
    elif hand[2] < physics.BLOCK_HEIGHT:
      self.blocks = physics.push(self.blocks, physics.fingers(self.hand), tips)
    self.hand = hand


def way(task_block, task_square):
  """Returns (unit direction [2], distance in m) from a block [3] to a square [2]."""
  offset = task_square - task_block[:2]
  distance = np.hypot(*offset)
  return offset / max(distance, 1e-9), distance


class _Sway:
  """A camera that wanders slowly: sums of slow waves, drawn by a generator."""

  def __init__(self, rng):
    self._start = rng.normal(0, (0.03, 0.06, 0.03), 3)
    self._rate = rng.uniform(0.15, 0.6, (3, 6))  # Hz
    self._phase = rng.uniform(0, 2 * np.pi, (3, 6))
    size = np.array([0.03, 0.05, 0.025, 0.02, 0.03, 0.05])  # m: position, target; rad: roll
    self._size = size * rng.uniform(0.3, 1.0, (3, 6)) / 2

  def at(self, time):
    waves = (self._size * np.sin(2 * np.pi * self._rate * time + self._phase)).sum(0)
    target = _TARGET + (waves[3], waves[4], 0)
    return view.looking(_VIEW + self._start + waves[:3], target, waves[5])


def _scene(rng, block, square, spread):
  """Draws squares [S, 2] and blocks [K, 3] so that the task can be done: its way is free."""
  # The middle of a task's scenes is a scene by itself, drawn by the task's number.
  middle = (0.0, 0.0)
  if spread < 1:
    middle = _scene(np.random.default_rng((block, square)), block, square, 1.0)
  low, high = np.array(_BLOCKS_WITHIN).T
  while True:
    squares = rng.uniform(low, high, (len(view.SQUARES), 2))
    places = rng.uniform(low, high, (len(view.BLOCKS), 2))
    yaw = rng.uniform(-np.pi / 4, np.pi / 4, (len(view.BLOCKS), 1))
    scene = squares, np.concatenate([places, yaw], 1)
    scene = tuple(spread * x + (1 - spread) * m for x, m in zip(scene, middle, strict=True))
    if _is_fair(*scene, block, square):
      return scene


def _is_fair(squares, blocks, block, square):
  if _closest(squares) < 1.3 * view.SQUARE or _closest(blocks[:, :2]) < _APART:
    return False
  along, distance = way(blocks[block], squares[square])
  if not _WAY[0] <= distance <= _WAY[1]:
    return False
  behind = blocks[block, :2] - _BEHIND * along
  low, high = np.array(REACH).T
  if (behind < low).any() or (behind > high).any():
    return False
  others = np.delete(blocks[:, :2], block, 0) - behind
  ahead = (others @ along).clip(0, distance + _BEHIND)
  return np.linalg.norm(others - ahead[:, None] * along, axis=1).min() > _CORRIDOR


def _closest(points):
  distance = np.linalg.norm(points[:, None] - points, axis=-1)
  return distance[np.triu_indices(len(points), 1)].min()
