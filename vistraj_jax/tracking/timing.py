"""Time per frame of a tracking run: mean, median and 95th percentile."""

import numpy as np

WARM_UP_FRAMES = 10


class FrameTimes:
  """Collects the times of frames; a frame is one of all sequences tracked side by side."""

  def __init__(self):
    self._rows = []

  def add(self, sequences, detect_s, track_s):
    """Records one frame of so many sequences: seconds for its detections and for tracking."""
    self._rows.append((sequences, detect_s, track_s))

  def summary(self):
    """Returns a dictionary for a report, times in ms, without the first frames (compilation)."""
    skipped = WARM_UP_FRAMES if len(self._rows) > WARM_UP_FRAMES else 0
    sequences, detect, track = np.array(self._rows[skipped:]).T
    result = {
      "what": "one frame of all sequences tracked side by side, in ms; "
      "detect is fetching given detections, no detector runs",
      "frames": len(sequences),
      "warm_up_frames_excluded": skipped,
      "sequences_side_by_side_mean": float(sequences.mean()),
    }
    parts = {"detect_ms": detect, "track_ms": track, "total_ms": detect + track}
    for name, seconds in parts.items():
      result[name] = {
        "mean": float(1e3 * seconds.mean()),
        "median": float(1e3 * np.median(seconds)),
        "p95": float(1e3 * np.percentile(seconds, 95)),
      }
    return result
