"""The train loop of all systems: phases in order, evaluation, checkpoints, exact resume.

Restoring, in this order: a phase whose newest checkpoint says "finished" is passed over; else its
newest checkpoint goes on; else it starts as its `start_from` says.
"""

import functools
import math
import pathlib
import signal
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.train import checkpoint, evaluate, optim, partition, phases, state, step, stopping
from vistraj_jax.train import log as log_lib


class Interrupted(Exception):
  """SIGTERM or Ctrl-C arrived; the state is saved and the same command goes on from it."""


class Data(NamedTuple):
  """What the loop reads.

  Attributes:
    num_examples: examples in the training split.
    loader: function (split, batch_size, train) -> iterable data set of this process's batches;
      `split` is "train" or "val", `batch_size` is over all processes. Iterators of a training
      loader offer get_state() and set_state(), as grain's do.
    resident: {split: {name: array [N, ...]}} of splits to keep whole on the devices; their batches
      hold "row" and "mask" only.
  """

  num_examples: int
  loader: Any
  resident: Any = {}


def run(config, workdir, *, task, data):
  """Trains all phases of `config` (or the one that config.run names).

  Args:
    config: see configs/.
    workdir: folder for checkpoints and logs.
    task: see `tasks.base.Task`.
    data: `Data`.

  Returns:
    {phase name: {"step": last step, "best_step": ..., metrics of the best evaluation}}.

  Raises:
    InputError: a wrong setting, a missing checkpoint, or a loss that is not finite.
    Interrupted: after saving, when the process was asked to stop.
  """
  workdir = pathlib.Path(workdir)
  every = phases.from_config(config, data.num_examples)
  chosen = [p.name for p in every]
  if config.run != "all":
    chosen = [checks.choice("config.run", config.run, chosen)]
  plan = partition.make(config.parallel, config.mesh, config.partition)
  shared = plan.put_fixed(task.fixed())
  fixed = {
    split: step.Fixed(shared, plan.put_fixed(data.resident.get(split, {})))
    for split in ("train", "val")
  }
  summary, before = {}, 0
  with _Signals() as signals:
    for i, phase in enumerate(every):
      if phase.name in chosen:
        previous = workdir / every[i - 1].name if i else None
        run_phase = _PhaseRun(
          config, workdir, phase, previous, task.for_phase(phase.name), data, plan, fixed, signals
        )
        summary[phase.name] = run_phase(before)
        before = summary[phase.name]["offset"] + summary[phase.name]["step"]
  return summary


