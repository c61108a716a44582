"""Probes: small heads that read an action from frozen features.

`linear` and `mlp` take a readout [B, D] (`network.readout`); `attentive` takes the tokens of each
stream and learns where to look.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.nn import initializers

KINDS = ("linear", "mlp", "attentive")


class Linear(nn.Module):
  """One linear layer: [B, D] -> [B, outputs]."""

  outputs: int

  @nn.compact
  def __call__(self, x):
    return initializers.dense(self.outputs, x.shape[-1], jnp.float32, "out")(x)


class Mlp(nn.Module):
  """One hidden layer with ReLU: [B, D] -> [B, outputs]."""

  outputs: int
  hidden: int = 256

  @nn.compact
  def __call__(self, x):
    x = nn.relu(initializers.dense(self.hidden, x.shape[-1], jnp.float32, "fc")(x))
    return initializers.dense(self.outputs, self.hidden, jnp.float32, "out")(x)


class Attentive(nn.Module):
  """One learned query a stream: softmax(x q / sqrt(D)) over its tokens, then a linear layer."""

  outputs: int

  @nn.compact
  def __call__(self, x):
    """x: patch tokens [B, streams, N, D] -> [B, outputs]."""
    streams, width = x.shape[1], x.shape[-1]
    query = self.param("query", initializers.truncated_normal, (streams, width))
    weights = jax.nn.softmax(jnp.einsum("bsnd,sd->bsn", x, query) * width**-0.5)
    pooled = jnp.einsum("bsn,bsnd->bsd", weights, x).reshape(x.shape[0], -1)
    return initializers.dense(self.outputs, streams * width, jnp.float32, "out")(pooled)


def make(kind, outputs):
  """Returns the probe of a kind of KINDS."""
  checks.choice("probe", kind, KINDS)
  return {"linear": Linear, "mlp": Mlp, "attentive": Attentive}[kind](outputs)
