"""What a video backbone says of the motion in past frames: clip -> one vector.

The vector steers a latent predictor (`predictor.LatentPredictor`). Backbones are those of
`encoders.video_resnet`, pooled over time and space, and a linear layer.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.encoders import video_resnet

BACKBONES = {"i3d": video_resnet.I3D, "slowfast": video_resnet.SlowFast}


class MotionNetwork(nn.Module):
  """Frames [B, T, H, W, 3] in 0..1 -> motion [B, features].

  Parameters are `backbone`, of which public weights exist, and `output`. Batch norms always use
  fixed statistics, so that a frozen backbone is a constant.

  Attributes:
    kind: a key of `BACKBONES`.
    features: width of the vector.
    width: channels of the backbone's stem (published: 64).
    frames: length of the backbone's clip; frames of the past are repeated or left out.
    dtype: compute dtype.
  """

  kind: str
  features: int
  width: int = 64
  frames: int = video_resnet.FRAMES
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, video):
    backbone = BACKBONES[checks.choice("config.model.motion.kind", self.kind, BACKBONES)]
    clip = video[:, video_resnet.spread(video.shape[1], self.frames)]
    clip = video_resnet.normalise(clip.astype(jnp.float32)).astype(self.dtype)
    _, pooled, _ = backbone(0, self.width, self.dtype, name="backbone")(clip)
    return nn.Dense(self.features, name="output")(pooled)
