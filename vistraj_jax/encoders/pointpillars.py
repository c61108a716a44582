"""PointPillars (arXiv 1812.05784): LiDAR points -> a map of 256 channels seen from above.

Every shape is fixed: points are padded to a number that a mask tells apart, and pillars are cells
of the whole grid, so no limit on pillars cuts any off. The maps have y rising along rows and x
along columns, as the published weights want it. Batch norms use fixed statistics.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks, weights
from vistraj_jax.nn.image_layers import Conv, FrozenBatchNorm

_EPS = 1e-3


@dataclasses.dataclass(frozen=True)
class PillarGrid:
  """Where pillars stand.

  Attributes:
    low, high: x, y, z of the corners, m; points outside are left out.
    side: of a pillar, m.
    points: most points a pillar keeps, the first ones.
  """

  low: tuple[float, float, float] = (-51.2, -51.2, -5.0)
  high: tuple[float, float, float] = (51.2, 51.2, 3.0)
  side: float = 0.2
  points: int = 10

  def __post_init__(self):
    checks.require(
      self.points >= 1
      and self.side > 0
      and all(a < b for a, b in zip(self.low, self.high, strict=True)),
      f"pillars: {self} is not allowed; choose low < high, side > 0, points >= 1.",
    )

  @property
  def size(self):
    """(rows, columns): cells along y and x."""
    return tuple(round((self.high[i] - self.low[i]) / self.side) for i in (1, 0))


class PillarFeatures(nn.Module):
  """Points -> a canvas of pillar features, 0 in empty cells.

  Attributes:
    grid: `PillarGrid`.
    features: channels.
  """

  grid: PillarGrid
  features: int = 64

  @nn.compact
  def __call__(self, points, valid):
    """points [B, N, 5] (x, y, z, intensity, dt), valid bool [B, N] -> [B, rows, columns, C]."""
    rows, columns = self.grid.size
    cells, kept = pillar_of_points(points, valid, self.grid)
    decorated = jax.vmap(lambda p, c, k: _decorate(p, c, k, self.grid))(points, cells, kept)
    kernel = self.param(
      "kernel", nn.initializers.lecun_normal(), (decorated.shape[-1], self.features)
    )
    norm = FrozenBatchNorm(_EPS, name="norm")
    x = nn.relu(norm(decorated @ kernel))
    # A pillar that is not full also sees an empty slot, a vector of zeros.
    empty_slot = nn.relu(norm(jnp.zeros((1, 1, self.features))))[0, 0]

    def scatter(x, cells, kept):
      # Points that are not kept go to a cell beyond the last.
      at = jnp.where(kept, cells, rows * columns)
      best = jnp.zeros((rows * columns + 1, self.features)).at[at].max(x)[:-1]
      count = jnp.zeros(rows * columns + 1).at[at].add(1.0)[:-1, None]
      full = count >= self.grid.points
      best = jnp.where(full, best, jnp.maximum(best, empty_slot))
      return jnp.where(count > 0, best, 0.0).reshape(rows, columns, -1)

    canvas = jax.vmap(scatter)(x, cells, kept)
    self.sow("intermediates", "canvas", canvas)
    return canvas


class PointPillars(nn.Module):
  """Points -> map at half the grid's size.

  Attributes:
    grid: `PillarGrid`.
    pillar_features: channels of the canvas.
    widths: channels of the three stages, each at half the size of the one before.
    depths: convolutions of a stage after its first.
    neck_widths: channels each stage gives to the result.
    dtype: compute dtype of the convolutions.
  """

  grid: PillarGrid = PillarGrid()
  pillar_features: int = 64
  widths: tuple[int, int, int] = (64, 128, 256)
  depths: tuple[int, int, int] = (2, 4, 4)
  neck_widths: tuple[int, int, int] = (64, 96, 96)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, points, valid):
    """points [B, N, 5], valid bool [B, N] -> [B, rows / 2, columns / 2, sum of neck widths]."""
    x = PillarFeatures(self.grid, self.pillar_features, name="pillars")(points, valid)
    x = x.astype(self.dtype)
    out = []
    for i, (width, depth, neck) in enumerate(
      zip(self.widths, self.depths, self.neck_widths, strict=True)
    ):
      for j in range(depth + 1):
        # Numbers as in the published names, where an activation follows every norm.
        layer = Conv(width, 3, 1 if j else 2, False, self.dtype, name=f"stage{i}_{3 * j}")
        norm = FrozenBatchNorm(_EPS, self.dtype, name=f"stage{i}_{3 * j + 1}")
        x = nn.relu(norm(layer(x)))
      self.sow("intermediates", f"stage{i}", x)
      up = _Enlarge(neck, 1 << i, self.dtype, name=f"neck{i}_0")(x)
      out.append(nn.relu(FrozenBatchNorm(_EPS, self.dtype, name=f"neck{i}_1")(up)))
    return jnp.concatenate(out, -1)


def load(path, model):
  """Returns the parameters of `model` from a file of `launch.convert pointpillars`.

  Raises:
    InputError: no such file, or a network of other sizes.
  """
  params, _, fields = weights.load_weights(path, "pointpillars")
  own = {name: list(getattr(model, name)) for name in ("widths", "depths", "neck_widths")}
  own["pillar_features"] = model.pillar_features
  checks.require(
    fields == own, f"{path}: holds PointPillars of {fields}, wanted are {own}; make the two agree."
  )
  return params


def shapes(model):
  """Returns {"/"-joined name: shape} of the parameters of a `PointPillars`."""
  inputs = jnp.zeros((1, 4, 5)), jnp.ones((1, 4), bool)
  found = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  pairs = jax.tree_util.tree_leaves_with_path(found)
  return {"/".join(key.key for key in path): leaf.shape for path, leaf in pairs}


class _Enlarge(nn.Module):
  """Transposed convolution whose kernel is as large as its stride: a product per input cell."""

  features: int
  factor: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    B, H, W, C = x.shape
    f = self.factor
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (C, f, f, self.features))
    x = x @ kernel.reshape(C, -1).astype(self.dtype)
    x = x.reshape(B, H, W, f, f, self.features).swapaxes(2, 3)
    return x.reshape(B, H * f, W * f, self.features)


def pillar_of_points(points, valid, grid):
  """Finds the pillar of every point.

  Args:
    points: [B, N, 3 or more], m.
    valid: bool [B, N].
    grid: `PillarGrid`.

  Returns:
    int32 [B, N], row * columns + column (any value where not kept); and bool [B, N], points that
    are valid, in range and among the first `grid.points` of their pillar.
  """
  rows, columns = grid.size
  low = np.float32(grid.low)
  size = np.float32([grid.side, grid.side, grid.high[2] - grid.low[2]])
  place = jnp.floor((points[..., :3].astype(jnp.float32) - low) / size)
  inside = valid & ((place >= 0) & (place < jnp.array([columns, rows, 1]))).all(-1)
  place = jnp.where(inside[..., None], place, 0).astype(jnp.int32)
  cells = place[..., 1] * columns + place[..., 0]

  def rank(cells, inside):
    """Number of earlier points in the same pillar."""
    number = jnp.arange(len(cells))
    order = jnp.argsort(jnp.where(inside, cells, rows * columns), stable=True)
    ordered = jnp.where(inside, cells, rows * columns)[order]
    is_first = jnp.concatenate([jnp.ones(1, bool), ordered[1:] != ordered[:-1]])
    first = jax.lax.cummax(jnp.where(is_first, number, 0))
    return jnp.zeros_like(number).at[order].set(number - first)

  return cells, inside & (jax.vmap(rank)(cells, inside) < grid.points)


def _decorate(points, cells, kept, grid):
  """Point, offsets from the mean of its pillar's points and from the pillar's centre: [N, 10]."""
  rows, columns = grid.size
  xyz = points[:, :3]
  at = jnp.where(kept, cells, rows * columns)
  total = (
    jnp.zeros((rows * columns + 1, 4))
    .at[at]
    .add(jnp.concatenate([xyz, jnp.ones_like(xyz[:, :1])], -1))
  )
  mean = total[:, :3] / jnp.maximum(total[:, 3:], 1)
  half = grid.side / 2
  x = (cells % columns) * grid.side + (half + grid.low[0])
  y = (cells // columns) * grid.side + (half + grid.low[1])
  centre = jnp.stack([x, y], -1)
  return jnp.concatenate([points, xyz - mean[at], xyz[:, :2] - centre], -1)
