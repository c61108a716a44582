"""TrackSSM's motion encoder: a track's recent boxes and steps -> one flow feature.

A stack of Mamba blocks (arXiv 2312.00752) over the history; the feature is the last position
after a final RMS norm. Source: TrackSSM, arXiv 2409.00487, section 3; layout of the released
checkpoints.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.nn import scan_ssm

EXPANSION = 2
CONV_WIDTH = 4


class MotionEncoder(nn.Module):
  """Embeds condition rows and runs the Mamba blocks.

  Attributes:
    width: feature width d.
    num_layers: number of Mamba blocks.
    state_size: states per channel of the scan.
    scan_method: see `scan_ssm.METHODS`.
    dtype: compute dtype of the products; scan and norms stay float32.
  """

  width: int = 256
  num_layers: int = 6
  state_size: int = 16
  scan_method: str = "unrolled"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, condition):
    """condition [B, T, 8] (cx, cy, w, h and their steps, / image size) -> flow [B, 1, width]."""
    # A bias-free product, not a lookup; the released name is "embedding".
    x = nn.Dense(
      self.width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=nn.initializers.normal(0.02),
      name="embedding",
    )(condition)
    self.sow("intermediates", "embedded", x)
    residual = None
    for i in range(self.num_layers):
      x, residual = MambaBlock(
        self.width, self.num_layers, self.state_size, self.scan_method, self.dtype, name=f"layer{i}"
      )(x, residual)
    last = residual[:, -1:] + x[:, -1:]
    flow = nn.RMSNorm(epsilon=1e-5, dtype=jnp.float32, name="norm_f")(last)
    self.sow("intermediates", "flow", flow)
    return flow


class MambaBlock(nn.Module):
  """Pre-norm residual block whose running sum travels beside the features."""

  width: int
  num_layers: int
  state_size: int
  scan_method: str
  dtype: Any

  @nn.compact
  def __call__(self, x, residual):
    """x [B, T, width], residual the same or None -> (mixed x, new residual)."""
    x = x.astype(jnp.float32)
    residual = x if residual is None else residual + x
    x = nn.RMSNorm(epsilon=1e-5, dtype=jnp.float32, name="norm")(residual)
    x = Mixer(
      self.width, self.num_layers, self.state_size, self.scan_method, self.dtype, name="mixer"
    )(x)
    self.sow("intermediates", "mixer_out", x)
    self.sow("intermediates", "residual", residual)
    return x, residual


class Mixer(nn.Module):
  """Mamba mixer: gate, causal depthwise convolution, selective scan."""

  width: int
  num_layers: int
  state_size: int
  scan_method: str
  dtype: Any

  @nn.compact
  def __call__(self, x):
    """x [B, T, width] -> [B, T, width]."""
    inner, rank = EXPANSION * self.width, math.ceil(self.width / 16)
    dense = lambda size, name, **kwargs: nn.Dense(  # noqa: E731
      size, use_bias=False, dtype=self.dtype, name=name, **{"kernel_init": torch_linear, **kwargs}
    )
    x, z = jnp.split(dense(2 * inner, "in_proj")(x), 2, axis=-1)
    x = nn.silu(CausalConv(name="conv1d")(x.astype(jnp.float32)))
    dt, B, C = jnp.split(
      dense(rank + 2 * self.state_size, "x_proj")(x), (rank, rank + self.state_size), axis=-1
    )
    dt = nn.Dense(
      inner,
      dtype=self.dtype,
      name="dt_proj",
      kernel_init=symmetric_uniform(rank**-0.5),
      bias_init=inverse_softplus_of_step,
    )(dt)
    delta = nn.softplus(dt.astype(jnp.float32))
    A_log = self.param("A_log", log_arange, (inner, self.state_size))
    D = self.param("D", nn.initializers.ones, (inner,))
    y, _ = scan_ssm.selective_scan(
      x, delta, -jnp.exp(A_log), B, C, D, z, method=self.scan_method, return_state=False
    )
    for name, value in (("conv_silu", x), ("dt", delta), ("B", B), ("C", C), ("scan_gated", y)):
      self.sow("intermediates", name, value)
    # torch's default divided by sqrt(layers), so that the residual does not grow with depth.
    return dense(self.width, "out_proj", kernel_init=_scaled(self.num_layers**-0.5))(y)


class CausalConv(nn.Module):
  """Depthwise convolution over time that sees only the past (zeros before the start)."""

  @nn.compact
  def __call__(self, x):
    """x [B, T, D] -> [B, T, D]."""
    bound = symmetric_uniform(CONV_WIDTH**-0.5)
    kernel = self.param("kernel", bound, (CONV_WIDTH, x.shape[-1]))
    bias = self.param("bias", bound, (x.shape[-1],))
    length = x.shape[1]
    x = jnp.pad(x, ((0, 0), (CONV_WIDTH - 1, 0), (0, 0)))
    return bias + sum(x[:, k : k + length] * kernel[k] for k in range(CONV_WIDTH))


# --- initial values (Mamba's, and torch's defaults for linear layers) ---------------------------


def symmetric_uniform(bound):
  """Returns an initialiser, uniform in +-bound."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def torch_linear(key, shape, dtype=jnp.float32):
  """Uniform in +-1/sqrt(fan in); kernels are (in, out)."""
  return symmetric_uniform(shape[0] ** -0.5)(key, shape, dtype)


def log_arange(key, shape, dtype=jnp.float32):
  """log(1..states) on every row: Mamba's A_log."""
  del key
  return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[-1] + 1, dtype=dtype)), shape)


def inverse_softplus_of_step(key, shape, dtype=jnp.float32):
  """Biases whose softplus is log-uniform in [1e-3, 1e-1]."""
  low, high = math.log(1e-3), math.log(1e-1)
  step = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
  return step + jnp.log(-jnp.expm1(-step))


def _scaled(factor):
  return lambda key, shape, dtype=jnp.float32: factor * torch_linear(key, shape, dtype)
