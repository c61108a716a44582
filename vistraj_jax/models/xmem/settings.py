"""How XMem's memory works: sizes, intervals, read-out, gradients; checked when made."""

import dataclasses
import math

from vistraj_jax.core import checks

READS = ("dense", "gather")


@dataclasses.dataclass(frozen=True)
class MemorySettings:
  """Defaults are the published ones for video.

  Attributes:
    top_k: memory elements each query reads; None: all of them, as in training.
    mem_every: frames from one memory frame to the next.
    deep_update_every: frames from one deep update of the sensory memory to the next; -1: on every
      memory frame.
    long_term: whether old working memory is consolidated; if not, it grows with the clip.
    min_mid: working frames that are left after consolidation, the first frame among them.
    max_mid: working frames at which consolidation happens.
    num_prototypes: elements that one consolidation adds to long-term memory.
    max_long: elements of long-term memory; beyond it the least used are dropped.
    pinned: slots of frames that are never consolidated, the first frame's among them.
    read: "dense" multiplies a sparse matrix as if it were full (accelerators with much memory and
      short memories), "gather" collects the top_k values (long memories). Equal results.
    usage_power, mass_power, mass_floor, age_scale: score of an element, by which prototypes are
      chosen and kept: usage^a * (floor + mass)^b * exp(-age / tau). Usage is use per read since
      written; mass the first object's mean probability in the element's cell; age in frames.
    detach_written_mask: no gradient from memory into the masks that were written.
    detach_memory: no gradient into anything that was written.
    detach_long_term: no gradient into prototypes.
  """

  top_k: int | None = 30
  mem_every: int = 5
  deep_update_every: int = -1
  long_term: bool = True
  min_mid: int = 5
  max_mid: int = 10
  num_prototypes: int = 128
  max_long: int = 10000
  pinned: int = 1
  read: str = "gather"
  usage_power: float = 1.0
  mass_power: float = 0.0
  mass_floor: float = 0.01
  age_scale: float = math.inf
  detach_written_mask: bool = False
  detach_memory: bool = False
  detach_long_term: bool = False

  def __post_init__(self):
    checks.choice("memory.read", self.read, READS)
    for name, low in (("mem_every", 1), ("pinned", 1), ("num_prototypes", 1)):
      self._at_least(name, low)
    if self.top_k is not None:
      self._at_least("top_k", 1)
    checks.require(
      self.deep_update_every == -1 or self.deep_update_every >= 1,
      f"memory.deep_update_every: {self.deep_update_every} is not allowed; choose -1 (with every "
      "memory frame) or 1 or more.",
    )
    checks.require(
      self.age_scale > 0, f"memory.age_scale: {self.age_scale} is not allowed; choose above 0."
    )
    if self.long_term:
      self._at_least("min_mid", 2)
      checks.require(
        self.max_mid > self.min_mid,
        f"memory.max_mid: {self.max_mid} is not allowed; choose more than memory.min_mid "
        f"{self.min_mid}.",
      )
      checks.require(
        self.num_prototypes <= self.max_long,
        f"memory.num_prototypes: {self.num_prototypes} is not allowed; choose at most "
        f"memory.max_long {self.max_long}.",
      )

  @property
  def num_candidates(self):
    """Working frames that one consolidation takes."""
    return self.max_mid - self.min_mid

  def check_cells(self, cells):
    """Raises InputError unless a consolidation finds enough elements; cells = h * w."""
    checks.require(
      not self.long_term or self.num_prototypes <= self.num_candidates * cells,
      f"memory.num_prototypes: {self.num_prototypes} is not allowed with images of {cells} cells; "
      f"choose at most (max_mid - min_mid) * cells = {self.num_candidates * cells}.",
    )

  def _at_least(self, name, low):
    value = getattr(self, name)
    checks.require(value >= low, f"memory.{name}: {value} is not allowed; choose {low} or more.")
