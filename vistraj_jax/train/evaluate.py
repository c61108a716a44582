"""Evaluation over a whole split: sums over valid examples, never a mean of means."""

from vistraj_jax.core import mean


def evaluate(step, variables, loader, plan, fixed):
  """Returns {metric name: float} over all batches of all processes.

  Args:
    step: compiled evaluation step (variables, batch, fixed) -> {name: Mean}.
    variables: on devices, as the plan wants them.
    loader: one pass over the split; every process yields as many batches.
    plan: see partition.py.
    fixed: `step.Fixed`, on devices.
  """
  totals = {}
  for batch in loader:
    for name, value in plan.fetch(step(variables, plan.put_batch(batch), fixed)).items():
      # Python floats: totals of many batches stay exact to float64.
      value = mean.Mean(float(value.total), float(value.count))
      totals[name] = totals[name] + value if name in totals else value
  # A metric of examples that the split does not have is left out.
  return {name: total.value for name, total in totals.items() if total.count}
