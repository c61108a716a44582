"""What all image encoders share: uint8 images in, tokens and pooled vectors out.

An encoder is a frozen dataclass of sizes with a Linen network behind it. Its hidden states are
counted from 0, the embedded patches; every layer adds one, and the last is finished by the final
norm or the neck where the network has one. Layers are asked for by number, negative from the end.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, weights
from vistraj_jax.encoders import preprocess as preprocessing
from vistraj_jax.nn import lora as low_rank

_DRAW = 1 << 17  # numbers of one random draw


class Encoded(NamedTuple):
  """Result of `encode`.

  Attributes:
    tokens: patches of the last layer asked for [B, N, C], row by row, in the compute dtype.
    grid: (rows, columns) with N = rows * columns.
    pooled: [B, layers, C] float32.
  """

  tokens: Any
  grid: tuple[int, int]
  pooled: Any


class Hidden(NamedTuple):
  """What a network returns.

  Attributes:
    states: list of patch maps [B, rows, columns, C].
    patch_mask: bool [B, rows, columns], False where a patch is padding; None if all are valid.
    heads: list of [B, C], the states pooled by the network's own head; None if it has none.
  """

  states: list
  patch_mask: Any = None
  heads: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
  """Base of all encoders; a subclass adds its sizes, `network`, `state_widths`, `preprocesses`.

  Attributes:
    preprocess: a `Preprocess`, or a name in `preprocesses()`; "" is the first: what the published
      weights were trained with. Always a `Preprocess` once made.
    pool: how patches become one vector, one of `POOLS`.
    remat: whether the backward pass computes each layer again instead of storing its insides.
    lora_dropout: rate on the input of low-rank branches in training.
  """

  POOLS: ClassVar = ("mean", "masked_mean")

  preprocess: Any = ""
  pool: str = "mean"
  remat: bool = False
  lora_dropout: float = 0.05

  def __post_init__(self):
    checks.choice("encoder pool", self.pool, self.POOLS)
    if isinstance(self.preprocess, str):
      known = self.preprocesses()
      name = self.preprocess or next(iter(known))
      spec = known[checks.choice("encoder preprocess", name, known)]
      object.__setattr__(self, "preprocess", spec)

  @property
  def width(self):
    """C of the last state."""
    return self.state_widths[-1]

  @property
  def all_layers(self):
    """Numbers of the states that are as wide as the last one: what a layer ablation compares."""
    return tuple(i for i, width in enumerate(self.state_widths) if width == self.width)

  def init(self, rng):
    """Returns random parameters, a nested dict of float32 arrays."""
    return _draw(rng, self)

  def shapes(self):
    """Returns {"/"-joined parameter name: shape}, without making the parameters."""
    return dict(_shapes(self))

  def encode(self, params, images, mask=None, layers=(-1,), dtype=jnp.float32, **adapted):
    """Encodes camera images; a pure function, to be called under `jax.jit` by the caller.

    Args:
      params: of `init` or `load_pretrained`.
      images: uint8 [B, H, W, 3], resized and normalised here as `preprocess` says.
      mask: bool [B, H, W], True on real pixels of padded images; only where nothing is resized.
      layers: numbers of the hidden states that are wanted.
      dtype: compute dtype; norms and softmax are float32 in any case.
      **adapted: see `encode_pixels`.

    Raises:
      InputError: a layer that is not there, layers of different widths, or a mask with a resize.
    """
    size = self.preprocess.size
    checks.require(
      mask is None or size is None or tuple(size) == images.shape[1:3],
      f"mask: images of {images.shape[1:3]} are resized to {size}, a pixel mask cannot be; give "
      "images of that size, or preprocess with size None.",
    )
    pixels = preprocessing.apply(self.preprocess, images)
    return self.encode_pixels(params, pixels, mask, layers, dtype, **adapted)

  def encode_pixels(
    self,
    params,
    pixels,
    mask=None,
    layers=(-1,),
    dtype=jnp.float32,
    lora=None,
    alpha=1.0,
    keys=None,
  ):
    """As `encode`, from normalised pixels float32 [B, h, w, 3].

    Args:
      lora: low-rank tree of `nn.lora`, or None.
      alpha: its scale; the branch counts alpha / rank.
      keys: of `dropout.row_keys` [B] for the branches' dropout in training, or None.
    """
    hidden = self._hidden(params, pixels, mask, dtype, lora, alpha, keys)
    numbers = self._numbers(layers)
    states = [hidden.states[i] for i in numbers]
    if self.pool in ("mean", "masked_mean"):
      valid = hidden.patch_mask if self.pool == "masked_mean" else None
      pooled = [_mean(state, valid) for state in states]
    else:
      pooled = [hidden.heads[i].astype(jnp.float32) for i in numbers]
    batch, rows, columns, width = states[-1].shape
    tokens = states[-1].reshape(batch, rows * columns, width)
    return Encoded(tokens, (rows, columns), jnp.stack(pooled, 1))

  def _hidden(self, params, pixels, mask, dtype, lora=None, alpha=1.0, keys=None):
    variables = {"params": params}
    if lora is not None:
      variables[low_rank.COLLECTION] = low_rank.scaled(lora, alpha)
    return self.network(dtype).apply(variables, pixels, mask, keys)

  def _numbers(self, layers):
    widths = self.state_widths
    for layer in layers:
      checks.require(
        -len(widths) <= layer < len(widths),
        f"layers: {layer} is not there; the encoder has states 0 to {len(widths) - 1}.",
      )
    numbers = [layer % len(widths) for layer in layers]
    checks.require(
      len({widths[i] for i in numbers}) == 1,
      f"layers: {tuple(layers)} have widths {[widths[i] for i in numbers]}; ask for at least one "
      f"layer, and for layers of one width (the last one's: {self.all_layers}).",
    )
    return numbers


@functools.lru_cache(maxsize=64)
def _shapes(encoder):
  """Returns (("/"-joined name, shape), ...) of an encoder's parameters."""
  height, width = encoder.preprocess.size or (encoder.image_size, encoder.image_size)
  pixels = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
  init = encoder.network(jnp.float32).init
  tree = jax.eval_shape(init, jax.random.key(0), pixels)["params"]
  named = jax.tree_util.tree_leaves_with_path(tree)
  return tuple(("/".join(key.key for key in path), leaf.shape) for path, leaf in named)


