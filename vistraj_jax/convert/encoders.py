"""Published weights of image encoders <-> our parameter trees: names and layouts.

One network is published under several names: inside a whole vision-language model or alone, by its
authors or by a library. A `Source` is one such naming. The parameter names of a network are found
by comparing a file's names with all sources of an encoder; the one with most known names is taken.
"""

import re
from typing import NamedTuple

import numpy as np

from vistraj_jax.convert.apply import KEEP, LINEAR, Layout, Row
from vistraj_jax.core import checks

# Kernels of convolutions: (out, in, h, w) <-> (h, w, in, out).
CONV = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
# Maps: (1, C, h, w) <-> (h, w, C).
MAP = Layout(lambda x: x[0].transpose(1, 2, 0), lambda x: x.transpose(2, 0, 1)[None])
FIRST = Layout(lambda x: x[0], lambda x: x[None])
POINT = Layout(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])  # 1 x 1 convolution


class Source(NamedTuple):
  """One naming of an encoder's tensors.

  Attributes:
    prefix: regular expression before the names of the table.
    table: rows of `apply`.
    packed: (name that packs queries, keys and values in its rows, the three names in the table).
    optional: regular expression of names that may be there without being wanted.
    written: the prefix that `prefix` stands for when tensors are written.
  """

  prefix: str
  table: tuple
  packed: tuple = ()
  optional: str = ""
  written: str = ""

  def part(self, names):
    """Returns {name after the prefix: name} of those names that have the prefix."""
    pattern = re.compile(f"(?:{self.prefix})(.+)")
    found = ((pattern.fullmatch(name), name) for name in names)
    return {match[1]: name for match, name in found if match}

  def known(self, names):
    """Returns how many of the names the table has a row for, packed ones included."""
    rows = [row.source for row in self.table] + [packed for packed, _ in self.packed]
    pattern = re.compile("|".join(_regex(row) for row in rows))
    return sum(pattern.fullmatch(name) is not None for name in names)

  def unpack(self, tensors):
    """Returns {name: array} in which each packed tensor is cut along its rows into three."""
    out = {}
    for name, array in tensors.items():
      found = next((r for r in self.packed if re.fullmatch(_regex(r[0]), name)), None)
      if found is None:
        out[name] = array
        continue
      number = next(iter(re.fullmatch(_regex(found[0]), name).groups()), "")
      checks.require(
        np.shape(array)[0] % 3 == 0,
        f"{name} {np.shape(array)}: packs queries, keys and values, so its rows divide by three.",
      )
      thirds = np.split(array, 3)
      out.update(zip((n.replace("#", number) for n in found[1]), thirds, strict=True))
    return out

  def packs(self, names):
    """Returns whether any of the table's names is one part of a packed tensor of a layer."""
    parts = [part for packed, three in self.packed if "#" in packed for part in three]
    return any(re.fullmatch(_regex(part), name) for part in parts for name in names)

  def pack(self, tensors):
    """The inverse of `unpack`."""
    out = dict(tensors)
    for packed, parts in self.packed:
      first = re.compile(_regex(parts[0]))
      for name in [n for n in tensors if first.fullmatch(n)]:
        number = next(iter(first.fullmatch(name).groups()), "")
        thirds = [out.pop(part.replace("#", number)) for part in parts]
        out[packed.replace("#", number)] = np.concatenate(thirds)
    return out


def choose(encoder, names, where):
  """Returns (Source, {name in its table: name in the file}) of the best fitting naming.

  Raises:
    InputError: no source of the encoder knows any of the names.
  """
  checks.choice("encoder", encoder, SOURCES)
  found = [(source, source.part(names)) for source in SOURCES[encoder]]
  source, part = max(found, key=lambda pair: pair[0].known(pair[1]))
  checks.require(
    source.known(part),
    f"{where}: holds no tensor of encoder {encoder!r}; its first names are {sorted(names)[:4]}.",
  )
  return source, part


def _regex(template):
  return re.escape(template).replace(r"\#", r"(\d+)")


def _affine(source, target, layout=LINEAR):
  """Rows of a layer with weight and bias: `layout` LINEAR, a convolution's, or KEEP for a norm."""
  weight = "scale" if layout is KEEP else "kernel"
  return (
    Row(f"{source}.weight", f"{target}/{weight}", layout),
    Row(f"{source}.bias", f"{target}/bias"),
  )


