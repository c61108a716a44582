"""Optimizer of one phase: AdamW per group, one schedule, one clip over what is trained.

Frozen parameters get `set_to_zero`: they hold no moments, do not decay and do not count in the
gradient norm that is clipped.
"""

import numbers

import jax
import jax.numpy as jnp
import optax

from vistraj_jax.core import checks, rules


def schedule(phase):
  """Returns step -> factor in 0..1: linear warm-up, cosine to `final_fraction`, then constant."""

  def factor(step):
    step = jnp.asarray(step, jnp.float32)
    warm = step / max(phase.warmup_steps, 1)
    share = (step - phase.warmup_steps) / max(phase.num_steps - phase.warmup_steps, 1)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0, 1)))
    after = phase.final_fraction + (1 - phase.final_fraction) * cosine
    return jnp.where(step < phase.warmup_steps, warm, after)

  return factor


def build(phase, settings, params):
  """Returns the optax transformation of a phase.

  Args:
    phase: groups, learning rates and schedule.
    settings: config.optimizer: b1, b2, eps, clip_norm (0 = off), weight_decay (one for all, or
      {group: its own}) and `decay`, a first-match table parameter name -> whether it decays.
    params: parameter tree, for the names.

  Raises:
    InputError: a table that does not cover the parameters, or has a pattern nobody matches; a group
      without weight decay of its own.
  """
  labels = labels_of(phase, params)
  decays = rules.match(settings.decay, params, "config.optimizer.decay")
  factor = schedule(phase)

  def group(name, peak):
    return optax.chain(
      optax.scale_by_adam(settings.b1, settings.b2, settings.eps),
      # optax masks with None-free trees: the mask must have the form of the group's own tree.
      optax.add_decayed_weights(
        _weight_decay(settings.weight_decay, name), lambda p: _restrict(decays, p)
      ),
      optax.scale_by_learning_rate(lambda step: peak * factor(step)),
    )

  transforms = {name: group(name, peak) for name, peak in phase.learning_rates.items()}
  adam = optax.partition({**transforms, "frozen": optax.set_to_zero()}, labels)
  clip = optax.clip_by_global_norm(settings.clip_norm) if settings.clip_norm else optax.identity()
  # One clip over all trained groups: frozen gradients are zero here (see step.py).
  return optax.chain(clip, adam)


def labels_of(phase, params):
  """Returns a tree of group names in the form of `params`."""
  where = f"config.phases.{phase.name}.groups"
  labels = rules.match(phase.groups, params, where)
  unused = set(phase.learning_rates) - set(jax.tree.leaves(labels))
  checks.require(not unused, f"{where}: no parameter is in group {sorted(unused)}.")
  return labels


def describe(phase, params):
  """Returns one line a group: parameters and peak learning rate."""
  counts = {}
  for label, leaf in zip(
    jax.tree.leaves(labels_of(phase, params)), jax.tree.leaves(params), strict=True
  ):
    counts[label] = counts.get(label, 0) + leaf.size
  rate = lambda name: phase.learning_rates.get(name, 0.0)  # noqa: E731
  return [
    f"phase {phase.name}: group {name}: {count:,} parameters, peak learning rate {rate(name):g}"
    for name, count in sorted(counts.items())
  ]


def _weight_decay(setting, group):
  """Returns the weight decay of a group: a number for all groups, or {group: number}."""
  if isinstance(setting, numbers.Number):
    return setting
  checks.require(
    group in setting,
    f"config.optimizer.weight_decay: nothing for group {group!r}, {sorted(setting)} received; add "
    f"config.optimizer.weight_decay.{group}.",
  )
  return setting[group]


def _restrict(tree, like):
  """Returns `tree` with optax's MaskedNode wherever `like` has one."""
  return jax.tree.map(
    lambda a, b: a if isinstance(a, optax.MaskedNode) else b,
    like,
    tree,
    is_leaf=lambda x: isinstance(x, optax.MaskedNode),
  )
