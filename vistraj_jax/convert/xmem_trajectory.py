"""Parts that the original trajectory project adds to XMem: PyTorch names <-> our parameter trees.

`head.*`, `pp.*` (PointPillars), `pp_to_frames.*` and `early_fusion.*` of its checkpoints; the names
here come without these prefixes.
"""

import numpy as np

from vistraj_jax.convert.apply import LINEAR, Layout, Row, to_source, to_tree
from vistraj_jax.convert.xmem import STATE_KEYS, conv_rows, norm_rows, state_dict
from vistraj_jax.core import checks, weights

# Transposed convolutions: (in, out, height, width) <-> (in, height, width, out).
TRANSPOSED = Layout(
  lambda x: np.transpose(x, (0, 2, 3, 1)), lambda x: np.transpose(x, (0, 3, 1, 2))
)


def _gru_rows(suffix, target):
  pairs = (
    ("weight_ih", "input_kernel"),
    ("weight_hh", "state_kernel"),
    ("bias_ih", "input_bias"),
    ("bias_hh", "state_bias"),
  )
  return [Row(f"enc.{ours}_l0{suffix}", f"{target}/{theirs}", LINEAR) for ours, theirs in pairs]


def _linear_rows(source, target):
  return [
    Row(f"{source}.weight", f"{target}/kernel", LINEAR),
    Row(f"{source}.bias", f"{target}/bias"),
  ]


_DETECTOR_PARTS = ("pts_voxel_encoder", "pts_backbone", "pts_neck")
_POINT = "pts_voxel_encoder.pfn_layers.0"
# Part -> table.
TABLES = {
  "head": (
    Row("in_norm.weight", "in_norm/scale"),
    Row("in_norm.bias", "in_norm/bias"),
    *_gru_rows("", "gru"),
    *_gru_rows("_reverse", "gru_reverse"),
    *_linear_rows("proj.0", "proj0"),
    *_linear_rows("proj.3", "proj1"),
  ),
  "pillars": (
    Row(f"{_POINT}.linear.weight", "pillars/kernel", LINEAR),
    *norm_rows(f"{_POINT}.norm", "pillars/norm"),
    *conv_rows("pts_backbone.blocks.#.#", "stage#_#", False),
    *norm_rows("pts_backbone.blocks.#.#", "stage#_#"),
    Row("pts_neck.deblocks.#.#.weight", "neck#_#/kernel", TRANSPOSED),
    *norm_rows("pts_neck.deblocks.#.#", "neck#_#"),
  ),
  "bev_adapter": (
    Row("norm.weight", "norm/scale"),
    Row("norm.bias", "norm/bias"),
    *conv_rows("proj1", "conv0", False),
    *conv_rows("proj2", "conv1", False),
  ),
  "concat_fusion": tuple(conv_rows("conv", "conv")),
}


def detector_tensors(checkpoint, where):
  """Returns the PointPillars of a public detector's checkpoint.

  Args:
    checkpoint: what `read_torch.read_checkpoint` read.
    where: begins error sentences.

  Returns:
    ({name: array}; [top-level names of what was left out, such as the detection head]).
  """
  _, state = state_dict(checkpoint, STATE_KEYS, where)
  parts = tuple(f"{name}." for name in _DETECTOR_PARTS)
  tensors = {
    name: array
    for name, array in state.items()
    if name.startswith(parts) and not name.endswith("num_batches_tracked")
  }
  left_out = {name.split(".")[0] for name in state if not name.startswith(parts)}
  checks.require(
    tensors,
    f"{where}: no tensor of {list(_DETECTOR_PARTS)}, only of {sorted(left_out)[:5]}; give a "
    "detector with PointPillars.",
  )
  return tensors, sorted(left_out)


def pillar_fields(tensors, where):
  """Returns the fields of `encoders.pointpillars.PointPillars` that tensors have the sizes of."""

  def sides(pattern, axis):
    names = (pattern.format(i) for i in range(3))
    missing = [name for name in names if name not in tensors]
    checks.require(not missing, f"{where}: {missing[:1]} is missing.")
    return [tensors[pattern.format(i)].shape[axis] for i in range(3)]

  # Of every stage the convolutions alone have weights of four axes.
  stages = [[a for n, a in tensors.items() if f"backbone.blocks.{i}." in n] for i in range(3)]
  depths = [sum(array.ndim == 4 for array in stage) - 1 for stage in stages]
  name = f"{_POINT}.linear.weight"
  checks.require(name in tensors, f"{where}: {name!r} is missing.")
  return {
    "pillar_features": len(tensors[name]),
    "widths": sides("pts_backbone.blocks.{}.0.weight", 0),
    "depths": depths,
    "neck_widths": sides("pts_neck.deblocks.{}.0.weight", 1),
  }


def from_torch(tensors, part, want, where):
  """Returns the parameter tree of a part.

  Args:
    tensors: {name without the part's prefix: array}.
    part: a key of `TABLES`.
    want: {"/"-joined name: shape} of the part's parameters.
    where: begins error sentences.

  Raises:
    InputError: an unknown part, or any missing, extra or misshapen tensor.
  """
  table = TABLES[checks.choice("part", part, TABLES)]
  tensors = {name: np.asarray(array, np.float32) for name, array in tensors.items()}
  return weights.unflatten(to_tree(table, tensors, want, where))


def to_torch(tree, part, where):
  """Returns {name without the part's prefix: array}; the inverse of `from_torch`."""
  table = TABLES[checks.choice("part", part, TABLES)]
  flat = weights.flatten(tree)
  return to_source(table, flat, {name: leaf.shape for name, leaf in flat.items()}, where)
