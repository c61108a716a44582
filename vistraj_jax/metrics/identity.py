"""Identity metrics: IDF1, IDP, IDR from one matching of whole tracks.

Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking",
2016. Field names and numbers are those of TrackEval.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

THRESHOLD = 0.5
COUNTS = ("IDTP", "IDFN", "IDFP")
RATIOS = ("IDF1", "IDR", "IDP")


def score(overlaps):
  """Returns the Identity dict of one sequence: COUNTS (int) and RATIOS (fractions).

  Each true track gets at most one predicted track, so that they share the most boxes with IoU of
  0.5 or more; an exact tie with 0.5 counts.
  """
  o = overlaps
  truths, predictions = len(o.truth_id), len(o.prediction_id)
  pairs = o.iou >= THRESHOLD
  truth_id = o.truth_id[o.pair_truth[pairs]]
  prediction_id = o.prediction_id[o.pair_prediction[pairs]]
  common = np.zeros((o.num_truth_ids, o.num_prediction_ids))
  np.add.at(common, (truth_id, prediction_id), 1)
  # Misses plus false positives of a choice are all boxes less twice the shared ones, so the fewest
  # errors are the most shared boxes.
  shared = int(common[linear_sum_assignment(common, maximize=True)].sum())
  result = {"IDTP": shared, "IDFN": truths - shared, "IDFP": predictions - shared}
  return _finish(result)


def combine(results):
  """Pools results of sequences, or of classes weighted by their detections."""
  return _finish({name: sum(r[name] for r in results) for name in COUNTS})


def average(results):
  """Returns the mean of ratios and the sum of counts over the results of classes."""
  averaged = {name: sum(r[name] for r in results) for name in COUNTS}
  return averaged | {name: float(np.mean([r[name] for r in results])) for name in RATIOS}


def _finish(result):
  tp, fn, fp = (result[name] for name in COUNTS)
  return result | {
    "IDF1": tp / max(1.0, tp + 0.5 * fp + 0.5 * fn),
    "IDR": tp / max(1, tp + fn),
    "IDP": tp / max(1, tp + fp),
  }
