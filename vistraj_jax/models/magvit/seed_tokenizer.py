"""A small video tokenizer with a code book: 4 x 4 pixels of one frame are a token.

The network of the original latent prediction experiments, 6,884,611 parameters with 1,024 codes:
25 frames of 128 x 128 px are 25,600 tokens. It is not causal, and nothing trained its code book.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.magvit import value_range
from vistraj_jax.nn import image_layers, quantize, video_layers
from vistraj_jax.nn.video_layers import Conv

WIDTHS = (64, 128, 256)  # channels of the convolutions


@dataclasses.dataclass(frozen=True)
class SeedTokenizer:
  """Encoder, code book and decoder; parameters are {"encoder", "code_book" [K, C], "decoder"}.

  Attributes:
    num_codes: vectors of the code book, K.
    latent_dim: their width, C.
    dtype: compute dtype; parameters and latents are float32.
  """

  num_codes: int = 1024
  latent_dim: int = 256
  dtype: Any = jnp.float32

  value_range = (0.0, 1.0)
  has_code_book = True
  strides = (1, 4)

  def latent_shape(self, frames, height, width):
    """Returns (t, h, w) of the latents of a window.

    Raises:
      InputError: sides that are no multiples of 4 px.
    """
    checks.require(
      frames >= 1 and height % 4 == 0 and width % 4 == 0 and height and width,
      f"video: {frames} frames of {height} x {width} px received, sides that are multiples of 4 "
      "wanted; crop or resize them.",
    )
    return frames, height // 4, width // 4

  def init(self, rng):
    """rng -> params."""
    of_encoder, of_book, of_decoder = jax.random.split(rng, 3)
    bound = 1 / self.num_codes
    book = jax.random.uniform(
      of_book, (self.num_codes, self.latent_dim), minval=-bound, maxval=bound
    )
    encoder, decoder = Encoder(self.latent_dim, self.dtype), Decoder(self.dtype)
    latents = jnp.zeros((1, 1, 1, 1, self.latent_dim))
    return {
      "encoder": encoder.init(of_encoder, jnp.zeros((1, 1, 4, 4, 3)))["params"],
      "code_book": book,
      "decoder": decoder.init(of_decoder, latents)["params"],
    }

  def encode(self, params, video):
    """video float [B, T, H, W, 3] in 0..1 -> latents float32 [B, T, H/4, W/4, C].

    Raises:
      InputError: see `latent_shape`; or other values.
    """
    self.latent_shape(*video.shape[1:4])
    value_range.check(video, self.value_range)
    encoder = Encoder(self.latent_dim, self.dtype)
    return encoder.apply({"params": params["encoder"]}, video).astype(jnp.float32)

  def quantize(self, latents, params):
    """latents -> (nearest code vectors, with the gradient of `latents`; int32 [B, T, h, w])."""
    index = quantize.nearest(jax.lax.stop_gradient(latents), params["code_book"])
    return quantize.straight_through(latents, self.from_indices(index, params)), index

  def from_indices(self, indices, params):
    """indices int [B, T, h, w] -> code vectors float32 [B, T, h, w, C]."""
    return params["code_book"][indices]

  def decode(self, params, latents):
    """latents [B, T, h, w, C] -> video float32 [B, T, 4h, 4w, 3] in 0..1."""
    decoder = Decoder(self.dtype)
    return decoder.apply({"params": params["decoder"]}, latents).astype(jnp.float32)

  decode_unclipped = decode  # a sigmoid bounds it


class Encoder(nn.Module):
  """Video [B, T, H, W, 3] in 0..1 -> latents [B, T, H/4, W/4, latent_dim]."""

  latent_dim: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, video):
    x = 2 * video - 1
    x = nn.relu(Conv(WIDTHS[0], dtype=self.dtype, name="conv_in")(x))
    x = nn.relu(Conv(WIDTHS[1], stride=(1, 2), dtype=self.dtype, name="conv1")(x))
    x = nn.relu(Conv(WIDTHS[2], stride=(1, 2), dtype=self.dtype, name="conv2")(x))
    return Conv(self.latent_dim, dtype=self.dtype, name="conv_out")(x)


class Decoder(nn.Module):
  """Latents [B, T, h, w, C] -> video [B, T, 4h, 4w, 3] in 0..1."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    x = nn.relu(Conv(WIDTHS[2], dtype=self.dtype, name="conv_in")(x))
    x = nn.relu(Double(WIDTHS[1], self.dtype, name="deconv1")(x))
    x = nn.relu(Double(WIDTHS[0], self.dtype, name="deconv2")(x))
    return nn.sigmoid(Conv(3, dtype=self.dtype, name="conv_out")(x).astype(jnp.float32))


class Double(nn.Module):
  """Transposed convolution, kernel 3 x 4 x 4: [B, T, H, W, in] -> [B, T, 2H, 2W, features].

  The kernel is that of the equal convolution of the input with zeros between its pixels.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    shape = (3, 4, 4, x.shape[-1], self.features)
    kernel = self.param("kernel", image_layers.uniform_by_fan_in, shape).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros_init(), (self.features,)).astype(self.dtype)
    return video_layers.by_images(_double, x.astype(self.dtype), kernel, 1, (1, 1)) + bias


def _double(images, kernel):
  return jax.lax.conv_general_dilated(
    images,
    kernel,
    (1, 1),
    ((2, 2), (2, 2)),
    lhs_dilation=(2, 2),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