class _PhaseRun:
  """One phase: its state, steps, checkpoints and stop rule."""

  def __init__(self, config, workdir, phase, previous, task, data, plan, fixed, signals):
    self.config, self.workdir, self.phase = config, workdir, phase
    self.previous, self.task, self.data = previous, task, data
    self.plan, self.fixed, self.signals = plan, fixed, signals

  def __call__(self, before):
    """Runs or resumes the phase; `before` is the number of steps of earlier phases."""
    phase, plan = self.phase, self.plan
    _check_batch(f"config.phases.{phase.name}.batch_size", phase.batch_size, plan)
    _check_batch("config.eval_batch_size", self.config.eval_batch_size, plan)
    stop = stopping.Stopping(phase.patience)
    self.numbers = {"offset": before, "step": 0, "finished": False, "best_metrics": {}}
    checkpoints = checkpoint.Checkpoints(self.workdir / phase.name)
    try:
      resumed = checkpoints.latest_step is not None
      fresh, tx = self._start(resumed)
      train_state = self.plan.put_state(fresh)
      data = iter(self.data.loader("train", phase.batch_size, True))
      if resumed:
        like = plan.to_saved(train_state)
        saved, data_state, numbers = checkpoints.restore_latest(like)
        train_state = plan.from_saved(saved)
        data.set_state(data_state)
        stop.restore(numbers)
        self.numbers = {name: numbers[name] for name in self.numbers}
      if not self.numbers["finished"]:
        self._compile(tx, fresh.params)
        about = [] if resumed else optim.describe(phase, fresh.params)
        self._log_and_train(about, train_state, data, stop, checkpoints)
    finally:
      checkpoints.close()
    kept = {name: self.numbers[name] for name in ("step", "offset")}
    return {**kept, "best_step": stop.best_step, **self.numbers["best_metrics"]}

  def _log_and_train(self, about, train_state, data, stop, checkpoints):
    numbers = self.numbers
    writer = jax.process_index() == 0
    self.log = log_lib.Log(self.workdir, writer, numbers["offset"] + numbers["step"])
    try:
      for line in about:
        self.log.say(line)
      self._train(train_state, data, stop, checkpoints)
    finally:
      self.log.close()

  def _start(self, resumed):
    """Returns the state before the first step (its values matter only if not resumed), and tx."""
    config, phase = self.config, self.phase
    rng = jax.random.PRNGKey(config.seed)
    variables = self.task.init(rng)
    tx = optim.build(phase, config.optimizer, variables["params"])
    if not resumed:
      source, skip = config.init.checkpoint, config.init.skip
      if phase.start_from == "best":
        where = f"config.phases.{phase.name}.start_from"
        checks.require(self.previous is not None, f"{where}: 'best' needs a phase before this one.")
        checks.require(
          (self.previous / "best").is_dir(),
          f"{where}: 'best' received, but {self.previous} has no checkpoint; train phase "
          f"{self.previous.name!r} first (config.run), in the same --workdir.",
        )
        source, skip = self.previous, ()
      if source:
        settings = {name: config.model[name] for name in self.task.NOT_IN_SHAPES}
        variables = checkpoint.load_variables(source, variables, skip, settings)
    # Phases draw different numbers, and the same ones when run alone.
    rng = jax.random.fold_in(rng, sum(map(ord, phase.name)))
    return state.create(variables, tx, rng, config.ema_decay), tx

  def _compile(self, tx, params):
    plan = self.plan
    labels = optim.labels_of(self.phase, params)
    kwargs = dict(task=self.task, tx=tx, labels=labels, axis=plan.axis)
    steps = functools.partial(step.train_steps, ema_decay=self.config.ema_decay, **kwargs)
    self.train_call = plan.compile(steps, donate=True)
    self.eval_call = plan.compile(functools.partial(step.eval_step, task=self.task, axis=plan.axis))

  def _train(self, train_state, data, stop, checkpoints):
    phase, plan, numbers = self.phase, self.plan, self.numbers
    done = numbers["step"]
    factor = jax.jit(optim.schedule(phase))

    def save(data_state):
      host = plan.to_saved(train_state)
      checkpoints.save_latest(host, data_state, {**numbers, **stop.numbers()})

    def judge(data_state):
      metrics = self._evaluate(train_state, done)
      if not done:
        self.task.check_start(metrics)
      if stop.update(metrics["loss/val"], done):
        numbers["best_metrics"] = metrics
        checkpoints.save_best(plan.to_saved(train_state))
      numbers["finished"] = stop.stop or done >= phase.num_steps
      save(data_state)

    if checkpoints.latest_step is None:
      judge(data.get_state())  # a phase that only gets worse keeps its start
    ahead = None
    with self.log.bar(phase.name, phase.num_steps, done) as bar:
      while not numbers["finished"]:
        batches, data_state = ahead or self._take(data)
        began = time.perf_counter()
        batches = plan.put_batch(batches, stacked=True)
        train_state, scalars = self.train_call(train_state, batches, self.fixed["train"])
        ahead = self._take(data)  # while the devices work
        scalars = plan.fetch(scalars)
        seconds = time.perf_counter() - began
        _check_finite(scalars, done, phase.name)
        done = numbers["step"] = done + phase.call_steps
        values = {name: float(np.mean(value)) for name, value in scalars.items()}
        scale = float(factor(done - 1))
        values |= {f"lr/{name}": peak * scale for name, peak in phase.learning_rates.items()}
        values["steps/s"] = phase.call_steps / seconds
        values["examples/s"] = phase.call_steps * phase.batch_size / seconds
        self._write(done, values)
        bar.update(phase.call_steps)
        bar.set_postfix(loss=f"{values['loss/train']:.4f}", best=f"{stop.best:.4f}")
        if done % phase.eval_steps == 0 or done >= phase.num_steps:
          judge(data_state)
        if not numbers["finished"] and _agreed(self.signals.received):
          save(data_state)
          checkpoints.wait()
          raise Interrupted(
            f"stopped at step {done} of phase {phase.name!r}; the state is saved in "
            f"{self.workdir}: the same command goes on from there."
          )
    if stop.stop:
      self.log.say(
        f"phase {phase.name}: stopped early at step {done}, {stop.bad} evaluations without "
        f"improvement; best loss/val {stop.best:.5f} at step {stop.best_step}"
      )

  def _take(self, data):
    """Returns the batches of one call, stacked [K, B, ...], and the data position after them."""
    batches = [next(data) for _ in range(self.phase.call_steps)]
    stacked = {name: np.stack([b[name] for b in batches]) for name in batches[0]}
    return stacked, data.get_state()

  def _evaluate(self, train_state, done):
    variables = train_state.variables
    if train_state.ema is not None:
      variables = {**variables, "params": train_state.ema}
    loader = self.data.loader("val", self.config.eval_batch_size, False)
    metrics = evaluate.evaluate(self.eval_call, variables, loader, self.plan, self.fixed["val"])
    if not math.isfinite(metrics["loss/val"]):
      raise checks.InputError(
        f"phase {self.phase.name!r}: loss/val is {metrics['loss/val']} after step {done}; lower "
        "the learning rate or look for damaged records."
      )
    self._write(done, metrics)
    shown = [f"{title} {metrics[name]:.4f}" for title, name in self.task.SUMMARY if name in metrics]
    self.log.say(f"phase {self.phase.name}, step {done}: {', '.join(shown)}")
    return metrics

  def _write(self, done, values):
    epoch = done / self.phase.steps_per_epoch
    self.log.scalars(self.numbers["offset"] + done, self.phase.name, epoch, values)


class _Signals:
  """Turns SIGTERM and the first Ctrl-C into a flag; a second Ctrl-C acts as usual."""

  def __enter__(self):
    self.received = False
    self._before = {s: signal.signal(s, self._take) for s in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *_):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _take(self, number, _):
    self.received = True
    signal.signal(number, self._before[number])


def _agreed(flag):
  """Whether any process was asked to stop: all must leave the loop at the same step."""
  if jax.process_count() == 1:
    return flag
  from jax.experimental import multihost_utils

  return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def _check_batch(where, size, plan):
  checks.require(
    size % plan.num_shards == 0 and size % jax.process_count() == 0,
    f"{where}: {size} received; it must be a multiple of the {plan.num_shards} devices that share "
    "a batch.",
  )


def _check_finite(scalars, done, phase):
  """Raises InputError at the first step of a call whose loss or gradient is not finite."""
  names = sorted(scalars, key=lambda name: (name == "loss/train", name))  # terms before their sum
  bad = np.stack([~np.isfinite(scalars[name]) for name in names])
  if bad.any():
    i = int(np.argmax(bad.any(0)))
    name = names[int(np.argmax(bad[:, i]))]
    raise checks.InputError(
      f"phase {phase!r}, step {done + i + 1}: {name} is {scalars[name][i]}; training stopped and "
      "the last good checkpoint is kept. Lower the learning rate or look for damaged records."
    )
