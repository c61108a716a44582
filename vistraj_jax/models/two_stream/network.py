"""Two-stream video predictor: the frame k steps ahead from the current one and the change to it.

The future frame is an input: the encoder sees it as the difference M (and, with
p_source="future", as form P, a leak that is kept only to repeat old numbers). What is learned for
use elsewhere is the encoder: `TwoStreamPredictor.encode(img_prev, img_curr)`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.two_stream import decoders, preprocess, streams

P_SOURCES = ("current", "future")
DECODERS = ("conv", "per_stream_patch")
# Rows of a readout: what a probe or a policy reads from an `Encoding`.
READOUTS = (
  "patch_mean_concat",
  "cls_concat",
  "patch_mean",
  "cls_mean",
  "m_patch_mean",
  "p_patch_mean",
  "fused_patch_mean",
  "fused_cls",
)


class Encoding(NamedTuple):
  """Features of a pair of frames.

  Attributes:
    m_tokens, p_tokens: [B, 1 + N, D], CLS first. Networks with one stream have both the same.
    taps: P's CLS at several depths, {"stage1", "stage2", "final"} -> [B, D]; may be empty.
    cls, patches: fused, [B, D] and [B, N, D], or None where the network has no fusion.
    kept, visible: see `streams.Streams`; None unless patches are masked.
  """

  m_tokens: Any
  p_tokens: Any
  taps: dict
  cls: Any = None
  patches: Any = None
  kept: Any = None
  visible: Any = None


class TwoStreamPredictor(nn.Module):
  """Preprocessing, two-stream encoder, fusion, decoder; 192,307,427 parameters by default.

  Attributes:
    image_size, patch_size: px; square images.
    m_channels: what M is made of, a key of `preprocess.M_CHANNELS`.
    p_source: the frame that P is made of, "current" (t) or "future" (t + k: the target itself).
    fusion_layers: "separate" or "shared" for CLS and patches; only with the "conv" decoder.
    decoding: fields of `decoders.ConvDecoder` plus "kind": "conv", or "per_stream_patch": one
      patch decoder a stream, each from its own patches and the mean CLS.
    vit: further fields of `streams.TwoStreamViT`.
    patch_decoder: fields of `decoders.PatchDecoder`: width, depth, num_heads.
    batch_axis: see `decoders.ConvDecoder`.
    dtype: compute dtype; parameters, statistics and images are float32.
  """

  image_size: int = 224
  patch_size: int = 16
  m_channels: str = "rgb4"
  p_source: str = "current"
  fusion_layers: str = "separate"
  decoding: dict | None = None
  vit: dict | None = None
  patch_decoder: dict | None = None
  batch_axis: str | None = None
  dtype: Any = jnp.float32

  def setup(self):
    checks.choice("config.model.p_source", self.p_source, P_SOURCES)
    fields = {"kind": "conv", **(self.decoding or {})}
    kind = checks.choice("config.model.decoder.kind", fields.pop("kind"), DECODERS)
    vit = dict(self.vit or {})
    sizes = {"image_size": self.image_size, "patch_size": self.patch_size}
    self.encoder = streams.TwoStreamViT(**sizes, **vit, dtype=self.dtype)
    self.masked = bool(self.encoder.mask_ratio_m or self.encoder.mask_ratio_p)
    self.is_fused = kind == "conv"
    if self.is_fused:
      checks.require(
        not self.masked,
        "config.model.mask_ratio_m, mask_ratio_p: the decoder 'conv' needs all patches; set both "
        "to 0 or use decoder.kind='per_stream_patch'.",
      )
      checks.require(
        self.patch_size == 16,
        f"config.model.patch_size: {self.patch_size} received, the decoder 'conv' enlarges 16 "
        "times; use 16, or decoder.kind='per_stream_patch'.",
      )
      self.fusion = streams.PixelwiseFusion(self.encoder.embed_dim, self.fusion_layers, self.dtype)
      self.decoder = decoders.ConvDecoder(**fields, batch_axis=self.batch_axis, dtype=self.dtype)
    else:
      fields = dict(
        patch_size=self.patch_size,
        side=self.image_size // self.patch_size,
        **(self.patch_decoder or {}),
        masked=self.masked,
        remat=self.encoder.remat,
        dtype=self.dtype,
      )
      self.decoder_m = decoders.PatchDecoder(**fields)
      self.decoder_p = decoders.PatchDecoder(**fields)

  def __call__(self, img_t, img_tk, *, keys=None, train=False):
    """Predicts img_tk.

    Args:
      img_t, img_tk: [B, S, S, 3], float in 0..1 or uint8.
      keys: one random key a row [B], for dropout and masks; None for neither.
      train: whether batch statistics come from the batch.

    Returns:
      (images, encoding): a tuple of one predicted image float32 [B, S, S, 3], or of two (by M, by
      P) with decoder "per_stream_patch"; and the `Encoding`.
    """
    encoding = self.encode(img_t, img_tk, keys=keys)
    return self.decode(encoding, img_t, train=train), encoding

  def encode(self, img_prev, img_curr, *, keys=None):
    """Features of a pair: img_prev, img_curr [B, S, S, 3], earlier and later -> `Encoding`."""
    m = preprocess.motion(img_prev, img_curr, self.m_channels)
    p = preprocess.form(img_prev if self.p_source == "current" else img_curr)
    out = self.encoder(m, p, keys)
    cls = patches = None
    if self.is_fused:
      cls, patches = self.fusion(out.m_tokens, out.p_tokens)
    return Encoding(out.m_tokens, out.p_tokens, out.taps, cls, patches, out.kept, out.visible)

  def decode(self, encoding, img_t, *, train=False):
    """`Encoding` and current frame [B, S, S, 3] -> tuple of predicted images."""
    if self.is_fused:
      return (self.decoder(encoding.patches, encoding.taps, img_t, train),)
    cls = (encoding.m_tokens[:, 0] + encoding.p_tokens[:, 0]) / 2
    images = []
    for i, (decoder, tokens) in enumerate(
      ((self.decoder_m, encoding.m_tokens), (self.decoder_p, encoding.p_tokens))
    ):
      kept, visible = (None if x is None else x[i] for x in (encoding.kept, encoding.visible))
      images.append(decoder(cls, tokens[:, 1:], kept, visible))
    return tuple(images)


def readouts_of(encoding):
  """Returns those of READOUTS that an `Encoding` has: without fusion not the fused ones."""
  return tuple(k for k in READOUTS if encoding.cls is not None or not k.startswith("fused"))


def streams_of(encoding):
  """Returns the patch tokens of each stream, [B, streams, N, D]; one stream has them once."""
  pair = (encoding.m_tokens, encoding.p_tokens)
  pair = pair[:1] if pair[0] is pair[1] else pair
  return jnp.stack([x[:, 1:] for x in pair], 1)


def readout(encoding, kind):
  """Returns one vector a pair, [B, D] or [B, 2 D], float32.

  Args:
    encoding: `Encoding`; of masked streams the mean patch is that of the visible ones.
    kind: "patch_mean_concat": mean patch of M, mean patch of P; "cls_concat": CLS of M, CLS of P;
      "patch_mean", "cls_mean": the means of those two; "m_patch_mean", "p_patch_mean": the mean
      patch of one stream; "fused_patch_mean", "fused_cls": after the fusion. No loss reaches the
      fused CLS: it is a random projection.

  Raises:
    InputError: an unknown kind, or a fused one of a network without fusion.
  """
  checks.choice("readout", kind, READOUTS)
  if kind.startswith("fused"):
    checks.require(
      encoding.cls is not None,
      f"readout {kind!r}: this network has no fusion; choose one of {list(READOUTS[:6])}.",
    )
    fused = encoding.cls if kind == "fused_cls" else encoding.patches.mean(1)
    return fused.astype(jnp.float32)
  pair = [x.astype(jnp.float32) for x in (encoding.m_tokens, encoding.p_tokens)]
  seen = (None, None) if encoding.visible is None else encoding.visible
  pair = [
    x[:, 0] if kind.startswith("cls") else _mean_patch(x[:, 1:], own)
    for x, own in zip(pair, seen, strict=True)
  ]
  if kind.startswith(("m_", "p_")):
    return pair["mp".index(kind[0])]
  return jnp.concatenate(pair, -1) if kind.endswith("concat") else (pair[0] + pair[1]) / 2


def _mean_patch(patches, visible):
  """patches [B, K, D], visible bool [B, K] or None for all -> [B, D]."""
  return patches.mean(1, where=None if visible is None else visible[..., None])
