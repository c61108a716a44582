"""Two-stream checkpoints <-> our variables: names, layouts, and what the names say of the network.

Reads the files of the original projects (state dict under "model_state_dict", names perhaps
prefixed "module.", or a bare state dict) in their five layouts, see `LAYOUTS`. Our trees stack the
parameters of blocks and streams; here they are taken apart, renamed one by one, and put together.
"""

import collections
import re

import numpy as np

from vistraj_jax.convert.apply import KEEP, LINEAR, Layout, Row, to_source, to_tree
from vistraj_jax.core import checks, weights

STATE_KEYS = ("model_state_dict", "state_dict")
# Kernels: (out, in, h, w) <-> (h, w, in, out); transposed convolutions: (in, out, h, w).
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
CONV_TRANSPOSED = Layout(lambda x: x.transpose(2, 3, 0, 1), lambda x: x.transpose(2, 3, 0, 1))
# Two frames: (out, 3, 2, h, w) <-> (h, w, 2 * 3, out).
TUBELET = Layout(
  lambda x: x.transpose(3, 4, 2, 1, 0).reshape(*x.shape[3:], 6, x.shape[0]),
  lambda x: x.reshape(*x.shape[:2], 2, 3, x.shape[3]).transpose(4, 3, 2, 0, 1),
)
# Tokens (1, 1, D) <-> (D); positions (1, N, D) <-> (N, D).
TOKEN = Layout(lambda x: x[0, 0], lambda x: x[None, None])
POSITIONS = Layout(lambda x: x[0], lambda x: x[None])


def _pair(source, target, layout=LINEAR):
  return (
    Row(f"{source}.weight", f"{target}/kernel", layout),
    Row(f"{source}.bias", f"{target}/bias"),
  )


def _norm(source, target):
  return (Row(f"{source}.weight", f"{target}/scale"), Row(f"{source}.bias", f"{target}/bias"))


def _batch_norm(source, target):
  return (
    *_norm(source, target),
    Row(f"{source}.running_mean", f"{target}/mean"),
    Row(f"{source}.running_var", f"{target}/var"),
    Row(f"{source}.num_batches_tracked", None),
  )


def _block(source, target, attention="self_attn", mlp=("linear1", "linear2")):
  """Rows of a block in the layout of torch.nn.TransformerEncoderLayer."""
  return (
    *_norm(f"{source}.norm1", f"{target}/norm1"),
    *_norm(f"{source}.norm2", f"{target}/norm2"),
    Row(f"{source}.{attention}.in_proj_weight", f"{target}/qkv/kernel", LINEAR),
    Row(f"{source}.{attention}.in_proj_bias", f"{target}/qkv/bias"),
    *_pair(f"{source}.{attention}.out_proj", f"{target}/out"),
    *_pair(f"{source}.{mlp[0]}", f"{target}/fc1"),
    *_pair(f"{source}.{mlp[1]}", f"{target}/fc2"),
  )


def _late_block(source, target):
  return (
    *_norm(f"{source}.norm1", f"{target}/norm1"),
    *_norm(f"{source}.norm2", f"{target}/norm2"),
    *(*_pair(f"{source}.qkv", f"{target}/qkv"), *_pair(f"{source}.proj", f"{target}/out")),
    *(*_pair(f"{source}.mlp.0", f"{target}/fc1"), *_pair(f"{source}.mlp.2", f"{target}/fc2")),
  )


def _mae_block(source, target):
  return (
    *_norm(f"{source}.norm1", f"{target}/norm1"),
    *_norm(f"{source}.norm2", f"{target}/norm2"),
    Row(f"{source}.attn.qkv.weight", f"{target}/qkv/kernel", LINEAR),
    Row(f"{source}.attn.q_bias", f"{target}/q_bias"),
    Row(f"{source}.attn.v_bias", f"{target}/v_bias"),
    *_pair(f"{source}.attn.proj", f"{target}/out"),
    *_pair(f"{source}.mlp.fc1", f"{target}/fc1"),
    *_pair(f"{source}.mlp.fc2", f"{target}/fc2"),
  )


