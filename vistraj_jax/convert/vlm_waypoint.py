"""Waypoint heads in PyTorch checkpoints <-> our parameter trees: names and layouts.

Reads Lightning checkpoints (state dict under "state_dict", names prefixed "model.") and bare state
dicts; the frozen encoder that such a file also holds is passed over. Writes Lightning's layout.
"""

import collections

import numpy as np

from vistraj_jax.convert.apply import KEEP, LINEAR, Layout, Row, to_source, to_tree
from vistraj_jax.core import checks, weights

PREFIX = "model."
# Kernels of convolutions: (out, in, height, width) <-> (height, width, in, out).
CONV = Layout(lambda x: np.transpose(x, (2, 3, 1, 0)), lambda x: np.transpose(x, (3, 2, 0, 1)))


def _linear(source, target, layout=LINEAR):
  return (
    Row(f"{source}.weight", f"{target}/kernel", layout),
    Row(f"{source}.bias", f"{target}/bias"),
  )


def _norm(source, target):
  return (Row(f"{source}.weight", f"{target}/scale", KEEP), Row(f"{source}.bias", f"{target}/bias"))


# Head (config.model.head.name) -> table.
TABLES = {
  "mlp": (
    *(*_linear("waypoint_head.0", "fc0"), *_norm("waypoint_head.1", "norm0")),
    *(*_linear("waypoint_head.4", "fc1"), *_norm("waypoint_head.5", "norm1")),
    *_linear("waypoint_head.8", "out"),
  ),
  "attention": (
    Row("positional_encoding", "positions"),
    *(*_linear("key_projection", "key"), *_linear("value_projection", "value")),
    *(*_linear("query.0", "query0"), *_linear("query.2", "query1")),
    *(*_linear("decoder.0", "decoder0"), *_linear("decoder.2", "decoder1")),
    *(*_norm("token_norm", "token_norm"), *_norm("query_norm", "query_norm")),
    *_norm("attn_norm", "attention_norm"),
  ),
  "proposals": (
    Row("positional_encoding", "positions"),
    *_linear("query_init", "query"),
    *_linear("visual_adapter.0", "adapter0", CONV),
    *_linear("visual_adapter.2", "adapter1", CONV),
    *(
      row
      for i, attention in enumerate(("self_attn", "cross_attn"))
      for projection in "qkvo"
      for row in _linear(
        f"blocks.#.{attention}.{projection}_proj",
        f"block#/{('self', 'cross')[i]}_attention/{'out' if projection == 'o' else projection}",
      )
    ),
    *(row for i in range(3) for row in _norm(f"blocks.#.ln{i + 1}", f"block#/norm{i}")),
    *(row for i in range(2) for row in _linear(f"blocks.#.mlp.{2 * i}", f"block#/mlp{i}")),
    *(row for i in range(3) for row in _linear(f"depth_gen.{3 * i}", f"depth{i}", CONV)),
    *(row for i in range(3) for row in _linear(f"traj_decoder.{2 * i}", f"decoder{i}")),
    *(row for i in range(2) for row in _linear(f"traj_features.{2 * i}", f"trajectory{i}")),
    *(row for i in range(3) for row in _linear(f"score_decoder.{2 * i}", f"score{i}")),
  ),
}
_MLP = "waypoint_head."  # beside it lies a whole vision-language model, under any name
_ENCODER = ("vlm.", "vision_model.", "text_model.", "connector.", "encoder.", "lm_head.")


def from_torch(checkpoint, head, want, where):
  """Returns the parameter tree of a head from a file that `read_torch.read_checkpoint` read.

  Args:
    checkpoint: the file's content.
    head: a key of `TABLES`.
    want: {"/"-joined name: shape} of the head's parameters.
    where: begins error sentences, for example the file's name.

  Returns:
    Nested dict of float32 arrays.

  Raises:
    InputError: unknown head, no state dict, or any missing, extra or misshapen tensor.
  """
  table = TABLES[checks.choice("head", head, TABLES)]
  tensors = head_tensors(checkpoint, where)
  return weights.unflatten(to_tree(table, tensors, want, where))


def describe(tensors, where):
  """Tells the head and its sizes from the tensors of `head_tensors`.

  Returns:
    (head, shapes): settings as config.model.head, and {"features" or "tokens": shape of one input}.

  Raises:
    InputError: the tensors are of none of the heads.
  """
  if "waypoint_head.0.weight" in tensors:
    width, inputs = _shape(tensors, "waypoint_head.0.weight", 2, where)
    features = {"features": (inputs - 99,)} if inputs > 99 else {}
    return {"name": "mlp", "width": width}, features
  checks.require(
    "positional_encoding" in tensors,
    f"{where}: no tensor of a waypoint head; its first names are {list(tensors)[:4]}.",
  )
  tokens = {"tokens": _shape(tensors, "positional_encoding", 3, where)[1:]}
  if "query.0.weight" in tensors:
    return {"name": "attention"}, tokens
  outputs, _ = _shape(tensors, "traj_decoder.4.weight", 2, where)
  blocks = {name.split(".")[1] for name in tensors if name.startswith("blocks.")}
  head = {"name": "proposals", "num_proposals": outputs // 40, "num_blocks": len(blocks)}
  return {**head, "depth": "depth_gen.0.weight" in tensors}, tokens


def to_torch(tree, head, where):
  """Returns the content of a Lightning checkpoint that holds the head: {"state_dict": ...}."""
  table = TABLES[checks.choice("head", head, TABLES)]
  flat = weights.flatten(tree)
  tensors = to_source(table, flat, {name: leaf.shape for name, leaf in flat.items()}, where)
  state = {PREFIX + name: np.ascontiguousarray(array) for name, array in tensors.items()}
  return {"state_dict": collections.OrderedDict(state)}


def head_tensors(checkpoint, where):
  """Returns {name without "model.": float32 array} of all tensors but those of the encoder."""
  checks.require(
    isinstance(checkpoint, dict),
    f"{where}: holds no dict of tensors; save a state dict with torch.",
  )
  state = checkpoint.get("state_dict", checkpoint)
  arrays = {
    name.removeprefix(PREFIX): np.asarray(array, np.float32)
    for name, array in state.items()
    if isinstance(array, np.ndarray)
  }
  kept = {name: array for name, array in arrays.items() if name.startswith(_MLP)}
  if not kept:
    kept = {name: array for name, array in arrays.items() if not name.startswith(_ENCODER)}
  checks.require(
    kept, f"{where}: no tensor of a waypoint head; its first entries are {list(state)[:4]}."
  )
  return kept


def _shape(tensors, name, rank, where):
  shape = np.shape(tensors.get(name, 0))
  checks.require(
    len(shape) == rank,
    f"{where}: tensor {name!r} is missing or has shape {shape}; a waypoint head "
    f"has {rank} dimensions there.",
  )
  return shape
