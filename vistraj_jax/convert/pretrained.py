"""Published weights -> parameters of an encoder: from a file, a folder, or a hub repository.

Only the tensors of the encoder are read, by byte range; the rest of a vision-language model stays
on disk. The network is asked only where a hub repository is named and no such folder exists.
"""

import hashlib
import json
import pathlib
import re

import numpy as np

from vistraj_jax.convert import apply, encoders, read_torch, safetensors_file
from vistraj_jax.core import checks, weights

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_STATE_KEYS = ("model", "state_dict")
_REPOSITORY = r"[A-Za-z0-9][\w.-]*/[\w.-]+"


def load_pretrained(repo_or_directory, encoder_name, want, sha256=None, dtype=np.float32):
  """Reads the parameters of one encoder.

  Args:
    repo_or_directory: a folder with `model.safetensors`, or with `model.safetensors.index.json`
      and its shards; a `.safetensors` or PyTorch (`.pt`, `.pth`, `.bin`) file; or the name of a
      hub repository ("owner/name"), whose files are downloaded into huggingface_hub's cache.
    encoder_name: a key of `encoders.SOURCES`.
    want: {"/"-joined parameter name: shape}, the encoder's `shapes()`.
    sha256: what `fingerprint` of the files must be; None does not check.
    dtype: of the parameters.

  Returns:
    Nested dict of arrays.

  Raises:
    InputError: nothing there, a damaged file, another sha256, or any missing, unused or misshapen
      tensor (all are listed).
  """
  where = str(repo_or_directory)
  paths = files_of(repo_or_directory, encoder_name)
  if sha256 is not None:
    found = fingerprint(paths)
    checks.require(
      found == sha256.lower(),
      f"{where}: its sha256 is {found}, wanted {sha256.lower()}; these are other weights: download "
      "them again or correct the pin.",
    )
  tensors = {name: tensor for path in paths for name, tensor in _tensors(path).items()}
  return from_tensors(tensors, encoder_name, want, where, dtype)


def from_tensors(tensors, encoder_name, want, where, dtype=np.float32):
  """As `load_pretrained`, from {published name: array or `safetensors_file.Entry`}."""
  source, part = encoders.choose(encoder_name, tensors, where)
  wanted = apply.to_source(source.table, _blank(want), want, where)
  optional = re.compile(source.optional)
  # Once with shapes alone: it costs no reading to refuse a file.
  shapes = _blank({name: tensors[full].shape for name, full in part.items()})
  unpacked = source.unpack(shapes)
  kept = {n: x for n, x in unpacked.items() if n in wanted or not optional.fullmatch(n)}
  apply.to_tree(source.table, kept, want, where)
  needed = [name for name in part if wanted.keys() & source.unpack({name: shapes[name]}).keys()]
  arrays = source.unpack({name: _read(tensors[part[name]]) for name in needed})
  flat = apply.to_tree(source.table, arrays, want, where)
  return weights.unflatten({n: np.ascontiguousarray(array, dtype) for n, array in flat.items()})


def export(params, encoder_name, want, where="export"):
  """Returns {published name: array} of an encoder's parameters; the inverse of `load_pretrained`.

  Args:
    params: nested dict of arrays.
    encoder_name: a key of `encoders.SOURCES`; its first naming is written.
    want: as in `load_pretrained`.
    where: begins the error sentence.

  Raises:
    InputError: a tree that is not the encoder's.
  """
  source = encoders.SOURCES[encoder_name][0]
  tensors = apply.to_source(source.table, weights.flatten(params), want, where)
  return {source.written + name: array for name, array in source.pack(tensors).items()}


def files_of(repo_or_directory, encoder_name):
  """Returns the paths of the weights files that hold the encoder.

  Raises:
    InputError: nothing there, or an index without the encoder's tensors.
  """
  where = str(repo_or_directory)
  path = pathlib.Path(repo_or_directory)
  if path.is_file():
    return [path]
  if path.is_dir():
    get = lambda name: path / name if (path / name).is_file() else None  # noqa: E731
  else:
    checks.require(
      re.fullmatch(_REPOSITORY, where),
      f"{where}: there is no such file or folder, and it is no name of a hub repository "
      "(owner/name).",
    )
    get = lambda name: _download(where, name)  # noqa: E731
  if single := get(SINGLE):
    return [single]
  index = get(INDEX)
  checks.require(index, f"{where}: has neither {SINGLE} nor {INDEX}; give the weights file itself.")
  names = json.loads(index.read_text())["weight_map"]
  _, part = encoders.choose(encoder_name, names, f"{where}: {INDEX}")
  shards = sorted({names[full] for full in part.values()})
  paths = [get(shard) for shard in shards]
  missing = [shard for shard, found in zip(shards, paths, strict=True) if not found]
  checks.require(not missing, f"{where}: shards {missing} are missing; download them again.")
  return paths


def fingerprint(paths):
  """Returns a file's sha256; of several files, that of their sha256 in lines, by file name."""
  digests = []
  for path in sorted(pathlib.Path(p) for p in paths):
    with open(path, "rb") as f:
      digests.append(hashlib.file_digest(f, "sha256").hexdigest())
  if len(digests) == 1:
    return digests[0]
  return hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()


def _download(repository, name):
  """Returns the local path of one file of a hub repository, None if the repository lacks it."""
  import huggingface_hub
  from huggingface_hub import errors

  try:
    return pathlib.Path(huggingface_hub.hf_hub_download(repository, name))
  except (errors.EntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
    absent = isinstance(error, errors.EntryNotFoundError)
    if absent and not isinstance(error, errors.LocalEntryNotFoundError):
      return None
    raise checks.InputError(
      f"{repository}: there is no such local folder, and the hub gave no {name} "
      f"({type(error).__name__}); check the name and the network, or download it by hand and give "
      "the folder."
    ) from error


def _tensors(path):
  """Returns {name: Entry of a safetensors file, or array of a PyTorch file}."""
  if path.suffix == ".safetensors":
    return safetensors_file.entries(path)
  checkpoint = read_torch.read_checkpoint(path)
  state = next((checkpoint[k] for k in _STATE_KEYS if k in checkpoint), checkpoint)
  return {name: array for name, array in state.items() if isinstance(array, np.ndarray)}


def _read(tensor):
  return tensor.read() if isinstance(tensor, safetensors_file.Entry) else tensor


def _blank(shapes):
  """Returns {name: array of the shape that takes no memory}."""
  return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