def _streams(prefix, block, attention):
  """Rows of the two-stream transformer below `prefix`."""
  rows = []
  for stream in "mp":
    rows += [
      Row(f"{prefix}cls_token_{stream}", f"encoder/cls_token/{stream}", TOKEN),
      Row(f"{prefix}pos_embed_{stream}", f"encoder/pos_embed/{stream}", POSITIONS),
      *_pair(f"{prefix}patch_embed_{stream}", f"encoder/patch_embed_{stream}", CONV),
      *block(f"{prefix}blocks_{stream}.#.#", f"encoder/stage#/{stream}/#"),
      *_norm(f"{prefix}norm_{stream}", f"encoder/norm/{stream}"),
    ]
  exchange = _block(f"{prefix}cls_exchange.#", "encoder/exchange#", attention, ("mlp.0", "mlp.2"))
  return (*rows, *exchange)


_DECODER = (
  *_pair("decoder.input_proj.0", "decoder/input"),
  *_norm("decoder.input_proj.1", "decoder/input_norm"),
  *_pair("decoder.skip_encoder.0", "decoder/skip0", CONV),
  *_batch_norm("decoder.skip_encoder.1", "decoder/skip0_norm"),
  *_pair("decoder.skip_encoder.3", "decoder/skip1", CONV),
  *_batch_norm("decoder.skip_encoder.4", "decoder/skip1_norm"),
  *_pair("decoder.cls_proj_#", "decoder/cls#"),
  *_pair("decoder.up#.0", "decoder/up#", CONV_TRANSPOSED),
  *_batch_norm("decoder.up#.1", "decoder/up#_norm"),
  *_pair("decoder.skip_merge.0", "decoder/merge", CONV),
  *_batch_norm("decoder.skip_merge.1", "decoder/merge_norm"),
  *_pair("decoder.output_conv.0", "decoder/output0", CONV),
  *_pair("decoder.output_conv.2", "decoder/output1", CONV),
)
_CONSTANTS = tuple(
  Row(f"{prefix}.{name}", None)
  for prefix in ("encoder.preprocess", "encoder.preprocessing", "preprocessing")
  for name in ("lum_weights", "luminance_weights", "sobel_x", "sobel_y")
)
_PREDICTOR = (
  *_CONSTANTS,
  *_streams("encoder.encoder.", _block, "attn"),
  *_pair("encoder.fusion.fc_cls", "fusion/fc_cls"),
  *_pair("encoder.fusion.fc_patch", "fusion/fc_patch"),
  *_pair("encoder.fusion.fc_fusion", "fusion/fc_fusion"),
)

# Layout of a checkpoint: (a tensor that only it has, table).
LAYOUTS = {
  "policy": (
    "action_head.mlp.0.weight",
    (
      *_PREDICTOR,
      *(*_pair("action_head.mlp.0", "head/fc0"), *_norm("action_head.mlp.1", "head/norm0")),
      *(*_pair("action_head.mlp.4", "head/fc1"), *_norm("action_head.mlp.5", "head/norm1")),
      *_pair("action_head.mlp.8", "head/out"),
    ),
  ),
  "predictor": ("encoder.encoder.patch_embed_m.weight", (*_PREDICTOR, *_DECODER)),
  "per_stream_patch": (
    "encoder.patch_embed_m.weight",
    (
      *_CONSTANTS,
      *_streams("encoder.", _late_block, "attention"),
      *(
        row
        for s in "mp"
        for row in (
          Row(f"decoder_{s}.decoder_pos_embed", f"decoder_{s}/pos_embed", POSITIONS),
          Row(f"decoder_{s}.mask_token", f"decoder_{s}/mask_token", TOKEN),
          *_pair(f"decoder_{s}.decoder_embed", f"decoder_{s}/embed"),
          *_block(f"decoder_{s}.decoder_blocks.#", f"decoder_{s}/stack/#"),
          *_norm(f"decoder_{s}.decoder_norm", f"decoder_{s}/norm"),
          *_pair(f"decoder_{s}.pred_head", f"decoder_{s}/head"),
        )
      ),
    ),
  ),
  "single_stream": (
    "patch_embed.weight",
    (
      *_CONSTANTS,
      Row("cls_token", "cls_token", TOKEN),
      Row("pos_embed", "pos_embed", POSITIONS),
      *_pair("patch_embed", "patch_embed", CONV),
      *_block("blocks.#", "stack/#"),
      *_norm("norm", "norm_out"),
      *_DECODER,
    ),
  ),
  "videomae": (
    "encoder.patch_embed.proj.weight",
    (
      Row("mask_token", "mask_token", TOKEN),
      *_pair("encoder.patch_embed.proj", "patch_embed", TUBELET),
      *_mae_block("encoder.blocks.#", "stack/#"),
      *_norm("encoder.norm", "norm_out"),
      Row("encoder_to_decoder.weight", "encoder_to_decoder/kernel", LINEAR),
      *_mae_block("decoder.blocks.#", "decoder_stack/#"),
      *_norm("decoder.norm", "decoder_norm"),
      *(*_pair("decoder.head", "head"), *_pair("cls_proj.0", "cls_proj")),
    ),
  ),
}
# Modules that an ablation leaves out: the original creates them always, trained or not.
OPTIONAL = ("decoder.skip_encoder.", "decoder.skip_merge.", "decoder.cls_proj_")


