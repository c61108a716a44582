"""The manipulation world: pushing by hand-computed numbers, pictures, repeatability, the expert."""

import numpy as np
import pytest

from vistraj_jax.core import checks, geometry
from vistraj_jax.prepare.world import manipulation as world
from vistraj_jax.prepare.world import manipulation_expert as expert
from vistraj_jax.prepare.world import manipulation_physics as physics
from vistraj_jax.prepare.world import manipulation_view as view

HALF = physics.BLOCK / 2
ALONG = np.array([1.0, 0])
STILL = np.zeros(2)


@pytest.fixture(scope="module")
def demonstration():
  return expert.demonstrate(world.Settings(size=48, moving_camera=True), 4)


# --- pushing -------------------------------------------------------------------------------------


def test_push_through_the_middle():
  """Without a lever the block goes along, by the depth."""
  np.testing.assert_allclose(physics.moved((-HALF, 0), ALONG, 0.003, STILL), [0.003, 0, 0])


def test_push_beside_the_middle_sticks():
  """lever y = 0.005, c = 0.3826 * 0.05: the force that moves the contact by (d, 0), by hand."""
  c2, y, d = (0.3826 * 0.05) ** 2, 0.005, 0.002
  det = 1 + (y**2 + HALF**2) / c2
  force = d * (1 + HALF**2 / c2) / det, -d * y * HALF / c2 / det
  turn = (-HALF * force[1] - y * force[0]) / c2
  found = physics.moved((-HALF, y), ALONG, d, STILL)
  np.testing.assert_allclose(found, [*force, turn], rtol=1e-9)
  assert turn < 0  # pushed above its middle to the right, it turns clockwise
  moved = found[:2] + found[2] * np.array([-y, -HALF])  # the contact itself
  np.testing.assert_allclose(moved, [d, 0], atol=1e-12)


def test_push_at_the_corner_slides():
  """There the force would leave the friction cone: it stays on its edge, 0.3 of the normal part."""
  found = physics.moved((-HALF, HALF), ALONG, 0.002, STILL)
  np.testing.assert_allclose(found / 0.002, [0.45550, -0.13665, -21.780], rtol=1e-3)
  moved = found[:2] + found[2] * np.array([-HALF, -HALF])
  np.testing.assert_allclose(moved[0], 0.002)


def test_finger_pushes_a_block_before_it():
  """From 0.05 m behind its middle, a way of 0.06 m leaves side and finger in touch."""
  start = np.array([[0.3, 0.0]])
  blocks = np.array([[0.35, 0.0, 0.0], [0.35, 0.2, 0.3]])
  found = physics.push(blocks, start, start + (0.06, 0))
  np.testing.assert_allclose(found[0], [0.36 + physics.FINGER + HALF, 0, 0], atol=1e-6)
  np.testing.assert_array_equal(found[1], blocks[1])  # not touched, not moved
  np.testing.assert_array_equal(physics.push(found, start + (0.06, 0), start), found)  # no glue


def test_two_fingers_straighten_a_block():
  hand = np.array([0.3, 0, world.LOW, 0, world.OPEN])
  start = physics.fingers(hand)
  np.testing.assert_allclose(start, [[0.3, 0.02], [0.3, -0.02]])
  found = physics.push(np.array([[0.35, 0.0, 0.3]]), start, start + (0.1, 0))
  assert abs(found[0, 2]) < 0.02 and abs(found[0, 1]) < 0.01


def test_blocks_push_blocks():
  """A row of three is pushed on as a whole; afterwards none lies in another."""
  blocks = np.array([[0.35, 0.0, 0.0], [0.41, 0.005, 0.0], [0.47, -0.005, 0.0]])
  start = np.array([[0.3, 0.0]])
  found = physics.push(blocks, start, start + (0.12, 0))
  assert (np.diff(found[:, 0]) > physics.BLOCK - 2e-3).all() and found[2, 0] > 0.55
  contact, normal, depth = physics._overlap(np.zeros(3), np.array([0.04, 0.01, 0.0]))
  np.testing.assert_allclose(normal, [1, 0], atol=1e-12)
  np.testing.assert_allclose(depth, 0.01)
  assert -HALF - 1e-9 <= contact[0] <= -HALF + 0.01