@functools.partial(jax.jit, static_argnums=1)
def _draw(rng, encoder):
  """Random parameters from one draw: with one each, compiling takes longer than a small training.

  The distributions are those the modules name: kernels normal with 1 / sqrt(fan in), norms' scales
  1, layers' scales 0.1, biases 0, tables 0.02.
  """
  shapes = dict(_shapes(encoder))
  spread = {name: _spread(name, shape) for name, shape in shapes.items()}
  drawn = [name for name in shapes if spread[name]]
  sizes = [math.prod(shapes[name]) for name in drawn]
  draws = -(-sum(sizes) // _DRAW)  # in parts: what a draw needs on the way would triple the memory
  draw = lambda i: jax.random.normal(jax.random.fold_in(rng, i), (_DRAW,))  # noqa: E731
  normal = jax.lax.map(draw, jnp.arange(draws)).reshape(-1)
  ends = itertools.accumulate(sizes)
  flat = {}
  for name, shape in shapes.items():
    last = name.rpartition("/")[2]
    flat[name] = jnp.full(shape, {"scale": 1.0, "scale1": 0.1, "scale2": 0.1}.get(last, 0.0))
  for name, size, end in zip(drawn, sizes, ends, strict=True):
    flat[name] = spread[name] * normal[end - size : end].reshape(shapes[name])
  return weights.unflatten(flat)


def _spread(name, shape):
  """Standard deviation of a parameter's first values; 0 for what is not random."""
  last = name.rpartition("/")[2]
  if last in ("scale", "scale1", "scale2", "bias"):
    return 0.0
  return math.prod(shape[:-1]) ** -0.5 if last == "kernel" else 0.02


def _mean(state, patch_mask):
  """state [B, r, c, C] -> [B, C] float32, over valid patches where a mask is given."""
  state = state.astype(jnp.float32)
  if patch_mask is None:
    return state.mean((1, 2))
  weight = patch_mask[..., None].astype(jnp.float32)
  return (state * weight).sum((1, 2)) / jnp.maximum(weight.sum((1, 2)), 1)


def no_mask(mask, name):
  """Raises InputError if a pixel mask is given to an encoder that knows none."""
  checks.require(mask is None, f"mask: encoder {name!r} takes no pixel mask; give whole images.")
