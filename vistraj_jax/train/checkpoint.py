"""Checkpoints of a phase: `latest` resumes a run exactly, `best` holds the weights to use.

`<workdir>/<phase>/latest/<step>`: train state, data position, early-stopping numbers.
`<workdir>/<phase>/best/<step>`: parameters, other collections and the moving average.
Both are Orbax and appear by rename; every process takes part in saving.
"""

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from vistraj_jax.core import checks, rules, trained, weights

_FOLDERS = ("latest", "best")


class Checkpoints:
  """Saves and restores one phase below `folder`."""

  def __init__(self, folder):
    folder = pathlib.Path(folder).absolute()
    # Saved in the foreground: the barriers of two background savers block several processes.
    options = ocp.CheckpointManagerOptions(
      max_to_keep=1, create=True, cleanup_tmp_directories=True, enable_async_checkpointing=False
    )
    self._latest, self._best = (
      ocp.CheckpointManager(folder / name, options=options) for name in _FOLDERS
    )

  @property
  def latest_step(self):
    """Step of the newest complete checkpoint, or None."""
    return self._latest.latest_step()

  def save_latest(self, state, data_state, numbers):
    """Saves what resuming needs: state, the data iterator's state (bytes or JSON), and numbers."""
    step = int(np.max(state.step))
    if step == self.latest_step:
      return
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state), run=ocp.args.JsonSave({"data": data_state, **numbers})
    )
    self._latest.save(step, args=args)

  def save_best(self, state):
    """Saves the weights of the best evaluation so far."""
    step = int(np.max(state.step))
    if step == self._best.latest_step():  # a resumed run comes by here a second time
      return
    for other in self._best.all_steps():  # left by a run that was stopped before its checkpoint
      if other > step:
        self._best.delete(other)
    kept = {**state.collections, "params": state.params}
    if state.ema is not None:
      kept["ema"] = state.ema
    self._best.save(step, args=ocp.args.StandardSave(kept))

  def restore_latest(self, like):
    """Returns (state laid out as `like`, data state, numbers) of the newest checkpoint."""
    restored = self._latest.restore(
      self.latest_step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(_abstract(like)), run=ocp.args.JsonRestore()
      ),
    )
    run = dict(restored.run)
    return restored.state, run.pop("data"), run

  def wait(self):
    """Blocks until everything saved is on disk."""
    self._latest.wait_until_finished()
    self._best.wait_until_finished()

  def close(self):
    """Waits and frees the managers."""
    self.wait()
    self._latest.close()
    self._best.close()


def load_variables(path, like, skip=(), settings=None):
  """Returns the variables of a weights file or a phase folder, checked against `like`.

  Batch statistics are taken over where the file has them under the same name and shape.

  Args:
    path: as `core.trained.load` takes it.
    like: variables of the network: "params" and other collections.
    skip: patterns of parameter names that keep their value of `like` on purpose.
    settings: {name in config.model: value} that the file's network, where it says, has to share.

  Raises:
    InputError: another setting; or missing, extra and misshapen parameters, which it lists.
  """
  variables, model = trained.load_variables(path)
  for name, value in (settings or {}).items():
    checks.require(
      model.get(name, value) == value,
      f"{path}: made with {name}={model.get(name)}, but config.model.{name} is {value}; set "
      f"--config.model.{name}={model.get(name)}.",
    )
  found, wanted = weights.flatten(variables["params"]), weights.flatten(like["params"])
  table = [*((pattern, True) for pattern in skip), (".*", False)]
  skipped = weights.flatten(rules.match(table, like["params"], "config.init.skip"))
  found |= {name: wanted[name] for name, skip_it in skipped.items() if skip_it}
  missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
  misshapen = [
    f"{n} {found[n].shape} instead of {wanted[n].shape}"
    for n in sorted(wanted.keys() & found.keys())
    if found[n].shape != wanted[n].shape
  ]
  if missing or extra or misshapen:
    raise checks.InputError(
      f"{path}: does not fit the network of config.model: missing {_short(missing)}, extra "
      f"{_short(extra)}, misshapen {_short(misshapen)}; change config.model or config.init."
    )
  params = weights.unflatten({name: found[name] for name in wanted})
  return {**like, "params": params, **_statistics(variables, like)}


def _statistics(variables, like):
  """Returns {"batch_stats": tree of `like` with what `variables` knows}, or {}."""
  if trained.STATISTICS not in like:
    return {}
  found, wanted = (weights.flatten(tree.get(trained.STATISTICS, {})) for tree in (variables, like))
  for name in found.keys() & wanted.keys():
    if found[name].shape == wanted[name].shape:
      wanted[name] = found[name]
  return {trained.STATISTICS: weights.unflatten(wanted)}


def _short(names):
  return f"{names[:3]} and {len(names) - 3} more" if len(names) > 3 else str(names)


def _abstract(tree):
  return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
