"""Attention-query head: one query made of past and intent reads the image tokens."""

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.models.vlm_waypoint import inputs
from vistraj_jax.nn import torch_layers


class MonocularHead(inputs.Head):
  """Image tokens, past and intent -> waypoints by one single-head cross-attention.

  3,076,648 parameters with 28 x 28 tokens of 768 channels.
  """

  @nn.compact
  def __call__(self, features, past, intent, dropout_keys=None):
    """features [B, N, C], past [B, 16, 6], intent [B] -> Proposals with K = 1, float32."""
    del dropout_keys
    tokens = features.astype(jnp.float32)
    width = tokens.shape[-1]
    shape = (1, *tokens.shape[1:])
    positions = self.param("positions", nn.initializers.normal(0.02), shape)
    tokens = _norm("token_norm")(tokens + positions)
    # The order of the published model: intent first, then the past.
    query = jnp.concatenate([inputs.intent_one_hot(intent), self.motion(past)], axis=-1)
    query = nn.leaky_relu(torch_layers.Linear(width, name="query0")(query), 0.01)
    query = _norm("query_norm")(torch_layers.Linear(width, name="query1")(query))
    keys = torch_layers.Linear(width, name="key")(tokens)
    values = torch_layers.Linear(width, name="value")(tokens)
    share = nn.softmax(jnp.einsum("bc,bnc->bn", query, keys) * width**-0.5)
    x = _norm("attention_norm")(jnp.einsum("bn,bnc->bc", share, values))
    x = nn.leaky_relu(torch_layers.Linear(width, name="decoder0")(x), 0.01)
    return self.single(x, past, "decoder1")


def _norm(name):
  return nn.LayerNorm(1e-5, name=name)
