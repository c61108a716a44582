"""Scores of predicted futures by run and class, beside simple motion, as dicts and as tables."""

import numpy as np

from vistraj_jax.metrics import agent_motion, bootstrap, prediction

ALL = "all"
REFERENCE = "constant_velocity"
COMPARED = "min_ade_5"
# Column title, score, format.
COLUMNS = (
  *((f"ADE_{k}" if k > 1 else "ADE", f"min_ade_{k}", "{:.3f}") for k in prediction.COUNTS),
  *((f"FDE_{k}" if k > 1 else "FDE", f"min_fde_{k}", "{:.3f}") for k in prediction.COUNTS),
  *((f"MR_{k} %", f"miss_rate_{k}", "{:.1%}") for k in prediction.COUNTS),
  ("Brier-FDE", "brier_min_fde", "{:.3f}"),
  ("mode acc. %", "mode_accuracy", "{:.1%}"),
  ("NLL", "nll", "{:.3f}"),
)


def score(runs):
  """Scores several runs on the same agents.

  Args:
    runs: {label: {name: array} of `data.forecasts`}, all with the same agents in the same order.

  Returns:
    {class: {"agents": number, "runs": {label or baseline: {score: mean}}}}, "all" first, classes
    by falling number; agents without a valid future step are left out.
  """
  first = next(iter(runs.values()))
  past, steps = np.asarray(first["past_xy"], np.float64), first["future_xy"].shape[1]
  per_agent = {}
  for name, goes_on in agent_motion.BASELINES.items():
    futures = goes_on(past, first["past_valid"], steps)[:, None]
    alone = {"futures": futures, "probabilities": np.ones(futures.shape[:2])}
    per_agent[name] = _of_agents({**first, **alone})
  per_agent |= {label: _of_agents(run) for label, run in runs.items()}
  counted = first["future_valid"].sum(-1) > 0
  category = np.asarray(first["category"])
  names, numbers = np.unique(category[counted], return_counts=True)
  groups = {ALL: counted}
  groups |= {str(names[i]): counted & (category == names[i]) for i in np.argsort(-numbers)}
  return {
    group: {
      "agents": int(chosen.sum()),
      "runs": {
        name: {key: float(values[chosen].mean()) for key, values in found.items()}
        for name, found in per_agent.items()
      },
    }
    for group, chosen in groups.items()
  }


def differences(runs):
  """How far the other runs are from the first in `COMPARED`, by a paired bootstrap over scenes.

  Args:
    runs: as of `score`.

  Returns:
    {label: `bootstrap.Difference` in m} of all runs but the first; negative is better than it.

  Raises:
    InputError: agents of a single scene.
  """
  (_, first), *others = runs.items()
  base = np.where(first["future_valid"].sum(-1) > 0, _of_agents(first)[COMPARED], np.nan)
  return {
    label: bootstrap.paired(base, _of_agents(run)[COMPARED], first["scene"])
    for label, run in others
  }


def table(scores):
  """Returns rows of strings [class, run, value, ...] for `metrics.report`, the header first."""
  rows = [["class", "run", *(title for title, _, _ in COLUMNS)]]
  for group, found in scores.items():
    title = f"{group} ({found['agents']:,})"
    for name, values in found["runs"].items():
      rows.append(
        [title, name, *(show.format(values[key]).rstrip("%") for _, key, show in COLUMNS)]
      )
  return rows


def warnings(scores):
  """Returns a sentence for every run that constant velocity beats, in all and by class."""
  found = []
  for group, result in scores.items():
    reference = result["runs"][REFERENCE]["min_ade_1"]
    for name, values in result["runs"].items():
      if name not in agent_motion.BASELINES and values["min_ade_1"] > reference:
        found.append(
          f"run {name!r} is worse than constant velocity on {group}: ADE {values['min_ade_1']:.3f} "
          f"m against {reference:.3f} m ({result['agents']:,} agents)."
        )
  return found


def _of_agents(run):
  """-> {score: one number an agent [R]}."""
  names = ("futures", "probabilities", "future_xy", "future_valid")
  return prediction.scores(*(np.asarray(run[name], np.float64) for name in names))
