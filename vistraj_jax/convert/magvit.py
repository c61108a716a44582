"""Video tokenizer checkpoints <-> our parameter trees: Open-MAGVIT2's, and the small one's.

Open-MAGVIT2 files are Lightning's, {"state_dict": ...}: `encoder.` and `decoder.` hold the last
weights, `model_ema.` their moving average under the same names without dots. What training adds
(`loss.`) is passed over; anything else that is missing, extra or misshapen is an error, so that no
tokenizer is random in part. Files are read tensor by tensor: the public one has 3 GB.
Source: SEED-Voken, video_128_262144.ckpt; the original project's training files.
"""

import collections
import re
from typing import Any, NamedTuple

import numpy as np

from vistraj_jax.convert import apply
from vistraj_jax.convert.apply import LINEAR, Layout, Row
from vistraj_jax.core import checks, weights

GROUPS = 32  # of the public network's norms; no tensor tells them
AVERAGE = "model_ema."
_PASSED_OVER = ("loss.", f"{AVERAGE}loss", f"{AVERAGE}decay", f"{AVERAGE}num_updates")
_SEED_PREFIX = "magvit."
_SEED_WIDTHS = (64, 128, 256)

# Kernels of videos: (out, in, time, height, width) <-> (time, height, width, in, out).
CONV = Layout(
  lambda x: np.transpose(x, (2, 3, 4, 1, 0)), lambda x: np.transpose(x, (4, 3, 0, 1, 2))
)
# Transposed convolutions: (in, out, ...) <-> the kernel of the convolution that does the same.
TRANSPOSED = Layout(
  lambda x: np.transpose(x, (2, 3, 4, 0, 1))[::-1, ::-1, ::-1],
  lambda x: np.transpose(x[::-1, ::-1, ::-1], (3, 4, 0, 1, 2)),
)


class Plan(NamedTuple):
  """A checkpoint that fits, still in its file.

  Attributes:
    config: fields of the tokenizer, with "kind".
    shapes: {"/"-joined name: shape} of the whole tree.
    weights: "ema", "raw", or "" where there is one kind only.
    read: function of a name of `shapes`, gives its float32 array.
  """

  config: dict[str, Any]
  shapes: dict[str, tuple]
  weights: str
  read: Any

  def tree(self):
    """Returns the whole tree, nested dict of float32 arrays."""
    return weights.unflatten({name: self.read(name) for name in self.shapes})


def _conv_rows(source, target, layout=CONV):
  return [
    Row(f"{source}.weight", f"{target}/kernel", layout),
    Row(f"{source}.bias", f"{target}/bias"),
  ]


def _norm_rows(source, target):
  return [Row(f"{source}.weight", f"{target}/scale"), Row(f"{source}.bias", f"{target}/bias")]


def _block_rows(source, target):
  return [
    *_norm_rows(f"{source}.norm#", f"{target}/norm#"),
    Row(f"{source}.conv#.conv_1.weight", f"{target}/conv#/kernel", CONV),
    Row(f"{source}.nin_shortcut.conv_1.weight", f"{target}/shortcut/kernel", CONV),
  ]


TABLE = tuple(
  row
  for part, levels in (("encoder", "down"), ("decoder", "up"))
  for row in (
    *_conv_rows(f"{part}.conv_in.conv_1", f"{part}/conv_in"),
    *_block_rows(f"{part}.{levels}.#.block.#", f"{part}/{levels}_#_block_#"),
    *_block_rows(f"{part}.mid_block.#", f"{part}/mid_block_#"),
    *_norm_rows(f"{part}.norm_out", f"{part}/norm_out"),
    *_conv_rows(f"{part}.conv_out.conv_1", f"{part}/conv_out"),
  )
) + (
  *_conv_rows("encoder.down.#.downsample.conv_1", "encoder/down_#_downsample"),
  *_conv_rows("decoder.up.#.upsample.conv1.conv_1", "decoder/up_#_upsample/conv"),
  *_conv_rows("decoder.adaptive.#.gamma", "decoder/adaptive_#/gamma", LINEAR),
  *_conv_rows("decoder.adaptive.#.beta", "decoder/adaptive_#/beta", LINEAR),
)
SEED_TABLE = (
  *(
    row
    for part in ("encoder", "decoder")
    for name in ("conv_in", "conv_out")
    for row in _conv_rows(f"{part}.{name}", f"{part}/{name}")
  ),
  *_conv_rows("encoder.conv#", "encoder/conv#"),
  Row("quantizer.embedding.weight", "code_book"),
  *_conv_rows("decoder.deconv#", "decoder/deconv#", TRANSPOSED),
)


