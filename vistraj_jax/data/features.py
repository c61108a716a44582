"""Files of cached features: what an encoder said about every frame, pinned to how it was made.

A shard is a TFRecord file. Its first record is a header in JSON: encoder, checkpoint, preprocessing
and the rest of `Header`, plus the data type and shape of every field. Each further record is a
block of frames, a tf.train.Example whose fields are raw little-endian bytes, so that a split of
hundreds of thousands of frames is read at the speed of memory. Every shard repeats the header: a
folder in which two encoders have left files is refused, and so is one that was made otherwise than
a run asks for.
"""

import dataclasses
import json

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import example, records

NAME = "features"
BLOCK_BYTES = 4 * 2**20
_FORMAT = "frame features 1"


@dataclasses.dataclass(frozen=True)
class Header:
  """What features depend on. Text is compared as it is.

  Attributes:
    encoder: name in the table of encoders, with the fields that differ from its defaults.
    checkpoint: sha256 of the weights file, or "random-<seed>".
    preprocess: resize kernel, antialias, size, mean and std, as text.
    position_rule: how positions are assigned to patches ("exact", ...).
    pooling: "mean", "masked_mean", ...; "tokens" where patches are kept.
    layers: hidden states that were kept, as asked of the encoder; the order of axis 1.
    dtype: of the stored numbers, "bfloat16" or "float32".
    camera: name of the camera.
    images: what the encoder was given: "original", or how images were stored.
  """

  encoder: str
  checkpoint: str
  preprocess: str
  position_rule: str
  pooling: str
  layers: tuple
  dtype: str
  camera: str
  images: str

  def __post_init__(self):
    checks.choice("features: dtype", self.dtype, ("bfloat16", "float32"))
    object.__setattr__(self, "layers", tuple(int(layer) for layer in self.layers))


