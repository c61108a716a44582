"""TrackSSM checkpoints <-> our parameter tree: names, layouts, sizes and presets.

Reads the files of the public model (state dict under "ddpm", names prefixed "module.") and of the
original project ("model_state_dict", no prefix), as well as "state_dict" or a bare state dict.
Source: the public TrackSSM repository's checkpoints (arXiv 2409.00487).
"""

import collections
import math
import re

import numpy as np

from vistraj_jax.convert.apply import DEPTHWISE, KEEP, LINEAR, Row, to_source, to_tree
from vistraj_jax.core import checks, weights

STATE_KEYS = ("ddpm", "model_state_dict", "state_dict")

# What each set of published weights was trained with: the box head ends in a sigmoid or is linear,
# and the weights of the two loss terms. The files themselves do not say it.
PRESETS = {
  "mot17": {"box_sigmoid": False, "smooth_l1": 1.0, "giou": 0.0},
  "dancetrack": {"box_sigmoid": True, "smooth_l1": 1.0, "giou": 0.0},
  "sportsmot": {"box_sigmoid": True, "smooth_l1": 1.0, "giou": 1.0},
  "nuscenes": {"box_sigmoid": True, "smooth_l1": 1.0, "giou": 1.0},
}

_LAYER, _MIXER = "encoder.mamba_net.layers.#.", "encoder.mamba_net.layers.#.mixer."
_HEAD = "ssm_decoder.head_series.#."
TABLE = (
  Row("encoder.mamba_net.embedding.weight", "encoder/embedding/kernel", KEEP),
  Row("encoder.mamba_net.norm_f.weight", "encoder/norm_f/scale", KEEP),
  Row(_LAYER + "norm.weight", "encoder/layer#/norm/scale", KEEP),
  Row(_MIXER + "A_log", "encoder/layer#/mixer/A_log", KEEP),
  Row(_MIXER + "D", "encoder/layer#/mixer/D", KEEP),
  Row(_MIXER + "in_proj.weight", "encoder/layer#/mixer/in_proj/kernel", LINEAR),
  Row(_MIXER + "conv1d.weight", "encoder/layer#/mixer/conv1d/kernel", DEPTHWISE),
  Row(_MIXER + "conv1d.bias", "encoder/layer#/mixer/conv1d/bias", KEEP),
  Row(_MIXER + "x_proj.weight", "encoder/layer#/mixer/x_proj/kernel", LINEAR),
  Row(_MIXER + "dt_proj.weight", "encoder/layer#/mixer/dt_proj/kernel", LINEAR),
  Row(_MIXER + "dt_proj.bias", "encoder/layer#/mixer/dt_proj/bias", KEEP),
  Row(_MIXER + "out_proj.weight", "encoder/layer#/mixer/out_proj/kernel", LINEAR),
  Row(_HEAD + "A_log", "decoder/head#/A_log", KEEP),
  Row(_HEAD + "D", "decoder/head#/D", KEEP),
  Row(_HEAD + "in_proj.weight", "decoder/head#/in_proj/kernel", LINEAR),
  Row(_HEAD + "x_proj.weight", "decoder/head#/x_proj/kernel", LINEAR),
  Row(_HEAD + "dt_proj.weight", "decoder/head#/dt_proj/kernel", LINEAR),
  Row(_HEAD + "dt_proj.bias", "decoder/head#/dt_proj/bias", KEEP),
  Row(_HEAD + "linear1.weight", "decoder/head#/linear1/kernel", LINEAR),
  Row(_HEAD + "linear1.bias", "decoder/head#/linear1/bias", KEEP),
  Row(_HEAD + "linear2.weight", "decoder/head#/linear2/kernel", LINEAR),
  Row(_HEAD + "linear2.bias", "decoder/head#/linear2/bias", KEEP),
  Row(_HEAD + "norm2.weight", "decoder/head#/norm2/scale", KEEP),
  Row(_HEAD + "norm2.bias", "decoder/head#/norm2/bias", KEEP),
  Row(_HEAD + "normal_bboxes.weight", "decoder/head#/normal_bboxes/kernel", LINEAR),
  Row(_HEAD + "normal_bboxes.bias", "decoder/head#/normal_bboxes/bias", KEEP),
)


