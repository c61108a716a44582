"""LoRA adapters in the public format <-> our low-rank trees.

A folder holds `adapter_config.json` (r, lora_alpha, target_modules, ...) and
`adapter_model.safetensors` with `base_model.model.<module>.lora_A.weight` (r, in) and
`.lora_B.weight` (out, r), where <module> is a layer's name in the published encoder.
"""

import json
import math
import pathlib
import re

import numpy as np
import safetensors.numpy

from vistraj_jax.convert import apply, encoders, safetensors_file
from vistraj_jax.core import checks, files, weights

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")


def load_adapter(folder, encoder_name, want, rank=None):
  """Reads an adapter.

  Args:
    folder: with the two files.
    encoder_name: a key of `encoders.SOURCES`.
    want: {"/"-joined parameter name: shape} of the encoder, its `shapes()`.
    rank: the rank that is asked for; None takes any.

  Returns:
    (lora, settings): the tree of `nn.lora` in float32, and {"rank", "alpha", "dropout"}.

  Raises:
    InputError: missing or damaged files, another rank, a kind of adapter that is not plain LoRA, or
      tensors that do not fit the encoder.
  """
  folder = pathlib.Path(folder)
  config = _config(folder)
  found = config["r"]
  checks.require(
    rank is None or rank == found,
    f"{folder}: an adapter of rank {found}, wanted is rank {rank}; set the rank to {found} or give "
    "an adapter of the rank.",
  )
  pairs = _pairs(folder / TENSORS, found)
  source, part = encoders.choose(encoder_name, [f"{n}.weight" for n in pairs], str(folder))
  blank = {name: np.broadcast_to(np.float32(0), shape) for name, shape in want.items()}
  names = dict(zip(apply.to_source(source.table, blank, want, str(folder)), want, strict=True))
  strange = sorted(set(pairs) - {full.removesuffix(".weight") for full in part.values()})
  tree = {}
  for name, full in part.items():
    a, b = pairs[full.removesuffix(".weight")]
    for piece, rows in source.unpack({name: b}).items():
      target = names.get(piece)
      if target is None:
        strange.append(full)
        continue
      checks.require(
        want[target] == (a.shape[1], len(rows)),
        f"{folder}: the adapter of {full!r} is for a matrix of {(a.shape[1], len(rows))}, the "
        f"encoder's is {want[target]}; it was trained with another encoder.",
      )
      path = target.removesuffix("/kernel")
      tree[f"{path}/a"] = np.ascontiguousarray(a.T, np.float32)
      tree[f"{path}/b"] = np.ascontiguousarray(rows.T, np.float32)
  checks.require(
    not strange,
    f"{folder}: adapts {len(strange)} modules that encoder {encoder_name!r} does not have: "
    f"{strange[:4]}.",
  )
  scale = math.sqrt(found) if config.get("use_rslora") else 1.0  # there: alpha / sqrt(rank)
  settings = {
    "rank": found,
    "alpha": scale * config["lora_alpha"],
    "dropout": config.get("lora_dropout", 0.0),
  }
  return weights.unflatten(tree), settings


