"""What every waypoint head does at its ends: past motion and intent in, waypoints out.

Positions are metres in the ego frame at t = 0: x ahead, y to the left. The past is [B, 16, 6]
(x, y, vx, vy, ax, ay; m, m/s, m/s2; 4 Hz, oldest first), waypoints are 0.25 s apart.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.nn import torch_layers

STEP_SECONDS = 0.25
NUM_INTENTS = 3  # straight, left, right; 0 is unknown


class Proposals(NamedTuple):
  """Several futures of each example.

  Attributes:
    xy: [B, K, T, 2] m, ego frame; [1, K, T, 2] where all examples share them.
    scores: [B, K], the lower the better (the ADE in m that the scorer expects); zeros if K = 1.
  """

  xy: jax.Array
  scores: jax.Array

  @property
  def selected(self):
    """The proposal of lowest score: [B, T, 2]."""
    best = jnp.argmin(self.scores, axis=1)
    if len(self.xy) == 1:
      return self.xy[0][best]
    return jnp.take_along_axis(self.xy, best[:, None, None, None], axis=1)[:, 0]


class Head(nn.Module):
  """Base of the heads: `__call__(features, past, intent, dropout_keys=None) -> Proposals`.

  Attributes:
    num_waypoints: T.
    past_mean, past_std: 16 rows of 6 numbers by which the past is standardised; () = raw SI units.
    residual: whether the network's answer is added to constant velocity, from which it starts.
  """

  num_waypoints: int = 20
  past_mean: tuple = ()
  past_std: tuple = ()
  residual: bool = False

  def motion(self, past):
    """past [B, 16, 6] -> [B, 96], time-major."""
    if self.past_mean:
      past = (past - jnp.array(self.past_mean)) / jnp.array(self.past_std)
    return past.reshape(past.shape[0], -1)

  def single(self, x, past, name):
    """x [B, C] -> one proposal each, by the linear layer `name` of the calling compact method."""
    flat = torch_layers.Linear(2 * self.num_waypoints, self.residual, name=name)(x)
    xy = flat.reshape(flat.shape[0], self.num_waypoints, 2)
    if self.residual:
      seconds = STEP_SECONDS * (1 + jnp.arange(self.num_waypoints))
      xy = xy + past[:, -1, None, :2] + seconds[:, None] * past[:, -1, None, 2:4]
    return Proposals(xy[:, None], jnp.zeros((flat.shape[0], 1)))


def intent_one_hot(intent):
  """intent int [B] (0 unknown, 1 straight, 2 left, 3 right) -> [B, 3]; unknown is all zeros."""
  return jax.nn.one_hot(intent - 1, NUM_INTENTS)
