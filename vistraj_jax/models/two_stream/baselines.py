"""What the two streams are compared with: one stream over both inputs, and a masked autoencoder.

Both answer `encode(img_prev, img_curr)` with an `Encoding`, so that probes and policies take any of
the three networks.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.models.two_stream import blocks, decoders, network, preprocess, streams
from vistraj_jax.nn import initializers

# What one stream sees: name -> function (img_t, img_tk) -> channels.
INPUTS = {
  "rgb6": lambda t, tk: jnp.concatenate([preprocess.as_float(t), preprocess.as_float(tk)], -1),
  "mp9": lambda t, tk: jnp.concatenate([preprocess.motion(t, tk), preprocess.form(t)], -1),
  "m_only": preprocess.motion,
  "p_only": lambda t, tk: preprocess.form(t),
}


class SingleStreamPredictor(nn.Module):
  """One vision transformer and the convolutional decoder without CLS.

  Attributes:
    inputs: key of `INPUTS`: both frames ("rgb6": 89,627,683 parameters), M and P of the current
      frame ("mp9": 90,217,507), or one of them.
    image_size, embed_dim, depth, num_heads: of the transformer; patches are 16 px.
    skip, norm, batch_axis: see `decoders.ConvDecoder`.
    block, remat: see `blocks.Stack`.
    dtype: compute dtype.
  """

  inputs: str = "mp9"
  image_size: int = 224
  embed_dim: int = 768
  depth: int = 12
  num_heads: int = 12
  skip: bool = True
  norm: str = "batch"
  batch_axis: str | None = None
  block: dict | None = None
  remat: str = "none"
  dtype: Any = jnp.float32

  def setup(self):
    checks.choice("config.model.streams", self.inputs, INPUTS)
    block = {"num_heads": self.num_heads, **(self.block or {}), "dtype": self.dtype}
    start, count = initializers.truncated_normal, (self.image_size // 16) ** 2
    self.patch_embed = blocks.PatchEmbedding(self.embed_dim, 16, self.dtype)
    self.cls_token = self.param("cls_token", start, (self.embed_dim,))
    self.pos_embed = self.param("pos_embed", start, (count + 1, self.embed_dim))
    self.stack = blocks.Stack(self.depth, block, self.remat)
    self.norm_out = blocks.layer_norm(1e-5, self.dtype, None)
    self.decoder = decoders.ConvDecoder(
      skip=self.skip, cls="none", norm=self.norm, batch_axis=self.batch_axis, dtype=self.dtype
    )

  def __call__(self, img_t, img_tk, *, keys=None, train=False):
    """As `network.TwoStreamPredictor`: -> ((image,), `Encoding`)."""
    encoding = self.encode(img_t, img_tk, keys=keys)
    return (self.decoder(encoding.patches, {}, img_t, train),), encoding

  def encode(self, img_prev, img_curr, *, keys=None):
    """img_prev, img_curr [B, S, S, 3] -> `Encoding`, both token fields the same."""
    streams.check_sizes(self.image_size, 16, self.embed_dim, self.num_heads, img_prev)
    x = self.patch_embed(INPUTS[self.inputs](img_prev, img_curr))
    cls = jnp.broadcast_to(self.cls_token.astype(self.dtype), (x.shape[0], 1, self.embed_dim))
    x = jnp.concatenate([cls, x], 1) + self.pos_embed.astype(self.dtype)
    x = self.norm_out(self.stack(x, keys=keys))
    return network.Encoding(x, x, {}, x[:, 0], x[:, 1:])


class VideoMAE(nn.Module):
  """Masked autoencoder of two frames (arXiv 2203.12602), one temporal position.

  Attributes:
    image_size: px; patches are 16 px over both frames.
    embed_dim, depth, num_heads: of the encoder.
    decoder_dim, decoder_depth, decoder_heads: of the decoder.
    mask_ratio: share of the patches that the encoder does not see in training.
    block, remat: see `blocks.Stack`; norms inside blocks have epsilon 1e-6.
    dtype: compute dtype.
  """

  image_size: int = 224
  embed_dim: int = 768
  depth: int = 12
  num_heads: int = 12
  decoder_dim: int = 384
  decoder_depth: int = 4
  decoder_heads: int = 6
  mask_ratio: float = 0.75
  block: dict | None = None
  remat: str = "none"
  dtype: Any = jnp.float32

  def setup(self):
    count, width = self.num_patches, self.decoder_dim
    checks.require(
      self.mask_ratio < 1 and int(count * self.mask_ratio) >= 1,
      f"config.model.videomae.mask_ratio: {self.mask_ratio} received; of {count} patches at least "
      f"one must be masked and one seen: give {1 / count:.3g} to below 1.",
    )
    block = lambda heads: {  # noqa: E731
      "num_heads": heads,
      **(self.block or {}),
      "epsilon": 1e-6,
      "key_bias": False,
      "dtype": self.dtype,
    }
    self.patch_embed = blocks.PatchEmbedding(self.embed_dim, 16, self.dtype)
    self.positions = sinusoids(count, self.embed_dim)
    self.stack = blocks.Stack(self.depth, block(self.num_heads), self.remat)
    self.norm_out = blocks.layer_norm(1e-5, self.dtype, None)
    self.cls_proj = initializers.dense(self.embed_dim, self.embed_dim, self.dtype, None)
    self.encoder_to_decoder = nn.Dense(
      width,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=initializers.uniform(self.embed_dim),
    )
    self.mask_token = self.param("mask_token", initializers.truncated_normal, (width,))
    self.decoder_positions = sinusoids(count, width)
    self.decoder_stack = blocks.Stack(self.decoder_depth, block(self.decoder_heads), self.remat)
    self.decoder_norm = blocks.layer_norm(1e-5, self.dtype, None)
    self.head = initializers.dense(2 * 16 * 16 * 3, width, self.dtype, None)

  @property
  def num_patches(self):
    """Patches of a frame."""
    return (self.image_size // 16) ** 2

  def __call__(self, img_t, img_tk, noise, *, keys=None):
    """Predicts the masked patches of both frames.

    Args:
      img_t, img_tk: [B, S, S, 3].
      noise: float [B, N]; the patches with the smallest values are seen.
      keys: one random key a row [B], for dropout; None for none.

    Returns:
      pixels: float32 [B, masked, 1536], of img_t then of img_tk, rows, columns, channels.
      target: the same of the truth.
      masked: int [B, masked], which patches, ascending.
      encoding: `Encoding` of the patches that were seen.
    """
    num_masked = int(self.num_patches * self.mask_ratio)
    order = jnp.argsort(noise, -1)
    seen, masked = jnp.split(order, [self.num_patches - num_masked], -1)
    seen, masked = jnp.sort(seen, -1), jnp.sort(masked, -1)  # raster order within each group
    take = lambda x, at: jnp.take_along_axis(x, at[..., None], 1)  # noqa: E731
    pixels = two_frame_patches(img_t, img_tk)
    encoding = self._encode(take(self._embed(img_t, img_tk), seen), keys)
    x = self.encoder_to_decoder(encoding.patches)
    x = x + self.decoder_positions[seen].astype(self.dtype)
    hidden = (self.mask_token + self.decoder_positions[masked]).astype(self.dtype)
    x = self.decoder_stack(jnp.concatenate([x, hidden], 1), first=1000, keys=keys)
    x = self.head(self.decoder_norm(x[:, -num_masked:]))
    return x.astype(jnp.float32), take(pixels, masked), masked, encoding

  def encode(self, img_prev, img_curr, *, keys=None):
    """img_prev, img_curr [B, S, S, 3] -> `Encoding` of all patches; the first token is their mean.

    `cls` is the original's projection of that mean, which no loss trains.
    """
    return self._encode(self._embed(img_prev, img_curr), keys)

  def _embed(self, img_t, img_tk):
    streams.check_sizes(self.image_size, 16, self.embed_dim, self.num_heads, img_t)
    frames = jnp.concatenate([preprocess.as_float(img_t), preprocess.as_float(img_tk)], -1)
    return self.patch_embed(frames) + self.positions.astype(self.dtype)

  def _encode(self, x, keys):
    x = self.norm_out(self.stack(x, keys=keys))
    mean = x.mean(1)
    tokens = jnp.concatenate([mean[:, None], x], 1)
    return network.Encoding(tokens, tokens, {}, blocks.gelu(self.cls_proj(mean)), x)


def two_frame_patches(img_t, img_tk):
  """Two images [B, S, S, 3] -> [B, N, 1536] float32, the patch of img_t then that of img_tk."""
  pair = [blocks.patches(preprocess.as_float(x), 16) for x in (img_t, img_tk)]
  return jnp.concatenate(pair, -1)


def composed(img_tk, pixels, masked):
  """Puts predicted patches into the true frame.

  Args:
    img_tk: [B, S, S, 3].
    pixels: [B, M, 1536] of `VideoMAE`.
    masked: int [B, M].

  Returns:
    float32 [B, S, S, 3]: truth where the encoder saw it, prediction elsewhere.
  """
  truth = blocks.patches(preprocess.as_float(img_tk), 16)
  half = pixels.shape[-1] // 2
  full = jax.vmap(lambda row, at, new: row.at[at].set(new))(truth, masked, pixels[..., half:])
  return blocks.unpatch(full, 16, img_tk.shape[1] // 16)


def sinusoids(count, width):
  """Returns fixed positions float32 [count, width]: sine and cosine in turn, base 10000."""
  angle = np.arange(count)[:, None] / 10000.0 ** (2 * (np.arange(width) // 2) / width)
  return jnp.asarray(np.where(np.arange(width) % 2 == 0, np.sin(angle), np.cos(angle)), jnp.float32)
