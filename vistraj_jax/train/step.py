"""The train and evaluation steps: pure functions of state and batch.

`axis` is the mapped axis name under pmap and None under jit, where a sum over the batch is
already global. Both ways compute the same numbers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vistraj_jax.core import mean


class Fixed(NamedTuple):
  """Arrays that lie on the devices throughout a run: steps read them, checkpoints leave them out.

  Attributes:
    task: tree of `Task.fixed`; losses and metrics find it as variables["fixed"].
    examples: a whole split {name: array [N, ...]}; batches then hold only "row" int [B] and "mask",
      and the step gathers its examples. Empty where batches bring their own.
  """

  task: Any
  examples: Any


NOTHING_FIXED = Fixed({}, {})


def train_step(state, batch, fixed=NOTHING_FIXED, *, task, tx, labels, ema_decay=0.0, axis=None):
  """One optimizer step.

  Args:
    state: TrainState.
    batch: {name: array [B, ...]} of this device (all devices under jit), with "mask" [B].
    fixed: `Fixed`.
    task: see `tasks.base.Task`.
    tx: optax transformation over the whole parameter tree.
    labels: tree of group names; leaves labelled "frozen" are cut from the gradient.
    ema_decay: 0 for none.
    axis: name of the mapped axis under pmap.

  Returns:
    The new state, and {"loss/train", "loss/<term>/train", "grad_norm"} as float32 scalars; the
    norm is that of the trained gradients before clipping.
  """
  rng = jax.random.fold_in(state.rng, state.step)
  batch = _whole(batch, fixed, axis)

  def loss_of(params):
    params = jax.tree.map(
      lambda p, label: jax.lax.stop_gradient(p) if label == "frozen" else p, params, labels
    )
    variables = {**state.variables, "params": params, "fixed": fixed.task}
    terms, collections = task.losses(variables, batch, rng, train=True)
    # The count is summed over devices, the total is not: its gradients are, below.
    shares = {
      name: weight * term.total / _all_sum(term.count, axis)
      for name, (weight, term) in terms.items()
    }
    return sum(shares.values()), (shares, collections)

  (loss, (shares, collections)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
  loss, shares, grads = _all_sum((loss, shares, grads), axis)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema_decay:
    ema = jax.tree.map(lambda e, p: ema_decay * e + (1 - ema_decay) * p, ema, params)
  scalars = {f"loss/{name}/train": value for name, value in shares.items()}
  scalars |= {"loss/train": loss, "grad_norm": optax.tree.norm(grads)}
  state = state.replace(
    step=state.step + 1,
    params=params,
    collections={**state.collections, **collections},
    opt_state=opt_state,
    ema=ema,
  )
  return state, scalars


def train_steps(state, batches, fixed=NOTHING_FIXED, **kwargs):
  """Several steps in one program: every array of `batches` is [K, B, ...]; scalars come as [K]."""
  return jax.lax.scan(
    lambda state, batch: train_step(state, batch, fixed, **kwargs), state, batches
  )


def eval_step(variables, batch, fixed=NOTHING_FIXED, *, task, axis=None):
  """-> {name: Mean} of one batch, summed over devices."""
  metrics = task.metrics({**variables, "fixed": fixed.task}, _whole(batch, fixed, axis))
  return _all_sum({name: mean.Mean(*value) for name, value in metrics.items()}, axis)


def _all_sum(tree, axis):
  return tree if axis is None else jax.lax.psum(tree, axis)


def _whole(batch, fixed, axis):
  """Returns the batch with its examples and the "position" of its rows in the global batch."""
  if fixed.examples:
    examples = {name: array[batch["row"]] for name, array in fixed.examples.items()}
    batch = {**examples, "mask": batch["mask"]}
  rows = batch["mask"].shape[0]
  first = 0 if axis is None else jax.lax.axis_index(axis) * rows
  return {**batch, "position": first + jnp.arange(rows, dtype=jnp.int32)}
