"""Overlaps of true and predicted boxes frame by frame, and the matchings that use them.

`find` lists every pair of a true and a predicted box of one frame that overlap, for a whole
sequence at once; `match` picks the best one-to-one matching of each frame. HOTA, CLEAR and
Identity share one `Overlaps`. All numbers are float64; IoU has no "+1" convention.
"""

import dataclasses

import numpy as np
from scipy.optimize import linear_sum_assignment

from vistraj_jax.core import checks

EPSILON = np.finfo(np.float64).eps

# Frames are compared in blocks of about this many box pairs, which stay in the cache.
_BLOCK_PAIRS = 2**18


@dataclasses.dataclass(frozen=True)
class Overlaps:
  """One sequence: N true and M predicted boxes sorted by frame, and the K pairs with IoU > 0.

  Attributes:
    length: number of frames of the sequence.
    truth_frame, prediction_frame: int64 [N], [M], from 0, ascending.
    truth_id, prediction_id: int64 [N], [M], dense: 0 .. number of ids - 1.
    pair_truth, pair_prediction: int64 [K], rows of the pair, in ascending order.
    iou: float64 [K], intersection over union in (0, 1].
  """

  length: int
  truth_frame: np.ndarray
  truth_id: np.ndarray
  prediction_frame: np.ndarray
  prediction_id: np.ndarray
  pair_truth: np.ndarray
  pair_prediction: np.ndarray
  iou: np.ndarray

  @property
  def num_truth_ids(self):
    return int(self.truth_id.max(initial=-1)) + 1

  @property
  def num_prediction_ids(self):
    return int(self.prediction_id.max(initial=-1)) + 1

  def keep(self, truth_rows, prediction_rows):
    """Returns the overlaps of the rows that are True in the masks [N] and [M]."""
    pairs = truth_rows[self.pair_truth] & prediction_rows[self.pair_prediction]
    return Overlaps(
      length=self.length,
      truth_frame=self.truth_frame[truth_rows],
      truth_id=_dense(self.truth_id[truth_rows]),
      prediction_frame=self.prediction_frame[prediction_rows],
      prediction_id=_dense(self.prediction_id[prediction_rows]),
      pair_truth=(np.cumsum(truth_rows) - 1)[self.pair_truth[pairs]],
      pair_prediction=(np.cumsum(prediction_rows) - 1)[self.pair_prediction[pairs]],
      iou=self.iou[pairs],
    )


def find(truth, prediction, length):
  """Returns the `Overlaps` of two tables; rows of one frame keep their order.

  Args:
    truth, prediction: objects with `frame` [N] from 1, `track_id` [N] and `box_xywh` [N, 4] px.
    length: number of frames.

  Raises:
    InputError: a frame outside 1..length, or an id twice in one frame.
  """
  true_order, true_frame, true_box, true_start = _boxes_by_frame("truth", truth, length)
  order, frame, box, start = _boxes_by_frame("prediction", prediction, length)
  true_id, track_id = truth.track_id[true_order], prediction.track_id[order]
  _check_unique("truth", true_frame, true_id)
  _check_unique("prediction", frame, track_id)
  a, b = _touching_pairs(true_box, true_start, box, start)
  intersection = _intersection(true_box[:, a], box[:, b])
  area_a, area_b = _area(true_box)[a], _area(box)[b]
  union = area_a + area_b - intersection
  flat = (area_a <= EPSILON) | (area_b <= EPSILON) | (union <= EPSILON)
  iou = np.where(flat, 0.0, intersection) / np.where(flat, 1.0, union)
  some = iou > 0
  return Overlaps(
    length, true_frame, _dense(true_id), frame, _dense(track_id), a[some], b[some], iou[some]
  )


def share_inside(regions, prediction, length):
  """Returns float64 [M]: how much of each predicted box lies in the region that covers it most.

  Args:
    regions: table of regions, as `truth` of `find`; their ids do not matter.
    prediction: table of M boxes; the answer follows its rows sorted by frame, like `Overlaps`.
    length: number of frames.
  """
  _, _, region, region_start = _boxes_by_frame("truth", regions, length)
  _, _, box, start = _boxes_by_frame("prediction", prediction, length)
  a, b = _touching_pairs(region, region_start, box, start)
  area = _area(box)
  share = np.zeros(len(area))
  inside = _intersection(region[:, a], box[:, b]) / np.where(area > EPSILON, area, np.inf)[b]
  np.maximum.at(share, b, inside)
  return share


def by_frame(table):
  """Returns the order of a table's rows in an `Overlaps`: sorted by frame, stable."""
  return np.argsort(table.frame, kind="stable")


def check_frames(name, frame, length):
  """Raises InputError, naming the table, unless all of `frame` [N] lie in 1..length."""
  if len(frame) and not 1 <= frame.min() <= frame.max() <= length:
    wrong = frame.min() if frame.min() < 1 else frame.max()
    raise checks.InputError(f"{name}: a row lies in frame {wrong}; frames run from 1 to {length}.")


