"""What happens on each frame of a clip, decided before anything is compiled.

It follows from the settings and from the frames that bring masks, never from pixels: which frames
are segmented, written to memory, update the hidden state deeply or in the decoder, and when which
working frames are consolidated. The networks' program takes it as data.
"""

from typing import NamedTuple

import numpy as np

from vistraj_jax.core import checks

NO_SLOT = np.iinfo(np.int32).max


class Plan(NamedTuple):
  """One frame, or [T] of them with a leading axis.

  Attributes:
    time: int32, frame number from 0.
    segment: bool, masks are predicted from memory.
    mask: int32, index of the given mask, -1 for none.
    hidden: bool, the decoder's hidden state is kept.
    write: bool, the frame goes to memory.
    deep: bool, the hidden state is updated from the written value.
    slot: int32, working slot to write to.
    consolidate: bool, after writing.
    candidates: int32 [max_mid - min_mid] (none without long-term memory), slots to consolidate.
  """

  time: np.ndarray
  segment: np.ndarray
  mask: np.ndarray
  hidden: np.ndarray
  write: np.ndarray
  deep: np.ndarray
  slot: np.ndarray
  consolidate: np.ndarray
  candidates: np.ndarray


class Planner:
  """Plans one frame after the other.

  Attributes:
    num_slots: working slots used so far, at once.
    num_long: elements of long-term memory.
    num_work: frames of working memory.
  """

  def __init__(self, settings, capacity=None):
    """settings: `MemorySettings`; capacity: working slots there are, None for no limit."""
    self._settings, self._capacity = settings, capacity
    self._recent, self._pinned = [], []  # slots in use, oldest first
    self._time, self._written, self._deep = 0, 0, -settings.deep_update_every
    self._objects = set()
    self.num_slots = self.num_long = 0

  @property
  def num_work(self):
    return len(self._recent) + len(self._pinned)

  def next(self, mask=None, objects=None, end=False, pin=False, update=True, deep=None):
    """Plans the next frame.

    Args:
      mask: index of the mask given for this frame, or None.
      objects: numbers of the objects that the mask shows. None: it is the whole truth, and yet the
        decoder runs, as in the published code, for the hidden state's sake.
      end: the clip ends here: nothing is written.
      pin: the frame is never consolidated.
      update: False leaves the memory as it is.
      deep: whether to update the hidden state deeply, in place of the settings' rule; the decoder's
        update is then always kept. For training, where it is drawn at random.

    Raises:
      InputError: no mask has been given yet, memory is full, or a pinned frame has no slot.
    """
    settings, t = self._settings, self._time
    where = f"frame {t}"
    checks.require(
      mask is not None or self._written_any,
      f"{where}: there is no object yet; give the mask of an object with the first frame.",
    )
    checks.require(
      update or mask is None or set(objects or ()) <= self._objects,
      f"{where}: a mask that brings a new object has to be written; allow the memory to update.",
    )
    self._objects |= set(objects or ())
    whole = objects is not None and set(objects) >= self._objects
    write = (t - self._written >= settings.mem_every or mask is not None) and not end and update
    due = write
    if settings.deep_update_every != -1:
      due = t - self._deep >= settings.deep_update_every
    hidden = not end and (settings.deep_update_every != -1 or not due)
    if deep is not None:
      due, hidden = deep, not end
    candidates = [NO_SLOT] * (settings.num_candidates if settings.long_term else 0)
    consolidate, slot = False, 0
    segment = t > 0 and not whole
    if write:
      slot = self._take_slot(pin, where)
      self._written = t
      if due:
        self._deep = t
      if settings.long_term and len(self._recent) + 1 >= settings.max_mid:
        consolidate = True
        candidates = self._recent[: settings.num_candidates]
        del self._recent[: settings.num_candidates]
        keep = settings.max_long - settings.num_prototypes
        self.num_long = min(self.num_long, keep) + settings.num_prototypes
    self._time += 1
    return Plan(
      np.int32(t),
      np.bool_(segment),
      np.int32(-1 if mask is None else mask),
      np.bool_(hidden),
      np.bool_(write),
      np.bool_(write and due),
      np.int32(slot),
      np.bool_(consolidate),
      np.array(candidates, np.int32),
    )

  def remove(self, objects):
    """Forgets objects, so that a mask of all others shows the whole truth again."""
    self._objects -= set(objects)

  @property
  def _written_any(self):
    return bool(self._pinned)

  def _take_slot(self, pin, where):
    used = {*self._recent, *self._pinned}
    slot = next(i for i in range(len(used) + 1) if i not in used)
    checks.require(
      self._capacity is None or slot < self._capacity,
      f"{where}: memory has {self._capacity} frames and is full; turn long-term memory on, or make "
      "room for more frames.",
    )
    if pin or not self._pinned:  # the first frame stays for ever
      checks.require(
        not self._settings.long_term or len(self._pinned) < self._settings.pinned,
        f"{where}: memory.pinned is {self._settings.pinned}, the first frame included, and all are "
        "taken; choose more.",
      )
      self._pinned.append(slot)
    else:
      self._recent.append(slot)
    self.num_slots = max(self.num_slots, slot + 1)
    return slot


