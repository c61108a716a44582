"""A transformer over the latent tokens of a video: the trunk of all predictors of this system.

Tokens keep their grid [B, T, H, W, D]. Attention runs over all of them, or in turn over time and
space, or over the three axes; where `causal`, a frame sees itself and earlier frames only, and a
cache of keys and values lets frames be added one by one. Layers are one scan over stacked
parameters, so compile time does not depend on depth.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.nn import attention, chunked_attention, initializers, vit
from vistraj_jax.nn.dropout import dropout

# Which axes of [B, T, H, W, D] the attentions of a layer join, by config.model.transformer.attend.
AXES = {
  "full": {"all": (1, 2, 3)},
  "factorised": {"time": (1,), "space": (2, 3)},
  "axial": {"time": (1,), "height": (2,), "width": (3,)},
}
NORMS = ("pre", "post")
POSITIONS = ("factorised", "table")
REMAT = ("none", "block", "attention")
_SITES = 8  # places with dropout in a layer, at most


class Transformer(nn.Module):
  """[B, T, H, W, width] -> the same.

  Attributes:
    width, num_heads, num_layers: width of a token, heads, layers.
    hidden: width of the feed-forward part.
    attend: a key of `AXES`.
    norm: "pre": x += f(norm(x)), and a norm at the end; "post": x = norm(x + f(x)).
    positions: "factorised": learned vectors for t, h and w, added up, so that any grid up to
      `max_grid` works; "table": one learned vector a token in raster order, `num_positions` rows.
    max_grid: most frames, rows and columns.
    num_positions: rows of the table.
    causal: whether frames see no later frames.
    dropout: rate on both branches and inside the feed-forward part; not on the attention weights,
      which no fused attention ever holds.
    attention: backend of `nn.attention.attention`.
    remat: "none" keeps everything for the backward pass, "block" only the layers' inputs,
      "attention" also the attentions' results, the part that is dear to compute again.
    dtype: compute dtype; norms and the softmax are float32.
  """

  width: int = 256
  num_heads: int = 8
  num_layers: int = 12
  hidden: int = 1024
  attend: str = "full"
  norm: str = "pre"
  positions: str = "factorised"
  max_grid: tuple[int, int, int] = (32, 64, 64)
  num_positions: int = 0
  causal: bool = False
  dropout: float = 0.0
  attention: str = "auto"
  remat: str = "block"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, keys=None, cache=None, start=0, room=0):
    """Runs all layers.

    Args:
      x: embedded tokens [B, T, H, W, width].
      keys: one key a row [B] in training; None switches dropout off.
      cache: keys and values of earlier frames, or None; with one, x is a single frame.
      start: number of frames in the cache.
      room: if not 0, keys and values of the frames of x come back in a cache for this many frames.

    Returns:
      tokens [B, T, H, W, width] float32; with `cache` or `room`, (tokens, cache).

    Raises:
      InputError: an unknown option, or a grid beyond the positions.
    """
    for name, known in (("norm", NORMS), ("remat", REMAT), ("attend", AXES)):
      checks.choice(f"config.model.transformer.{name}", getattr(self, name), known)
    checks.require(
      self.num_heads >= 1 and self.width % self.num_heads == 0,
      f"config.model.transformer.num_heads: {self.num_heads} received, which does not divide "
      f"config.model.transformer.width, {self.width}; give another number.",
    )
    T, H, W = x.shape[1:4]
    x = (x + self._positions(T, H, W, start, max(T, room))).astype(self.dtype)
    layer = Layer
    if self.remat != "none":
      keep = jax.checkpoint_policies.save_only_these_names(chunked_attention.KEPT)
      policy = keep if self.remat == "attention" else None
      layer = nn.remat(Layer, policy=policy, prevent_cse=False)

    def body(layer, x, number, cache, keys, start):
      return layer(x, number, cache, keys, start)

    scan = nn.scan(
      body,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(0, 0, nn.broadcast, nn.broadcast),
      length=self.num_layers,
    )
    fields = {
      name: getattr(self, name)
      for name in ("num_heads", "hidden", "attend", "norm", "causal", "dropout", "attention")
    }
    layers = layer(**fields, room=room, dtype=self.dtype, name="layers")
    x, cache = scan(layers, x, jnp.arange(self.num_layers), cache, keys, start)
    x = x.astype(jnp.float32)
    if self.norm == "pre":
      x = vit.LayerNorm(eps=1e-5, name="norm_out")(x)
    return x if cache is None else (x, cache)

  def _positions(self, T, H, W, start, frames):
    """-> [T, H, W, width] of frames from number `start` on, in a sequence of `frames`."""
    checks.choice("config.model.transformer.positions", self.positions, POSITIONS)
    if self.positions == "table":
      count = frames * H * W
      checks.require(
        count <= self.num_positions,
        f"latents: {frames} x {H} x {W} = {count} tokens for a table of {self.num_positions} "
        "positions; give shorter or smaller videos, or config.model.transformer.positions="
        "'factorised'.",
      )
      draw = nn.initializers.normal(1.0)
      table = self.param("positions", draw, (self.num_positions, self.width))
      table = jax.lax.dynamic_slice_in_dim(table, start * H * W, T * H * W)
      return table.reshape(T, H, W, self.width)
    checks.require(
      all(size <= most for size, most in zip((frames, H, W), self.max_grid, strict=True)),
      f"latents: a grid of {frames} x {H} x {W} tokens (time, rows, columns), at most "
      f"{tuple(self.max_grid)} fit this transformer; give shorter or smaller videos.",
    )
    draw = nn.initializers.normal(0.02)
    time, row, column = (
      self.param(f"positions_{name}", draw, (size, self.width))
      for name, size in zip(("time", "row", "column"), self.max_grid, strict=True)
    )
    time = jax.lax.dynamic_slice_in_dim(time, start, T)
    return time[:, None, None] + row[None, :H, None] + column[None, None, :W]


class Layer(nn.Module):
  """One or more attentions and a feed-forward part; attributes and `room` as of `Transformer`."""

  num_heads: int
  hidden: int
  attend: str
  norm: str
  causal: bool
  dropout: float
  attention: str
  room: int
  dtype: Any

  @nn.compact
  def __call__(self, x, layer, cache, keys, start):
    """x [B, T, H, W, D] -> (x, cache); arguments as of `Transformer`, `layer` is the number."""
    new = {}  # keys and values of the attentions over time

    def branch(x, function, name, site):
      norm = vit.LayerNorm(eps=1e-5, dtype=self.dtype, name=f"norm_{name}")
      drop = lambda y: dropout(y, self.dropout, keys, _SITES * layer + site)  # noqa: E731
      if self.norm == "pre":
        return x + drop(function(norm(x)))
      return norm(x + drop(function(x)))

    for site, name in enumerate(AXES[self.attend]):

      def attended(x, name=name):
        y, kept = self._attend(x, name, None if cache is None else cache.get(name), start)
        if kept is not None:
          new[name] = kept
        return y

      x = branch(x, attended, name, site)

    def feed_forward(x):
      y = nn.relu(initializers.dense(self.hidden, x.shape[-1], self.dtype, "fc1")(x))
      y = dropout(y, self.dropout, keys, _SITES * layer + _SITES - 2)
      return initializers.dense(x.shape[-1], self.hidden, self.dtype, "fc2")(y)

    x = branch(x, feed_forward, "mlp", _SITES - 1)
    return x, new or None

  def _attend(self, x, name, cache, start):
    """Attention over the axes `name` stands for -> (its answer, cache or None)."""
    joined = AXES[self.attend][name]
    order = (0, *(axis for axis in (1, 2, 3) if axis not in joined), *joined, 4)
    y = jnp.transpose(x, order)
    moved, width = y.shape, x.shape[-1]
    length = math.prod(x.shape[axis] for axis in joined)
    frame = length // x.shape[1] if 1 in joined else 0  # tokens of a frame, if over time
    start_qkv, start_out = nn.initializers.xavier_uniform(), initializers.uniform(width)
    y = nn.Dense(3 * width, dtype=self.dtype, kernel_init=start_qkv, name=f"qkv_{name}")(
      y.reshape(-1, length, width)
    )
    q, k, v = jnp.moveaxis(y.reshape(-1, length, 3, self.num_heads, width // self.num_heads), 2, 0)
    if cache is not None:
      cache = k, v = [
        jax.lax.dynamic_update_slice_in_dim(old, new, start * frame, 1)
        for old, new in zip(cache, (k, v), strict=True)
      ]
      y = attention.attention(q, k, v, self.attention, seen=(start + 1) * frame)
    else:
      y = attention.attention(q, k, v, self.attention, frame if self.causal else 0)
      if self.room and frame:
        free = ((0, 0), (0, self.room * frame - length), (0, 0), (0, 0))
        cache = [jnp.pad(part, free) for part in (k, v)]
    y = y.reshape(-1, length, width)
    y = nn.Dense(width, dtype=self.dtype, kernel_init=start_out, name=f"out_{name}")(y)
    return jnp.transpose(y.reshape(moved), [order.index(axis) for axis in range(5)]), cache