def match(overlaps, pairs, score, bonus=0.0):
  """Matches the boxes of each frame one to one with the greatest total score.

  Args:
    overlaps: the sequence.
    pairs: int64 [P], the pairs that may be matched, ascending; all others score 0.
    score: float64 [P], above 0.
    bonus: is added to the score of a pair whose two ids were matched in the frame before, frames
      without truth or without predictions left out.

  Returns:
    int64 [matches]: the members of `pairs` that were matched, ascending.
  """
  truth, prediction = overlaps.pair_truth[pairs], overlaps.pair_prediction[pairs]
  contested = (np.bincount(truth)[truth] > 1) | (np.bincount(prediction)[prediction] > 1)
  frame = overlaps.truth_frame[truth]
  # A pair that shares no box with another is in every best matching, so only frames with shared
  # boxes are solved. They are solved whole, in the files' order, so that ties fall as elsewhere.
  matched = ~contested
  counts = (
    _per_frame(overlaps.truth_frame, overlaps),
    _per_frame(overlaps.prediction_frame, overlaps),
  )
  first = [np.cumsum(count) - count for count in counts]
  row, column = truth - first[0][frame], prediction - first[1][frame]
  flat = row * counts[1][frame] + column
  bounds = np.searchsorted(frame, np.arange(overlaps.length + 1))
  before = _frame_before(*counts)
  true_id, track_id = overlaps.truth_id[truth], overlaps.prediction_id[prediction]
  partner = np.full(overlaps.num_truth_ids, -1)
  for f in np.unique(frame[contested]).tolist():
    here = slice(bounds[f], bounds[f + 1])
    value = score[here]
    if bonus and before[f] >= 0:
      last = slice(bounds[before[f]], bounds[before[f] + 1])
      last_ids = true_id[last][matched[last]]
      partner[last_ids] = track_id[last][matched[last]]
      value = value + bonus * (partner[true_id[here]] == track_id[here])
      partner[last_ids] = -1
    total = np.zeros(counts[0][f] * counts[1][f])
    total[flat[here]] = value
    rows, columns = linear_sum_assignment(total.reshape(counts[0][f], -1), maximize=True)
    column_of_row = np.full(counts[0][f], -1)
    column_of_row[rows] = columns
    matched[here] = column_of_row[row[here]] == column[here]
  return pairs[matched]


def _boxes_by_frame(name, table, length):
  """Returns order [N], frame from 0 [N], boxes x0 y0 x1 y1 [4, N], first row of each frame."""
  order = by_frame(table)
  check_frames(name, table.frame, length)
  frame = table.frame[order] - 1
  x, y, width, height = table.box_xywh[order].T
  box = np.stack([x, y, x + width, y + height])
  return order, frame, box, np.searchsorted(frame, np.arange(length + 1))


def _check_unique(name, frame, track_id):
  # Equal hashes are only a hint: the products wrap round.
  mixed = np.sort(frame * 0x9E3779B97F4A7C1 + track_id)
  if not (mixed[1:] == mixed[:-1]).any():
    return
  order = np.lexsort((track_id, frame))
  frame, track_id = frame[order], track_id[order]
  again = np.flatnonzero((frame[1:] == frame[:-1]) & (track_id[1:] == track_id[:-1]))
  if len(again):
    raise checks.InputError(
      f"{name}: id {track_id[again[0]]} is in frame {frame[again[0]] + 1} twice; "
      "an id may appear once in a frame."
    )


def _dense(ids):
  return np.unique(ids, return_inverse=True)[1]


def _per_frame(frames, overlaps):
  return np.bincount(frames, minlength=overlaps.length)


def _frame_before(truth_count, prediction_count):
  """Returns for each frame the last earlier one with boxes on both sides, or -1."""
  both = np.where((truth_count > 0) & (prediction_count > 0), np.arange(len(truth_count)), -1)
  return np.concatenate([[-1], np.maximum.accumulate(both)[:-1]])


def _touching_pairs(true_box, true_start, box, start):
  """Returns the rows (truth [K], prediction [K]) of same-frame boxes that intersect."""
  true_count, count = np.diff(true_start), np.diff(start)
  frames = np.flatnonzero((true_count > 0) & (count > 0))
  if not len(frames):
    return np.zeros(0, np.int64), np.zeros(0, np.int64)
  step = max(1, _BLOCK_PAIRS // (true_count.max() * count.max()))
  found = []
  for block in np.split(frames, np.arange(step, len(frames), step)):
    a = _padded(true_box, true_start[block], true_count[block])
    b = _padded(box, start[block], count[block])
    a, b = a[:, :, :, None], b[:, :, None, :]
    touch = a[0] < b[2]
    touch &= b[0] < a[2]
    touch &= a[1] < b[3]
    touch &= b[1] < a[3]
    index, pair = np.divmod(np.flatnonzero(touch), touch.shape[1] * touch.shape[2])
    i, j = np.divmod(pair, touch.shape[2])
    found.append((true_start[block][index] + i, start[block][index] + j))
  return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _padded(box, start, count):
  """Returns [4, frames, most boxes] with nan, which is never less or more, as padding."""
  slot = np.arange(count.max())
  row = np.minimum(start[:, None] + slot, box.shape[1] - 1)
  return np.where(slot < count[:, None], box[:, row], np.nan)


def _area(box):
  return (box[2] - box[0]) * (box[3] - box[1])


def _intersection(a, b):
  width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
  height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
  return np.maximum(width, 0) * np.maximum(height, 0)
