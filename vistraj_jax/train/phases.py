"""Phases of a run: what is trained, for how long, at which rates, and where it starts."""

import dataclasses

from vistraj_jax.core import checks, steps

START = ("init", "best")


@dataclasses.dataclass(frozen=True)
class Phase:
  """One phase.

  Attributes:
    name: also the folder in the work directory.
    groups: first-match table parameter name -> group; the group "frozen" is not trained.
    learning_rates: {group: peak learning rate}.
    num_steps: optimizer steps, rounded up to whole calls.
    warmup_steps: steps of linear warm-up.
    final_fraction: learning rate at the end / peak.
    patience: evaluations without improvement of "loss/val" before stopping.
    start_from: "init" (config.init), or "best" of the phase before.
    batch_size: examples a step, over all devices.
    steps_per_epoch: whole batches in the training split.
    call_steps: steps in one compiled call; one value a phase, so one compilation.
    eval_steps: steps between evaluations, rounded to whole calls.
  """

  name: str
  groups: tuple
  learning_rates: dict
  num_steps: int
  warmup_steps: int
  final_fraction: float
  patience: int
  start_from: str
  batch_size: int
  steps_per_epoch: int
  call_steps: int
  eval_steps: int


def from_config(config, num_examples):
  """Returns the phases of `config.phases` in order.

  Args:
    config: the whole configuration; reads `phases`, `eval_every`, `steps_per_call`.
    num_examples: examples in the training split.

  Raises:
    InputError: naming the setting that is wrong.
  """
  checks.require(len(config.phases) > 0, "config.phases: empty; name at least one phase.")
  return [_phase(name, config, num_examples) for name in config.phases]


def _phase(name, config, num_examples):
  settings, where = config.phases[name], f"config.phases.{name}"
  batch_size = settings.batch_size
  checks.require(
    0 < batch_size <= num_examples,
    f"{where}.batch_size: {batch_size} received, 1 to {num_examples} (training examples) allowed.",
  )
  groups = tuple((pattern, group) for pattern, group in settings.groups)
  trained = {group for _, group in groups} - {"frozen"}
  rates = dict(settings.lr)
  checks.require(
    set(rates) == trained,
    f"{where}.lr: rates for {sorted(rates)} received, rates for {sorted(trained)} wanted (the "
    "groups that are not 'frozen').",
  )
  sizes = {"batch_size": batch_size, "num_examples": num_examples}
  num_steps = steps.duration(settings, "", where, **sizes)
  checks.require(num_steps > 0, f"{where}: lasts 0 steps; give it a longer duration.")
  eval_steps = max(1, steps.duration(config.eval_every, "", "config.eval_every", **sizes))
  call_steps = min(config.steps_per_call, eval_steps, num_steps)
  checks.require(
    call_steps > 0, f"config.steps_per_call: {config.steps_per_call} received, 1 or more wanted."
  )
  return Phase(
    name=name,
    groups=groups,
    learning_rates=rates,
    num_steps=-(-num_steps // call_steps) * call_steps,
    warmup_steps=steps.duration(settings, "warmup", where, default=0, **sizes),
    final_fraction=settings.final_fraction,
    patience=settings.patience,
    start_from=checks.choice(f"{where}.start_from", settings.start_from, START),
    batch_size=batch_size,
    steps_per_epoch=num_examples // batch_size,
    call_steps=call_steps,
    eval_steps=max(1, round(eval_steps / call_steps)) * call_steps,
  )