def save_adapter(folder, lora, alpha, encoder_name, want, dropout=0.05, base_model=""):
  """Writes an adapter folder, atomically; the inverse of `load_adapter`.

  Args:
    folder: to write, replaced as a whole.
    lora: tree of `nn.lora`.
    alpha: its scale.
    encoder_name, want: as in `load_adapter`.
    dropout: recorded for whoever trains on.
    base_model: recorded name of the encoder's weights.

  Raises:
    InputError: a tree that does not fit the encoder, or an encoder whose published layers pack
      queries, keys and values, which single adapters cannot express.
  """
  flat = weights.flatten(lora)
  source, names = _written_names(encoder_name, want)
  tensors, ranks = {}, set()
  for path in sorted({name.rpartition("/")[0] for name in flat}):
    a, b = flat.get(f"{path}/a"), flat.get(f"{path}/b")
    shape = want.get(f"{path}/kernel")
    checks.require(
      a is not None and b is not None and shape == (len(a), b.shape[1]),
      f"LoRA weights of {path!r} do not fit encoder {encoder_name!r} (kernel {shape}).",
    )
    ranks.add(a.shape[1])
    module = source.written.removeprefix("model.") + names[f"{path}/kernel"].removesuffix(".weight")
    tensors[f"base_model.model.{module}.lora_A.weight"] = np.ascontiguousarray(a.T)
    tensors[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(b.T)
  checks.require(len(ranks) == 1, f"LoRA weights of ranks {sorted(ranks)}; an adapter has one.")
  modules = [_TENSOR.fullmatch(name)[1] for name in tensors]
  layers = sorted({int(m[1]) for n in modules if (m := re.search(r"\.layers?\.(\d+)\.", n))})
  config = {
    "peft_type": "LORA",
    "r": ranks.pop(),
    "lora_alpha": alpha,
    "lora_dropout": dropout,
    "target_modules": sorted({name.rpartition(".")[2] for name in modules}),
    "layers_to_transform": layers,
    "bias": "none",
    "base_model_name_or_path": base_model,
  }
  with files.atomic_folder(folder) as temporary:
    safetensors.numpy.save_file(tensors, temporary / TENSORS, metadata={"format": "pt"})
    files.write_text(temporary / CONFIG, json.dumps(config, indent=2) + "\n")


def _config(folder):
  for name in (CONFIG, TENSORS):
    checks.require((folder / name).is_file(), f"{folder}: no adapter folder, it lacks {name}.")
  try:
    config = json.loads((folder / CONFIG).read_text())
    known = isinstance(config["r"], int) and config["lora_alpha"] is not None
  except (ValueError, KeyError, TypeError):
    known = False
  checks.require(known, f"{folder / CONFIG}: is no JSON with 'r' and 'lora_alpha'.")
  plain = {"peft_type": "LORA", "bias": "none", "use_dora": False}
  for key, value in plain.items():
    checks.require(
      config.get(key, value) == value,
      f"{folder / CONFIG}: {key} is {config.get(key)!r}; only plain LoRA ({value!r}) is read.",
    )
  for key in ("rank_pattern", "alpha_pattern"):
    checks.require(
      not config.get(key), f"{folder / CONFIG}: {key} is set; one rank for all layers is read."
    )
  return config


def _pairs(path, rank):
  """Returns {module: (A (r, in), B (out, r))}."""
  found = {}
  for name, entry in safetensors_file.entries(path).items():
    match = _TENSOR.fullmatch(name)
    checks.require(
      match, f"{path}: {name!r} is no LoRA tensor (base_model.model.<module>.lora_A.weight)."
    )
    found.setdefault(match[1], {})[match[2]] = entry.read()
  checks.require(found, f"{path}: holds no tensor.")
  for module, pair in found.items():
    checks.require(set(pair) == {"A", "B"}, f"{path}: {module} has only lora_{''.join(pair)}.")
    a, b = pair["A"], pair["B"]
    checks.require(
      a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] == rank,
      f"{path}: {module} has A {a.shape} and B {b.shape} where {CONFIG} says rank {rank}.",
    )
  return {module: (pair["A"], pair["B"]) for module, pair in found.items()}


def _written_names(encoder_name, want):
  """Returns the first naming with single queries, keys and values, and {tree name: its name}."""
  blank = {name: np.broadcast_to(np.float32(0), shape) for name, shape in want.items()}
  for source in encoders.SOURCES[encoder_name]:
    names = apply.to_source(source.table, blank, want, encoder_name)
    if not source.packs(names):
      return source, dict(zip(want, names, strict=True))
  raise checks.InputError(
    f"encoder {encoder_name!r}: its published layers pack queries, keys and values in one matrix, "
    "which single adapters cannot express; merge the adapter into the weights instead."
  )
