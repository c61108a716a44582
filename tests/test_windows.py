"""Track windows: what the network sees of old and young tracks, and augmentation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax.models.trackssm import windows


def _line(count, start=0.3, step=0.01):
  """Boxes of a steady mover [1, count, 4]."""
  x = start + step * np.arange(count)
  return np.stack([x, x, np.full(count, 0.1), np.full(count, 0.2)], -1)[None].astype(np.float32)


def test_target_is_never_in_the_condition():
  boxes = np.random.default_rng(0).random((20, 7, 4), np.float32)
  condition, target = windows.condition_and_target(jnp.asarray(boxes))
  assert condition.shape == (20, 5, 8) and target.shape == (20, 4)
  np.testing.assert_array_equal(target, boxes[:, 6])
  np.testing.assert_array_equal(condition[:, -1, :4], boxes[:, 5])
  np.testing.assert_allclose(condition[..., 4:], np.diff(boxes[:, :6], axis=1), atol=1e-7)
  assert not np.isclose(condition[..., :4], target[:, None]).all(-1).any()


def test_histories_of_all_ages():
  boxes = _line(6)
  for count in range(1, 7):
    first = np.asarray(windows.condition_of_history(boxes, np.array([count]), "first"))[0]
    last = np.asarray(windows.condition_of_history(boxes, np.array([count]), "last"))[0]
    moving = max(0, count - 1)
    steps = np.isclose(first[:, 4], 0.01)
    np.testing.assert_array_equal(steps, np.arange(5) >= 5 - moving)
    rows = min(count, 5)
    np.testing.assert_allclose(last[:rows], first[5 - rows :], atol=1e-7)
    np.testing.assert_array_equal(last[rows:], np.tile(last[rows - 1], (5 - rows, 1)))
    np.testing.assert_allclose(first[-1, :4], boxes[0, -1])


def test_flip_twice_is_the_identity():
  boxes = _line(7)
  position = np.zeros(1, np.int32)
  settings = dict(kind="none", flip_prob=1.0, pad_prob=0.0)
  once = windows.augment(jax.random.key(0), boxes, position, **settings)
  np.testing.assert_allclose(once[0, :, 0], 1 - boxes[0, :, 0], atol=1e-7)
  np.testing.assert_array_equal(once[0, :, 1:], boxes[0, :, 1:])
  twice = windows.augment(jax.random.key(1), once, position, **settings)
  np.testing.assert_allclose(twice, boxes, atol=1e-6)


@pytest.mark.parametrize("kind", windows.AUGMENTATIONS)
def test_target_is_never_jittered(kind):
  boxes = np.repeat(_line(7), 50, 0)
  out = windows.augment(
    jax.random.key(0), boxes, np.arange(50), kind=kind, flip_prob=0.0, pad_prob=0.0
  )
  np.testing.assert_array_equal(out[:, -1], boxes[:, -1])
  moved = np.abs(np.asarray(out)[:, :-1] - boxes[:, :-1])
  spread = {"none": (0, 0), "default": (5e-4, 5e-3), "seed_doc": (0.02, 0.08)}
  low, high = spread.get(kind, (5e-3, 0.02))
  assert low <= moved[..., 0].mean() <= high


def test_young_windows_look_as_the_tracker_feeds_them():
  boxes = np.repeat(_line(7), 400, 0)
  out = windows.augment(
    jax.random.key(0), boxes, np.arange(400), kind="none", flip_prob=0.0, pad_prob=1.0
  )
  condition, _ = windows.condition_and_target(out)
  young = np.asarray((condition[..., 4] == 0).sum(1))
  assert set(young) == {1, 2, 3, 4, 5}
  for count in range(1, 6):
    row = np.asarray(condition)[young == 6 - count][0]
    fed = windows.condition_of_history(_line(7)[:, :6], np.array([count]), "first")[0]
    np.testing.assert_allclose(row, fed, atol=1e-7)


def test_numbers_follow_the_global_row():
  boxes = np.repeat(_line(7), 8, 0)
  settings = dict(kind="default", flip_prob=0.5, pad_prob=0.2)
  whole = windows.augment(jax.random.key(3), boxes, np.arange(8), **settings)
  half = windows.augment(jax.random.key(3), boxes[4:], np.arange(4, 8), **settings)
  np.testing.assert_array_equal(whole[4:], half)


def test_unknown_augmentation():
  with pytest.raises(ValueError, match="kind 'more'"):
    windows.augment(jax.random.key(0), _line(7), np.zeros(1, int), "more", 0.0, 0.0)
