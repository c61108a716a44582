"""Heads on one vector: the waypoint MLP with or without vision, and a linear map of the past."""

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.models.vlm_waypoint import inputs
from vistraj_jax.nn import dropout, torch_layers


class WaypointHead(inputs.Head):
  """Pooled image features, past and intent -> waypoints by an MLP.

  926,248 parameters with 1152 features; without features it is the ego-only MLP.

  Attributes:
    width: hidden width of both layers.
    dropout: rate after both layers, in training.
    normalize_features: whether the features pass a LayerNorm without parameters first.
  """

  width: int = 512
  dropout: float = 0.1
  normalize_features: bool = False

  @nn.compact
  def __call__(self, features, past, intent, dropout_keys=None):
    """features [B, F] or None, past [B, 16, 6], intent [B] -> Proposals with K = 1, float32."""
    parts = [self.motion(past), inputs.intent_one_hot(intent)]
    if features is not None:
      features = features.astype(jnp.float32)
      if self.normalize_features:
        features = nn.LayerNorm(1e-5, use_bias=False, use_scale=False)(features)
      parts = [features, *parts]
    x = trunk(jnp.concatenate(parts, axis=-1), self.width, self.dropout, dropout_keys)
    return self.single(x, past, "out")


class LinearHead(inputs.Head):
  """The past alone -> waypoints by one linear map (3,880 parameters)."""

  @nn.compact
  def __call__(self, features, past, intent, dropout_keys=None):
    """past [B, 16, 6] -> Proposals with K = 1; features and intent are not used."""
    del features, intent, dropout_keys
    return self.single(self.motion(past), past, "out")


def trunk(x, width, rate, dropout_keys):
  """Two hidden layers, inside a compact method: x [B, F] -> [B, width]."""
  for i in range(2):
    x = torch_layers.Linear(width, name=f"fc{i}")(x)
    x = nn.LayerNorm(1e-5, name=f"norm{i}")(x)
    x = dropout.dropout(nn.gelu(x, approximate=False), rate, dropout_keys, i)
  return x
