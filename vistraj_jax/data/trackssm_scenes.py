"""Track records -> scene samples: all tracks of one camera in a clip of consecutive frames.

A sample has one slot per track, in order of first appearance (then of id); slots that are left and
frames in which a track has no box are padding. `data.trackssm` gives the same boxes as single
windows, which is what training reads by default; `windows_of` cuts them out of a sample.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import trackssm

# One example: what `Scenes.gather` returns, with a leading batch size. F frames, Q slots; boxes
# are cx, cy, w, h divided by the image size, zeros where `padding_mask` is True.
ELEMENT = {
  "condition": ("float32", ("F", "Q", 4)),
  "cur_bbox": ("float32", ("Q", 4)),  # the boxes of the last frame
  "track_ids": ("int32", ("F", "Q")),  # -1 on padding
  "class_ids": ("int32", ("F", "Q")),  # -1 on padding
  "padding_mask": ("bool", ("F", "Q")),
  "sequence": ("int32", ()),  # counts in `Scenes.sequences`
  "start_frame": ("int32", ()),
}

_SHORTEST = 3  # boxes that a track needs within the clip to get a slot


@dataclasses.dataclass(frozen=True)
class Scenes:
  """All samples of a split.

  Attributes:
    boxes: float32 [R, 4]; frames, ids, class_ids: int32 [R]; rows sorted by sequence, then frame.
    first_row: int64 [sequences + 1], where the rows of each sequence start.
    sequence, start: int32 [N], of each sample.
    sequences: names.
    num_frames, num_queries: F and Q.
  """

  boxes: np.ndarray
  frames: np.ndarray
  ids: np.ndarray
  class_ids: np.ndarray
  first_row: np.ndarray
  sequence: np.ndarray
  start: np.ndarray
  sequences: tuple
  num_frames: int
  num_queries: int

  def __len__(self):
    return len(self.start)

  def gather(self, indices):
    """Returns the samples of `indices` int [B] as `ELEMENT` arrays with leading size B."""
    shape = (len(indices), self.num_frames, self.num_queries)
    condition = np.zeros((*shape, 4), np.float32)
    track_ids = np.full(shape, -1, np.int32)
    class_ids = np.full(shape, -1, np.int32)
    for b, index in enumerate(indices):
      rows, slot = self._slots(index)
      frame = self.frames[rows] - self.start[index]
      condition[b, frame, slot] = self.boxes[rows]
      track_ids[b, frame, slot] = self.ids[rows]
      class_ids[b, frame, slot] = self.class_ids[rows]
    return {
      "condition": condition,
      "cur_bbox": condition[:, -1],
      "track_ids": track_ids,
      "class_ids": class_ids,
      "padding_mask": track_ids < 0,
      "sequence": self.sequence[indices],
      "start_frame": self.start[indices],
    }

  def _slots(self, index):
    """Returns the rows of one sample that have a slot, and their slots."""
    rows = self._rows(index)
    ids, first, where, count = np.unique(
      self.ids[rows], return_index=True, return_inverse=True, return_counts=True
    )
    kept = np.flatnonzero(count >= _SHORTEST)
    if len(kept) > self.num_queries:
      rng = np.random.default_rng((self.sequence[index], self.start[index]))
      kept = rng.choice(kept, self.num_queries, replace=False)
    kept = kept[np.argsort(first[kept])]
    slot = np.full(len(ids), -1)
    slot[kept] = np.arange(len(kept))
    has_slot = slot[where] >= 0
    return rows[has_slot], slot[where][has_slot]

  def _rows(self, index):
    begin, end = self.first_row[self.sequence[index] :][:2]
    limits = self.start[index] + np.array([0, self.num_frames])
    low, high = begin + np.searchsorted(self.frames[begin:end], limits)
    return np.arange(low, high)


def load(cfg, split, *, history):
  """Reads a split into memory.

  Args:
    cfg: `root`; `sequence_length` frames per sample, `num_queries` slots, `min_track_len`, boxes
      that a sample needs.
    split: "train" has samples every half length, others every length.
    history: condition rows of the windows to be cut out of a sample.

  Returns:
    `Scenes`.

  Raises:
    InputError: missing or damaged files, samples too short for a window, or no sample.
  """
  length = cfg["sequence_length"]
  checks.require(
    length >= history + 2,
    f"config.data.sequence_length: {length} frames hold no window of {history + 2} boxes; "
    "raise it or lower the history.",
  )
  columns = {"boxes": [], "frames": [], "ids": [], "class_ids": [], "names": []}
  for track in trackssm.read_tracks(cfg["root"], split):
    count = len(track["frames"])
    columns["boxes"].append(trackssm.normalized(track))
    columns["frames"].append(track["frames"])
    columns["ids"].append(np.full(count, track["track_id"]))
    columns["class_ids"].append(np.full(count, track["class_id"]))
    columns["names"].append(np.full(count, track["sequence"].decode()))
  checks.require(len(columns["ids"]) > 0, f"{cfg['root']}: split {split!r} has no track.")
  rows = {name: np.concatenate(parts) for name, parts in columns.items()}
  names, sequence = np.unique(rows.pop("names"), return_inverse=True)
  order = np.lexsort((rows["ids"], rows["frames"], sequence))
  rows = {name: values[order] for name, values in rows.items()}
  first_row = np.searchsorted(sequence[order], np.arange(len(names) + 1))
  samples = []
  stride = max(length // 2, 1) if split == "train" else length
  for number in range(len(names)):
    frames = rows["frames"][first_row[number] : first_row[number + 1]]
    starts = np.arange(1, frames[-1] - length + 2, stride)
    inside = np.searchsorted(frames, starts + length) - np.searchsorted(frames, starts)
    samples += [(number, start) for start in starts[inside >= cfg["min_track_len"]]]
  checks.require(
    len(samples) > 0,
    f"{cfg['root']}: split {split!r} has no {length} consecutive frames with "
    f"{cfg['min_track_len']} boxes; prepare more data or lower config.data.sequence_length.",
  )
  sample_sequence, start = np.array(samples, np.int32).T
  return Scenes(
    boxes=rows["boxes"],
    frames=rows["frames"].astype(np.int32),
    ids=rows["ids"].astype(np.int32),
    class_ids=rows["class_ids"].astype(np.int32),
    first_row=first_row,
    sequence=sample_sequence,
    start=start,
    sequences=tuple(names.tolist()),
    num_frames=length,
    num_queries=cfg["num_queries"],
  )


def windows_of(condition, padding_mask, history):
  """Cuts every run of `history + 2` boxes of a slot out of samples; static shapes.

  Args:
    condition: [B, F, Q, 4]; padding_mask: bool [B, F, Q], arrays of NumPy or JAX.
    history: condition rows of a window.

  Returns:
    boxes [B, F - history - 1, Q, history + 2, 4] and mask of their first three sizes, True where
    no box of the window is padding.
  """
  span = history + 2
  at = np.arange(condition.shape[1] - span + 1)[:, None] + np.arange(span)
  boxes = condition[:, at].swapaxes(2, 3)
  return boxes, ~padding_mask[:, at].any(2)
