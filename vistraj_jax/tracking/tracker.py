"""Multi-object tracking by detection: which boxes of successive frames are the same object?

One loop serves ByteTrack (arXiv 2110.06864) and BoT-SORT (arXiv 2206.14651): two score bands,
unconfirmed tracks, a buffer of lost tracks; `settings` says what differs. Camera motion and
embeddings take part where they are given.

Tracks live in a fixed number of slots, held as arrays, so all bookkeeping is vectorised. A slot
has one status and nothing else says whether its track exists. A tracker is for one sequence: a new
sequence gets a new tracker, ids from 1.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.tracking import associate, motion_models

FREE, UNCONFIRMED, LIVE, LOST = range(4)
MAX_CLASS_ID = 1023


@dataclasses.dataclass(frozen=True)
class Detections:
  """Detections of one frame.

  Attributes:
    box_xywh: float64 [N, 4], left, top, width, height in px.
    score: float64 [N], 0..1.
    class_id: int64 [N], 0..1023.
    embedding: float [N, E], one vector of any length per box, or None.
  """

  box_xywh: np.ndarray
  score: np.ndarray
  class_id: np.ndarray
  embedding: np.ndarray | None = None

  @staticmethod
  def none():
    """Returns the detections of an empty frame."""
    return Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


@dataclasses.dataclass(frozen=True)
class Tracks:
  """Confirmed tracks of one frame, in order of their start: arrays of equal length N.

  track_id int64 [N] from 1; box_xywh float64 [N, 4] in px, the matched detection; score [N] of it;
  class_id int64 [N].
  """

  track_id: np.ndarray
  box_xywh: np.ndarray
  score: np.ndarray
  class_id: np.ndarray


class Tracker:
  """Tracks the objects of one sequence, frame by frame.

  A frame without detections must be stepped too: time passes in it.
  """

  def __init__(self, settings, motion, *, frame_rate, image_size, name="sequence"):
    """Starts an empty tracker.

    Args:
      settings: `settings.TrackerSettings`.
      motion: a motion model, see `motion_models`.
      frame_rate: Hz.
      image_size: (width, height) in px.
      name: the sequence, for error sentences.
    """
    slots = settings.max_tracks
    self.settings = settings
    self.motion = motion
    self.name = name
    self.frame = 0
    # Ids [N] and boxes [N, 4] (xywh, px) that were expected in this frame, before it was seen.
    self.predicted = np.zeros(0, np.int64), np.zeros((0, 4))
    self.image_size = np.asarray(image_size, np.float64)
    self.max_lost_frames = settings.max_lost_frames
    if self.max_lost_frames is None:
      self.max_lost_frames = int(settings.max_lost_s * frame_rate + 1e-6)
    self._started = 0  # tracks so far: the last id
    self._moves = 0  # how often a track entered the live or the lost ones
    self._status = np.zeros(slots, np.int8)
    self._place = np.zeros(slots, np.int64)  # order among the live, and among the lost
    self._id = np.zeros(slots, np.int64)
    self._box = np.zeros((slots, 4))  # xywh; predicted, or detected where matched
    self._score = np.zeros(slots)
    self._hits = np.zeros(slots, np.int64)
    self._first_frame = np.zeros(slots, np.int64)
    self._last_frame = np.zeros(slots, np.int64)  # of a match
    self._class = np.zeros(slots, np.int64)
    self._votes = np.zeros((slots, 8))  # score per class; widened when a higher class appears
    self._embedding = None
    self._state = motion.allocate(slots)

  @property
  def tracked_count(self):
    """Number of live and unconfirmed tracks."""
    return int(((self._status == LIVE) | (self._status == UNCONFIRMED)).sum())

  @property
  def lost_count(self):
    """Number of lost tracks."""
    return int((self._status == LOST).sum())

  def step(self, detections, camera_motion=None):
    """Advances by one frame.

    Args:
      detections: `Detections` of the frame.
      camera_motion: float [2, 3] affine map from pixels of the last frame to this one's, or None.

    Returns:
      `Tracks` of the frame.

    Raises:
      InputError: more detections or tracks than there are slots; malformed detections.
    """
    return step_together([self], [detections], [camera_motion])[0]

  def begin(self):
    """Begins a frame: returns the slots [N] to predict, live then lost, and their motion state."""
    live, lost = self._slots(LIVE), self._slots(LOST)
    pool = np.concatenate([live, lost])
    return pool, _take(self._state, pool)

  def finish(self, pool, predicted_cxcywh, detections, camera_motion=None):
    """Finishes a frame when the motion model's boxes [N, 4] for `pool` are known; see `step`."""
    self.frame += 1
    self._check(detections)
    if camera_motion is not None:
      predicted_cxcywh = self._move_camera(predicted_cxcywh, np.asarray(camera_motion))
    self._box[pool] = _to_xywh(predicted_cxcywh)
    self.predicted = self._id[pool], self._box[pool]
    s = self.settings
    high = np.flatnonzero(detections.score > s.high_score)
    low = np.flatnonzero((detections.score > s.low_score) & (detections.score < s.high_score))
    was_live = self._status[pool] == LIVE

    cost = self._full_cost(pool, detections, high)
    rows, columns, rest, left = associate.assign(cost, s.first_cost)
    first, first_hit = pool[rows], high[columns]
    refound = first[~was_live[rows]]
    high = high[left]

    live = pool[rest[was_live[rest]]]
    cost = self._box_cost(live, detections, low)[0]
    rows, columns, rest_live, _ = associate.assign(cost, s.second_cost)
    second, second_hit = live[rows], low[columns]
    newly_lost = live[rest_live]

    young = self._slots(UNCONFIRMED)
    cost = self._full_cost(young, detections, high)
    rows, columns, rest_young, left = associate.assign(cost, s.unconfirmed_cost)
    third, third_hit = young[rows], high[columns]
    self._status[young[rest_young]] = FREE
    new_hit = high[left]
    new_hit = new_hit[detections.score[new_hit] >= s.new_score]

    kept_score = self._score[refound]
    matched = np.concatenate([first, second, third])
    hits = np.concatenate([first_hit, second_hit, third_hit])
    self._advance(pool, predicted_cxcywh, matched, detections.box_xywh[hits])
    self._hits[matched] += 1
    self._record(matched, detections, hits)
    if s.keep_refound_score:
      self._score[refound] = kept_score
    in_high = np.concatenate([first, third])
    self._learn_appearance(in_high, detections, np.concatenate([first_hit, third_hit]))
    self._status[third[self._hits[third] >= s.min_hits]] = LIVE
    self._start(detections, new_hit)
    self._enter(refound, LIVE)
    self._enter(newly_lost, LOST)
    self._forget()
    return self._output()

  def _slots(self, status):
    """Returns the slots of one status in order of entry."""
    slots = np.flatnonzero(self._status == status)
    return slots[np.argsort(self._place[slots])]

  def _enter(self, slots, status):
    self._status[slots] = status
    self._place[slots] = self._moves + np.arange(len(slots))
    self._moves += len(slots)

  def _check(self, detections):
    count = len(detections.box_xywh)
    where = f"sequence {self.name}, frame {self.frame}"
    checks.require(
      count <= self.settings.max_detections,
      f"{where}: {count} detections exceed max_detections={self.settings.max_detections}; "
      "raise max_detections or drop detections of low score.",
    )
    if not count:
      return
    checks.shape(f"{where}: box_xywh", detections.box_xywh, (None, 4))
    checks.shape(f"{where}: score", detections.score, (count,))
    checks.shape(f"{where}: class_id", detections.class_id, (count,))
    checks.require(
      np.isfinite(detections.box_xywh).all() and (detections.box_xywh[:, 2:] >= 0).all(),
      f"{where}: a box is not finite or has a negative side; boxes are left, top, width, height.",
    )
    low, high = detections.score.min(), detections.score.max()
    checks.require(
      low >= 0 and high <= 1,  # nan fails both
      f"{where}: scores reach from {low:g} to {high:g}; scale them to 0..1.",
    )
    low, top = int(detections.class_id.min()), int(detections.class_id.max())
    checks.require(
      low >= 0 and top <= MAX_CLASS_ID,
      f"{where}: class ids reach from {low} to {top}; use 0 to {MAX_CLASS_ID}.",
    )
    if detections.embedding is not None:
      if self._embedding is None:
        self._embedding = np.zeros((len(self._status), detections.embedding.shape[-1]))
      size = self._embedding.shape[1]
      checks.shape(f"{where}: embedding", detections.embedding, (count, size))
      checks.require(
        np.isfinite(detections.embedding).all(), f"{where}: an embedding holds nan or inf."
      )
    if top >= self._votes.shape[1]:
      self._votes = np.pad(self._votes, ((0, 0), (0, top + 1 - self._votes.shape[1])))

  def _advance(self, pool, predicted_cxcywh, matched, box_xywh):
    """Moves the motion states on: `matched` slots by their detections, the rest by the policy."""
    state = self.motion.observe(_take(self._state, matched), _to_cxcywh(box_xywh))
    _put(self._state, matched, state)
    if self.settings.lost_policy == "rollout":
      alone = ~np.isin(pool, matched)
      slots = pool[alone]
      state = self.motion.coast(_take(self._state, slots), predicted_cxcywh[alone])
      _put(self._state, slots, state)

  def _move_camera(self, predicted_cxcywh, matrix):
    """Moves states and boxes into the pixels of this frame; returns the moved predictions."""
    checks.shape(f"sequence {self.name}, frame {self.frame}: camera_motion", matrix, (2, 3))
    used = np.flatnonzero(self._status)
    _put(self._state, used, self.motion.warp(_take(self._state, used), matrix))
    box = motion_models.warp_boxes(_to_cxcywh(self._box[used]), matrix)
    self._box[used] = _to_xywh(box)
    return motion_models.warp_boxes(predicted_cxcywh, matrix)

  def _box_cost(self, slots, detections, columns):
    """Returns the class-gated cost [S, C] by overlap, and the overlap."""
    overlap = associate.iou_pixels(self._box[slots], detections.box_xywh[columns])
    return self._gated(1.0 - overlap, self._class[slots], detections.class_id[columns]), overlap

  def _full_cost(self, slots, detections, columns):
    """Returns the class-gated cost [S, C] by overlap, score and appearance, as set."""
    s = self.settings
    cost, overlap = self._box_cost(slots, detections, columns)
    if s.fuse_score:
      fused = 1.0 - overlap * detections.score[columns]
      cost = np.where(np.isinf(cost), cost, fused)
    if detections.embedding is not None and len(columns):
      vectors = associate.unit_vectors(detections.embedding[columns])
      apart = associate.cosine_cost(self._embedding[slots], vectors)
      apart[(apart > s.appearance_cost) | (1.0 - overlap > s.proximity_cost)] = 1.0
      cost = np.where(np.isinf(cost), cost, np.minimum(cost, apart))
    return cost

  def _gated(self, cost, class_a, class_b):
    if self.settings.class_gate:
      cost[class_a[:, None] != class_b[None, :]] = np.inf
    return cost

  def _start(self, detections, hits):
    """Starts a track for each of the detections `hits`."""
    free = np.flatnonzero(self._status == FREE)
    checks.require(
      len(hits) <= len(free),
      f"sequence {self.name}, frame {self.frame}: {len(hits)} new tracks need slots and "
      f"{len(free)} of max_tracks={self.settings.max_tracks} are free; raise max_tracks or "
      "lower max_lost_s.",
    )
    slots = free[: len(hits)]
    self._enter(slots, LIVE if self.frame == 1 else UNCONFIRMED)
    self._id[slots] = self._started + 1 + np.arange(len(slots))
    self._started += len(slots)
    self._first_frame[slots] = self.frame
    self._hits[slots] = 1
    self._votes[slots] = 0.0
    if self._embedding is not None:
      self._embedding[slots] = 0.0
    _put(self._state, slots, self.motion.start(_to_cxcywh(detections.box_xywh[hits])))
    self._record(slots, detections, hits)
    self._learn_appearance(slots, detections, hits)

  def _record(self, slots, detections, hits):
    """Gives `slots` the box, score and class vote of the detections `hits`."""
    self._box[slots] = detections.box_xywh[hits]
    self._score[slots] = detections.score[hits]
    self._last_frame[slots] = self.frame
    self._votes[slots, detections.class_id[hits]] += detections.score[hits]
    self._class[slots] = self._votes[slots].argmax(1)

  def _learn_appearance(self, slots, detections, hits):
    if detections.embedding is None or not len(hits):
      return
    vectors = associate.unit_vectors(detections.embedding[hits])
    old = self._embedding[slots]
    momentum = self.settings.embedding_momentum
    mixed = associate.unit_vectors(momentum * old + (1.0 - momentum) * vectors)
    self._embedding[slots] = np.where(old.any(1, keepdims=True), mixed, vectors)

  def _forget(self):
    """Frees lost tracks that are too old, and the younger of two tracks on one object."""
    lost = self._slots(LOST)
    # The published loops mark a track when it is too old and drop it one frame later.
    old = self.frame - self._last_frame[lost] > self.max_lost_frames + 1
    self._status[lost[old]] = FREE
    lost = lost[~old]
    if not len(lost):
      return
    tracked = np.flatnonzero((self._status == LIVE) | (self._status == UNCONFIRMED))
    cost = 1.0 - associate.iou_pixels(self._box[tracked], self._box[lost])
    cost = self._gated(cost, self._class[tracked], self._class[lost])
    rows, columns = np.nonzero(cost < self.settings.duplicate_cost)
    life = self._last_frame - self._first_frame
    lost_goes = life[tracked[rows]] > life[lost[columns]]
    self._status[lost[columns[lost_goes]]] = FREE
    self._status[tracked[rows[~lost_goes]]] = FREE

  def _output(self):
    shown = self._status == LIVE
    if self.settings.min_hits == 1:
      shown |= self._status == UNCONFIRMED
    slots = np.flatnonzero(shown)
    slots = slots[np.argsort(self._place[slots])]
    return Tracks(self._id[slots], self._box[slots], self._score[slots], self._class[slots])


