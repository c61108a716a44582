"""SigLIP vision transformer: the tower of SmolVLM (Idefics3) and SigLIP itself.

Sources: SigLIP (arXiv 2303.15343), Idefics3 (arXiv 2408.12637), SmolVLM (arXiv 2504.05299). Both
have the same layers. They differ in how a square table of positions serves other image sizes
(Idefics3 assigns patches to entries, SigLIP interpolates the table) and in SigLIP's pooling head.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.encoders import base, positions
from vistraj_jax.encoders.preprocess import HALF, Preprocess
from vistraj_jax.nn import attention, resample, vit
from vistraj_jax.nn.lora import Dense

RULES = (*positions.RULES, "interpolate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Siglip(base.Encoder):
  """SigLIP vision transformer; the defaults are so400m at 384 pixels: 412,987,248 parameters.

  Attributes:
    hidden_size: C.
    depth: number of layers.
    num_heads: attention heads.
    mlp_width: width of the feed-forward layers.
    image_size: pixels a side of the square image the position table belongs to.
    patch: pixels a side of a patch.
    position_rule: "exact" or "hf_4_57_bf16" (see `positions`) or "interpolate" (SigLIP's own:
      PyTorch's bicubic resize of the table).
    norm_all: whether the final norm is applied to every state, not only to the last.
    processor_edge: longest edge of the first of two resizes of the "siglip" preprocessing.
  """

  POOLS: ClassVar = ("mean", "masked_mean", "siglip_head")

  hidden_size: int = 1152
  depth: int = 27
  num_heads: int = 16
  mlp_width: int = 4304
  image_size: int = 384
  patch: int = 14
  position_rule: str = "exact"
  norm_all: bool = False
  processor_edge: int | None = None

  def __post_init__(self):
    super().__post_init__()
    checks.choice("encoder position_rule", self.position_rule, RULES)

  @property
  def state_widths(self):
    """C of every state."""
    return (self.hidden_size,) * (self.depth + 1)

  def preprocesses(self):
    """siglip: the published processor. seed: bilinear without antialiasing, ImageNet statistics."""
    size = (self.image_size, self.image_size)
    own = Preprocess(size, "bicubic", True, HALF, HALF)
    if self.processor_edge:  # Idefics3's processor
      own = Preprocess(size, "lanczos", True, HALF, HALF, longest_edge=self.processor_edge)
    return {"siglip": own, "seed": Preprocess(size, "bilinear", antialias=False)}

  def network(self, dtype):
    """Returns the Linen module."""
    return Tower(self, dtype)


class Tower(nn.Module):
  """The network of `Siglip`.

  Attributes:
    sizes: the encoder.
    dtype: compute dtype.
  """

  sizes: Siglip
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, pixels, mask=None, keys=None):
    """pixels [B, H, W, 3], mask bool [B, H, W] or None -> base.Hidden."""
    sizes = self.sizes
    x = vit.PatchEmbedding(sizes.hidden_size, sizes.patch, self.dtype, name="patch_embedding")(
      pixels
    )
    batch, rows, columns, _ = grid = x.shape
    patch_mask = None if mask is None else any_real(mask, sizes.patch, rows, columns)
    x = x.reshape(batch, rows * columns, -1) + self._positions(rows, columns, patch_mask)
    key_mask = None if patch_mask is None else patch_mask.reshape(batch, -1)
    states = [x]
    block = nn.remat(vit.Block) if sizes.remat else vit.Block
    for i in range(sizes.depth):
      layer = block(
        sizes.num_heads,
        sizes.mlp_width,
        "gelu_tanh",
        dtype=self.dtype,
        branch_dropout=sizes.lora_dropout,
        name=f"layer{i}",
      )
      x = layer(x, key_mask, keys)
      states.append(x)
    norm = vit.LayerNorm(dtype=self.dtype, name="final_norm")
    first = 0 if sizes.norm_all else sizes.depth
    states[first:] = [norm(x) for x in states[first:]]
    heads = None
    if sizes.pool == "siglip_head":
      head = PoolingHead(sizes.num_heads, sizes.mlp_width, self.dtype, name="head")
      heads = [head(x, key_mask) for x in states]
    return base.Hidden([x.reshape(grid) for x in states], patch_mask, heads)

  def _positions(self, rows, columns, patch_mask):
    """Returns [1 or B, rows * columns, C]."""
    sizes = self.sizes
    side = sizes.image_size // sizes.patch
    shape = (side * side, sizes.hidden_size)
    table = self.param("position_embedding", nn.initializers.normal(0.02), shape)
    if sizes.position_rule == "interpolate":
      table = table.reshape(1, side, side, -1)
      if (rows, columns) != (side, side):
        axes = [resample.matrix(side, n, "bicubic", False) for n in (rows, columns)]
        table = resample.resize(table, *axes)
      return table.reshape(1, rows * columns, -1).astype(self.dtype)
    if patch_mask is None:
      row_ids, column_ids = (positions.ids(n, side, sizes.position_rule) for n in (rows, columns))
      ids = (side * row_ids[:, None] + column_ids).reshape(1, -1)
      if np.array_equal(ids[0], np.arange(side * side)):
        return table[None].astype(self.dtype)
    else:
      ids = masked_ids(patch_mask, side, sizes.position_rule)
    return table.astype(self.dtype)[ids]


class PoolingHead(nn.Module):
  """SigLIP's attention pooling: a learned probe attends to the tokens, then y + mlp(norm y)."""

  num_heads: int
  mlp_width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, key_mask=None):
    """x [B, N, C] -> [B, C]."""
    batch, length, width = x.shape
    probe = self.param("probe", nn.initializers.normal(0.02), (1, 1, width))
    probe = jnp.broadcast_to(probe.astype(self.dtype), (batch, 1, width))
    heads = lambda x, name: Dense(width, dtype=self.dtype, name=name)(x).reshape(  # noqa: E731
      batch, -1, self.num_heads, width // self.num_heads
    )
    y = attention.attend(heads(probe, "q"), heads(x, "k"), heads(x, "v"), key_mask)
    y = Dense(width, dtype=self.dtype, name="out")(y.reshape(batch, 1, width))
    z = vit.LayerNorm(dtype=self.dtype, name="norm")(y)
    return (y + vit.Mlp(self.mlp_width, "gelu_tanh", self.dtype, name="mlp")(z))[:, 0]


def any_real(mask, patch, rows, columns):
  """Pixel mask [B, H, W] -> patch mask bool [B, rows, columns]: at least one pixel is real."""
  mask = jnp.asarray(mask)[:, : rows * patch, : columns * patch] != 0
  return mask.reshape(len(mask), rows, patch, columns, patch).any((2, 4))


def masked_ids(patch_mask, side, rule):
  """Position ids int32 [B, rows * columns] of valid patches in the top left; padding gets 0."""
  _, rows, columns = patch_mask.shape
  by_count = [jnp.asarray(positions.table(n, side, rule)) for n in (rows, columns)]
  row_ids = by_count[0][patch_mask.any(2).sum(1)]
  column_ids = by_count[1][patch_mask.any(1).sum(1)]
  ids = side * row_ids[:, :, None] + column_ids[:, None, :]
  return jnp.where(patch_mask, ids, 0).reshape(len(patch_mask), -1)
