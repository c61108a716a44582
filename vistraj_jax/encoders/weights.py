"""An encoder's parameters from wherever they lie, with a text that identifies them."""

import hashlib
import pathlib

import jax
import numpy as np

from vistraj_jax.convert import adapters, pretrained
from vistraj_jax.core import checks, trained, weights
from vistraj_jax.nn import lora as low_rank

RANDOM = "random:"


def load(encoder, name, checkpoint, sha256=None, adapter=None):
  """Returns (parameters, identity) of an encoder.

  Args:
    encoder: as `encoders.make` gives it.
    name: its name in the table.
    checkpoint: published weights as `pretrained.load_pretrained` takes them; a folder of
      launch.train whose run trained this encoder, or adapted it; or "random:<seed>".
    sha256: what published weights must have.
    adapter: folder of a LoRA adapter in the public format, merged into the weights; or None.

  Raises:
    InputError: no such weights, or weights of another encoder.
  """
  checks.require(
    checkpoint,
    "--checkpoint: name the encoder's weights: a folder, a file, a hub repository or a run; random "
    f"weights are made for '{RANDOM}0'.",
  )
  if checkpoint.startswith(RANDOM):
    seed = checkpoint.removeprefix(RANDOM)
    checks.require(seed.isdigit(), f"--checkpoint: {checkpoint!r}; give a whole number as seed.")
    params, identity = encoder.init(jax.random.PRNGKey(int(seed))), f"random-{seed}"
  elif is_run(checkpoint):
    params, identity = _of_run(encoder, name, checkpoint)
  else:
    params = pretrained.load_pretrained(checkpoint, name, encoder.shapes(), sha256)
    identity = pretrained.fingerprint(pretrained.files_of(checkpoint, name))
  if adapter is not None:
    lora, settings = adapters.load_adapter(adapter, name, encoder.shapes())
    params = low_rank.merge(params, lora, settings["alpha"])
    identity += f"+{pretrained.fingerprint([pathlib.Path(adapter) / adapters.TENSORS])}"
  return params, identity


def load_adapter(encoder, name, adapter, rank):
  """Returns (low-rank tree, alpha) of an adapter folder in the public format.

  Raises:
    InputError: no adapter, another rank, or one of another encoder.
  """
  lora, settings = adapters.load_adapter(adapter, name, encoder.shapes(), rank)
  return lora, settings["alpha"]


def is_run(checkpoint):
  """Returns whether a path is a folder of launch.train, or of one of its phases."""
  path = pathlib.Path(checkpoint)
  folders = (path, path.parent)
  return (
    path.is_dir()
    and any((f / "config.json").is_file() and not list(f.glob("*.safetensors")) for f in folders)
    and (trained.best_folder(path) is not None or (path / "config.json").is_file())
  )


def kernels_as(params, dtype):
  """Casts the matrices once; layers would otherwise cast them in every call."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: x.astype(dtype) if path[-1].key == "kernel" else x, params
  )


def _of_run(encoder, name, checkpoint):
  tree, model = trained.load(checkpoint)
  settings = model.get("encoder") or {}
  checks.require(
    settings.get("name") == name and ("encoder" in tree or "lora" in tree),
    f"--checkpoint: {checkpoint} is a run that trained no encoder {name!r}; give the weights its "
    "encoder had.",
  )
  if "encoder" in tree:
    params = tree["encoder"]
  else:
    base = settings["checkpoint"] or f"{RANDOM}{settings['seed']}"
    params, _ = load(encoder, name, base, settings["sha256"] or None)
    lora = model["lora"]
    params = low_rank.merge(params, tree["lora"], lora["alpha"] or 2 * lora["rank"])
  flat = weights.flatten(jax.tree.map(np.asarray, params))
  shapes = {n: array.shape for n, array in flat.items()}
  checks.require(
    shapes == encoder.shapes(),
    f"--checkpoint: {checkpoint} holds encoder {name!r} in other sizes; give the fields of its "
    "config (config.model.encoder.fields).",
  )
  digest = hashlib.sha256()
  for key in sorted(flat):
    digest.update(key.encode() + flat[key].tobytes())
  return params, digest.hexdigest()
