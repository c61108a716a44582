"""A policy on a frozen encoder: previous and current camera frame -> action.

The decoder of pretraining is neither built nor saved. At the first step of an episode the previous
frame is the current one, so M is 0.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks, weights
from vistraj_jax.models.two_stream import blocks, network, settings
from vistraj_jax.nn import initializers
from vistraj_jax.nn.dropout import dropout, row_keys

SYSTEM = "two_stream_policy"
_MAPPED = 64  # rows predicted together


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


@dataclasses.dataclass(frozen=True)
class Cloning:
  """How a head on a frozen encoder is learned; see `train.fit.Problem`.

  Data are {"x": features [N, D], "action" [N, A], "mean", "scale": [A] of the actions}.
  """

  head: ActionHead

  def predict(self, params, data, rows, keys=None):
    """-> normalised actions of rows int [B]."""
    return self.head.apply({"params": params}, data["x"][rows], keys)

  def loss(self, params, data, rows, key):
    """Mean squared error of normalised actions, with dropout."""
    target = (data["action"][rows] - data["mean"]) / data["scale"]
    keys = row_keys(key, jnp.arange(len(rows)))
    return ((self.predict(params, data, rows, keys) - target) ** 2).mean()

  def outputs(self, params, held_out):
    """-> actions [N, A] in their own units."""
    one = lambda row: self.predict(params, held_out, row[None])[0]  # noqa: E731
    found = jax.lax.map(one, jnp.arange(len(held_out["action"])), batch_size=_MAPPED)
    return found * held_out["scale"] + held_out["mean"]

  def score(self, outputs, held_out):
    """Mean squared error in the units of the actions."""
    return ((outputs - held_out["action"]) ** 2).mean()


@dataclasses.dataclass(frozen=True, eq=False)
class UnfrozenCloning(Cloning):
  """How encoder and head are learned together, parameters {"encoder", "head"}.

  Data have, in place of "x", "frames" uint8 [F, S, S, 3] and "pair" int [N, 2], rows of them.
  """

  encoder: nn.Module
  readout: str

  def predict(self, params, data, rows, keys=None):
    """-> normalised actions of rows int [B]; with keys dropout is on in the encoder too."""
    pair = data["pair"][rows]
    images = data["frames"][pair[:, 0]], data["frames"][pair[:, 1]]
    variables = {"params": params["encoder"]}
    encoding = self.encoder.apply(variables, *images, keys=keys, method="encode")
    seen = network.readout(encoding, self.readout)
    return self.head.apply({"params": params["head"]}, seen, keys)


class Policy:
  """Acts on single frames, with one memory of the previous frame per camera.

  Args:
    encoder, variables, readout: see `features`.
    head: `ActionHead`; head_params: its parameters.
    mean, scale: of the actions in training, float [actions]; the head's output times `scale` plus
      `mean` is the action.

  Attributes:
    about: what is known of its training, as JSON values; saved with it.
  """

  def __init__(self, encoder, variables, head, head_params, readout, mean: Any = 0.0, scale=1.0):
    self.about = {}
    self.encoder, self.head, self.readout = encoder, head, readout
    self.arrays = {
      "encoder": settings.encoder_params(variables["params"]),
      "head": head_params,
      "mean": np.broadcast_to(np.asarray(mean, np.float32), (head.actions,)),
      "scale": np.broadcast_to(np.asarray(scale, np.float32), (head.actions,)),
    }
    self._act = jax.jit(self._actions)
    self._previous = {}

  @property
  def image_size(self):
    """Side of the frames in px."""
    return self.encoder.image_size

  def act(self, prev, curr):
    """prev, curr: frames [S, S, 3], float in 0..1 or uint8 -> action float32 [actions]."""
    shape = (self.image_size, self.image_size, 3)
    for frame in (prev, curr):
      checks.shape("policy: a frame", frame, shape)
    return np.asarray(self._act(self.arrays, prev, curr))

  def reset(self):
    """Forgets the previous frames; call it at the start of an episode."""
    self._previous.clear()

  def step(self, frame, camera="agentview"):
    """The next frame of a camera -> action; the frame before is remembered."""
    previous = self._previous.get(camera, frame)
    self._previous[camera] = frame
    return self.act(previous, frame)

  def save(self, path, model):
    """Writes encoder, head and normalisation to one `.safetensors` file.

    Args:
      path: the file.
      model: config.model, the settings of the encoder's network.
    """
    config = {
      "model": model,
      "readout": self.readout,
      "head": {name: getattr(self.head, name) for name in ("actions", "hidden", "dropout")},
      "about": self.about,
    }
    weights.save_weights(path, self.arrays, SYSTEM, config)

  def _actions(self, arrays, prev, curr):
    seen = features(
      self.encoder, {"params": arrays["encoder"]}, prev[None], curr[None], self.readout
    )
    out = self.head.apply({"params": arrays["head"]}, seen)[0]
    return out * arrays["scale"] + arrays["mean"]


def load(path, actions=None):
  """Returns the `Policy` of a file of `Policy.save`.

  Args:
    path: the file.
    actions: how many numbers an action should have; None takes what the file has.

  Raises:
    InputError: another kind of file, or a head of another size.
  """
  arrays, _, config = weights.load_weights(path, SYSTEM)
  head = ActionHead(**config["head"])
  found = arrays["head"]["out"]["kernel"].shape[-1]
  checks.require(
    found == head.actions and actions in (None, found),
    f"{path}: its head gives actions of {found} numbers, {actions or head.actions} are wanted; "
    "use the policy of this robot.",
  )
  policy = Policy(
    settings.make(config["model"]),
    {"params": arrays["encoder"]},
    head,
    arrays["head"],
    config["readout"],
    arrays["mean"],
    arrays["scale"],
  )
  policy.about = config["about"]
  return policy
