"""A policy on a frozen encoder: previous and current camera frame -> action.

The decoder of pretraining is not built. At the first step of an episode the previous frame is the
current one, so M is 0.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.models.two_stream import blocks, network
from vistraj_jax.nn import initializers
from vistraj_jax.nn.dropout import dropout


class ActionHead(nn.Module):
  """Two hidden layers with norm, GELU and dropout; 662,023 parameters at width 768.

  Attributes:
    actions: numbers of an action.
    hidden: width of both hidden layers.
    dropout: rate in training.
  """

  actions: int = 7
  hidden: int = 512
  dropout: float = 0.1

  @nn.compact
  def __call__(self, features, keys=None):
    """features [B, D], keys one a row [B] in training -> actions float32 [B, actions]."""
    x = features.astype(jnp.float32)
    for i in range(2):
      x = initializers.dense(self.hidden, x.shape[-1], jnp.float32, f"fc{i}")(x)
      x = blocks.gelu(blocks.layer_norm(1e-5, jnp.float32, f"norm{i}")(x))
      x = dropout(x, self.dropout, keys, i)
    return initializers.dense(self.actions, self.hidden, jnp.float32, "out")(x)


def features(encoder, variables, img_prev, img_curr, readout="fused_patch_mean"):
  """Features of the frozen encoder, without gradient: images [B, S, S, 3] -> [B, D or 2 D].

  Args:
    encoder: a network of this system (anything whose `encode` returns an `Encoding`).
    variables: {"params": ...} of it; parameters of a decoder may be missing.
    img_prev, img_curr: earlier and later frame, float in 0..1 or uint8.
    readout: see `network.readout`.
  """
  encoding = encoder.apply(variables, img_prev, img_curr, method="encode")
  return jax.lax.stop_gradient(network.readout(encoding, readout))


class Policy:
  """Acts on single frames, with one memory of the previous frame per camera.

  Args:
    encoder, variables, readout: see `features`.
    head: `ActionHead`; head_params: its parameters.
    mean, scale: of the actions in training, float [actions]; the head's output times `scale` plus
      `mean` is the action.
  """

  def __init__(self, encoder, variables, head, head_params, readout, mean: Any = 0.0, scale=1.0):
    def act(img_prev, img_curr):
      seen = features(encoder, variables, img_prev[None], img_curr[None], readout)
      return head.apply({"params": head_params}, seen)[0] * scale + mean

    self._act = jax.jit(act)
    self._previous = {}

  def act(self, prev, curr):
    """prev, curr: frames [S, S, 3], float in 0..1 or uint8 -> action float32 [actions]."""
    return np.asarray(self._act(prev, curr))

  def reset(self):
    """Forgets the previous frames; call it at the start of an episode."""
    self._previous.clear()

  def step(self, frame, camera="agentview"):
    """The next frame of a camera -> action; the frame before is remembered."""
    previous = self._previous.get(camera, frame)
    self._previous[camera] = frame
    return self.act(previous, frame)
