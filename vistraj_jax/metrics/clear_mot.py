"""CLEAR MOT: MOTA, MOTP, identity switches, fragmentations, mostly tracked and lost tracks.

Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT
Metrics", 2008. Field names and numbers are those of TrackEval.
"""

import math

import numpy as np

from vistraj_jax.metrics import overlaps as overlap_pairs

THRESHOLD = 0.5
COUNTS = ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "MT", "PT", "ML", "Frag", "CLR_Frames")
RATIOS = (
  *("MOTA", "MOTP", "MODA", "CLR_Re", "CLR_Pr", "MTR", "PTR", "MLR", "sMOTA"),
  *("CLR_F1", "FP_per_frame", "MOTAL", "MOTP_sum"),
)

# Above any total of overlaps, so that a track keeps its number as long as the threshold allows.
_KEEP_NUMBER = 1000.0


def score(overlaps):
  """Returns the CLEAR dict of one sequence: COUNTS (int) and RATIOS (fractions).

  A true track is mostly tracked when more than 80 % of its boxes are matched, partly tracked from
  20 %. A switch is a match with another number than the track's last one, however long ago.
  Without truth or without predictions the ratios stay 0 and MLR is 1.
  """
  o = overlaps
  truths, predictions = len(o.truth_id), len(o.prediction_id)
  result = dict.fromkeys(COUNTS, 0) | dict.fromkeys(RATIOS, 0.0)
  if not truths or not predictions:
    lost = o.num_truth_ids
    return result | {"CLR_FN": truths, "CLR_FP": predictions, "ML": lost, "MLR": 1.0}
  pairs = np.flatnonzero(o.iou >= THRESHOLD - overlap_pairs.EPSILON)
  matches = overlap_pairs.match(o, pairs, o.iou[pairs], bonus=_KEEP_NUMBER)

  # Matches of one true track follow each other; boundaries between tracks count for nothing.
  truth_id = o.truth_id[o.pair_truth[matches]]
  order = np.argsort(truth_id, kind="stable")
  track, number = truth_id[order], o.prediction_id[o.pair_prediction[matches]][order]
  same = track[1:] == track[:-1]
  # Frames without predictions interrupt nothing, so gaps are counted in the other frames.
  occupied = np.zeros(o.length, bool)
  occupied[np.intersect1d(o.truth_frame, o.prediction_frame)] = True
  moment = np.cumsum(occupied)[o.truth_frame[o.pair_truth[matches]]][order]

  tracked = np.bincount(truth_id, minlength=o.num_truth_ids) / np.bincount(o.truth_id)
  mostly = int(np.count_nonzero(tracked > 0.8))
  partly = int(np.count_nonzero(tracked >= 0.2)) - mostly
  result |= {
    "CLR_TP": len(matches),
    "CLR_FN": truths - len(matches),
    "CLR_FP": predictions - len(matches),
    "IDSW": int(np.count_nonzero(same & (number[1:] != number[:-1]))),
    "Frag": int(np.count_nonzero(same & (np.diff(moment) > 1))),
    "MT": mostly,
    "PT": partly,
    "ML": o.num_truth_ids - mostly - partly,
    "CLR_Frames": o.length,
    "MOTP_sum": float(o.iou[matches].sum()),
  }
  return _finish(result)


def combine(results):
  """Pools results of sequences, or of classes weighted by their detections."""
  return _finish({name: sum(r[name] for r in results) for name in (*COUNTS, "MOTP_sum")})


def average(results):
  """Returns the mean of ratios and the sum of counts over the results of classes."""
  averaged = {name: sum(r[name] for r in results) for name in COUNTS}
  return averaged | {name: float(np.mean([r[name] for r in results])) for name in RATIOS}


def _finish(result):
  """Adds the ratios that follow from the counts and the summed IoU of matches."""
  tp, fn, fp, switches = (result[name] for name in ("CLR_TP", "CLR_FN", "CLR_FP", "IDSW"))
  tracks = max(1, result["MT"] + result["PT"] + result["ML"])
  truths = max(1, tp + fn)
  log_switches = math.log10(switches) if switches else 0
  return result | {
    "MTR": result["MT"] / tracks,
    "PTR": result["PT"] / tracks,
    "MLR": result["ML"] / tracks,
    "CLR_Re": tp / truths,
    "CLR_Pr": tp / max(1, tp + fp),
    "MODA": (tp - fp) / truths,
    "MOTA": (tp - fp - switches) / truths,
    "MOTP": result["MOTP_sum"] / max(1, tp),
    "sMOTA": (result["MOTP_sum"] - fp - switches) / truths,
    "CLR_F1": tp / max(1.0, tp + 0.5 * fn + 0.5 * fp),
    "FP_per_frame": fp / max(1, result["CLR_Frames"]),
    "MOTAL": (tp - fp - log_switches) / truths,
  }
