"""Track records -> windows of consecutive boxes, all in memory, gathered batch by batch.

A window is `history + 2` boxes of one track, oldest first, at consecutive frames: box 0 gives the
first delta, boxes 1..history are the condition, the last box is the target. A track of L
consecutive rows gives L - history - 1 windows; a gap starts a new run.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import checks, geometry
from vistraj_jax.data import example, records

NAME = "trackssm"

# One record per track. Boxes are left, top, width, height in px; frames count from 1.
SPEC = {
  "sequence": ("bytes", ()),
  "camera": ("bytes", ()),
  "track_id": ("int64", ()),
  "class_id": ("int64", ()),
  "frames": ("int64", (None,)),
  "boxes": ("float32", (None, 4)),
  "visibility": ("float32", (None,)),
  "is_keyframe": ("int64", (None,)),
  "width": ("int64", ()),
  "height": ("int64", ()),
  "frame_rate": ("float32", ()),
}

# One example: what `Windows.gather` returns, with a leading batch size. Boxes are
# cx, cy, w, h divided by the image size; `sequence` counts in `Windows.sequences`; `frame` is that
# of the target.
ELEMENT = {
  "boxes": ("float32", ("history + 2", 4)),
  "class_id": ("int32", ()),
  "sequence": ("int32", ()),
  "frame": ("int32", ()),
  "frame_rate": ("float32", ()),
}


def windows(boxes, frames, history, stride=1):
  """Returns int64 [W], the rows at which a window of one track starts, ascending.

  Args:
    boxes: [L, 4], oldest first; rows that are not finite are in no window.
    frames: int [L], ascending.
    history: number of condition rows T; a window has T + 2 boxes.
    stride: rows of a window are this many frames apart; all frames between must be present.
  """
  span = (history + 1) * stride
  length = len(frames)
  if length <= span:
    return np.zeros(0, np.int64)
  finite = np.isfinite(np.asarray(boxes)).all(-1)
  broken = np.concatenate([[0], np.cumsum(~finite)])
  jumps = np.concatenate([[0], np.cumsum(np.diff(frames) != 1)])
  starts = np.arange(length - span)
  good = (jumps[starts + span] == jumps[starts]) & (broken[starts + span + 1] == broken[starts])
  return starts[good]


def num_windows(frames, history=5):
  """Returns the number of windows of a track with these frames (int [L], ascending)."""
  return len(windows(np.zeros((len(frames), 4)), frames, history))


@dataclasses.dataclass(frozen=True)
class Windows:
  """All windows of a split: rows of all tracks behind one another, and where windows start.

  Attributes:
    boxes: float32 [R, 4], cx, cy, w, h divided by the image size.
    frames: int32 [R].
    starts: int64 [W], row of each window's first box.
    track: int64 [W], track of each window.
    class_id: int32 [tracks]; sequence: int32 [tracks]; frame_rate: float32 [tracks], Hz.
    sequences: names, in the order that `sequence` counts.
    steps: int64 [history + 2], row offsets within a window.
  """

  boxes: np.ndarray
  frames: np.ndarray
  starts: np.ndarray
  track: np.ndarray
  class_id: np.ndarray
  sequence: np.ndarray
  frame_rate: np.ndarray
  sequences: tuple
  steps: np.ndarray

  def __len__(self):
    return len(self.starts)

  def about(self):
    """Returns what a run records of its data: median frame rate (Hz), tracks and sequences."""
    return {
      "frame_rate": float(np.median(self.frame_rate)),
      "tracks": len(self.class_id),
      "sequences": len(self.sequences),
    }

  def gather(self, indices):
    """Returns the windows of `indices` int [B] as `ELEMENT` arrays with leading size B."""
    starts, track = self.starts[indices], self.track[indices]
    return {
      "boxes": self.boxes[starts[:, None] + self.steps],
      "class_id": self.class_id[track],
      "sequence": self.sequence[track],
      "frame": self.frames[starts + self.steps[-1]],
      "frame_rate": self.frame_rate[track],
    }


def read_tracks(root, split):
  """Yields every track record of a split as {field: value} by `SPEC`.

  Raises:
    InputError: missing or damaged files (`records`), or a record that is no track.
  """
  source = records.TFRecordSource(records.find_shards(root, NAME, split))
  for i in range(len(source)):
    where = f"{root}: {NAME}-{split} record {i}"
    track = example.decode(source[i], SPEC, where)
    length = len(track["frames"])
    for field in ("boxes", "visibility", "is_keyframe"):
      checks.require(
        len(track[field]) == length,
        f"{where}: {len(track[field])} {field} for {length} frames; prepare the data again.",
      )
    yield track


def normalized(track):
  """Returns the boxes of a record as float32 [L, 4], cx, cy, w, h divided by the image size."""
  size = np.array([track["width"], track["height"]] * 2, np.float32)
  return geometry.xywh_to_cxcywh(track["boxes"]) / size


def load(cfg, split, model):
  """Reads a split into memory.

  Args:
    cfg: `root`, the folder that launch.prepare wrote; `sample_stride` (every n-th window of a
      track) and `frame_stride` (frames between the boxes of a window) default to 1.
    split: "train", "val" or "test".
    model: config.model; `history`, the condition rows of a window, is read.

  Returns:
    `Windows`.

  Raises:
    InputError: missing or damaged files, or no window in the split.
  """
  history = model["history"]
  frame_stride, sample_stride = cfg.get("frame_stride", 1), cfg.get("sample_stride", 1)
  boxes, frames, starts, owners = [], [], [], []
  class_ids, sequences, frame_rates = [], [], []
  rows = 0
  for number, track in enumerate(read_tracks(cfg["root"], split)):
    boxes.append(normalized(track))
    frames.append(track["frames"].astype(np.int32))
    mine = windows(boxes[-1], track["frames"], history, frame_stride)[::sample_stride]
    starts.append(mine + rows)
    owners.append(np.full(len(mine), number))
    rows += len(boxes[-1])
    class_ids.append(track["class_id"])
    sequences.append(track["sequence"].decode())
    frame_rates.append(track["frame_rate"] / frame_stride)
  checks.require(
    sum(map(len, starts)) > 0,
    f"{cfg['root']}: split {split!r} has {len(boxes)} tracks and none of {history + 2} boxes in "
    "consecutive frames; prepare more data.",
  )
  names = tuple(sorted(set(sequences)))
  return Windows(
    boxes=np.concatenate(boxes),
    frames=np.concatenate(frames),
    starts=np.concatenate(starts),
    track=np.concatenate(owners),
    class_id=np.array(class_ids, np.int32),
    sequence=np.array([names.index(s) for s in sequences], np.int32),
    frame_rate=np.array(frame_rates, np.float32),
    sequences=names,
    steps=np.arange(history + 2) * frame_stride,
  )