def _packed_at(layer):
  """What is packed where `layer` + "attn.qkv" holds queries, keys and values."""
  return tuple(
    (f"{layer}attn.qkv.{kind}", tuple(f"{layer}attn.{n}.{kind}" for n in "qkv"))
    for kind in ("weight", "bias")
  )


def _block(prefix, norms, attention, out, mlp):
  """Rows of a pre-norm block whose q, k, v are `prefix` + `attention`.{q,k,v}."""
  return (
    *_affine(prefix + norms[0], "layer#/norm1", KEEP),
    *_affine(prefix + norms[1], "layer#/norm2", KEEP),
    *_affine(prefix + attention[0], "layer#/attention/q"),
    *_affine(prefix + attention[1], "layer#/attention/k"),
    *_affine(prefix + attention[2], "layer#/attention/v"),
    *_affine(prefix + out, "layer#/attention/out"),
    *_affine(prefix + mlp[0], "layer#/mlp/fc1"),
    *_affine(prefix + mlp[1], "layer#/mlp/fc2"),
  )


_LAYER = "encoder.layers.#."
SIGLIP = (
  *_affine("embeddings.patch_embedding", "patch_embedding", CONV),
  Row("embeddings.position_embedding.weight", "position_embedding"),
  Row("embeddings.position_ids", None),
  *_block(
    _LAYER,
    ("layer_norm1", "layer_norm2"),
    tuple(f"self_attn.{n}_proj" for n in "qkv"),
    "self_attn.out_proj",
    ("mlp.fc1", "mlp.fc2"),
  ),
  *_affine("post_layernorm", "final_norm", KEEP),
  Row("head.probe", "head/probe"),
  *(row for n in "qkv" for row in _affine(f"head.attention.{n}", f"head/{n}")),
  *_affine("head.attention.out_proj", "head/out"),
  *_affine("head.layernorm", "head/norm", KEEP),
  *_affine("head.mlp.fc1", "head/mlp/fc1"),
  *_affine("head.mlp.fc2", "head/mlp/fc2"),
)
_SIGLIP_PACKED = tuple(
  (f"head.attention.in_proj_{kind}", tuple(f"head.attention.{n}.{kind}" for n in "qkv"))
  for kind in ("weight", "bias")
)

_TEXT = "text_model.layers.#."
# The tower, the connector and the decoder; logits are not wanted.
SMOLVLM = (
  *(
    Row(f"vision_model.{row.source}", row.target and f"vision/{row.target}", row.layout)
    for row in SIGLIP
  ),
  Row("connector.modality_projection.proj.weight", "connector/kernel", LINEAR),
  Row("text_model.embed_tokens.weight", "text/embedding"),
  *(
    Row(f"{_TEXT}self_attn.{n[0]}_proj.weight", f"text/layer#/{n}/kernel", LINEAR)
    for n in ("q", "k", "v", "out")
  ),
  *(
    Row(f"{_TEXT}mlp.{n}_proj.weight", f"text/layer#/{n}/kernel", LINEAR)
    for n in ("gate", "up", "down")
  ),
  Row(f"{_TEXT}input_layernorm.weight", "text/layer#/norm1/scale"),
  Row(f"{_TEXT}post_attention_layernorm.weight", "text/layer#/norm2/scale"),
  Row("text_model.norm.weight", "text/final_norm/scale"),
  Row("lm_head.weight", None),
)

# InternViT as its authors name it, and as the transformers library does.
INTERNVIT = (
  Row("embeddings.class_embedding", "class_embedding"),
  *_affine("embeddings.patch_embedding", "patch_embedding", CONV),
  Row("embeddings.position_embedding", "position_embedding", FIRST),
  *_block(
    _LAYER,
    ("norm1", "norm2"),
    ("attn.q", "attn.k", "attn.v"),
    "attn.proj",
    ("mlp.fc1", "mlp.fc2"),
  ),
  Row(_LAYER + "ls1", "layer#/scale1"),
  Row(_LAYER + "ls2", "layer#/scale2"),
)
INTERNVIT_HF = (
  Row("embeddings.cls_token", "class_embedding"),
  *_affine("embeddings.patch_embeddings.projection", "patch_embedding", CONV),
  Row("embeddings.position_embeddings", "position_embedding", FIRST),
  *_block(
    "encoder.layer.#.",
    ("layernorm_before", "layernorm_after"),
    tuple(f"attention.{n}_proj" for n in "qkv"),
    "attention.projection_layer",
    ("mlp.fc1", "mlp.fc2"),
  ),
  Row("encoder.layer.#.lambda_1", "layer#/scale1"),
  Row("encoder.layer.#.lambda_2", "layer#/scale2"),
)


