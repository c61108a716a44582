"""XMem checkpoints <-> our parameter tree: names, layouts, sizes.

Reads the public files (a bare state dict) and training checkpoints that keep it under "network",
"state_dict" or "model_state_dict", with or without "module." before the names. The image channels
of the fusions' first convolutions, 1024 in front, become kernels of their own.
Source: the public XMem repository's checkpoints (arXiv 2207.07115).
"""

import collections

import numpy as np

from vistraj_jax.convert.apply import KEEP, LINEAR, Layout, Row, to_source, to_tree
from vistraj_jax.core import checks, weights

STATE_KEYS = ("network", "state_dict", "model_state_dict")
# Kernels of convolutions: (out, in, height, width) <-> (height, width, in, out).
CONV = Layout(lambda x: np.transpose(x, (2, 3, 1, 0)), lambda x: np.transpose(x, (3, 2, 0, 1)))
IMAGE_CHANNELS = 1024  # of f16
_SPLIT = tuple(
  f"{part}.fuser.block1.{layer}.weight"
  for part in ("value_encoder", "decoder")
  for layer in ("conv1", "downsample")
)
_STEM = "value_encoder.conv1.weight"


def conv_rows(source, target, use_bias=True):
  """Rows of a convolution."""
  rows = [Row(f"{source}.weight", f"{target}/kernel", CONV)]
  return [*rows, Row(f"{source}.bias", f"{target}/bias")] if use_bias else rows


