"""Fits a small network to arrays that lie on the devices: an epoch is one compiled call.

For heads on features that are computed once, where reading batches would take longer than
learning. Every device holds all arrays and works on its share of the batch.
"""

import functools
import math
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
import optax
import tqdm
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vistraj_jax.core import checks


class Problem(Protocol):
  """What is learned. Equal problems share compiled programs: make it a frozen dataclass."""

  def loss(self, params, data, rows, key):
    """-> scalar, of some rows int [B] of `data`; `key` is random."""

  def outputs(self, params, held_out):
    """-> predictions for `held_out`."""

  def score(self, outputs, held_out):
    """-> scalar, lower is better."""


class AdamW(NamedTuple):
  """AdamW at a constant learning rate, or at one that falls to 0 as a cosine."""

  learning_rate: float
  weight_decay: float
  cosine: bool = False

  def transform(self, steps):
    """Returns the optax transformation for so many steps in all."""
    rate = self.learning_rate
    rate = optax.cosine_decay_schedule(rate, steps) if self.cosine else rate
    return optax.adamw(rate, weight_decay=self.weight_decay)


class Fitted(NamedTuple):
  """Outcome of `fit`.

  Attributes:
    params, outputs: after the last epoch; outputs are NumPy arrays of the held-out rows.
    best_outputs: of the epoch with the lowest score; its number is `best_epoch`, from 1.
    losses, scores: of all epochs.
  """

  params: Any
  outputs: Any
  best_outputs: Any
  best_epoch: int
  losses: list
  scores: list


def fit(problem, params, data, held_out, *, count, epochs, batch_size, optimizer, seed=0, label=""):
  """Minimises the loss of a problem over rows in random order.

  Args:
    problem: `Problem`.
    params: where to start.
    data, held_out: trees of arrays.
    count: rows of `data`; with fewer than `batch_size` all of them are a batch. Rows beyond the
      last whole batch of an epoch are left out of that epoch.
    epochs, batch_size: int.
    optimizer: `AdamW`.
    seed: of order and random keys.
    label: of the progress bar, shown for what takes long.

  Returns:
    `Fitted`.

  Raises:
    InputError: no row, or a loss that is not finite.
  """
  checks.require(count > 0, f"{label}: there is no row to learn from.")
  checks.require(epochs >= 1, f"--epochs: {epochs} received, 1 or more allowed.")
  checks.require(batch_size >= 1, f"--batch_size: {batch_size} received, 1 or more allowed.")
  batch_size = min(batch_size, count)
  shape = (count // batch_size, batch_size)
  whole, rows = _shardings(batch_size)
  params, data, held_out = jax.device_put((params, data, held_out), whole)
  run = functools.partial(
    _epoch,
    problem=problem,
    optimizer=optimizer,
    shape=shape,
    steps=shape[0] * epochs,
    count=count,
    rows=rows,
  )
  opt_state = jax.device_put(optimizer.transform(shape[0] * epochs).init(params), whole)
  losses, scores, outputs, best = [], [], None, None
  for epoch in tqdm.trange(1, epochs + 1, desc=label, unit="epoch", delay=10, leave=False):
    key = jax.random.fold_in(jax.random.PRNGKey(seed), epoch)
    params, opt_state, value = run(params, opt_state, data, key)
    outputs, score = _evaluate(params, held_out, problem=problem)
    losses.append(float(value))
    scores.append(float(score))
    checks.require(
      math.isfinite(losses[-1]),
      f"{label}: the loss of epoch {epoch} is {losses[-1]}; give a lower --lr.",
    )
    if scores[-1] <= min(scores):
      best = outputs
  last, best = jax.device_get((outputs, best))
  return Fitted(params, last, best, int(np.argmin(scores)) + 1, losses, scores)


@functools.partial(
  jax.jit,
  static_argnames=("problem", "optimizer", "shape", "steps", "count", "rows"),
  donate_argnames="opt_state",
)
def _epoch(params, opt_state, data, key, *, problem, optimizer, shape, steps, count, rows):
  transform = optimizer.transform(steps)
  order = jax.random.permutation(key, count)[: math.prod(shape)].reshape(shape)
  keys = jax.random.split(jax.random.fold_in(key, 1), shape[0])

  def step(state, inputs):
    params, opt_state = state
    chosen, key = inputs
    chosen = jax.lax.with_sharding_constraint(chosen, rows)
    value, grads = jax.value_and_grad(problem.loss)(params, data, chosen, key)
    updates, opt_state = transform.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), value

  (params, opt_state), values = jax.lax.scan(step, (params, opt_state), (order, keys))
  return params, opt_state, values.mean()


@functools.partial(jax.jit, static_argnames="problem")
def _evaluate(params, held_out, *, problem):
  outputs = problem.outputs(params, held_out)
  return outputs, problem.score(outputs, held_out)


def _shardings(batch_size):
  """Returns (a copy on every device, rows over the devices where they divide them)."""
  devices = jax.local_devices()
  mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
  divides = batch_size % len(devices) == 0
  return tuple(
    NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",) if divides else ())
  )
