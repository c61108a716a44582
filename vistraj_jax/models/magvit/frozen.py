"""A finished tokenizer: the network that settings describe, its parameters, and their fingerprint.

The fingerprint goes into every file of codes: codes of one tokenizer mean nothing to another.
"""

import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks, trained, weights
from vistraj_jax.models.magvit.seed_tokenizer import SeedTokenizer
from vistraj_jax.models.magvit.tokenizer import VideoTokenizer

SYSTEM = "magvit_tokenizer"  # of its weights files
_FIELDS = {
  "magvit2": (VideoTokenizer, ("channels", "multipliers", "num_blocks", "bits", "groups")),
  "seed": (SeedTokenizer, ("num_codes", "latent_dim")),
}
_DTYPES = ("float32", "bfloat16")


class Frozen(NamedTuple):
  """A tokenizer to use, not to train.

  Attributes:
    tokenizer: `VideoTokenizer` or `SeedTokenizer`.
    params: its parameters, nested dict of NumPy arrays.
    config: its settings, without the compute dtype.
    fingerprint: 16 hexadecimal digits that change with any parameter or setting.
  """

  tokenizer: Any
  params: Any
  config: dict[str, Any]
  fingerprint: str


def make(config, dtype="float32"):
  """Returns the tokenizer that settings describe.

  Args:
    config: mapping with "kind" ("magvit2" or "seed") and the fields of the kind.
    dtype: "float32" or "bfloat16", of the computation.

  Raises:
    InputError: a setting that is not allowed.
  """
  kind, names = _FIELDS[checks.choice("config.model.kind", config["kind"], _FIELDS)]
  missing = [name for name in names if name not in config]
  checks.require(
    not missing,
    f"config.model.kind: {config['kind']!r} received without its settings {missing}, which come "
    "with the weights of a finished tokenizer only; give config.model.tokenizer.checkpoint.",
  )
  dtype = jnp.dtype(checks.choice("config.model.dtype", dtype, _DTYPES))
  return kind(**{name: config[name] for name in names}, dtype=dtype)


def load(path, dtype="float32"):
  """Reads a tokenizer.

  Args:
    path: weights file of `launch.convert magvit_tokenizer`, or the folder of a run of
      configs/magvit_tokenizer.py (its best weights).
    dtype: see `make`.

  Returns:
    `Frozen`.

  Raises:
    InputError: nothing there, another network, or any missing, extra or misshapen tensor.
  """
  params, config = trained.load(path)
  checks.require(
    config.get("kind") in _FIELDS,
    f"{path}: holds no video tokenizer (its settings are {sorted(config)[:6]}); give a weights "
    "file of `launch.convert magvit_tokenizer` or a run of configs/magvit_tokenizer.py.",
  )
  params = params.get("tokenizer", params)  # of a run, beside the discriminator's
  tokenizer = make(config, dtype)
  wanted = weights.flatten(shapes(tokenizer))
  found = weights.flatten(params)
  faults = [name for name in wanted if name not in found] + [n for n in found if n not in wanted]
  faults += [n for n in wanted if n in found and found[n].shape != tuple(wanted[n])]
  checks.require(
    not faults,
    f"{path}: {len(faults)} tensors are missing, extra or misshapen for its settings, first "
    f"{faults[:3]}; convert or train it again.",
  )
  config = {name: _plain(config[name]) for name in ("kind", *_FIELDS[config["kind"]][1])}
  return Frozen(tokenizer, params, config, fingerprint(params, config))


def shapes(tokenizer):
  """Returns the nested dict of the tokenizer's parameter shapes, as arrays; nothing is computed."""
  tree = jax.eval_shape(tokenizer.init, jax.random.PRNGKey(0))
  return jax.tree.map(lambda leaf: np.array(leaf.shape), tree)


def fingerprint(params, config):
  """Returns the first 16 hexadecimal digits of the sha256 of settings, names, shapes and values."""
  digest = hashlib.sha256(repr(sorted(config.items())).encode())
  for name, array in sorted(weights.flatten(params).items()):
    array = np.ascontiguousarray(array, np.float32)
    digest.update(f"{name} {array.shape}".encode())
    digest.update(array.data)
  return digest.hexdigest()[:16]


def as_input(tokenizer, video):
  """uint8 video [...] -> float32 in the tokenizer's `value_range`."""
  low, high = tokenizer.value_range
  return video.astype(jnp.float32) * ((high - low) / 255) + low


def _plain(value):
  return list(value) if isinstance(value, (list, tuple)) else value