def tree_shapes(config):
  """Returns {"/"-joined name: shape} of the whole tree.

  Args:
    config: fields of the tokenizer, with "kind".
  """
  if config["kind"] == "seed":
    return _seed_shapes(config["num_codes"], config["latent_dim"])
  channels, blocks, bits = config["channels"], config["num_blocks"], config["bits"]
  widths = [channels * m for m in config["multipliers"]]
  last = len(widths) - 1
  shapes = _conv_shapes("encoder/conv_in", 3, 3, channels, False)
  width = channels
  for level, after in enumerate(widths):
    for i in range(blocks):
      shapes |= _block_shapes(f"encoder/down_{level}_block_{i}", width, after)
      width = after
    if level < last:
      shapes |= _conv_shapes(f"encoder/down_{level}_downsample", 3, width, width)
  for i in range(blocks):
    shapes |= _block_shapes(f"encoder/mid_block_{i}", width, width)
  shapes |= _norm_shapes("encoder/norm_out", width)
  shapes |= _conv_shapes("encoder/conv_out", 1, width, bits)
  shapes |= _conv_shapes("decoder/conv_in", 3, bits, width)
  for i in range(blocks):
    shapes |= _block_shapes(f"decoder/mid_block_{i}", width, width)
  for level in reversed(range(len(widths))):
    for name in ("gamma", "beta"):
      shapes[f"decoder/adaptive_{level}/{name}/kernel"] = (bits, width)
      shapes[f"decoder/adaptive_{level}/{name}/bias"] = (width,)
    for i in range(blocks):
      shapes |= _block_shapes(f"decoder/up_{level}_block_{i}", width, widths[level])
      width = widths[level]
    if level:
      places = 4 if config["multipliers"][level - 1] == 1 else 8
      shapes |= _conv_shapes(f"decoder/up_{level}_upsample/conv", 3, width, places * width)
  return (
    shapes | _norm_shapes("decoder/norm_out", width) | _conv_shapes("decoder/conv_out", 3, width, 3)
  )


def plan(checkpoint, which, where):
  """Checks a checkpoint and returns how to read it.

  Args:
    checkpoint: content of the file, as `read_torch.read_checkpoint(path, lazy=True)` gives it;
      tensors may be arrays as well.
    which: "ema" or "raw"; "ema" falls back to "raw" where the file has no average.
    where: begins error sentences, for example the file's name.

  Returns:
    `Plan`.

  Raises:
    InputError: no tokenizer, or any missing, extra or misshapen tensor of it.
  """
  checks.choice("--weights", which, ("ema", "raw"))
  state = _state(checkpoint, where)
  seed = {n.removeprefix(_SEED_PREFIX): t for n, t in state.items() if n.startswith(_SEED_PREFIX)}
  seed = seed or state
  if "quantizer.embedding.weight" in seed:
    num_codes, latent_dim = seed["quantizer.embedding.weight"].shape
    config = {"kind": "seed", "num_codes": num_codes, "latent_dim": latent_dim}
    return _planned(config, SEED_TABLE, seed, "", where)
  raw = {
    n: t for n, t in state.items() if not n.startswith(_PASSED_OVER) and not n.startswith(AVERAGE)
  }
  config = _config(raw, where)
  found = _planned(config, TABLE, raw, "raw", where)
  average = {
    n.removeprefix(AVERAGE): t
    for n, t in state.items()
    if n.startswith(AVERAGE) and not n.startswith(_PASSED_OVER)
  }
  if which == "raw" or not average:
    return found
  short = {name.replace(".", ""): name for name in raw}
  checks.require(
    len(short) == len(raw), f"{where}: two names are the same without dots; take --weights raw."
  )
  named = {short.get(name, AVERAGE + name): tensor for name, tensor in average.items()}
  return _planned(config, TABLE, named, "ema", f"{where}: moving average")


def to_torch(tree, config, where):
  """Returns the content of a public file: {"state_dict": raw weights}, or the small one's.

  Args:
    tree: nested dict of arrays.
    config: fields of the tokenizer, with "kind".
    where: begins error sentences.

  Raises:
    InputError: if the tree is not exactly the one of `config`, or the public network's norms have
      other groups.
  """
  if config["kind"] == "seed":
    key, prefix, table = "model_state_dict", _SEED_PREFIX, SEED_TABLE
  else:
    checks.require(
      config["groups"] == GROUPS,
      f"{where}: norms of {config['groups']} groups; the public layout has {GROUPS} and no tensor "
      "that would tell, so another reader would compute something else.",
    )
    key, prefix, table = "state_dict", "", TABLE
  tensors = apply.to_source(table, weights.flatten(tree), tree_shapes(config), where)
  state = {prefix + name: np.ascontiguousarray(array) for name, array in tensors.items()}
  return {key: collections.OrderedDict(state)}


