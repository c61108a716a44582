"""Where the classification tokens (CLS) look: their attention over the patches, block by block."""

import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.two_stream import baselines, blocks, network

STREAMS = ("M", "P")


def stream_names(net):
  """Returns the names of a network's streams, in the order of `cls_attention`."""
  return STREAMS if isinstance(net, network.TwoStreamPredictor) else ("both inputs",)


def cls_attention(net, params, img_prev, img_curr):
  """Attention weights of the CLS tokens.

  Args:
    net: `network.TwoStreamPredictor` or `baselines.SingleStreamPredictor`.
    params: of it; decoders may be missing.
    img_prev, img_curr: [B, S, S, 3].

  Returns:
    float32 [streams, blocks, B, heads, N]: shares of patches in raster order; what is missing to
    one is the share of the CLS itself.

  Raises:
    InputError: a masked autoencoder, which has no CLS.
  """
  checks.require(
    not isinstance(net, baselines.VideoMAE),
    "config.model.streams: 'videomae' has no CLS token, so there is no attention of it to show.",
  )
  _, found = net.apply(
    {"params": params}, img_prev, img_curr, method="encode", mutable=["intermediates"]
  )
  seen = found["intermediates"]
  name = blocks.FIRST_TOKEN_ATTENTION
  if isinstance(net, network.TwoStreamPredictor):
    stages = {k: v for k, v in seen["encoder"].items() if k.startswith("stage")}
    ordered = sorted(stages, key=lambda stage: int(stage.removeprefix("stage")))
    weights = jnp.concatenate([stages[stage]["blocks"][name][0] for stage in ordered], 1)
  else:
    weights = seen["stack"]["blocks"][name][0][None]
  return weights[..., 1:]