def _sam(patch, layer, norms, mlp, neck):
  """SAM's image encoder; `neck`: names of conv, norm, conv, norm."""
  return (
    Row("pos_embed", "position_embedding", FIRST),
    *_affine(patch, "patch_embedding", CONV),
    *_block(layer, norms, ("attn.q", "attn.k", "attn.v"), "attn.proj", mlp),
    Row(layer + "attn.rel_pos_h", "layer#/attention/rows"),
    Row(layer + "attn.rel_pos_w", "layer#/attention/columns"),
    Row(f"{neck[0]}.weight", "neck/conv1/kernel", POINT),
    *_affine(neck[1], "neck/norm1", KEEP),
    Row(f"{neck[2]}.weight", "neck/conv2/kernel", CONV),
    *_affine(neck[3], "neck/norm2", KEEP),
  )


SAM_HF = _sam(
  "patch_embed.projection",
  "layers.#.",
  ("layer_norm1", "layer_norm2"),
  ("mlp.lin1", "mlp.lin2"),
  ("neck.conv1", "neck.layer_norm1", "neck.conv2", "neck.layer_norm2"),
)
_NECK = tuple(f"neck.{i}" for i in range(4))
SAM_META = _sam(
  "patch_embed.proj", "blocks.#.", ("norm1", "norm2"), ("mlp.lin1", "mlp.lin2"), _NECK
)
SAM_TIMM = _sam("patch_embed.proj", "blocks.#.", ("norm1", "norm2"), ("mlp.fc1", "mlp.fc2"), _NECK)


def _hiera(mlp):
  return (
    Row("pos_embed", "position_embedding", MAP),
    Row("pos_embed_window", "window_embedding", MAP),
    *_affine("patch_embed.proj", "patch_embedding", CONV),
    *_block("blocks.#.", ("norm1", "norm2"), ("attn.q", "attn.k", "attn.v"), "attn.proj", mlp),
    *_affine("blocks.#.proj", "layer#/shortcut"),
    Row("head.norm.weight", None),
    Row("head.norm.bias", None),
  )


def _siglip_sources(written):
  prefixes = (r"(?:model\.)?(?:vision_model\.)+", "")
  return tuple(Source(p, SIGLIP, _SIGLIP_PACKED, r"head\..*", written) for p in prefixes)


_NECK_OPTIONAL = r"neck\..*"
# Encoder -> its namings; the first one is written when tensors are exported.
SOURCES = {
  "smolvlm_tower": _siglip_sources("model.vision_model."),
  "siglip_so400m": _siglip_sources("vision_model."),
  "smolvlm": (Source(r"(?:model\.)?", SMOLVLM, written="model."),),
  "internvit_300m": (
    *(
      Source(p, INTERNVIT, _packed_at(_LAYER), written="vision_model.")
      for p in (r"(?:model\.)?vision_model\.", "")
    ),
    *(
      Source(p, INTERNVIT_HF, written="vision_tower.") for p in (r"(?:model\.)?vision_tower\.", "")
    ),
  ),
  "sam_vit_b": (
    *(
      Source(p, SAM_HF, _packed_at("layers.#."), _NECK_OPTIONAL, "vision_encoder.")
      for p in (r"(?:model\.)?vision_encoder\.", "")
    ),
    Source(r"image_encoder\.", SAM_META, _packed_at("blocks.#."), _NECK_OPTIONAL),
    *(
      Source(p, table, _packed_at("blocks.#."), _NECK_OPTIONAL)
      for p in ("", r"image_encoder\.")
      for table in (SAM_TIMM, SAM_META)
    ),
  ),
  "sam2_hiera_tiny": tuple(
    Source(p, _hiera(mlp), _packed_at("blocks.#."))
    for p in ("", r"(?:image_encoder\.)?trunk\.")
    for mlp in (("mlp.fc1", "mlp.fc2"), ("mlp.layers.0", "mlp.layers.1"))
  ),
}