def step_together(trackers, detections, camera_motions):
  """Steps trackers of several sequences by one frame, with one call of their motion model.

  Args:
    trackers: list of `Tracker` that share one motion model.
    detections: their `Detections`.
    camera_motions: their [2, 3] matrices, or None for a camera that stands still.

  Returns:
    list of `Tracks`.
  """
  requests = [tracker.begin() for tracker in trackers]
  counts = [len(pool) for pool, _ in requests]
  predicted = np.zeros((0, 4))
  if sum(counts):
    state = {
      name: np.concatenate([state[name] for _, state in requests]) for name in requests[0][1]
    }
    image_size = np.repeat([tracker.image_size for tracker in trackers], counts, axis=0)
    predicted = trackers[0].motion.predict(state, image_size)
  parts = np.split(predicted, np.cumsum(counts)[:-1])
  each = zip(trackers, requests, parts, detections, camera_motions, strict=True)
  return [
    tracker.finish(pool, part, found, camera_motion)
    for tracker, (pool, _), part, found, camera_motion in each
  ]


def _take(state, slots):
  return {name: array[slots] for name, array in state.items()}


def _put(state, slots, rows):
  for name, array in state.items():
    array[slots] = rows[name]


def _to_cxcywh(box_xywh):
  return np.concatenate([box_xywh[:, :2] + 0.5 * box_xywh[:, 2:], box_xywh[:, 2:]], axis=1)


def _to_xywh(box_cxcywh):
  return np.concatenate([box_cxcywh[:, :2] - 0.5 * box_cxcywh[:, 2:], box_cxcywh[:, 2:]], axis=1)