def norm_rows(source, target):
  """Rows of a batch norm; its counter is dropped."""
  pairs = (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var"))
  rows = [Row(f"{source}.{ours}", f"{target}/{theirs}", KEEP) for ours, theirs in pairs]
  return [*rows, Row(f"{source}.num_batches_tracked", None)]


def _trunk_rows(source, target, stages):
  rows = [*conv_rows(f"{source}.conv1", f"{target}/conv1", False)]
  rows += norm_rows(f"{source}.bn1", f"{target}/bn1")
  for i, stage in enumerate(stages, 1):
    for j in (1, 2, 3):
      block = f"{target}/layer{i}_#"
      rows += conv_rows(f"{source}.{stage}.#.conv{j}", f"{block}/conv{j}", False)
      rows += norm_rows(f"{source}.{stage}.#.bn{j}", f"{block}/bn{j}")
    rows += conv_rows(f"{source}.{stage}.#.downsample.0", f"{block}/shortcut", False)
    rows += norm_rows(f"{source}.{stage}.#.downsample.1", f"{block}/shortcut_bn")
  return rows


def _fuser_rows(source, target):
  rows = []
  for ours, theirs in (("conv1", "conv1"), ("shortcut", "downsample")):
    name = f"{source}.block1.{theirs}"
    rows.append(Row(f"{name}.weight:image", f"{target}/block1/{ours}_image/kernel", CONV))
    rows.append(Row(f"{name}.weight:object", f"{target}/block1/{ours}_object/kernel", CONV))
    rows.append(Row(f"{name}.bias", f"{target}/block1/{ours}_object/bias"))
  rows += conv_rows(f"{source}.block1.conv2", f"{target}/block1/conv2")
  rows += [*conv_rows(f"{source}.block2.conv#", f"{target}/block2/conv#")]
  for ours, theirs in (("squeeze", "1"), ("excite", "3")):
    gate = f"{source}.attention.ChannelGate.mlp.{theirs}"
    rows.append(Row(f"{gate}.weight", f"{target}/attention/{ours}/kernel", LINEAR))
    rows.append(Row(f"{gate}.bias", f"{target}/attention/{ours}/bias"))
  spatial = f"{source}.attention.SpatialGate.spatial.conv"
  return [*rows, *conv_rows(spatial, f"{target}/attention/spatial")]


def _up_rows(name):
  source, target = f"decoder.{name}", f"decoder/{name}"
  return [
    *conv_rows(f"{source}.skip_conv", f"{target}_skip"),
    *conv_rows(f"{source}.out_conv.conv#", f"{target}/conv#"),
    *conv_rows(f"{source}.out_conv.downsample", f"{target}/shortcut"),
  ]


TABLE = (
  *_trunk_rows("key_encoder", "key_encoder", ("res2", "layer2", "layer3")),
  *conv_rows("key_proj.key_proj", "key_proj/key"),
  *conv_rows("key_proj.d_proj", "key_proj/shrinkage"),
  *conv_rows("key_proj.e_proj", "key_proj/selection"),
  *_trunk_rows("value_encoder", "value_encoder/trunk", ("layer1", "layer2", "layer3")),
  *_fuser_rows("value_encoder.fuser", "value_encoder/fuser"),
  *conv_rows("value_encoder.hidden_reinforce.transform", "value_encoder/deep_update/transform"),
  *_fuser_rows("decoder.fuser", "decoder/fuser"),
  *_up_rows("up_16_8"),
  *_up_rows("up_8_4"),
  *conv_rows("decoder.pred", "decoder/pred"),
  *conv_rows("decoder.hidden_update.g#_conv", "decoder/hidden_update/g#_conv"),
  *conv_rows("decoder.hidden_update.transform", "decoder/hidden_update/transform"),
)


def tree_shapes(config):
  """Returns {"/"-joined name: shape} of the whole tree.

  Args:
    config: dict with `key_dim`, `value_dim`, `hidden_dim` (0: no sensory memory).
  """
  key, value, hidden = (config[f"{name}_dim"] for name in ("key", "value", "hidden"))
  shapes = _trunk_shapes("key_encoder", 3, (3, 4, 6), bottleneck=True)
  shapes |= _conv_shapes("key_proj/key", 3, 1024, key)
  shapes |= _conv_shapes("key_proj/shrinkage", 3, 1024, 1)
  shapes |= _conv_shapes("key_proj/selection", 3, 1024, key)
  shapes |= _trunk_shapes("value_encoder/trunk", 5, (2, 2, 2), bottleneck=False)
  shapes |= _fuser_shapes("value_encoder/fuser", 256, value)
  if hidden:
    deep = "value_encoder/deep_update/transform"
    shapes |= _conv_shapes(deep, 3, value + hidden, 3 * hidden)
  shapes |= _fuser_shapes("decoder/fuser", value + hidden, value)
  for name, before, skip in (("up_16_8", value, 512), ("up_8_4", 256, 256)):
    shapes |= _conv_shapes(f"decoder/{name}_skip", 3, skip, before)
    shapes |= _conv_shapes(f"decoder/{name}/conv1", 3, before, 256)
    shapes |= _conv_shapes(f"decoder/{name}/conv2", 3, 256, 256)
    if before != 256:
      shapes |= _conv_shapes(f"decoder/{name}/shortcut", 3, before, 256)
  shapes |= _conv_shapes("decoder/pred", 3, 256, 1)
  if hidden:
    for stride, width in ((16, value), (8, 256), (4, 257)):
      shapes |= _conv_shapes(f"decoder/hidden_update/g{stride}_conv", 1, width, 256)
    shapes |= _conv_shapes("decoder/hidden_update/transform", 3, 256 + hidden, 3 * hidden)
  return shapes


def from_torch(checkpoint, where):
  """Returns (tree, config, key) of a checkpoint read by `read_torch.read_checkpoint`.

  Sizes are read from the tensors. A single-object checkpoint, whose value encoder has no channel
  for the other objects' masks, gets one of zeros.

  Args:
    checkpoint: the file's content.
    where: begins error sentences, for example the file's name.

  Returns:
    tree: nested dict of float32 arrays.
    config: {"key_dim", "value_dim", "hidden_dim"}, the network's fields.
    key: under which key the state dict was found, "" for a bare one.

  Raises:
    InputError: no state dict, or any missing, extra or misshapen tensor.
  """
  key, state = state_dict(checkpoint, STATE_KEYS, where)
  tensors = {
    name.removeprefix("module."): np.asarray(array, np.float32) for name, array in state.items()
  }
  checks.require(
    len(tensors) == len(state), f"{where}: some tensors are there with and without 'module.'."
  )
  config = {
    "key_dim": _rows(tensors, "key_proj.key_proj.weight", where),
    "value_dim": _rows(tensors, "value_encoder.fuser.block2.conv2.weight", where),
    "hidden_dim": len(tensors.get("decoder.hidden_update.transform.weight", ())) // 3,
  }
  stem = tensors.get(_STEM)
  if stem is not None and stem.ndim == 4 and stem.shape[1] == 4:
    tensors[_STEM] = np.pad(stem, ((0, 0), (0, 1), (0, 0), (0, 0)))
  for name in _SPLIT:
    if name in tensors:
      kernel = tensors.pop(name)
      tensors[f"{name}:image"] = kernel[:, :IMAGE_CHANNELS]
      tensors[f"{name}:object"] = kernel[:, IMAGE_CHANNELS:]
  return weights.unflatten(to_tree(TABLE, tensors, tree_shapes(config), where)), config, key


def to_torch(tree, config, where, single_object=False):
  """Returns the content of a public checkpoint: a bare state dict, counters included.

  Args:
    tree: nested dict of arrays.
    config: as `from_torch` returns it.
    where: begins error sentences.
    single_object: leave out the channel for the other objects' masks, which must be zero.

  Raises:
    InputError: if the tree is not exactly the one of `config`, or that channel is not zero.
  """
  tensors = to_source(TABLE, weights.flatten(tree), tree_shapes(config), where)
  state = collections.OrderedDict()
  for name, array in tensors.items():
    if name.endswith(":object"):
      name = name.removesuffix(":object")
      array = np.concatenate([tensors[f"{name}:image"], array], 1)
    elif name.endswith(":image"):
      continue
    state[name] = np.ascontiguousarray(array)
    if name.endswith("running_var"):
      state[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
  if single_object:
    checks.require(
      not state[_STEM][:, 4].any(),
      f"{where}: a single-object checkpoint has no channel for other objects' masks, but these "
      "weights use it; write the multi-object layout.",
    )
    state[_STEM] = np.ascontiguousarray(state[_STEM][:, :4])
  return state


def state_dict(checkpoint, keys, where):
  """Returns (key, {name: array}): the dict of tensors under the first of `keys`, or the file."""
  checks.require(
    isinstance(checkpoint, dict),
    f"{where}: holds {checkpoint!r}, no dict of tensors; save the model's state dict with torch.",
  )
  key = next((k for k in keys if isinstance(checkpoint.get(k), dict)), "")
  state = checkpoint[key] if key else checkpoint
  checks.require(
    state and all(isinstance(value, np.ndarray) for value in state.values()),
    f"{where}: no state dict under one of {list(keys)}, and the file itself is none; its entries "
    f"are {list(checkpoint)[:8]}.",
  )
  return key, state


def parameter_counts(tree):
  """Returns {part: number of parameters}, batch norm statistics left out."""
  return {
    part: sum(
      leaf.size
      for name, leaf in weights.flatten(sub).items()
      if not name.endswith(("/mean", "/var"))
    )
    for part, sub in tree.items()
  }


def _rows(tensors, name, where):
  checks.require(
    name in tensors and tensors[name].ndim == 4,
    f"{where}: there is no kernel {name!r}, so this is no XMem checkpoint; its first names are "
    f"{list(tensors)[:4]}.",
  )
  return len(tensors[name])


def _conv_shapes(name, size, width, features, use_bias=True):
  shapes = {f"{name}/kernel": (size, size, width, features)}
  return shapes | ({f"{name}/bias": (features,)} if use_bias else {})


def _norm_shapes(name, width):
  return {f"{name}/{leaf}": (width,) for leaf in ("scale", "bias", "mean", "var")}


def _trunk_shapes(name, channels, depths, bottleneck):
  shapes = _conv_shapes(f"{name}/conv1", 7, channels, 64, False) | _norm_shapes(f"{name}/bn1", 64)
  width = 64
  for stage, depth in enumerate(depths):
    inner = 64 << stage
    outer = 4 * inner if bottleneck else inner
    for i in range(depth):
      block = f"{name}/layer{stage + 1}_{i}"
      sizes = (
        ((1, width, inner), (3, inner, inner), (1, inner, outer))
        if bottleneck
        else ((3, width, inner), (3, inner, inner))
      )
      for j, (size, before, after) in enumerate(sizes, 1):
        shapes |= _conv_shapes(f"{block}/conv{j}", size, before, after, False)
        shapes |= _norm_shapes(f"{block}/bn{j}", after)
      if not i and width != outer:
        shapes |= _conv_shapes(f"{block}/shortcut", 1, width, outer, False)
        shapes |= _norm_shapes(f"{block}/shortcut_bn", outer)
      width = outer
  return shapes


def _fuser_shapes(name, width, features):
  shapes = {}
  for layer in ("conv1", "shortcut"):
    shapes |= _conv_shapes(f"{name}/block1/{layer}_image", 3, IMAGE_CHANNELS, features, False)
    shapes |= _conv_shapes(f"{name}/block1/{layer}_object", 3, width, features)
  for layer in ("block1/conv2", "block2/conv1", "block2/conv2"):
    shapes |= _conv_shapes(f"{name}/{layer}", 3, features, features)
  shapes |= {
    f"{name}/attention/squeeze/kernel": (features, features // 16),
    f"{name}/attention/squeeze/bias": (features // 16,),
    f"{name}/attention/excite/kernel": (features // 16, features),
    f"{name}/attention/excite/bias": (features,),
  }
  return shapes | _conv_shapes(f"{name}/attention/spatial", 7, 2, 1)
