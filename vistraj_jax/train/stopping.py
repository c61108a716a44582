"""Early stopping: a few numbers, saved with the checkpoint."""

import dataclasses
import math


@dataclasses.dataclass
class Stopping:
  """Watches a value that should fall.

  Attributes:
    patience: evaluations without a strict improvement before stopping; 0 means never stop.
    best: lowest value so far.
    best_step: step of `best`.
    bad: evaluations since then.
  """

  patience: int
  best: float = math.inf
  best_step: int = -1
  bad: int = 0

  def update(self, value, step):
    """Takes one evaluation; returns whether it is the best so far."""
    if value < self.best:
      self.best, self.best_step, self.bad = float(value), int(step), 0
      return True
    self.bad += 1
    return False

  @property
  def stop(self):
    """Whether patience has run out."""
    return 0 < self.patience <= self.bad

  def numbers(self):
    """What a checkpoint stores."""
    return {"best": self.best, "best_step": self.best_step, "bad": self.bad}

  def restore(self, numbers):
    """Takes what a checkpoint stored."""
    self.best, self.best_step, self.bad = (numbers[k] for k in ("best", "best_step", "bad"))
