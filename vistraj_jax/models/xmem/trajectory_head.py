"""From one feature vector per observed frame to several future trajectories with scores."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.nn import dropout as dropouts
from vistraj_jax.nn import recurrent, torch_layers

METRES = 10.0  # one unit of the positions that networks read


class SeedHead(nn.Module):
  """The head of the original trajectory project: a bidirectional GRU and two layers.

  68,054 parameters at the published size.

  Attributes:
    modes: K.
    steps: T_out.
    hidden: width of the GRU's states and of the layer after it.
    dropout: rate between the layers.
  """

  modes: int = 6
  steps: int = 12
  hidden: int = 64
  dropout: float = 0.1

  @nn.compact
  def __call__(self, features, keys=None):
    """Predicts offsets from the last observed position.

    Args:
      features: [B, T_in, C].
      keys: [B] of `dropout.row_keys`, or None to evaluate.

    Returns:
      [B, K, T_out, 2] in m; mode logits [B, K].
    """
    x = nn.LayerNorm(epsilon=1e-5, name="in_norm")(features.astype(jnp.float32))
    _, ahead = recurrent.GRU(self.hidden, name="gru")(x)
    _, back = recurrent.GRU(self.hidden, reverse=True, name="gru_reverse")(x)
    x = jnp.concatenate([ahead, back], -1)
    x = nn.relu(torch_layers.Linear(self.hidden, name="proj0")(x))
    x = dropouts.dropout(x, self.dropout, keys, layer=0)
    x = torch_layers.Linear(self.modes * (2 * self.steps + 1), name="proj1")(x)
    offsets, logits = jnp.split(x, [2 * self.modes * self.steps], -1)
    return offsets.reshape(-1, self.modes, self.steps, 2), logits


class ScoredHead(nn.Module):
  """As `SeedHead`, but every future is scored by what it looks like.

  The score of a future is a small network's answer to the context and the future itself; no
  gradient goes from scores into futures. Motion is read beside the features.

  Attributes:
    modes: K.
    steps: T_out.
    hidden: width of the GRU's states and of all layers after it.
    dropout: rate on the context.
  """

  modes: int = 6
  steps: int = 12
  hidden: int = 64
  dropout: float = 0.1

  @nn.compact
  def __call__(self, features, motion, ahead, keys=None):
    """Predicts offsets from the last observed position.

    Args:
      features: [B, T_in, C].
      motion: float32 [B, T_in, M], what is known of ego and agent; M may be 0.
      ahead: float32 [B, 2], m per step; the futures of the first network lie around this line.
      keys: [B] of `dropout.row_keys`, or None to evaluate.

    Returns:
      [B, K, T_out, 2] in m; mode logits [B, K].
    """
    x = nn.LayerNorm(epsilon=1e-5, name="in_norm")(features.astype(jnp.float32))
    x = jnp.concatenate([x, motion], -1)
    _, forward = recurrent.GRU(self.hidden, name="gru")(x)
    _, back = recurrent.GRU(self.hidden, reverse=True, name="gru_reverse")(x)
    context = jnp.concatenate([forward, back], -1)
    context = nn.relu(torch_layers.Linear(self.hidden, name="context")(context))
    context = dropouts.dropout(context, self.dropout, keys, layer=0)
    offsets = METRES * torch_layers.Linear(2 * self.modes * self.steps, name="futures")(context)
    offsets = offsets.reshape(-1, self.modes, self.steps, 2)
    offsets = offsets + ahead[:, None, None] * (1.0 + jnp.arange(self.steps))[:, None]

    track = jax.lax.stop_gradient(offsets).reshape(-1, self.modes, 2 * self.steps) / METRES
    track = nn.relu(torch_layers.Linear(self.hidden, name="track")(track))
    context = jnp.broadcast_to(context[:, None], (*track.shape[:2], context.shape[-1]))
    x = jnp.concatenate([context, track], -1)
    x = nn.relu(torch_layers.Linear(self.hidden, name="score0")(x))
    return offsets, torch_layers.Linear(1, name="score1")(x)[..., 0]