def discriminator(tensors, where):
  """Returns (params, statistics) of a 3-D patch discriminator, nested dicts of float32 arrays.

  Args:
    tensors: {name: array} of a training file; `loss.discriminator.main.` names are read.
    where: begins the error sentence.

  Raises:
    InputError: any missing, extra or misshapen tensor of it.
  """
  prefix = "loss.discriminator.main."
  found = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
  first = found.get("0.weight")
  checks.require(
    first is not None, f"{where}: there is no tensor {prefix}0.weight, so no discriminator."
  )
  widths = [3, *(first.shape[0] << i for i in range(4)), 1]
  rows, want = [], {}
  for i, place in enumerate((0, 2, 5, 8, 11)):
    normed = place in (2, 5, 8)
    rows += _conv_rows(str(place), f"params/conv_{i}")
    want |= _conv_shapes(f"params/conv_{i}", 3, widths[i], widths[i + 1], not normed)
    if normed:
      rows += _norm_rows(str(place + 1), f"params/norm_{i}")
      want |= _norm_shapes(f"params/norm_{i}", widths[i + 1])
      for name in ("mean", "var"):
        rows.append(Row(f"{place + 1}.running_{name}", f"statistics/norm_{i}/{name}"))
        want[f"statistics/norm_{i}/{name}"] = (widths[i + 1],)
      rows.append(Row(f"{place + 1}.num_batches_tracked", None))
  tree = weights.unflatten(apply.to_tree(rows, found, want, where))
  return tree["params"], tree["statistics"]


def _state(checkpoint, where):
  """Returns {name: tensor} of a file, whatever wraps it."""
  checks.require(
    isinstance(checkpoint, dict),
    f"{where}: holds {type(checkpoint).__name__}, no dict of tensors; save the model's state dict "
    "with torch.",
  )
  keys = ("state_dict", "model_state_dict")
  state = next((checkpoint[k] for k in keys if isinstance(checkpoint.get(k), dict)), checkpoint)
  state = {name: tensor for name, tensor in state.items() if hasattr(tensor, "shape")}
  checks.require(
    state,
    f"{where}: no state dict under one of {list(keys)}, and the file itself is none; its entries "
    f"are {list(checkpoint)[:8]}.",
  )
  return state


def _planned(config, table, tensors, which, where):
  """Checks names and shapes of all tensors, without reading one."""
  shapes = tree_shapes(config)
  blank = {name: np.broadcast_to(np.float32(0), t.shape) for name, t in tensors.items()}
  apply.to_tree(table, blank, shapes, where)

  def read(name):
    shape = {name: shapes[name]}
    (source,) = apply.to_source(table, {name: np.broadcast_to(0, shapes[name])}, shape, where)
    tensor = tensors[source]
    array = tensor.read() if hasattr(tensor, "read") else tensor
    array = apply.to_tree(table, {source: array}, shape, where)[name]
    return np.ascontiguousarray(array, np.float32)

  return Plan(config, shapes, which, read)


def _config(tensors, where):
  """Reads the sizes of the public network from its tensors."""

  def width(name):
    checks.require(
      name in tensors,
      f"{where}: there is no tensor {name!r}, so this is no video tokenizer checkpoint; its first "
      f"names are {list(tensors)[:4]}.",
    )
    return tensors[name].shape[0]

  def count(pattern):
    found = (re.match(pattern, name) for name in tensors)
    return 1 + max(int(match[1]) for match in found if match)

  channels = width("encoder.conv_in.conv_1.weight")
  bits = width("encoder.conv_out.conv_1.weight")
  width("encoder.down.0.block.0.conv1.conv_1.weight")
  levels = range(count(r"encoder\.down\.(\d+)\."))
  widths = [width(f"encoder.down.{i}.block.0.conv1.conv_1.weight") for i in levels]
  return {
    "kind": "magvit2",
    "channels": channels,
    "multipliers": [w // channels for w in widths],
    "num_blocks": count(r"encoder\.down\.0\.block\.(\d+)\."),
    "bits": bits,
    "groups": GROUPS,
  }


def _seed_shapes(num_codes, latent_dim):
  first, second, last = _SEED_WIDTHS
  return {
    **_conv_shapes("encoder/conv_in", 3, 3, first),
    **_conv_shapes("encoder/conv1", 3, first, second),
    **_conv_shapes("encoder/conv2", 3, second, last),
    **_conv_shapes("encoder/conv_out", 3, last, latent_dim),
    "code_book": (num_codes, latent_dim),
    **_conv_shapes("decoder/conv_in", 3, latent_dim, last),
    "decoder/deconv1/kernel": (3, 4, 4, last, second),
    "decoder/deconv1/bias": (second,),
    "decoder/deconv2/kernel": (3, 4, 4, second, first),
    "decoder/deconv2/bias": (first,),
    **_conv_shapes("decoder/conv_out", 3, first, 3),
  }


def _conv_shapes(name, size, width, features, use_bias=True):
  shapes = {f"{name}/kernel": (size, size, size, width, features)}
  return shapes | ({f"{name}/bias": (features,)} if use_bias else {})


def _norm_shapes(name, width):
  return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def _block_shapes(name, width, features):
  shapes = _norm_shapes(f"{name}/norm1", width)
  shapes |= _conv_shapes(f"{name}/conv1", 3, width, features, False)
  shapes |= _norm_shapes(f"{name}/norm2", features)
  shapes |= _conv_shapes(f"{name}/conv2", 3, features, features, False)
  if width != features:
    shapes |= _conv_shapes(f"{name}/shortcut", 1, width, features, False)
  return shapes
