"""Parts of the waypoint system by hand: mirrored examples, intents, the past, roll-outs."""

import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.models.vlm_waypoint import inputs, kinematics, mlp
from vistraj_jax.tasks import vlm_waypoint as task_lib


def test_mirrored_example():
  batch = {
    "image": np.arange(2 * 1 * 3 * 3).reshape(2, 1, 3, 3).astype(np.uint8),
    "past": np.ones((2, 16, 6), np.float32),
    "future": np.ones((2, 20, 2), np.float32),
    "intent": np.array([2, 1]),
    "position": np.arange(2),
  }
  out = task_lib.mirror(batch, jax.random.PRNGKey(0), 1.0)
  np.testing.assert_array_equal(out["image"], batch["image"][:, :, ::-1])
  np.testing.assert_array_equal(out["past"][0, 0], [1, -1, 1, -1, 1, -1])
  np.testing.assert_array_equal(out["future"][0, 0], [1, -1])
  np.testing.assert_array_equal(out["intent"], [3, 1])
  same = task_lib.mirror(batch, jax.random.PRNGKey(0), 0.0)
  for name in batch:
    np.testing.assert_array_equal(same[name], batch[name])


def test_unknown_intent_is_the_zero_vector():
  np.testing.assert_array_equal(
    inputs.intent_one_hot(jnp.arange(4)), [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
  )


def test_standardised_past_and_residual():
  past = np.zeros((1, 16, 6), np.float32)
  past[:, -1] = [1, 2, 3, 4, 0, 0]
  mean, std = (tuple(map(tuple, np.full((16, 6), v))) for v in (1.0, 2.0))
  head = mlp.LinearHead(past_mean=mean, past_std=std, residual=True)
  params = {"out": {"kernel": np.ones((96, 40), np.float32), "bias": np.zeros(40, np.float32)}}
  xy = head.apply({"params": params}, None, past, np.array([1])).selected[0]
  flat = (past.sum() - 96) / 2
  np.testing.assert_allclose(xy[3], [1 + 3 + flat, 2 + 4 + flat], rtol=1e-6)


def test_roll_out_by_hand():
  """From 2 m/s braking at 4 m/s2 the car stands after two steps; it moves by the old speed."""
  past = np.zeros((1, 16, 6), np.float32)
  past[0, -1, 2:4] = [0, 2]
  controls = np.zeros((1, 1, 4, 2), np.float32)
  controls[..., 0] = -4
  xy = kinematics.roll_out(jnp.asarray(controls), jnp.asarray(past))[0, 0]
  np.testing.assert_allclose(xy, [[0, 0.5], [0, 0.75], [0, 0.75], [0, 0.75]], atol=1e-6)
  controls[...] = [0, np.pi]  # a quarter turn to the left takes two steps
  xy = kinematics.roll_out(jnp.asarray(controls), jnp.asarray(past))[0, 0]
  np.testing.assert_allclose(xy[2] - xy[1], [-0.5, 0], atol=1e-6)
