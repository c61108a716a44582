"""Weights files: one parameter tree with the settings of its network, in safetensors.

Tensor names are the tree's names joined by "/"; the file's metadata holds `system` (which network)
and `config` (its fields, as JSON). Reading needs no knowledge of the network and executes nothing.
"""

import json
import math
import pathlib
import struct

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy, which safetensors looks up by name
import numpy as np
import safetensors
import safetensors.numpy

from vistraj_jax.core import checks, files


def save_weights(path, tree, system, config):
  """Writes a parameter tree to a `.safetensors` file, atomically.

  Args:
    path: where to write; must end in `.safetensors`.
    tree: nested dict whose leaves are arrays (numpy, or anything `numpy.asarray` takes).
    system: name of the network, for example "trackssm".
    config: dict of JSON values, the network's fields.

  Raises:
    InputError: another file ending, an empty tree, a name with "/", or a value JSON cannot hold.
  """
  path = _suffix_checked(path)
  tensors = flatten(tree)
  checks.require(tensors, f"{path}: the parameter tree is empty; there is nothing to save.")
  metadata = _metadata(path, system, config)
  with files.atomic_path(path) as temporary:
    safetensors.numpy.save_file(tensors, temporary, metadata=metadata)


def save_one_by_one(path, shapes, read, system, config):
  """As `save_weights`, with one tensor in memory at a time.

  Args:
    path: where to write; must end in `.safetensors`.
    shapes: {"/"-joined name: shape} of the whole tree.
    read: function of a name, gives its array, which is written as float32.
    system, config: see `save_weights`.

  Raises:
    InputError: as `save_weights`, or an array of another shape than was said.
  """
  path = _suffix_checked(path)
  header, end = {"__metadata__": _metadata(path, system, config)}, 0
  for name, shape in shapes.items():
    start, end = end, end + 4 * math.prod(shape)
    header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  with files.atomic_path(path) as temporary, open(temporary, "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    for name, shape in shapes.items():
      array = np.ascontiguousarray(read(name), "<f4")
      checks.shape(f"{path}: tensor {name!r}", array, shape)
      f.write(array.data)


def load_weights(path, system=None):
  """Reads a file of `save_weights`.

  Args:
    path: the `.safetensors` file.
    system: if given, the network the caller wants; another one in the file is an error.

  Returns:
    (tree, system, config): nested dict of numpy arrays, the network's name, its fields.

  Raises:
    InputError: naming the file, if it is missing, cut, not safetensors, without the metadata that
      `save_weights` writes, or of another system.
  """
  path = _suffix_checked(path)
  checks.require(path.is_file(), f"{path}: there is no such weights file.")
  try:
    with safetensors.safe_open(path, framework="numpy") as f:
      metadata = f.metadata() or {}
      tensors = {name: f.get_tensor(name) for name in f.keys()}
  except safetensors.SafetensorError as error:
    raise checks.InputError(
      f"{path}: not a whole safetensors file ({error}); copy or convert it again."
    ) from error
  checks.require(
    {"system", "config"} <= set(metadata),
    f"{path}: its metadata has {sorted(metadata)} where 'system' and 'config' are wanted; convert "
    "a foreign checkpoint with `python -m launch.convert`.",
  )
  found, config = metadata["system"], json.loads(metadata["config"])
  if system is not None and found != system:
    raise checks.InputError(f"{path}: holds weights of {found!r}, wanted are {system!r}.")
  return unflatten(tensors), found, config


def flatten(tree):
  """Returns {"/"-joined name: contiguous numpy array} of a nested dict, in the dict's order."""
  flat = {}
  for name, value in tree.items():
    checks.require("/" not in name, f"tree name {name!r}: '/' separates levels; rename this leaf.")
    if isinstance(value, dict):
      flat.update({f"{name}/{rest}": leaf for rest, leaf in flatten(value).items()})
    else:
      flat[name] = np.ascontiguousarray(value).reshape(np.shape(value))
  return flat


def unflatten(flat):
  """Returns the nested dict of {"/"-joined name: leaf}; the inverse of `flatten`."""
  tree = {}
  for name, leaf in flat.items():
    *parents, last = name.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def _metadata(path, system, config):
  try:
    return {"system": system, "config": json.dumps(config, sort_keys=True)}
  except TypeError as error:
    raise checks.InputError(
      f"{path}: the config of {system!r} is not plain JSON: {error}."
    ) from error


def _suffix_checked(path):
  path = pathlib.Path(path)
  checks.require(
    path.suffix == ".safetensors", f"{path}: a weights file ends in '.safetensors'; rename it."
  )
  return path
