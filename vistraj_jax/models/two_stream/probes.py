"""Probes: small heads that read an action from frozen features.

`linear` and `mlp` take a readout [B, D] (`network.readout`); `attentive` takes the tokens of each
stream and learns where to look. Features and targets are standardised by those that are learned
from.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.nn import initializers

KINDS = ("linear", "mlp", "attentive")
_AT_ONCE = 1024  # rows held in float64
_MAPPED = 256  # rows predicted together


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


@dataclasses.dataclass(frozen=True)
class Problem:
  """How a probe is learned; see `train.fit.Problem`.

  Data are {"x": features [N, ...], "y": targets [N, K], "x_mean", "x_scale", "y_mean", "y_scale":
  of `standard`}, x and y of the rows at hand, the rest of those that are learned from.
  """

  head: nn.Module

  def predict(self, params, x, data):
    """Features [B, ...] -> standardised targets [B, K]."""
    x = (x.astype(jnp.float32) - data["x_mean"]) / data["x_scale"]
    return self.head.apply({"params": params}, x)

  def loss(self, params, data, rows, key):
    """Mean squared error of standardised targets."""
    del key
    target = (data["y"][rows] - data["y_mean"]) / data["y_scale"]
    return ((self.predict(params, data["x"][rows], data) - target) ** 2).mean()

  def outputs(self, params, held_out):
    """-> [N, K] in the units of the targets."""
    one = lambda x: self.predict(params, x[None], held_out)[0]  # noqa: E731
    found = jax.lax.map(one, held_out["x"], batch_size=_MAPPED)
    return found * held_out["y_scale"] + held_out["y_mean"]

  def score(self, outputs, held_out):
    """Mean squared error in the units of the targets."""
    return ((outputs - held_out["y"]) ** 2).mean()


def standard(values):
  """Returns (mean, standard deviation) float32 over all but streams and channels.

  Args:
    values: targets or readouts [N, D], or tokens [N, streams, patches, D].

  Returns:
    Arrays that broadcast against one row; numbers that do not vary have deviation 1.
  """
  axes = (0,) if values.ndim == 2 else (0, 2)
  total, square, count = np.zeros(()), np.zeros(()), 0
  for first in range(0, len(values), _AT_ONCE):
    part = np.asarray(values[first : first + _AT_ONCE], np.float64)
    total, square = (
      total + part.sum(axes, keepdims=True),
      square + (part**2).sum(axes, keepdims=True),
    )
    count += np.prod([part.shape[axis] for axis in axes])
  mean = total[0] / count
  scale = np.sqrt(np.maximum(square[0] / count - mean**2, 0))
  scale = np.where(scale > 1e-6 * abs(mean), scale, 1.0)
  return mean.astype(np.float32), scale.astype(np.float32)
