"""From one feature vector per observed frame to several future trajectories with scores."""

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.nn import dropout as dropouts
from vistraj_jax.nn import recurrent, torch_layers


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
