"""What a Task is: network, losses and metrics of one system, without loop or optimizer."""

import importlib
from typing import ClassVar, Protocol

from vistraj_jax.core import checks

# Name in config.task -> "module:class", imported on use.
TASKS = {
  "magvit": "vistraj_jax.tasks.magvit:FutureVideoTask",
  "magvit_tokenizer": "vistraj_jax.tasks.magvit_tokenizer:VideoTokenizerTask",
  "trackssm": "vistraj_jax.tasks.trackssm:TrackSSMTask",
  "two_stream": "vistraj_jax.tasks.two_stream:TwoStreamTask",
  "vlm_waypoint": "vistraj_jax.tasks.vlm_waypoint:VLMWaypointTask",
  "xmem": "vistraj_jax.tasks.xmem:XMemTask",
}


class Task(Protocol):
  """The plug of a system; `variables` are Linen collections, plus "ema" where training has it.

  Attributes:
    SUMMARY: (title, metric name) pairs that launch.train prints of every phase's best evaluation.
    NOT_IN_SHAPES: settings of config.model that weights have to share, though they fit without.
  """

  SUMMARY: ClassVar = (("loss/val", "loss/val"),)
  NOT_IN_SHAPES: ClassVar = ()

  def fixed(self):
    """-> tree of arrays that are read, never trained or saved; steps see variables["fixed"]."""
    return {}

  def for_phase(self, name):
    """-> the task of the phase `name`, for systems whose phases have different losses."""
    del name
    return self

  def check_start(self, metrics):
    """Raises InputError if what a phase starts from, evaluated as `metrics` say, is no use."""
    del metrics

  def init(self, rng):
    """rng -> variables: {"params": ..., other collections}."""

  def losses(self, variables, batch, rng, *, train):
    """Terms of the training loss on one batch.

    Args:
      variables: Linen collections.
      batch: the pipeline's arrays [B, ...] with "mask" [B] and "position" int32 [B], the row in
        the global batch (fold it into `rng` for random numbers that no device layout changes).
      rng: key of this step.
      train: whether augmentation, dropout and batch statistics are active.

    Returns:
      {name: (weight, Mean)} and the new values of the collections other than params.
    """

  def metrics(self, variables, batch):
    """-> {name: Mean} of one evaluation batch, baselines included."""


def make(config, data_set=None):
  """Returns the Task that `config.task` names.

  Args:
    config: the whole configuration.
    data_set: {split: what `examples.about()` says}, for tasks that depend on the data's statistics.
  """
  return task_class(config.task)(config, data_set)


def task_class(task):
  """Returns the class that `config.task` names."""
  module, name = TASKS[checks.choice("config.task", task, TASKS)].split(":")
  return getattr(importlib.import_module(module), name)
