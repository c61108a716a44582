"""Scores of predicted futures by run and class, beside simple motion, as dicts and as tables."""

import numpy as np

from vistraj_jax.metrics import agent_motion, prediction

ALL = "all"
REFERENCE = "constant_velocity"
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
  truth, valid = (np.asarray(first[name], np.float64) for name in ("future_xy", "future_valid"))
  past, steps = np.asarray(first["past_xy"], np.float64), truth.shape[1]
  answers = {
    name: goes_on(past, first["past_valid"], steps)[:, None]
    for name, goes_on in agent_motion.BASELINES.items()
  }
  pairs = {name: (xy, np.ones(xy.shape[:2])) for name, xy in answers.items()}
  for label, run in runs.items():
    pairs[label] = tuple(np.asarray(run[n], np.float64) for n in ("futures", "probabilities"))
  per_agent = {name: prediction.scores(*pair, truth, valid) for name, pair in pairs.items()}
  counted = valid.sum(-1) > 0
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
