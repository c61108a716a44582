"""SmolVLM as a whole: image tower, connector and Llama decoder, pooled at the last real token.

Sources: Idefics3 (arXiv 2408.12637), SmolVLM (arXiv 2504.05299), Llama (arXiv 2302.13971). Image
tokens take the places in a text that hold the image token's id; the decoder reads text and image
from left to right, and its state at the last token describes both.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.encoders import base, siglip
from vistraj_jax.nn import attention
from vistraj_jax.nn.lora import Dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smolvlm(siglip.Siglip):
  """Tower, connector and text part; the defaults are SmolVLM-Base: 2,145,603,440 parameters.

  States are those of the decoder: the text with the image in it, then every layer.

  Attributes:
    prompt: token ids of the text, with the image token as often as there are image tokens (81).
    scale_factor: patches a side that the connector joins to one token.
    image_token: id whose places the image takes.
    text_width, text_depth, text_heads, text_kv_heads, text_mlp_width, vocabulary: of the decoder.
    rope_theta: base of the rotary angles; take it from the checkpoint's config.json.
  """

  POOLS = ("last_token",)

  pool: str = "last_token"
  prompt: tuple[int, ...] = ()
  scale_factor: int = 3
  image_token: int = 49153
  text_width: int = 2048
  text_depth: int = 24
  text_heads: int = 32
  text_kv_heads: int = 32
  text_mlp_width: int = 8192
  vocabulary: int = 49155
  rope_theta: float = 130000.0

  @property
  def state_widths(self):
    """C of every state of the decoder."""
    return (self.text_width,) * (self.text_depth + 1)

  @property
  def image_tokens(self):
    """Tokens that one image takes in the text."""
    return (self.image_size // self.patch // self.scale_factor) ** 2

  def network(self, dtype):
    """Returns the Linen module."""
    return Network(self, dtype)


class Network(nn.Module):
  """The network of `Smolvlm`.

  Attributes:
    sizes: the encoder.
    dtype: compute dtype.
  """

  sizes: Smolvlm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, pixels, mask=None, keys=None, input_ids=None, text_mask=None):
    """Encodes images within a text.

    Args:
      pixels: [B, H, W, 3].
      mask: bool [B, H, W] or None, real pixels.
      keys: of the rows' dropout, or None.
      input_ids: int [B, T]; None takes the encoder's prompt for every image.
      text_mask: [B, T], 0 on padding at the end; None where there is none.

    Returns:
      base.Hidden with states [B, 1, T, C], zero at padding.
    """
    sizes = self.sizes
    if input_ids is None:
      input_ids = self._prompt(len(pixels))
    text_mask = (
      jnp.ones(input_ids.shape, bool) if text_mask is None else jnp.asarray(text_mask) != 0
    )
    image = siglip.Tower(sizes, self.dtype, name="vision")(pixels, mask, keys).states[-1]
    image = shuffled(image, sizes.scale_factor)
    image = Dense(sizes.text_width, use_bias=False, dtype=self.dtype, name="connector")(image)
    text = Text(sizes, self.dtype, name="text")
    states = text(input_ids, image, text_mask, keys)
    last = text_mask.sum(1) - 1
    heads = [jnp.take_along_axis(x, last[:, None, None], 1)[:, 0] for x in states]
    return base.Hidden([x[:, None] for x in states], None, heads)

  def _prompt(self, batch):
    sizes = self.sizes
    if self.is_initializing():  # shapes do not depend on the text
      return jnp.full((batch, sizes.image_tokens), sizes.image_token)
    count = sizes.prompt.count(sizes.image_token)
    checks.require(
      count == sizes.image_tokens,
      f"encoder prompt: holds the image token {sizes.image_token} {count} times, an image takes "
      f"{sizes.image_tokens} places; give the token ids of the text with that many.",
    )
    return jnp.broadcast_to(jnp.asarray(sizes.prompt), (batch, len(sizes.prompt)))


class Text(nn.Module):
  """Llama decoder over a text with image tokens in it."""

  sizes: Smolvlm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, input_ids, image, text_mask, keys=None):
    """input_ids [B, T], image [B, I, C], text_mask bool [B, T] -> list of states [B, T, C]."""
    sizes = self.sizes
    shape = (sizes.vocabulary, sizes.text_width)
    table = self.param("embedding", nn.initializers.normal(0.02), shape).astype(self.dtype)
    x = merged(table[input_ids], image, input_ids == sizes.image_token)
    angles = rotary_angles(x.shape[1], sizes.text_width // sizes.text_heads, sizes.rope_theta)
    states = [x]
    layer = nn.remat(DecoderLayer) if sizes.remat else DecoderLayer
    for i in range(sizes.text_depth):
      x = layer(sizes, self.dtype, name=f"layer{i}")(x, angles, text_mask, keys)
      states.append(x)
    states[-1] = RmsNorm(self.dtype, name="final_norm")(x)
    return [jnp.where(text_mask[..., None], x, 0) for x in states]


class DecoderLayer(nn.Module):
  """x += attention(norm x), causal with rotary positions; x += down(silu(gate x) up x)."""

  sizes: Smolvlm
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, angles, text_mask, keys=None):
    """x [B, T, C] -> [B, T, C]."""
    sizes = self.sizes
    head = sizes.text_width // sizes.text_heads
    dense = lambda features, name: Dense(  # noqa: E731
      features, False, self.dtype, sizes.lora_dropout, name=name
    )
    y = RmsNorm(self.dtype, name="norm1")(x)
    counts = (sizes.text_heads, sizes.text_kv_heads, sizes.text_kv_heads)
    q, k, v = (
      dense(n * head, name)(y, keys).reshape(*y.shape[:2], n, head)
      for n, name in zip(counts, "qkv", strict=True)
    )
    k, v = (jnp.repeat(z, sizes.text_heads // sizes.text_kv_heads, axis=2) for z in (k, v))
    y = attention.attend(rotated(q, angles), rotated(k, angles), v, text_mask, causal=True)
    x = x + dense(sizes.text_width, "out")(y.reshape(*x.shape[:2], -1), keys)
    y = RmsNorm(self.dtype, name="norm2")(x)
    gate = jax.nn.silu(dense(sizes.text_mlp_width, "gate")(y, keys))
    y = gate * dense(sizes.text_mlp_width, "up")(y, keys)
    return x + dense(sizes.text_width, "down")(y, keys)


class RmsNorm(nn.Module):
  """x / sqrt(mean(x^2) + 1e-5), scaled; in float32."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x):
    """[..., C] -> [..., C]."""
    scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
    x = x.astype(jnp.float32)
    x = x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return (x * scale).astype(self.dtype)


def shuffled(tokens, factor):
  """Joins blocks of factor x factor patches: [B, r, c, C] -> [B, r * c / factor^2, factor^2 C].

  Within a token the order is row in the block, column in the block, channel.
  """
  batch, rows, columns, channels = tokens.shape
  x = tokens.reshape(batch, rows // factor, factor, columns // factor, factor, channels)
  return x.swapaxes(2, 3).reshape(batch, -1, factor * factor * channels)


def merged(text, image, is_image):
  """Puts image tokens [B, I, C] in order into the places `is_image` [B, T] of text [B, T, C]."""
  place = jnp.maximum(jnp.cumsum(is_image, axis=1) - 1, 0)
  taken = jnp.take_along_axis(image, place[..., None], axis=1)
  return jnp.where(is_image[..., None], taken, text)


def rotary_angles(length, width, theta):
  """Returns float32 [length, width / 2]: position * theta^(-2 i / width)."""
  rate = theta ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
  return jnp.arange(length, dtype=jnp.float32)[:, None] * rate


def rotated(x, angles):
  """Rotary positions, split-half form: x [B, T, heads, D], angles [T, D / 2] -> like x."""
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
  return turned.astype(x.dtype)
