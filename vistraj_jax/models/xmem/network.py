"""XMem's networks (arXiv 2207.07115): image -> keys; masks -> values; readouts -> masks.

62,185,224 parameters at the published size, whose widths the shapes below name. Images are
normalised RGB [B, H, W, 3], H and W multiples of 16; h = H/16, w = W/16; K objects. The memory
between the networks is `memory`, the order of calls `clip`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, trained
from vistraj_jax.encoders import resnet
from vistraj_jax.models.xmem import fusion, sensory
from vistraj_jax.nn import image_layers
from vistraj_jax.nn.image_layers import Conv

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class ImageFeatures(NamedTuple):
  """All that the networks need of an image, whatever its objects are.

  Attributes:
    key: float32 [B, h, w, C_k].
    shrinkage: float32 [B, h, w], 1 or more.
    selection: float32 [B, h, w, C_k] in (0, 1).
    f16: [B, h, w, 1024].
    fused: the image half of the decoder's fusion, two of [B, h, w, C_v].
    skip8: [B, 2h, 2w, C_v].
    skip4: [B, 4h, 4w, 256].
  """

  key: Any
  shrinkage: Any
  selection: Any
  f16: Any
  fused: Any
  skip8: Any
  skip4: Any


class KeyProjection(nn.Module):
  """f16 [B, h, w, 1024] -> key, shrinkage, selection of `ImageFeatures`."""

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, f16):
    start = nn.initializers.orthogonal()
    key = Conv(self.width, dtype=self.dtype, kernel_init=start, name="key")(f16)
    shrinkage = Conv(1, dtype=self.dtype, name="shrinkage")(f16)[..., 0]
    selection = Conv(self.width, dtype=self.dtype, name="selection")(f16)
    key, shrinkage, selection = (x.astype(jnp.float32) for x in (key, shrinkage, selection))
    return key, shrinkage**2 + 1, nn.sigmoid(selection)


class ValueEncoder(nn.Module):
  """Image, f16 and masks -> memory value of every object, and its deeply updated hidden state."""

  width: int
  hidden_width: int
  trunk_width: int
  depths: tuple[int, int, int]
  dtype: Any = jnp.float32

  def setup(self):
    self.trunk = resnet.ResNet(self.depths, False, self.trunk_width, self.dtype)
    self.fuser = fusion.FeatureFusion(self.width, self.dtype)
    if self.hidden_width:
      self.deep_update = sensory.DeepUpdate(self.hidden_width, self.dtype)

  def __call__(self, image, f16, masks, hidden):
    B, H, W, K = masks.shape
    others = masks.sum(-1, keepdims=True) - masks
    channels = jnp.moveaxis(jnp.stack([masks, others], -1), 3, 1)  # [B, K, H, W, 2]
    image = jnp.broadcast_to(image[:, None], (B, K, *image.shape[1:])).astype(self.dtype)
    x = jnp.concatenate([image, channels.astype(self.dtype)], -1).reshape(B * K, H, W, -1)
    g16 = self.trunk(x)[-1]
    self.sow("intermediates", "masked_image", g16)
    value = self.fuser(self.fuser.image_half(f16), g16)
    if self.hidden_width:
      hidden = _split(self.deep_update(value, _merge(hidden)), B)
    return _split(value, B), hidden


class Decoder(nn.Module):
  """Image halves, readout and hidden state -> mask logits and the next hidden state."""

  width: int
  hidden_width: int
  map_width: int
  dtype: Any = jnp.float32

  def setup(self):
    self.fuser = fusion.FeatureFusion(self.width, self.dtype)
    self.up_16_8_skip = Conv(self.width, dtype=self.dtype)
    self.up_16_8 = fusion.ResidualBlock(self.map_width, self.dtype)
    self.up_8_4_skip = Conv(self.map_width, dtype=self.dtype)
    self.up_8_4 = fusion.ResidualBlock(self.map_width, self.dtype)
    self.pred = Conv(1, dtype=self.dtype)
    if self.hidden_width:
      self.hidden_update = sensory.DecoderUpdate(self.hidden_width, self.map_width, self.dtype)

  def image_half(self, f16, f8, f4):
    """f16 [B, h, w, 1024], f8, f4 -> fused, skip8, skip4 of `ImageFeatures`."""
    return self.fuser.image_half(f16), self.up_16_8_skip(f8), self.up_8_4_skip(f4)

  def __call__(self, fused, skip8, skip4, readout, hidden):
    B = readout.shape[0]
    hidden = _merge(hidden)
    x = jnp.concatenate([_merge(readout).astype(self.dtype), hidden.astype(self.dtype)], -1)
    g16 = self.fuser(fused, x)
    g8 = self.up_16_8(fusion.add_per_image(image_layers.enlarge(g16, 2), skip8))
    g4 = self.up_8_4(fusion.add_per_image(image_layers.enlarge(g8, 2), skip4))
    for name, map_ in (("g16", g16), ("g8", g8), ("g4", g4)):
      self.sow("intermediates", name, map_)
    logits = self.pred(nn.relu(g4))
    if self.hidden_width:
      hidden = self.hidden_update(g16, g8, jnp.concatenate([g4, logits], -1), hidden)
    return _split(logits[..., 0].astype(jnp.float32), B), _split(hidden, B)


class XMem(nn.Module):
  """The four networks; apply with `method=` one of the methods below.

  Attributes:
    key_dim: C_k.
    value_dim: C_v.
    hidden_dim: C_h of the sensory memory; 0 for none.
    width: channels of the trunks' stems; all maps of the image scale with it.
    key_depths: blocks of the key encoder's three stages.
    value_depths: blocks of the value encoder's three stages.
    dtype: compute dtype of convolutions; keys, masks and hidden states are float32.
  """

  key_dim: int = 64
  value_dim: int = 512
  hidden_dim: int = 64
  width: int = 64
  key_depths: tuple[int, int, int] = (3, 4, 6)
  value_depths: tuple[int, int, int] = (2, 2, 2)
  dtype: Any = jnp.float32

  def setup(self):
    self.key_encoder = resnet.ResNet(tuple(self.key_depths), True, self.width, self.dtype)
    self.key_proj = KeyProjection(self.key_dim, self.dtype)
    self.value_encoder = ValueEncoder(
      self.value_dim, self.hidden_dim, self.width, tuple(self.value_depths), self.dtype
    )
    self.decoder = Decoder(self.value_dim, self.hidden_dim, 4 * self.width, self.dtype)

  def __call__(self, image, masks, hidden):
    """Calls every network once, so that `init` makes all parameters."""
    features = self.encode_image(image)
    value, hidden = self.encode_value(image, features.f16, masks, hidden)
    return self.segment(features, value, hidden)

  def trunk(self, image):
    """[B, H, W, 3] -> f4 [B, 4h, 4w, 256], f8 [B, 2h, 2w, 512], f16 [B, h, w, 1024]."""
    return self.key_encoder(image)

  def project(self, f16):
    """f16 -> key, shrinkage, selection of `ImageFeatures`."""
    return self.key_proj(f16)

  def image_half(self, f16, f8, f4):
    """-> fused, skip8, skip4 of `ImageFeatures`."""
    return self.decoder.image_half(f16, f8, f4)

  def encode_image(self, image):
    """[B, H, W, 3] -> `ImageFeatures`."""
    f4, f8, f16 = self.trunk(image)
    return ImageFeatures(*self.project(f16), f16, *self.image_half(f16, f8, f4))

  def encode_value(self, image, f16, masks, hidden):
    """Memory value of every object on a frame.

    Args:
      image: [B, H, W, 3].
      f16: [B, h, w, 1024] of `ImageFeatures`.
      masks: [B, H, W, K], probability of each object.
      hidden: float32 [B, K, h, w, C_h].

    Returns:
      value [B, K, h, w, C_v], and hidden after a deep update.
    """
    return self.value_encoder(image, f16, masks, hidden)

  def segment(self, features, readout, hidden):
    """Masks of all objects from what was read from memory.

    Args:
      features: `ImageFeatures`.
      readout: [B, K, h, w, C_v].
      hidden: float32 [B, K, h, w, C_h].

    Returns:
      float32 logits [B, K, 4h, 4w] at stride 4, and the next hidden.
    """
    return self.decoder(features.fused, features.skip8, features.skip4, readout, hidden)


_FIELDS = ("key_dim", "value_dim", "hidden_dim", "width", "key_depths", "value_depths", "dtype")


def init(model, rng):
  """Returns first parameters."""
  image = jnp.zeros((1, 16, 16, 3))
  hidden = jnp.zeros((1, 1, 1, 1, model.hidden_dim))
  # The program of 150 draws compiles four times as fast with this kind of key.
  rng = jax.random.wrap_key_data(jnp.tile(jax.random.key_data(rng), 2), impl="rbg")
  return jax.jit(model.init)(rng, image, image[..., :1], hidden)["params"]


def read(path):
  """Returns (params, settings) of XMem alone, also of a run that trains more than it.

  Args:
    path: weights file, run folder or phase folder (see `core.trained.load`).
  """
  params, settings = trained.load(path)
  if "xmem" in params:
    return params["xmem"], {**settings["xmem"], "dtype": settings["dtype"]}
  return params, settings


def load(path):
  """Returns (model, params) of trained weights.

  Args:
    path: as of `read`.

  Raises:
    InputError: no weights there, or weights of another network.
  """
  params, settings = read(path)
  fields = {name: settings[name] for name in _FIELDS if name in settings}
  fields = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}  # from JSON
  checks.require(
    {"key_dim", "value_dim", "hidden_dim"} <= set(fields),
    f"{path}: holds no XMem weights; convert a checkpoint with `python -m launch.convert xmem`.",
  )
  return XMem(**{**fields, "dtype": jnp.dtype(fields.get("dtype", "float32"))}), params


def _merge(x):
  """[B, K, ...] -> [B * K, ...]."""
  return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _split(x, batch):
  """[B * K, ...] -> [B, K, ...]."""
  return x.reshape(batch, x.shape[0] // batch, *x.shape[1:])
