"""Checkpoints of latent predictors <-> our parameter tree.

Reads the original training files (state dict under "model_state_dict") and bare state dicts:
post-norm transformer layers as torch.nn.TransformerEncoder names them below `transformer.`, the
joint model's `fusion.0` with them. Its tokenizer (`magvit.*`) and motion network are other tables.
"""

import numpy as np

from vistraj_jax.convert.apply import KEEP, LINEAR, Layout, Row, to_source, to_tree
from vistraj_jax.core import checks, weights

PARTS = ("transformer.", "fusion.")
_STACK = "transformer/layers/"
_TABLE = Layout(lambda x: x[0], lambda x: x[None])


def _pair(source, target, layout=LINEAR, leaf="kernel"):
  return Row(f"{source}.weight", f"{target}/{leaf}", layout), Row(
    f"{source}.bias", f"{target}/bias"
  )


_LAYER, _OURS = "transformer.transformer.layers.#", f"{_STACK}#"
TABLE = (
  Row("transformer.pos_encoding", "transformer/positions", _TABLE),
  Row(f"{_LAYER}.self_attn.in_proj_weight", f"{_OURS}/qkv_all/kernel", LINEAR),
  Row(f"{_LAYER}.self_attn.in_proj_bias", f"{_OURS}/qkv_all/bias"),
  *_pair(f"{_LAYER}.self_attn.out_proj", f"{_OURS}/out_all"),
  *_pair(f"{_LAYER}.linear1", f"{_OURS}/fc1"),
  *_pair(f"{_LAYER}.linear2", f"{_OURS}/fc2"),
  *_pair(f"{_LAYER}.norm1", f"{_OURS}/norm_all", KEEP, "scale"),
  *_pair(f"{_LAYER}.norm2", f"{_OURS}/norm_mlp", KEEP, "scale"),
  *_pair("transformer.output_proj", "output"),
  *_pair("fusion.0", "fusion"),
)


def settings_of(tensors, where):
  """Returns the settings of config.model that a checkpoint's tensors give away.

  Not among them: the number of heads, and whether tokens were pooled.

  Args:
    tensors: {name: array}.
    where: begins the error sentence.

  Raises:
    InputError: no latent predictor.
  """
  table = tensors.get("transformer.pos_encoding")
  checks.require(
    table is not None and table.ndim == 3,
    f"{where}: there is no table 'transformer.pos_encoding', so this is no latent predictor; its "
    f"first names are {list(tensors)[:4]}.",
  )
  layers = {name.split(".")[3] for name in tensors if name.startswith("transformer.transformer.")}
  hidden = tensors.get("transformer.transformer.layers.0.linear1.weight", np.zeros((0, 0)))
  _, num_positions, width = table.shape
  found = {"latent_dim": width, "num_layers": len(layers), "hidden": len(hidden)}
  return found | {"width": width, "num_positions": num_positions}


def from_torch(tensors, want, where):
  """Returns the nested parameter tree of `LatentPredictor`.

  Args:
    tensors: {name: array} of a checkpoint; those outside `PARTS` are other networks' and unused.
    want: nested dict of arrays or shapes structs, the tree that the settings ask for.
    where: begins error sentences.

  Raises:
    InputError: listing every missing, extra and misshapen tensor.
  """
  shapes = {name: tuple(leaf.shape) for name, leaf in _flat(want).items()}
  single = {part: shape for name, s in shapes.items() for part, _, shape in _parts(name, s)}
  own = {name: x for name, x in tensors.items() if name.startswith(PARTS)}
  found = to_tree(TABLE, own, single, where)
  tree = {}
  for name, shape in shapes.items():
    parts = [found[part] for part, _, _ in _parts(name, shape)]
    tree[name] = np.stack(parts) if name.startswith(_STACK) else parts[0]
  return weights.unflatten(tree)


def to_torch(tree, where):
  """Returns {name: array} of the original layout; the inverse of `from_torch`."""
  flat = {
    part: leaf[i] if name.startswith(_STACK) else leaf
    for name, leaf in weights.flatten(tree).items()
    for part, i, _ in _parts(name, leaf.shape)
  }
  tensors = to_source(TABLE, flat, {name: x.shape for name, x in flat.items()}, where)
  return {name: np.ascontiguousarray(x) for name, x in tensors.items()}


def _flat(tree, prefix=""):
  if not isinstance(tree, dict):
    return {prefix: tree}
  return {
    n: x for k, v in tree.items() for n, x in _flat(v, f"{prefix}/{k}" if prefix else k).items()
  }


def _parts(name, shape):
  """-> [(name, index, shape)] of the single tensors of a leaf, which is stacked over layers."""
  if not name.startswith(_STACK):
    return [(name, 0, shape)]
  rest = name.removeprefix(_STACK)
  return [(f"{_STACK}{i}/{rest}", i, shape[1:]) for i in range(shape[0])]
