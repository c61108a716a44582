"""The interleaved two-stream vision transformer: M and P side by side, meeting in their CLS tokens.

Both streams run the same blocks with their own weights: parameters are stacked [2, blocks, ...]
(stream 0 is M, 1 is P) and the blocks run under one vmap over the streams and one scan over the
blocks of a stage. Between stages the two classification tokens pass through an exchange block.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.two_stream import blocks
from vistraj_jax.nn import initializers

EXCHANGES = ("cls", "full")
POSITIONS = ("learned", "rope2d")
CLS_TAPS = ("pre", "post")
_MASKS = 1 << 30  # numbers of the masks' random draws, far from those of dropout
FUSIONS = ("separate", "shared")


class Streams(NamedTuple):
  """What the encoder says; token 0 of a stream is its classification (CLS) token.

  Attributes:
    m_tokens, p_tokens: after the last norm, [B, 1 + N, D] (fewer patches where masked).
    taps: P's CLS at several depths, {"stage1", "stage2", "final"} -> [B, D].
    kept: int [2, B, K], the patches behind tokens 1.. of M and P, or None for all in order.
    visible: bool [2, B, K], whether a kept patch counts, or None for all.
  """

  m_tokens: Any
  p_tokens: Any
  taps: dict
  kept: Any = None
  visible: Any = None


class TwoStreamViT(nn.Module):
  """The encoder.

  Attributes:
    image_size, patch_size: px; square images.
    embed_dim, depth, num_heads: of each stream.
    num_stages: equal groups of blocks; `depth` must be divisible.
    exchange_after_last: whether an exchange also follows the last stage.
    num_exchanges: at most this many exchanges; -1: all.
    exchange: "cls": the two CLS tokens attend to each other; "full": all tokens of both streams.
    exchange_heads: heads of the exchange blocks; 0: as many as the streams'.
    cls_tap: whether taps are read before ("pre") or after ("post") the exchange of their stage.
    pos: learned positions or 2-D rotary ones.
    mask_ratio_m, mask_ratio_p: share of patches that a stream does not see in training.
    block: further fields of `blocks.Block`, for the streams.
    remat: see `blocks.Stack`.
    stack_streams: False runs M and P one after the other, with the same parameters.
    dtype: compute dtype.
  """

  image_size: int = 224
  patch_size: int = 16
  embed_dim: int = 768
  depth: int = 12
  num_heads: int = 12
  num_stages: int = 3
  exchange_after_last: bool = False
  num_exchanges: int = -1
  exchange: str = "cls"
  exchange_heads: int = 0
  cls_tap: str = "pre"
  pos: str = "learned"
  mask_ratio_m: float = 0.0
  mask_ratio_p: float = 0.0
  block: dict | None = None
  remat: str = "none"
  stack_streams: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, m, p, keys=None):
    """m [B, H, W, C], p [B, H, W, 5] of `preprocess`, keys [B] in training -> `Streams`."""
    self._check(m)
    side = self.image_size // self.patch_size
    embed = lambda name, x: blocks.PatchEmbedding(  # noqa: E731
      self.embed_dim, self.patch_size, self.dtype, name=name
    )(x)
    x = jnp.stack([embed("patch_embed_m", m), embed("patch_embed_p", p)])  # [2, B, N, D]
    start = initializers.truncated_normal
    cls = self.param("cls_token", start, (2, self.embed_dim))
    rotation = None
    if self.pos == "learned":
      positions = self.param("pos_embed", start, (2, side * side + 1, self.embed_dim))
      x = x + positions[:, None, 1:].astype(self.dtype)
      cls = cls + positions[:, 0]
    else:
      rotation = blocks.rotary_angles(side, self.embed_dim // self.num_heads)
      rotation = jnp.broadcast_to(rotation, (2, *rotation.shape))
    x, rotation, key_mask, kept, visible = self._hide(x, rotation, keys)
    cls = jnp.broadcast_to(cls[:, None, None].astype(self.dtype), (2, x.shape[1], 1, x.shape[3]))
    x = jnp.concatenate([cls, x], 2)
    taps = {}
    length = self.depth // self.num_stages
    exchanges = exchange_count(self.num_stages, self.exchange_after_last, self.num_exchanges)
    for stage in range(self.num_stages):
      x = self._stage(stage, length)(
        x, jnp.array([0, self.depth]) + stage * length, rotation, key_mask, keys
      )
      before = x[1, :, 0]
      if stage < exchanges:
        x = self._exchange(stage, x, key_mask)
      if stage < 2:
        taps[f"stage{stage + 1}"] = before if self.cls_tap == "pre" else x[1, :, 0]
    norm = nn.vmap(
      nn.LayerNorm, in_axes=0, variable_axes={"params": 0}, split_rngs={"params": True}
    )
    x = norm(epsilon=1e-5, dtype=self.dtype, use_fast_variance=False, name="norm")(x)
    taps["final"] = x[1, :, 0]
    return Streams(x[0], x[1], taps, kept, visible)

  def _stage(self, number, length):
    """Returns the blocks of one stage over both streams."""
    fields = dict(
      length=length,
      block={"num_heads": self.num_heads, **(self.block or {}), "dtype": self.dtype},
      remat=self.remat,
    )
    over = dict(variable_axes={"params": 0, "intermediates": 0}, split_rngs={"params": True})
    if self.stack_streams:
      stack = nn.vmap(blocks.Stack, in_axes=(0, 0, 0, 0, None), **over)
      return stack(**fields, name=f"stage{number}")

    def one_stream(stack, carry, *inputs):
      return carry, stack(*inputs)

    scan = nn.scan(one_stream, in_axes=(0, 0, 0, 0, nn.broadcast), length=2, **over)
    stack = blocks.Stack(**fields, name=f"stage{number}")
    return lambda *inputs: scan(stack, (), *inputs)[1]

  def _exchange(self, stage, x, key_mask):
    """x [2, B, N, D] -> the same, after the CLS tokens (or all tokens that count) have met."""
    block = blocks.Block(
      self.exchange_heads or self.num_heads,
      attention="xla" if self.exchange == "cls" else "auto",  # two tokens want no fused kernel
      dtype=self.dtype,
      name=f"exchange{stage}",
    )
    if self.exchange == "cls":
      met = block(jnp.swapaxes(x[:, :, 0], 0, 1))
      return x.at[:, :, 0].set(jnp.swapaxes(met, 0, 1))
    length = x.shape[2]
    joined = lambda pair: jnp.concatenate([pair[0], pair[1]], 1)  # noqa: E731
    met = block(joined(x), key_mask=None if key_mask is None else joined(key_mask))
    return jnp.stack([met[:, :length], met[:, length:]])

  def _hide(self, x, rotation, keys):
    """Takes masked patches out of both streams; in evaluation nothing is hidden.

    The streams keep the larger of their two numbers of patches, so that they stay stacked; in the
    stream that should keep fewer, the rest is closed to attention.
    """
    if keys is None or not (self.mask_ratio_m or self.mask_ratio_p):
      return x, rotation, None, None, None
    count = x.shape[2]
    keep = [count - int(count * ratio) for ratio in (self.mask_ratio_m, self.mask_ratio_p)]
    noise = jnp.stack([_noise(keys, stream, count) for stream in range(2)])
    kept = jnp.argsort(noise, -1)[..., : max(keep)]  # [2, B, K]
    x = jnp.take_along_axis(x, kept[..., None], 2)
    if rotation is not None:
      cls, patch = rotation[:, :, :1], rotation[:, :, 1:]
      patch = jnp.broadcast_to(patch, (*x.shape[:2], *patch.shape[2:]))
      patch = jnp.take_along_axis(patch, kept[..., None], 2)
      cls = jnp.broadcast_to(cls, (*x.shape[:2], 1, cls.shape[-1]))
      rotation = jnp.concatenate([cls, patch], 2)
    if keep[0] == keep[1]:
      return x, rotation, None, kept, None
    visible = jnp.arange(max(keep)) < jnp.array(keep)[:, None]
    visible = jnp.broadcast_to(visible[:, None], kept.shape)
    key_mask = jnp.pad(visible, ((0, 0), (0, 0), (1, 0)), constant_values=True)
    return x, rotation, key_mask, kept, visible

  def _check(self, m):
    where = "config.model"
    checks.choice(f"{where}.exchange", self.exchange, EXCHANGES)
    checks.choice(f"{where}.pos", self.pos, POSITIONS)
    checks.choice(f"{where}.cls_tap", self.cls_tap, CLS_TAPS)
    check_sizes(self.image_size, self.patch_size, self.embed_dim, self.num_heads, m)
    checks.require(
      self.depth % self.num_stages == 0,
      f"{where}.depth: {self.depth} received, with {self.num_stages} stages it must be a multiple "
      f"of {self.num_stages}; change depth or num_stages.",
    )
    for name in ("mask_ratio_m", "mask_ratio_p"):
      ratio = getattr(self, name)
      checks.require(0 <= ratio < 1, f"{where}.{name}: {ratio} received, 0 to below 1 allowed.")


class PixelwiseFusion(nn.Module):
  """M and P tokens of the same place -> one: a linear layer for CLS, another for patches.

  Attributes:
    kind: "separate" (two layers) or "shared" (one for both).
  """

  width: int
  kind: str = "separate"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, m_tokens, p_tokens):
    """[B, 1 + N, D] twice -> cls [B, width], patches [B, N, width]."""
    checks.choice("config.model.fusion", self.kind, FUSIONS)
    x = jnp.concatenate([m_tokens, p_tokens], -1)
    layer = lambda name: initializers.dense(self.width, x.shape[-1], self.dtype, name)  # noqa: E731
    if self.kind == "shared":
      x = layer("fc_fusion")(x)
      return x[:, 0], x[:, 1:]
    return layer("fc_cls")(x[:, 0]), layer("fc_patch")(x[:, 1:])


def exchange_count(num_stages, after_last, limit):
  """Returns how many of the first stages are followed by an exchange.

  Raises:
    InputError: more exchanges wanted than there are places for.
  """
  places = num_stages if after_last else num_stages - 1
  checks.require(
    -1 <= limit <= places,
    f"config.model.num_exchanges: {limit} received, -1 (all) to {places} allowed with {num_stages} "
    f"stages and exchange_after_last={after_last}.",
  )
  return places if limit == -1 else limit


def check_sizes(image_size, patch_size, embed_dim, num_heads, image):
  """Raises InputError where sizes do not go into one another, or `image` has another size."""
  checks.require(
    image_size % patch_size == 0,
    f"config.model.image_size: {image_size} received, it must be a multiple of patch_size "
    f"{patch_size}; try {image_size // patch_size * patch_size}.",
  )
  checks.require(
    embed_dim % num_heads == 0,
    f"config.model.embed_dim: {embed_dim} received, it must be a multiple of num_heads "
    f"{num_heads}.",
  )
  checks.shape("config.model.image_size: images", image, (None, image_size, image_size, None))


def _noise(keys, stream, count):
  """keys [B] -> uniform numbers [B, count], others for each stream."""
  draw = lambda key: jax.random.uniform(jax.random.fold_in(key, _MASKS + stream), (count,))  # noqa: E731
  return jax.vmap(draw)(keys)