def num_slots(settings):
  """Returns the working slots that long-term memory needs, however long the video."""
  return settings.max_mid - 1 + settings.pinned


class Schedule(NamedTuple):
  """A clip's plan and the memory it needs.

  Attributes:
    plan: `Plan` of arrays [T].
    num_slots: working slots.
    num_long: long-term elements.
    sizes: int [T, 2], working frames and long-term elements after each frame.
  """

  plan: Plan
  num_slots: int
  num_long: int
  sizes: np.ndarray


def plan_clip(
  settings, num_frames, masks=None, *, last_is_end=False, pinned=(), frozen_from=None, deep=None
):
  """Plans a whole clip.

  Args:
    settings: `MemorySettings`.
    num_frames: T.
    masks: {frame: numbers of the objects shown, or None for all}, in the order of the mask array;
      default {0: None}.
    last_is_end: whether the last frame is not written.
    pinned: further frames that are never consolidated.
    frozen_from: first frame from which the memory stays as it is.
    deep: bool [T] or None, see `Planner.next`.

  Returns:
    `Schedule`.

  Raises:
    InputError: no mask on frame 0, a mask or pin beyond the clip, a pin on a frame that is not
      written.
  """
  masks = {0: None} if masks is None else dict(masks)
  checks.require(num_frames >= 1, f"clip: {num_frames} frames are too few; give 1 or more.")
  checks.require(0 in masks, "clip: frame 0 has no mask; the first frame has to show the objects.")
  for what, frames in (("mask", masks), ("pin", pinned)):
    beyond = [f for f in frames if not 0 <= f < num_frames]
    checks.require(
      not beyond, f"clip: {what} on frame {beyond[:1]} of a clip of {num_frames} frames; drop it."
    )
  numbers = {frame: i for i, frame in enumerate(masks)}
  planner = Planner(settings)
  rows, sizes, capacity = [], [], 0
  for t in range(num_frames):
    row = planner.next(
      numbers.get(t),
      masks.get(t),
      end=last_is_end and t == num_frames - 1,
      pin=t in pinned,
      update=frozen_from is None or t < frozen_from,
      deep=None if deep is None else bool(deep[t]),
    )
    checks.require(
      row.write or t not in pinned, f"clip: frame {t} is pinned but not written; pin another."
    )
    rows.append(row)
    sizes.append((planner.num_work, planner.num_long))
    capacity = max(capacity, planner.num_long)
  plan = Plan(*(np.stack(column) for column in zip(*rows, strict=True)))
  return Schedule(plan, planner.num_slots, capacity, np.array(sizes))