def write_features(folder, split, header, frames, *, index=0, count=1):
  """Writes one shard of features, atomically; returns the number of frames.

  A finished shard can be left alone when an interrupted encoding goes on: `shard_path` says where
  it lies.

  Args:
    folder: output folder.
    split: name of the split.
    header: `Header`.
    frames: iterable of {field: array [n, ...]}, all with the same fields: "features"
      [n, layers, C] (or "tokens" [n, N, C], of the only layer), converted to `header.dtype`;
      "name" (text [n]); and whatever else belongs to a frame, numbers or text.
    index, count: number of this shard and of all shards.

  Raises:
    InputError: no frame, a field changes its shape, "features" does not have the header's layers,
      or a value of it is not finite.
  """
  rows = 0

  def payloads():
    nonlocal rows
    fields = None
    for batch in frames:
      batch = {name: _stored(name, value, header) for name, value in batch.items()}
      found = {name: (_dtype_name(v.dtype), v.shape[1:]) for name, v in batch.items()}
      if fields is None:
        fields = found
        text = {"format": _FORMAT, **dataclasses.asdict(header), "fields": fields}
        yield json.dumps(text).encode()
      checks.require(
        found == fields,
        f"features: a batch has fields {found}, the first had {fields}; all must be alike.",
      )
      size = sum(v[:1].nbytes for v in batch.values())
      step = max(1, BLOCK_BYTES // size)
      for first in range(0, len(batch["name"]), step):
        block = {name: value[first : first + step].tobytes() for name, value in batch.items()}
        yield example.encode(block, dict.fromkeys(block, ("bytes", ())))
      rows += len(batch["name"])
    checks.require(rows > 0, f"features: shard {index} of {count} has no frame; use fewer shards.")

  records.write_records(shard_path(folder, split, index, count), payloads())
  return rows


def shard_path(folder, split, index, count):
  """Returns the file of one shard."""
  return records.shard_path(folder, NAME, split, index, count)


def header_of(path):
  """Returns the `Header` of one shard.

  Raises:
    InputError: a missing or damaged file, or one without header.
  """
  return _header(records.TFRecordSource([path]), path)[0]


def read_header(folder, split):
  """Returns the `Header` that all shards of a split share.

  Raises:
    InputError: missing or damaged files, a file without header, or shards made in different ways.
  """
  paths = records.find_shards(folder, NAME, split)
  found = [header_of(path) for path in paths]
  for path, header in zip(paths, found, strict=True):
    if header != found[0]:
      name = _difference(dataclasses.asdict(found[0]), dataclasses.asdict(header))[0]
      raise checks.InputError(
        f"{folder}: features of several kinds lie here: {paths[0].name} has {name} "
        f"{getattr(found[0], name)!r}, {path.name} has {getattr(header, name)!r}; encode each "
        "into a folder of its own."
      )
  return found[0]


def read_features(folder, split, want, layer=None):
  """Reads the features of a split into memory.

  Args:
    folder: folder that launch.encode wrote.
    split: name of the split.
    want: {attribute of `Header`: value} that the features must have been made with.
    layer: hidden state to keep of those in the header; None keeps all.

  Returns:
    (header, {field: array [R, ...]}); "features" is [R, C] where one layer is asked for, else
    [R, layers, C]; text fields are arrays of str.

  Raises:
    InputError: as `read_header`; features made otherwise than `want`; a layer that is not there.
  """
  header = read_header(folder, split)
  made = dataclasses.asdict(header)
  want = {k: tuple(v) if isinstance(v, list) else v for k, v in want.items()}
  different = _difference({**made, **want}, made)
  if different:
    text = "; ".join(f"{k} is {made.get(k)!r}, wanted {want[k]!r}" for k in different)
    raise checks.InputError(
      f"{folder}: these features were made otherwise: {text}; encode them again, or give the "
      "settings they were made with."
    )
  place = None
  if layer is not None:
    place = header.layers.index(
      checks.choice(f"{folder}: layer of the features", layer, header.layers)
    )
  parts = {}
  for path in records.find_shards(folder, NAME, split):
    source = records.TFRecordSource([path])
    fields = _header(source, path)[1]
    for i in range(1, len(source)):
      for name, value in _block(source[i], fields, f"{path}: record {i}").items():
        if name == "features" and place is not None:
          value = value[:, place].copy()
        parts.setdefault(name, []).append(value)
  checks.require(parts, f"{folder}: split {split!r} has no frame; encode it again.")
  columns = {name: np.concatenate(parts.pop(name)) for name in list(parts)}
  text = {name: np.char.decode(v) for name, v in columns.items() if v.dtype.kind == "S"}
  return header, {**columns, **text}


def _stored(name, value, header):
  """Returns a field as it is stored, checked."""
  value = np.asarray(value)
  if name in ("features", "tokens"):
    import ml_dtypes

    checks.require(
      np.isfinite(value.astype(np.float32)).all(),
      f"features: {name} of a batch are not finite; look at the weights and the data type.",
    )
    if name == "features":
      checks.shape("features", value, (None, len(header.layers), None))
    value = value.astype(ml_dtypes.bfloat16 if header.dtype == "bfloat16" else np.float32)
  elif value.dtype.kind in "UO":
    value = np.char.encode(value.astype(str))
  if value.dtype.kind == "S":  # one width in all batches
    value = value.astype("S64")
  return np.ascontiguousarray(value)


def _dtype_name(dtype):
  return dtype.name if dtype.kind != "S" else dtype.str


def _dtype(name):
  import ml_dtypes

  return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _header(source, path):
  """Returns (Header, {field: (dtype, shape)}) of one shard."""
  problem = f"{path}: holds no frame features; encode into this folder again."
  checks.require(len(source) > 0, problem)
  try:
    text = json.loads(source[0])
  except ValueError:
    raise checks.InputError(problem) from None
  checks.require(isinstance(text, dict) and text.pop("format", None) == _FORMAT, problem)
  fields = {name: (_dtype(dtype), tuple(shape)) for name, (dtype, shape) in text["fields"].items()}
  del text["fields"]
  return Header(**text), fields


def _block(payload, fields, where):
  """Returns {field: array [n, ...]} of one record."""
  block = example.decode(payload, dict.fromkeys(fields, ("bytes", ())), where)
  return {
    name: np.frombuffer(block[name], dtype).reshape(-1, *shape)
    for name, (dtype, shape) in fields.items()
  }


def _difference(first, second):
  """Names whose values differ, sorted as in `first`."""
  return [name for name in first if first[name] != second.get(name)]