def state_of(checkpoint, where):
  """Returns ({tensor name: float32 array}, layout, key) of a file that `read_torch` has read.

  Args:
    checkpoint: the file's content.
    where: begins error sentences, for example the file's name.

  Returns:
    tensors without a leading "module."; the key of `LAYOUTS`; under which key of the file the
    state dict was found, "" for a bare one.

  Raises:
    InputError: no state dict, or one of another network.
  """
  checks.require(
    isinstance(checkpoint, dict),
    f"{where}: holds no dict of tensors; save a state dict with torch.",
  )
  key = next((k for k in STATE_KEYS if isinstance(checkpoint.get(k), dict)), "")
  state = checkpoint[key] if key else checkpoint
  tensors = {
    name.removeprefix("module."): np.asarray(array, np.float32)
    for name, array in state.items()
    if isinstance(array, np.ndarray)
  }
  layout = next((name for name, (mark, _) in LAYOUTS.items() if mark in tensors), None)
  checks.require(
    layout is not None,
    f"{where}: this is no two-stream checkpoint nor one of its baselines; its first names are "
    f"{list(state)[:4]}.",
  )
  return tensors, layout, key


def settings_of(tensors, layout):
  """Returns the settings of config.model that names and shapes of a checkpoint give away.

  Not among them, because no tensor says it: the number of heads, the source of P, and whether the
  three CLS projections are fed from one depth or from three.
  """
  embed = {
    "single_stream": "patch_embed.weight",
    "videomae": "encoder.patch_embed.proj.weight",
    "per_stream_patch": "encoder.patch_embed_m.weight",
  }.get(layout, "encoder.encoder.patch_embed_m.weight")
  width, channels = tensors[embed].shape[:2]
  found = {"embed_dim": width, "patch_size": tensors[embed].shape[-1]}
  if layout == "videomae":
    depths = [_count(tensors, rf"{part}\.blocks\.(\d+)\.") for part in ("encoder", "decoder")]
    found |= {"streams": "videomae", "depth": depths[0]}
    width = tensors["encoder_to_decoder.weight"].shape[0]
    return {**found, "videomae.decoder_dim": width, "videomae.decoder_depth": depths[1]}
  position = "pos_embed" if layout == "single_stream" else embed.replace("patch", "pos")
  position = position.removesuffix(".weight")
  if position in tensors:
    side = round((tensors[position].shape[1] - 1) ** 0.5)
    found["image_size"] = side * found["patch_size"]
  if layout == "single_stream":
    return {
      **found,
      "streams": {6: "rgb6", 9: "mp9", 4: "m_only", 5: "p_only"}[channels],
      "depth": _count(tensors, r"blocks\.(\d+)\."),
    }
  stages = _count(tensors, r".*blocks_m\.(\d+)\.\d+\.")
  exchanges = _count(tensors, r".*cls_exchange\.(\d+)\.")
  found |= {
    "streams": "two",
    "num_stages": stages,
    "depth": stages * _count(tensors, r".*blocks_m\.\d+\.(\d+)\."),
    "m_channels": {4: "rgb4", 3: "luma3", 1: "luma1"}[channels],
    "exchange_after_last": exchanges == stages,
    "num_exchanges": exchanges,
    "pos": "learned" if position in tensors else "rope2d",
    "decoder.kind": "per_stream_patch" if layout == "per_stream_patch" else "conv",
  }
  if layout != "per_stream_patch":
    found["fusion"] = "shared" if "encoder.fusion.fc_fusion.weight" in tensors else "separate"
    return found
  if "decoder_m.mask_token" not in tensors:
    found |= {"mask_ratio_m": 0.0, "mask_ratio_p": 0.0}
  found["decoder.width"] = tensors["decoder_m.decoder_embed.weight"].shape[0]
  found["decoder.depth"] = _count(tensors, r"decoder_m\.decoder_blocks\.(\d+)\.")
  return found


