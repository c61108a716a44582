"""Anchor head: a fixed vocabulary of futures and a score for each, as a classifier."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.models.vlm_waypoint import inputs, mlp
from vistraj_jax.nn import torch_layers


class AnchorHead(inputs.Head):
  """Pooled features (or none), past and intent -> a score for every future of a vocabulary.

  Attributes:
    num_anchors: size of the vocabulary K.
    width, dropout: of the two hidden layers.
  """

  num_anchors: int = 8192
  width: int = 512
  dropout: float = 0.1

  @nn.compact
  def __call__(self, features, past, intent, dropout_keys=None, anchors=None):
    """features [B, F] or None, ..., anchors [K, T, 2] m -> Proposals, xy [1, K, T, 2]."""
    parts = [self.motion(past), inputs.intent_one_hot(intent)]
    if features is not None:
      parts = [features.astype(jnp.float32), *parts]
    x = mlp.trunk(jnp.concatenate(parts, axis=-1), self.width, self.dropout, dropout_keys)
    logits = torch_layers.Linear(self.num_anchors, name="out")(x)
    return inputs.Proposals(anchors[None], -logits)


def read(path, num_waypoints=20):
  """Reads a vocabulary: float32 [K, num_waypoints, 2] m, ego frame, 4 Hz, from a .npy file.

  Raises:
    InputError: no such file, another shape, or values that are not finite.
  """
  try:
    anchors = np.load(path, allow_pickle=False)
  except (OSError, ValueError) as error:
    raise checks.InputError(f"{path}: no vocabulary of futures (.npy): {error}.") from None
  checks.shape(f"{path}", anchors, (None, num_waypoints, 2))
  checks.require(
    np.isfinite(anchors).all(), f"{path}: holds futures that are not finite; make it again."
  )
  return np.asarray(anchors, np.float32)