# --- environment ---------------------------------------------------------------------------------


def _environment(seed=0, **settings):
  environment = world.Environment(world.Settings(**{"size": 48, "noise": 0.0, **settings}))
  return environment, environment.reset(seed)


def _go(environment, target, steps=80):
  """Moves the hand's x, y, z to `target` [3]."""
  for _ in range(steps):
    action = np.zeros(7)
    unit = world.LINEAR_SPEED / environment.settings.rate
    action[:3] = ((target - environment.hand[:3]) / unit).clip(-1, 1)
    environment.advance(action)


def test_actions():
  """A full action is a twentieth of a second at full speed; the hand turns about z only."""
  environment, _ = _environment()
  before = environment.hand.copy()
  environment.advance([1, -0.5, 0.5, 0, 0, 1, -1])
  np.testing.assert_allclose(environment.hand - before, [0.005, -0.0025, 0.0025, 0.1, 0.003])
  environment.advance([9, 0, 0, 1, 1, 0, 1])  # clipped; of the turn, only that about z
  np.testing.assert_allclose(environment.hand - before, [0.01, -0.0025, 0.0025, 0.1, 0], atol=1e-12)


def test_blocks_rest_until_touched():
  environment, _ = _environment()
  blocks = environment.blocks.copy()
  for place in blocks[:, :2]:  # above every block
    _go(environment, np.append(place, 0.06))
  np.testing.assert_array_equal(environment.blocks, blocks)
  _go(environment, np.append(blocks[0, :2], 0.06))
  _go(environment, np.append(blocks[0, :2], world.LOW), 30)  # a block carries the fingers
  assert environment.hand[2] == physics.BLOCK_HEIGHT
  np.testing.assert_array_equal(environment.blocks, blocks)


def test_pictures():
  """Where a block, a square and a finger's tip are projected to, there are their colours."""
  environment, frame = _environment(3, size=128)
  assert frame.shape == (128, 128, 3) and frame.dtype == np.uint8
  viewpoint = environment.viewpoint()

  def pixel(x, y, z):
    local = geometry.into_frame([[x, y, z]], viewpoint.position, viewpoint.rotation)
    (column, row), _ = geometry.project(local[0], viewpoint.intrinsic(128))
    return frame[int(row), int(column)].astype(float)

  def hue(colour):
    return np.asarray(colour) / np.linalg.norm(colour)

  for block, colour in zip(environment.blocks, view.BLOCKS.values(), strict=True):
    top = pixel(*block[:2], physics.BLOCK_HEIGHT)
    np.testing.assert_allclose(hue(top), hue(colour), atol=0.05)
  hidden = np.linalg.norm(environment.squares[:, None] - environment.blocks[:, :2], axis=-1)
  for k in np.flatnonzero(hidden.min(1) > 0.1):
    colour = list(view.SQUARES.values())[k]
    np.testing.assert_allclose(hue(pixel(*environment.squares[k], 0)), hue(colour), atol=0.05)
  assert pixel(*environment.hand[:2], environment.hand[2] + 0.02).max() < 80  # rubber


def test_a_block_hides_what_is_behind_it():
  environment, _ = _environment()
  hand = np.array([0.3, 0.3, 0.2, 0, 0])
  near, far = [0.45, 0.0, 0.0], [0.395, 0.0, 0.0]  # the camera looks back at the robot
  red, blue = (255, 0, 0), (0, 0, 255)

  def frame(blocks, colours):
    looks = view.Looks.draw(np.random.default_rng(0))
    painter = view.Painter(96, looks, [[0.5, 0.2]], [(0, 255, 0)], colours)
    return painter.frame(environment.viewpoint(), hand, np.array(blocks))

  picture = frame([near, far], [red, blue])
  np.testing.assert_array_equal(picture, frame([far, near], [blue, red]))  # in whatever order
  count = [((picture[..., k] > 100) & (picture[..., 1] < 60)).sum() for k in (0, 2)]
  assert count[0] > 1.3 * count[1] > 0


