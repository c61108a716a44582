"""Trained parameters from wherever they lie: a weights file, a run's folder or a phase's folder."""

import json
import pathlib

import numpy as np

from vistraj_jax.core import checks, weights

STATISTICS = "batch_stats"  # beside the parameters in a weights file of networks that have them


def load(path):
  """Reads parameters and the settings of their network, without batch statistics.

  Args and errors are those of `load_variables`.

  Returns:
    (params, model): nested dict of NumPy arrays, and the settings of the network (config.model).
  """
  variables, model = load_variables(path)
  return variables["params"], model


def load_variables(path):
  """Reads parameters, batch statistics and the settings of their network.

  Args:
    path: a `.safetensors` file of `core.weights`; a work directory of launch.train (its last
      phase that has weights is taken); or one phase's folder in it.

  Returns:
    (variables, model): {"params": ..., and "batch_stats": ... where the network has them}, nested
      dicts of NumPy arrays; and the settings of the network (config.model).

  Raises:
    InputError: nothing of the three is there.
  """
  path = pathlib.Path(path)
  if path.is_file():
    params, _, model = weights.load_weights(path)
    statistics = params.pop(STATISTICS, None)
    return {"params": params} | ({STATISTICS: statistics} if statistics else {}), model
  is_run = (path / "config.json").is_file()
  run = path if is_run else path.parent
  checks.require(
    (run / "config.json").is_file(),
    f"{path}: neither a weights file, nor the folder of a run or of one of its phases.",
  )
  config = json.loads((run / "config.json").read_text())
  phase = path
  if is_run:
    ready = [name for name in config["phases"] if best_folder(run / name) is not None]
    checks.require(ready, f"{run}: no phase has finished a checkpoint yet; train it first.")
    phase = run / ready[-1]
  return _best(phase), config["model"]


def run_config(path):
  """Returns config.json of a run's folder or of one of its phases' folders.

  Raises:
    InputError: it is neither.
  """
  path = pathlib.Path(path)
  for folder in (path, path.parent):
    if (folder / "config.json").is_file():
      return json.loads((folder / "config.json").read_text())
  raise checks.InputError(f"{path}: neither the folder of a run nor of one of its phases.")


def data_set(path):
  """Returns what launch.train recorded of a run's data, or {} where nothing is known."""
  path = pathlib.Path(path)
  for folder in (path, path.parent):
    if (folder / "data_set.json").is_file():
      return json.loads((folder / "data_set.json").read_text())
  return {}


def load_best(phase):
  """Returns the best parameters of a phase folder (the moving average where there is one).

  Raises:
    InputError: there is no finished checkpoint.
  """
  return _best(phase)["params"]


def best_folder(phase):
  """Returns the folder of a phase's best checkpoint, or None."""
  steps = [p for p in (pathlib.Path(phase) / "best").glob("*") if p.name.isdigit()]
  return max(steps, key=lambda p: int(p.name)).absolute() / "default" if steps else None


def _best(phase):
  import jax
  import orbax.checkpoint as ocp  # slow to import

  folder = best_folder(phase)
  checks.require(
    folder is not None,
    f"{phase}: no finished checkpoint; train this phase first, or name another folder.",
  )
  with ocp.PyTreeCheckpointer() as reader:
    form = reader.metadata(folder).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), form)
    best = reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))
  kept = {STATISTICS: best[STATISTICS]} if STATISTICS in best else {}
  return {"params": best.get("ema", best["params"]), **kept}
