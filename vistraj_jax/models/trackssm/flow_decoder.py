"""TrackSSM's flow decoder: flow feature and last box -> six boxes on the way to the next one.

Every head is one selective-scan step that carries box and state on, followed by a post-norm
feed-forward layer. Source: TrackSSM, arXiv 2409.00487, section 3; released checkpoint layout.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.models.trackssm import encoder
from vistraj_jax.nn import scan_ssm


class FlowDecoder(nn.Module):
  """The heads in a row; box and state are cut from the gradient between heads.

  Attributes:
    width: feature width d.
    num_heads: number of steps.
    state_size: states per channel of the scan.
    box_sigmoid: whether a box passes a sigmoid (DanceTrack, SportsMOT) or not (MOT17).
    dtype: compute dtype of the products.
  """

  width: int = 256
  num_heads: int = 6
  state_size: int = 16
  box_sigmoid: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, box, flow):
    """box [B, 4] (last box), flow [B, 1, width] -> boxes [K, B, 4], states [K, B, width, N]."""
    state, boxes, states = None, [], []
    self.sow("intermediates", "sine_embedding", sine_embedding(box, self.width))
    for i in range(self.num_heads):
      box, state = FlowHead(
        self.width, self.state_size, self.box_sigmoid, self.dtype, name=f"head{i}"
      )(box, flow, state)
      boxes.append(box)
      states.append(state)
      box, state = jax.lax.stop_gradient((box, state))
    return jnp.stack(boxes), jnp.swapaxes(jnp.stack(states), -1, -2)


class FlowHead(nn.Module):
  """One step: the box drives the scan, the flow feature sets its step size, input and output."""

  width: int
  state_size: int
  box_sigmoid: bool
  dtype: Any

  @nn.compact
  def __call__(self, box, flow, state):
    """box [B, 4], flow [B, 1, width], state [B, N, width] or None -> next box and state."""
    rank, N = math.ceil(self.width / 16), self.state_size
    dense = lambda size, name, use_bias=True: nn.Dense(  # noqa: E731
      size,
      use_bias=use_bias,
      dtype=self.dtype,
      kernel_init=encoder.torch_linear,
      name=name,
    )
    # torch draws biases like kernels, from the fan-in of their layer.
    biased = lambda size, fan_in, name: nn.Dense(  # noqa: E731
      size,
      dtype=self.dtype,
      kernel_init=encoder.torch_linear,
      bias_init=encoder.symmetric_uniform(fan_in**-0.5),
      name=name,
    )
    code = sine_embedding(box, self.width)
    x, gate = jnp.split(dense(2 * self.width, "in_proj", use_bias=False)(code), 2, axis=-1)
    dt, B, C = jnp.split(
      dense(rank + 2 * N, "x_proj", use_bias=False)(flow[:, 0]), (rank, rank + N), axis=-1
    )
    delta = nn.softplus(biased(self.width, rank, "dt_proj")(dt).astype(jnp.float32))
    A_log = self.param("A_log", encoder.log_arange, (self.width, N))
    D = self.param("D", nn.initializers.ones, (self.width,))
    x = nn.silu(x.astype(jnp.float32))
    y, state = scan_ssm.one_step(x, delta, -jnp.exp(A_log), B, C, D, gate, state)
    hidden = nn.relu(biased(2 * self.width, self.width, "linear1")(y))
    y = y + biased(self.width, 2 * self.width, "linear2")(hidden)
    y = nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name="norm2")(y)
    # The box itself stays float32: a bfloat16 centre would be several pixels off.
    box = nn.Dense(
      4,
      kernel_init=encoder.torch_linear,
      bias_init=encoder.symmetric_uniform(self.width**-0.5),
      name="normal_bboxes",
    )(y)
    return (nn.sigmoid(box) if self.box_sigmoid else box), state


def sine_embedding(box, width):
  """Sine code of (cx, cy, w, h): box [B, 4] -> [B, width], width / 4 numbers a coordinate."""
  size = width // 4
  frequency = 2 * math.pi / 10000 ** (2 * (jnp.arange(size) // 2) / size)
  angle = box[:, :, None] * frequency
  code = jnp.where(jnp.arange(size) % 2 == 0, jnp.sin(angle), jnp.cos(angle))
  return code.reshape(box.shape[0], width)