def test_the_same_seed_repeats_everything(demonstration):
  """A demonstration's actions, played in the environment, give its frames: one convention."""
  found = demonstration
  environment = world.Environment(world.Settings(size=48, moving_camera=True))
  frame = environment.reset(found.seed)
  assert environment.instruction == found.instruction
  for k, action in enumerate(found.actions):
    np.testing.assert_array_equal(frame, found.frames["agentview"][k])
    np.testing.assert_array_equal(environment.hand, found.hand[k])
    frame, done, success = environment.step(action)
  assert done and success
  other = world.Environment(world.Settings(size=48)).reset(found.seed + 1)
  assert (other != found.frames["agentview"][0]).mean() > 0.1


def test_moving_camera(demonstration):
  still = expert.demonstrate(world.Settings(size=48), demonstration.seed)
  # A corner that shows only the table or the wall: it changes with the camera alone.
  corners = [found.frames["agentview"][:, -6:, :6].astype(int) for found in (still, demonstration)]
  assert np.ptp(corners[0], 0).max() == 0
  positions = np.stack([v.position for v in demonstration.viewpoints])
  steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
  assert 0 < steps.max() < 0.02 and np.ptp(positions, 0).max() > 0.01  # m: slow, but it moves


def test_the_expert_succeeds():
  for seed in range(8):
    environment, _ = _environment(seed, noise=0.1, seconds=20)
    done = False
    while not done:
      done, success = environment.advance(expert.act(environment))
    offset = environment.blocks[environment.block, :2] - environment.squares[environment.square]
    assert success and np.hypot(*offset) < world.SUCCESS, seed


def test_doing_nothing_fails():
  environment, _ = _environment(seconds=1)
  for k in range(20):
    done, success = environment.advance(np.zeros(7))
    assert done == (k == 19) and not success


def test_spread_of_scenes():
  task = world.TASKS[0]
  places = {
    spread: np.stack(
      [_environment(seed, task=task, spread=spread, size=16)[0].squares for seed in range(6)]
    ).std(0)
    for spread in (0.0, 0.25, 1.0)
  }
  assert places[0.0].max() < 1e-12
  assert 2 * places[0.25].mean() < places[1.0].mean()


def test_arm_reaches_the_hand():
  for hand in ([0.22, 0.0, 0.24, 0, 0], [0.62, -0.26, 0.01, 0.3, 0], [0.4, 0.1, 0.1, 0, 0]):
    shoulder, elbow, wrist = view.arm_points(np.array(hand))
    np.testing.assert_allclose(
      [np.linalg.norm(elbow - shoulder), np.linalg.norm(wrist - elbow)], view.LINK
    )
    np.testing.assert_allclose(wrist, np.array(hand[:3]) + (0, 0, view.WRIST))
  environment, _ = _environment()
  base, lift, _, bend, _, _, _ = environment.joints()
  reach = view.LINK * (np.cos(lift) + np.cos(lift + bend))
  np.testing.assert_allclose(reach, np.hypot(*environment.hand[:2]))
  np.testing.assert_allclose(np.tan(base), environment.hand[1] / environment.hand[0])


@pytest.mark.parametrize(
  "settings, sentence",
  [
    ({"task": "lift the red block"}, "task: 'lift the red block' is not allowed; choose one of"),
    ({"camera": "top"}, "camera: 'top' is not allowed"),
    ({"size": 8}, "size: 8 received; give 16 to 1024"),
    ({"noise": 2.0}, "noise: 2.0 received; give 0 to 1"),
    ({"spread": -1.0}, "spread: -1.0 received"),
    ({"rate": 100.0}, "rate: 100.0 received; give 2 to 60"),
  ],
)
def test_wrong_settings(settings, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    world.Settings(**settings)


def test_wrong_actions():
  with pytest.raises(checks.InputError, match=r"was not reset; call reset\(seed\) first"):
    world.Environment().step(np.zeros(7))
  environment, _ = _environment()
  with pytest.raises(checks.InputError, match=r"action: shape \(6,\) received, \(7,\) wanted"):
    environment.step(np.zeros(6))
  with pytest.raises(checks.InputError, match="action: .*nan.* is not finite"):
    environment.step([np.nan] * 7)


def test_an_expert_without_a_chance():
  settings = world.Settings(size=16, seconds=1)
  with pytest.raises(checks.InputError, match="seed 1: the expert failed 20 times with noise 0.1"):
    expert.demonstration(settings, 1, cameras=())
