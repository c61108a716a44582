"""Errors of several predicted futures with probabilities, as the nuScenes challenge counts them.

Futures are [..., K, T, 2] in m, in any frame they share with the truth. Functions return one number
an agent and take NumPy and JAX arrays.
"""

COUNTS = (1, 5, 10)  # most probable futures of which the best counts
MISS = 2.0  # m
# Name -> smaller is better, unit.
NAMES = {
  **{f"{name}_{k}": "m" for k in COUNTS for name in ("min_ade", "min_fde")},
  **{f"miss_rate_{k}": "" for k in COUNTS},
  "brier_min_fde": "m",
  "mode_accuracy": "",
  "nll": "nats",
}


def errors(futures, truth, valid):
  """Mean, last and largest pointwise distance of every future.

  Args:
    futures: [..., K, T, 2], m.
    truth: [..., T, 2], m.
    valid: [..., T] of 0 and 1; other steps do not count, and the last is the last valid one.

  Returns:
    three arrays [..., K], m; 0 where no step is valid.
  """
  xp = futures.__array_namespace__()
  distance = xp.sqrt(xp.sum((futures - truth[..., None, :, :]) ** 2, axis=-1))
  valid = (valid > 0)[..., None, :]
  distance = xp.where(valid, distance, 0.0)
  count = xp.maximum(xp.sum(valid, axis=-1), 1)
  step = xp.where(valid, xp.arange(valid.shape[-1]), -1)
  last = valid & (step == xp.max(step, axis=-1, keepdims=True))
  final = xp.sum(xp.where(last, distance, 0.0), axis=-1)
  return xp.sum(distance, axis=-1) / count, final, xp.max(distance, axis=-1)


def best_of(values, probabilities):
  """Running minimum of values [..., K] over futures of falling probability [..., K]."""
  xp = values.__array_namespace__()
  order = xp.flip(xp.argsort(probabilities, axis=-1), axis=-1)
  ordered = xp.take_along_axis(values, order, axis=-1)
  columns = [xp.min(ordered[..., : k + 1], axis=-1) for k in range(ordered.shape[-1])]
  return xp.stack(columns, axis=-1)


def scores(futures, probabilities, truth, valid):
  """All scores of `NAMES`.

  With fewer than k futures, all of them count. A miss is a future one of whose points is `MISS` or
  more away. The Brier score and the accuracy ask what probability the best future got, best by
  final and by mean distance; "nll" is minus the logarithm of the latter's.

  Args:
    futures: [..., K, T, 2], m.
    probabilities: [..., K], sum 1.
    truth: [..., T, 2], m.
    valid: [..., T] of 0 and 1.

  Returns:
    {name: [...]}.
  """
  xp = futures.__array_namespace__()
  ade, fde, worst = errors(futures, truth, valid)
  missed = xp.where(worst >= MISS, 1.0, 0.0)
  found = {}
  for name, values in (("min_ade", ade), ("min_fde", fde), ("miss_rate", missed)):
    running = best_of(values, probabilities)
    for k in COUNTS:
      found[f"{name}_{k}"] = running[..., min(k, running.shape[-1]) - 1]
  of = lambda best: xp.take_along_axis(probabilities, best[..., None], axis=-1)[..., 0]  # noqa: E731
  best = xp.argmin(ade, axis=-1)
  found["brier_min_fde"] = xp.min(fde, axis=-1) + (1 - of(xp.argmin(fde, axis=-1))) ** 2
  found["mode_accuracy"] = xp.where(xp.argmax(probabilities, axis=-1) == best, 1.0, 0.0)
  found["nll"] = -xp.log(xp.maximum(of(best), 1e-12))
  return found
