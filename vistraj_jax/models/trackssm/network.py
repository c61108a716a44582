"""TrackSSM (arXiv 2409.00487): a track's recent boxes -> its next box.

One network for all modes: training, tracking and the converters share its parameter tree
`{"encoder": ..., "decoder": ...}`. Boxes are (cx, cy, w, h) divided by image width and height.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.models.trackssm import encoder, flow_decoder


class TrackSSM(nn.Module):
  """Motion encoder and flow decoder; 5,129,496 parameters at the released size.

  Attributes:
    width: feature width.
    num_layers: Mamba blocks of the encoder (released: 6).
    num_heads: flow steps of the decoder (released: 6).
    state_size: states per channel of the scans.
    box_sigmoid: sigmoid on the box heads (DanceTrack, SportsMOT, nuScenes) or none (MOT17).
    scan_method: see `scan_ssm.METHODS`.
    dtype: compute dtype of the products; parameters, scans, norms and boxes are float32.
  """

  width: int = 256
  num_layers: int = 6
  num_heads: int = 6
  state_size: int = 16
  box_sigmoid: bool = True
  scan_method: str = "unrolled"
  dtype: Any = jnp.float32

  def setup(self):
    self.encoder = encoder.MotionEncoder(
      self.width, self.num_layers, self.state_size, self.scan_method, self.dtype
    )
    self.decoder = flow_decoder.FlowDecoder(
      self.width, self.num_heads, self.state_size, self.box_sigmoid, self.dtype
    )

  def __call__(self, condition, train=False):
    """condition [B, T, 8] (boxes and steps, oldest first) -> boxes [K, B, 4]; [-1] is the next."""
    del train  # no dropout, no batch statistics
    return self.decode(condition[:, -1, :4], self.encode(condition))[0]

  def encode(self, condition):
    """condition [B, T, 8] -> flow feature [B, 1, width]."""
    return self.encoder(condition)

  def decode(self, box, flow):
    """box [B, 4], flow [B, 1, width] -> boxes [K, B, 4], states [K, B, width, state_size]."""
    return self.decoder(box, flow)


def init(model, rng, history=5):
  """Returns first parameters; as in the published model all decoder heads start as copies."""
  params = jax.jit(model.init)(rng, jnp.zeros((1, history, 8)))["params"]
  heads = {name: params["decoder"]["head0"] for name in params["decoder"]}
  return {**params, "decoder": jax.tree.map(jnp.copy, heads)}