def tree_shapes(config):
  """Returns {"/"-joined name: shape} of the whole tree.

  Args:
    config: dict with `num_layers`, `num_heads`, `width`, `state_size`.
  """
  width, state = config["width"], config["state_size"]
  rank = math.ceil(width / 16)
  inner = 2 * width  # of the mixer, and of the heads' feed-forward layer
  layer = {
    "norm/scale": (width,),
    "mixer/A_log": (inner, state),
    "mixer/D": (inner,),
    "mixer/in_proj/kernel": (width, 2 * inner),
    "mixer/conv1d/kernel": (4, inner),
    "mixer/conv1d/bias": (inner,),
    "mixer/x_proj/kernel": (inner, rank + 2 * state),
    "mixer/dt_proj/kernel": (rank, inner),
    "mixer/dt_proj/bias": (inner,),
    "mixer/out_proj/kernel": (inner, width),
  }
  head = {
    "A_log": (width, state),
    "D": (width,),
    "in_proj/kernel": (width, 2 * width),
    "x_proj/kernel": (width, rank + 2 * state),
    "dt_proj/kernel": (rank, width),
    "dt_proj/bias": (width,),
    "linear1/kernel": (width, inner),
    "linear1/bias": (inner,),
    "linear2/kernel": (inner, width),
    "linear2/bias": (width,),
    "norm2/scale": (width,),
    "norm2/bias": (width,),
    "normal_bboxes/kernel": (width, 4),
    "normal_bboxes/bias": (4,),
  }
  shapes = {"encoder/embedding/kernel": (8, width), "encoder/norm_f/scale": (width,)}
  for i in range(config["num_layers"]):
    shapes.update({f"encoder/layer{i}/{name}": shape for name, shape in layer.items()})
  for i in range(config["num_heads"]):
    shapes.update({f"decoder/head{i}/{name}": shape for name, shape in head.items()})
  return shapes


def from_torch(checkpoint, preset, where):
  """Returns (tree, config, key) of a checkpoint read by `read_torch.read_checkpoint`.

  Numbers of layers and heads and all sizes are read from the tensors. Floating-point tensors of
  any width become float32.

  Args:
    checkpoint: the file's content.
    preset: a key of `PRESETS`; decides how the box head ends.
    where: begins error sentences, for example the file's name.

  Returns:
    tree: nested dict of float32 arrays, {"encoder": ..., "decoder": ...}.
    config: the fields of the network, as the weights file keeps them.
    key: under which key the state dict was found, "" for a bare one.

  Raises:
    InputError: unknown preset, no state dict, or any missing, extra or misshapen tensor.
  """
  checks.choice("preset", preset, PRESETS)
  key, state = _state_dict(checkpoint, where)
  tensors = {
    name.removeprefix("module."): np.asarray(array, np.float32) for name, array in state.items()
  }
  checks.require(
    len(tensors) == len(state), f"{where}: some tensors are there with and without 'module.'."
  )
  config = {
    "num_layers": _count(tensors, _LAYER, where),
    "num_heads": _count(tensors, _HEAD, where),
    # By majority, so that one misshapen tensor is named as such.
    "width": _commonest(array.shape[-1] for n, array in tensors.items() if ".norm" in n),
    "state_size": _commonest(array.shape[-1] for n, array in tensors.items() if "A_log" in n),
    "history": 5,
    "box_sigmoid": PRESETS[preset]["box_sigmoid"],
  }
  flat = to_tree(TABLE, tensors, tree_shapes(config), where)
  return weights.unflatten(flat), config, key


def to_torch(tree, config, where):
  """Returns the content of a released checkpoint: {"ddpm": state dict, "epoch": 0}.

  The state dict's names are prefixed "module.", as the public code wants them.

  Raises:
    InputError: if the tree is not exactly the one of `config`.
  """
  tensors = to_source(TABLE, weights.flatten(tree), tree_shapes(config), where)
  state = {f"module.{name}": np.asarray(array) for name, array in tensors.items()}
  return {"ddpm": collections.OrderedDict(state), "epoch": 0}


def parameter_counts(tree):
  """Returns {part: number of parameters} of the two top-level parts."""
  return {
    part: sum(leaf.size for leaf in weights.flatten(sub).values()) for part, sub in tree.items()
  }


def _state_dict(checkpoint, where):
  checks.require(
    isinstance(checkpoint, dict),
    f"{where}: holds {checkpoint!r}, no dict of tensors; save the model's state dict with torch.",
  )
  for key in STATE_KEYS:
    if isinstance(checkpoint.get(key), dict):
      state = checkpoint[key]
      break
  else:
    key, state = "", checkpoint
  others = {name: type(v).__name__ for name, v in state.items() if not isinstance(v, np.ndarray)}
  checks.require(
    state and not others,
    f"{where}: no state dict under one of {list(STATE_KEYS)}, and the file itself is none; its "
    f"entries are {list(checkpoint)[:8]}.",
  )
  return key, state


def _count(tensors, template, where):
  pattern = re.compile(re.escape(template).replace(r"\#", r"(\d+)"))
  numbers = {int(found[1]) for name in tensors if (found := pattern.match(name))}
  checks.require(
    numbers,
    f"{where}: no tensor is named '{template}...', so this is no TrackSSM checkpoint; its first "
    f"names are {list(tensors)[:4]}.",
  )
  return max(numbers) + 1


def _commonest(values):
  return collections.Counter(values).most_common(1)[0][0]
