"""Fills short gaps of long tracks by straight lines, after tracking."""

import numpy as np

from vistraj_jax.tracking import mot_files


def fill_gaps(table, max_gap=20, min_rows=25):
  """Returns `table` with rows added where a track pauses; sorted by frame, then id.

  A gap is filled if its two ends lie fewer than `max_gap` frames apart and the track has more than
  `min_rows` rows. Boxes are interpolated linearly; score and visibility are the lower of the two
  ends, the class is that of the earlier one.

  Args:
    table: `mot_files.Table` of a tracker's output.
    max_gap: frames.
    min_rows: rows.
  """
  order = np.lexsort((table.frame, table.track_id))
  table = table.select(order)
  _, track, rows = np.unique(table.track_id, return_inverse=True, return_counts=True)
  step = np.diff(table.frame)
  fills = (track[1:] == track[:-1]) & (step > 1) & (step < max_gap) & (rows[track[1:]] > min_rows)
  before = np.repeat(np.flatnonzero(fills), step[fills] - 1)
  after = before + 1
  # 1, 2, ... within every gap
  count = step[fills] - 1
  place = np.arange(len(before)) - np.repeat(np.cumsum(count) - count, count) + 1
  weight = (place / step[before])[:, None] if len(before) else np.zeros((0, 1))
  boxes = (1 - weight) * table.box_xywh[before] + weight * table.box_xywh[after]
  filled = mot_files.Table.of(
    np.concatenate([table.frame, table.frame[before] + place]),
    np.concatenate([table.track_id, table.track_id[before]]),
    np.concatenate([table.box_xywh, boxes]),
    np.concatenate([table.score, np.minimum(table.score[before], table.score[after])]),
    np.concatenate([table.class_id, table.class_id[before]]),
    np.concatenate(
      [table.visibility, np.minimum(table.visibility[before], table.visibility[after])]
    ),
  )
  return filled.select(np.lexsort((filled.track_id, filled.frame)))
