"""Multi-proposal head: decoder blocks over image tokens, kinematic roll-outs and their scorer."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.vlm_waypoint import inputs, kinematics
from vistraj_jax.nn import torch_layers

MAX_ACCELERATION = 8.0  # m/s2
MAX_TURN_RATE = 1.0  # rad/s


class ProposalHead(inputs.Head):
  """Image tokens, past and intent -> K drivable proposals with the ADE each is expected to have.

  Attributes:
    num_proposals: K.
    num_blocks: decoder blocks.
    num_heads: attention heads.
    depth: whether the tree has the auxiliary depth branch of the published model (`depth_map`).
  """

  num_proposals: int = 50
  num_blocks: int = 4
  num_heads: int = 8
  depth: bool = False

  @nn.compact
  def __call__(self, features, past, intent, dropout_keys=None):
    """features [B, N, C] of a square grid, past [B, 16, 6], intent [B] -> Proposals, float32."""
    del dropout_keys
    grid = _square(features)
    width = grid.shape[-1]
    seen = torch_layers.Conv(width, 3, name="adapter0")(grid)
    seen = torch_layers.Conv(width, 3, name="adapter1")(_gelu(seen))
    tokens = seen.reshape(features.shape)
    shape = (1, *tokens.shape[1:])
    tokens = tokens + self.param("positions", nn.initializers.normal(0.02), shape)
    query = jnp.concatenate([inputs.intent_one_hot(intent), self.motion(past)], axis=-1)
    query = torch_layers.Linear(width, name="query")(query)[:, None]
    for i in range(self.num_blocks):
      query = _Block(self.num_heads, name=f"block{i}")(query, tokens)
    query = query[:, 0]

    raw = _mlp(query, (width, width, 2 * self.num_waypoints * self.num_proposals), "decoder")
    raw = jnp.tanh(raw.reshape(-1, self.num_proposals, self.num_waypoints, 2))
    controls = raw * jnp.array([MAX_ACCELERATION, MAX_TURN_RATE])
    self.sow("intermediates", "controls", controls)
    xy = kinematics.roll_out(controls, past)
    if self.depth:
      self.sow("intermediates", "depth", _depth_map(seen))

    # The scorer judges proposals and must not shape them.
    query, judged = jax.lax.stop_gradient((query, xy))
    judged = _gelu(_mlp(judged.reshape(*judged.shape[:2], -1), (width, width), "trajectory"))
    query = jnp.broadcast_to(query[:, None], judged.shape)
    scores = _mlp(jnp.concatenate([query, judged], axis=-1), (width, width, 1), "score")
    return inputs.Proposals(xy, scores[..., 0])


class _Block(nn.Module):
  """Self-attention, cross-attention to the tokens, MLP; norms before each."""

  num_heads: int

  @nn.compact
  def __call__(self, x, tokens):
    """x [B, Q, C], tokens [B, N, C] -> [B, Q, C]."""
    width = x.shape[-1]
    normed = nn.LayerNorm(1e-5, name="norm0")(x)
    x = x + _Attention(self.num_heads, name="self_attention")(normed, normed)
    normed = nn.LayerNorm(1e-5, name="norm1")(x)
    x = x + _Attention(self.num_heads, name="cross_attention")(normed, tokens)
    normed = nn.LayerNorm(1e-5, name="norm2")(x)
    return x + _mlp(normed, (4 * width, width), "mlp")


class _Attention(nn.Module):
  num_heads: int

  @nn.compact
  def __call__(self, x, tokens):
    """x [B, Q, C], tokens [B, N, C] -> [B, Q, C]."""
    width = x.shape[-1]

    def heads(x, name):
      x = torch_layers.Linear(width, name=name)(x)
      return x.reshape(*x.shape[:2], self.num_heads, -1)

    out = jax.nn.dot_product_attention(heads(x, "q"), heads(tokens, "k"), heads(tokens, "v"))
    return torch_layers.Linear(width, name="out")(out.reshape(x.shape))


def _depth_map(seen):
  """Adapted grid [B, h, w, C] -> depth [B, 4 h, 4 w], positive."""
  x = torch_layers.Conv(64, 3, name="depth0")(seen)
  x = torch_layers.Conv(32, 3, name="depth1")(_twice(_gelu(x)))
  x = torch_layers.Conv(1, 1, name="depth2")(_twice(_gelu(x)))
  return nn.softplus(x[..., 0])


def _twice(x):
  """Repeats every cell of a grid: [B, h, w, C] -> [B, 2 h, 2 w, C]."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def _square(features):
  side = math.isqrt(features.shape[1])
  checks.require(
    side**2 == features.shape[1],
    f"config.model.head: 'proposals' wants the tokens of a square grid, {features.shape[1]} "
    "tokens received; choose another head or encoder.",
  )
  grid = features.astype(jnp.float32)
  return grid.reshape(features.shape[0], side, side, -1)


def _mlp(x, widths, name):
  """Linear layers `<name>0`, `<name>1`, ... with GELU between them."""
  for i, width in enumerate(widths):
    x = torch_layers.Linear(width, name=f"{name}{i}")(_gelu(x) if i else x)
  return x


def _gelu(x):
  return nn.gelu(x, approximate=False)
