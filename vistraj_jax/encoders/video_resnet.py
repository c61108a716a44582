"""Video networks for motion: I3D and SlowFast of ResNet-50, clips -> feature maps and a vector.

Sources: PyTorchVideo's i3d_r50 (arXiv 1705.07750 on a ResNet) and slowfast_r50, 8 x 8
(arXiv 1812.03982). Batch norms use fixed statistics. Clips are normalised by `normalise`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.nn.image_layers import FrozenBatchNorm, he_normal
from vistraj_jax.nn.video_layers import Conv

DEPTHS = (3, 4, 6, 3)
FRAMES = 32  # of a clip, for both networks here; I3D takes any number from 2 on
CLASSES = 400  # of Kinetics
_ALPHA = 4  # frames of the fast pathway for one of the slow
_MEAN, _STD = 0.45, 0.225
# Frames that the first convolution of a stage's blocks sees: by stage, repeated over its blocks.
_I3D_FRAMES = ((3, 3, 3), (3, 1), (3, 1), (1, 3))
_SLOW_FRAMES, _FAST_FRAMES = ((1,), (1,), (3,), (3,)), ((3,),) * 4


def normalise(video):
  """Pixels in 0..1 -> what both networks were trained on."""
  return (video - _MEAN) / _STD


def spread(have, want):
  """Returns int [want]: frame numbers of `want` evenly spread of `have` frames, rounded down."""
  return np.arange(want) * (have - 1) // max(want - 1, 1)


class I3D(nn.Module):
  """Normalised clip [B, T, H, W, 3] -> (maps, pooled [B, 2048], logits).

  `maps` are the results of the public file's blocks 0..5: stem, stage, halving of frames, stages.

  Attributes:
    num_classes: outputs of the classification layer; 0: none, and logits are None.
    width: channels of the stem (published: 64).
    dtype: compute dtype.
  """

  num_classes: int = 0
  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, video):
    x = Stem(self.width, 5, self.dtype, name="stem")(video)
    maps = [x]
    for stage, frames in enumerate(_I3D_FRAMES):
      x = _stage(x, stage, self.width << stage, frames, self.dtype, f"stage{stage}")
      maps.append(x)
      if not stage:
        x = nn.max_pool(x, (2, 1, 1), (2, 1, 1))
        maps.append(x)
    pooled = x.astype(jnp.float32).mean((1, 2, 3))
    return maps, pooled, _classes(pooled, self.num_classes)


class SlowFast(nn.Module):
  """Normalised clip [B, T, H, W, 3], T a multiple of 4 -> (maps, pooled [B, 2304], logits).

  `maps` are pairs (slow, fast) after the public file's blocks 0..4; the slow ones have the fast
  pathway's features behind their own. The vector is the mean of slow (2,048), then fast (256).
  Attributes as of `I3D`.
  """

  num_classes: int = 0
  width: int = 64
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, video):
    checks.require(
      video.shape[1] % _ALPHA == 0 and video.shape[1],
      f"SlowFast: a clip of {video.shape[1]} frames received, a multiple of {_ALPHA} wanted "
      "(config.model.motion.frames).",
    )
    frames = spread(video.shape[1], video.shape[1] // _ALPHA)
    slow = Stem(self.width, 1, self.dtype, name="slow_stem")(video[:, frames])
    fast = Stem(self.width // 8, 5, self.dtype, name="fast_stem")(video)
    slow = self._join(slow, fast, 0)
    maps = [(slow, fast)]
    for stage in range(4):
      width = self.width << stage
      slow = _stage(slow, stage, width, _SLOW_FRAMES[stage], self.dtype, f"slow_stage{stage}")
      width //= 8
      fast = _stage(fast, stage, width, _FAST_FRAMES[stage], self.dtype, f"fast_stage{stage}")
      if stage < 3:
        slow = self._join(slow, fast, stage + 1)
      maps.append((slow, fast))
    pooled = jnp.concatenate([x.astype(jnp.float32).mean((1, 2, 3)) for x in (slow, fast)], -1)
    return maps, pooled, _classes(pooled, self.num_classes)

  def _join(self, slow, fast, number):
    x = _conv(2 * fast.shape[-1], (7, 1), (_ALPHA, 1), self.dtype, f"fusion{number}")(fast)
    x = nn.relu(_norm(self.dtype, f"fusion{number}_norm")(x))
    return jnp.concatenate([slow, x], -1)


class Stem(nn.Module):
  """frames x 7 x 7 convolution and 3 x 3 maxima: [B, T, H, W, 3] -> [B, T, H/4, W/4, features]."""

  features: int
  frames: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    x = _conv(self.features, (self.frames, 7), (1, 2), self.dtype, "conv")(x)
    x = nn.relu(_norm(self.dtype, "norm")(x))
    return nn.max_pool(x, (1, 3, 3), (1, 2, 2), ((0, 0), (1, 1), (1, 1)))


class Bottleneck(nn.Module):
  """frames x 1 x 1, 1 x 3 x 3, 1 x 1 x 1 and a shortcut: -> 4 * inner channels."""

  inner: int
  frames: int
  stride: int
  project: bool
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    outer = 4 * self.inner
    y = _conv(self.inner, (self.frames, 1), (1, 1), self.dtype, "conv_a")(x)
    y = nn.relu(_norm(self.dtype, "norm_a")(y))
    y = _conv(self.inner, (1, 3), (1, self.stride), self.dtype, "conv_b")(y)
    y = nn.relu(_norm(self.dtype, "norm_b")(y))
    y = _norm(self.dtype, "norm_c")(_conv(outer, (1, 1), (1, 1), self.dtype, "conv_c")(y))
    if self.project:
      x = _conv(outer, (1, 1), (1, self.stride), self.dtype, "shortcut")(x)
      x = _norm(self.dtype, "shortcut_norm")(x)
    return nn.relu(x + y)


def _stage(x, stage, inner, frames, dtype, name):
  for i in range(DEPTHS[stage]):
    stride = 2 if stage and not i else 1
    size = frames[i % len(frames)]
    x = Bottleneck(inner, size, stride, not i, dtype, name=f"{name}_{i}")(x)
  return x


def _classes(pooled, count):
  return nn.Dense(count, name="classes")(pooled) if count else None


def _conv(features, size, stride, dtype, name):
  return Conv(features, size, stride, use_bias=False, dtype=dtype, kernel_init=he_normal, name=name)


def _norm(dtype, name):
  return FrozenBatchNorm(dtype=dtype, name=name)