def layout_of(tree, model):
  """Returns the key of `LAYOUTS` in which a parameter tree of ours is written."""
  if "head" in tree and model["streams"] == "two":
    return "policy"
  if model["streams"] == "videomae":
    return "videomae"
  if model["streams"] != "two":
    return "single_stream"
  return "per_stream_patch" if model["decoder"]["kind"] == "per_stream_patch" else "predictor"


def from_torch(tensors, layout, want, where):
  """Returns (variables, dropped) from the tensors of `state_of`.

  Args:
    tensors, layout: of `state_of`.
    want: {"/"-joined name: shape} of params and batch_stats in one dict (`merged`).
    where: begins error sentences.

  Returns:
    variables: {"params": ...} and, where the network has them, {"batch_stats": ...}.
    dropped: names of tensors that the wanted network leaves out on purpose (`OPTIONAL`).

  Raises:
    InputError: listing every missing, extra and misshapen tensor.
  """
  table = LAYOUTS[layout][1]
  single = {name: np.shape(x) for name, x in _apart(_views(want)).items()}
  wanted = {_source(table, name) for name in single}
  dropped = sorted(
    name
    for name in tensors
    if name.startswith(OPTIONAL) and name not in wanted and not name.endswith("_tracked")
  )
  kept = {name: x for name, x in tensors.items() if name not in dropped}
  return split(_together(to_tree(table, kept, single, where), want)), dropped


def to_torch(variables, layout, where):
  """Returns the content of an original checkpoint: {"epoch": 0, "model_state_dict": ...}."""
  flat = _apart(merged(variables))
  shapes = {name: x.shape for name, x in flat.items()}
  tensors = to_source(LAYOUTS[layout][1], flat, shapes, where)
  for name in [n for n in tensors if n.endswith(".running_var")]:
    tensors[name.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
  state = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
  return {"epoch": 0, "model_state_dict": collections.OrderedDict(state)}


def merged(variables):
  """{"params": tree, "batch_stats": tree} -> {"/"-joined name: array} of both."""
  return {
    name: leaf
    for collection in ("params", "batch_stats")
    for name, leaf in weights.flatten(variables.get(collection, {})).items()
  }


def split(flat):
  """The inverse of `merged`: leaves called mean and var are batch statistics."""
  is_statistic = lambda name: name.rsplit("/", 1)[-1] in ("mean", "var")  # noqa: E731
  variables = {"params": {n: x for n, x in flat.items() if not is_statistic(n)}}
  statistics = {n: x for n, x in flat.items() if is_statistic(n)}
  if statistics:
    variables["batch_stats"] = statistics
  return {name: weights.unflatten(tree) for name, tree in variables.items()}


# --- stacked leaves ------------------------------------------------------------------------------

_BY_STREAM = re.compile(r"encoder/(cls_token|pos_embed)|encoder/norm/\w+")
_BY_STREAM_AND_BLOCK = re.compile(r"(encoder/stage\d+)/blocks/(.+)")
_BY_BLOCK = re.compile(r"(.*stack)/blocks/(.+)")


def _parts(name, shape):
  """Returns [(name, index)] of the single tensors in a stacked leaf."""
  if found := _BY_STREAM_AND_BLOCK.fullmatch(name):
    return [
      (f"{found[1]}/{stream}/{k}/{found[2]}", (i, k))
      for i, stream in enumerate("mp")
      for k in range(shape[1])
    ]
  if _BY_STREAM.fullmatch(name):
    parent, _, leaf = name.rpartition("/norm/")
    named = lambda s: f"{parent}/norm/{s}/{leaf}" if parent else f"{name}/{s}"  # noqa: E731
    return [(named(stream), (i,)) for i, stream in enumerate("mp")]
  if found := _BY_BLOCK.fullmatch(name):
    return [(f"{found[1]}/{k}/{found[2]}", (k,)) for k in range(shape[0])]
  return [(name, ())]


def _apart(flat):
  return {part: x[at] for name, x in flat.items() for part, at in _parts(name, x.shape)}


def _together(single, want):
  tree = {}
  for name, shape in want.items():
    parts = _parts(name, shape)
    tree[name] = np.stack([single[part] for part, _ in parts]).reshape(shape)
  return tree


def _views(shapes):
  return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


def _source(table, name):
  single = np.float32(0)
  keep = [row._replace(layout=KEEP) for row in table]
  return next(iter(to_source(keep, {name: single}, {name: ()}, name)))


def _count(tensors, pattern):
  numbers = {int(found[1]) for name in tensors if (found := re.match(pattern, name))}
  return max(numbers, default=-1) + 1
