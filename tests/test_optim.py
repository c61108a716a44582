"""Schedules, groups, decay and stopping of a phase."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from vistraj_jax.core import checks
from vistraj_jax.train import optim, phases, stopping

PHASE = phases.Phase(
  name="full",
  groups=(("encoder/.*", "encoder"), (".*", "decoder")),
  learning_rates={"encoder": 1e-5, "decoder": 5e-5},
  num_steps=110,
  warmup_steps=10,
  final_fraction=0.01,
  patience=0,
  start_from="init",
  batch_size=4,
  steps_per_epoch=10,
  call_steps=1,
  eval_steps=10,
)
SETTINGS = ml_collections.ConfigDict(
  dict(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1, clip_norm=1.0, decay=((".*", True),))
)
PARAMS = {"encoder": {"kernel": jnp.ones(3)}, "decoder": {"kernel": jnp.ones(3)}}


def test_schedule():
  factor = optim.schedule(PHASE)
  np.testing.assert_allclose(factor(0), 0.0)
  np.testing.assert_allclose(factor(5), 0.5)
  np.testing.assert_allclose(factor(10), 1.0)
  np.testing.assert_allclose(factor(60), 0.505, rtol=1e-6)  # halfway down
  np.testing.assert_allclose([factor(110), factor(111), factor(500)], 0.01, rtol=1e-5)
  falling = [float(factor(i)) for i in range(10, 200)]
  assert all(a >= b for a, b in itertools.pairwise(falling))


def test_two_rates_are_visible_in_the_updates():
  phase = dataclasses.replace(PHASE, warmup_steps=0, final_fraction=1.0)
  settings = SETTINGS.copy_and_resolve_references()
  settings.weight_decay = 0.0
  tx = optim.build(phase, settings, PARAMS)
  updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
  ratio = updates["decoder"]["kernel"] / updates["encoder"]["kernel"]
  np.testing.assert_allclose(ratio, 5.0, rtol=1e-5)


def test_frozen_leaves_hold_no_moments_do_not_decay_and_do_not_clip():
  phase = dataclasses.replace(
    PHASE,
    groups=(("encoder/.*", "frozen"), (".*", "decoder")),
    learning_rates={"decoder": 1e-2},
    warmup_steps=0,
  )
  tx = optim.build(phase, SETTINGS, PARAMS)
  state = tx.init(PARAMS)
  moments = [leaf for leaf in jax.tree.leaves(state) if jnp.ndim(leaf) == 1]
  assert len(moments) == 2  # mu and nu of the decoder
  grads = {"encoder": {"kernel": jnp.zeros(3)}, "decoder": {"kernel": jnp.full(3, 0.1)}}
  updates, _ = tx.update(grads, state, PARAMS)
  np.testing.assert_array_equal(updates["encoder"]["kernel"], 0.0)
  new = optax.apply_updates(PARAMS, updates)
  np.testing.assert_array_equal(new["encoder"]["kernel"], PARAMS["encoder"]["kernel"])
  assert (new["decoder"]["kernel"] < 1).all()


def test_decay_table_is_obeyed():
  settings = SETTINGS.copy_and_resolve_references()
  settings.decay = (("encoder/.*", False), (".*", True))
  phase = dataclasses.replace(
    PHASE, warmup_steps=0, final_fraction=1.0, learning_rates={"encoder": 1.0, "decoder": 1.0}
  )
  tx = optim.build(phase, settings, PARAMS)
  zero = jax.tree.map(jnp.zeros_like, PARAMS)
  updates, _ = tx.update(zero, tx.init(PARAMS), PARAMS)
  np.testing.assert_array_equal(updates["encoder"]["kernel"], 0.0)
  np.testing.assert_allclose(updates["decoder"]["kernel"], -0.1, rtol=1e-6)


def _config(**changes):
  phase = dict(
    groups=((".*", "all"),),
    lr=dict(all=1e-3),
    start_from="init",
    batch_size=10,
    patience=3,
    final_fraction=0.1,
    epochs=2,
  )
  phase.update(changes)
  return ml_collections.ConfigDict(
    dict(phases=dict(first=phase), eval_every=dict(epochs=1), steps_per_call=4)
  )


def test_phase_from_config_rounds_to_whole_calls():
  (phase,) = phases.from_config(_config(), 105)
  assert (phase.steps_per_epoch, phase.call_steps) == (10, 4)
  assert (phase.num_steps, phase.eval_steps) == (20, 8)
  assert phase.warmup_steps == 0


@pytest.mark.parametrize(
  "changes, sentence",
  [
    (dict(lr=dict(decoder=1.0)), r"first.lr: rates for \['decoder'\] received, rates for \['all'"),
    (dict(start_from="worst"), r"first.start_from: 'worst' is not allowed"),
    (dict(batch_size=1000), r"first.batch_size: 1000 received, 1 to 105"),
    (dict(steps=3), r"give exactly one of \['steps', 'epochs', 'examples'\]"),
    (dict(epochs=0), "lasts 0 steps"),
  ],
)
def test_phase_errors(changes, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    phases.from_config(_config(**changes), 105)


def test_stopping_counts_strict_improvements():
  stop = stopping.Stopping(patience=2)
  assert [stop.update(v, i) for i, v in enumerate([3.0, 2.0, 2.0])] == [True, True, False]
  assert not stop.stop
  stop.update(2.5, 3)
  assert stop.stop and (stop.best, stop.best_step) == (2.0, 1)
  again = stopping.Stopping(patience=2)
  again.restore(stop.numbers())
  assert again == stop
  never = stopping.Stopping(patience=0)
  never.update(1.0, 0)
  never.update(2.0, 1)
  assert not never.stop
