"""HOTA: higher order tracking accuracy and its parts, over 19 overlap thresholds.

Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 2021. Field
names and numbers are those of TrackEval: arrays over `ALPHAS`, and `(0)` for the first threshold.
"""

import numpy as np

from vistraj_jax.metrics import overlaps as overlap_pairs

ALPHAS = np.arange(0.05, 0.99, 0.05)
COUNTS = ("HOTA_TP", "HOTA_FN", "HOTA_FP")
RATIOS = ("HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA", "OWTA")
SCALARS = ("HOTA(0)", "LocA(0)", "HOTALocA(0)")
_ASSOCIATION = ("AssA", "AssRe", "AssPr")


def score(overlaps):
  """Returns the HOTA dict of one sequence: COUNTS and RATIOS [19], SCALARS; fractions."""
  truths, predictions = len(overlaps.truth_id), len(overlaps.prediction_id)
  if not truths or not predictions:
    zeros = np.zeros(len(ALPHAS), np.int64)
    empty = {"HOTA_TP": zeros, "HOTA_FN": zeros + truths, "HOTA_FP": zeros + predictions}
    return _finish(empty | {name: np.zeros(len(ALPHAS)) for name in _ASSOCIATION}, 0.0)
  o = overlaps
  truth_id, prediction_id = o.truth_id[o.pair_truth], o.prediction_id[o.pair_prediction]
  truth_count, prediction_count = np.bincount(o.truth_id), np.bincount(o.prediction_id)

  # How well two tracks align over the whole sequence, before boxes are matched.
  per_truth = np.bincount(o.pair_truth, o.iou, truths)
  per_prediction = np.bincount(o.pair_prediction, o.iou, predictions)
  rest = per_prediction[o.pair_prediction] + per_truth[o.pair_truth] - o.iou
  share = np.where(rest > overlap_pairs.EPSILON, o.iou / rest, 0.0)
  tracks = truth_id * len(prediction_count) + prediction_id
  aligned = np.bincount(tracks, share)[tracks]
  alignment = aligned / (truth_count[truth_id] + prediction_count[prediction_id] - aligned)
  matches = overlap_pairs.match(o, np.arange(len(o.iou)), alignment * o.iou)

  # A match with IoU at or above the first n thresholds counts for those n.
  iou = o.iou[matches]
  passed = np.searchsorted(ALPHAS - overlap_pairs.EPSILON, iou, side="right")
  true_positives = _passing(np.bincount(passed, minlength=len(ALPHAS) + 1))
  pair, inverse = np.unique(tracks[matches], return_inverse=True)
  size = len(ALPHAS) + 1
  common = np.bincount(inverse * size + passed, minlength=len(pair) * size).reshape(-1, size)
  common = _passing(common)  # [pairs of tracks, 19] matches they share
  of_truth = truth_count[pair // len(prediction_count), None]
  of_prediction = prediction_count[pair % len(prediction_count), None]
  counted = np.maximum(1, true_positives)
  return _finish(
    {
      "HOTA_TP": true_positives,
      "HOTA_FN": truths - true_positives,
      "HOTA_FP": predictions - true_positives,
      "AssA": (common * (common / (of_truth + of_prediction - common))).sum(0) / counted,
      "AssRe": (common * (common / of_truth)).sum(0) / counted,
      "AssPr": (common * (common / of_prediction)).sum(0) / counted,
    },
    _passing(np.bincount(passed, iou, minlength=size)),
  )


def combine(results):
  """Pools results of sequences, or of classes weighted by their detections."""
  pooled = {name: sum(r[name] for r in results) for name in COUNTS}
  for name in _ASSOCIATION:
    total = sum(r[name] * r["HOTA_TP"] for r in results)
    pooled[name] = total / np.maximum(1.0, pooled["HOTA_TP"])
  return _finish(pooled, sum(r["LocA"] * r["HOTA_TP"] for r in results))


def average(results):
  """Returns the mean of ratios and the sum of counts over the results of classes."""
  averaged = {name: sum(r[name] for r in results) for name in COUNTS}
  means = {name: np.mean([r[name] for r in results], axis=0) for name in RATIOS}
  scalars = {name: float(np.mean([r[name] for r in results])) for name in SCALARS}
  return averaged | means | scalars


def _passing(histogram):
  """Turns counts of "passed exactly n thresholds" [..., 20] into "passed threshold a" [..., 19]."""
  return np.cumsum(histogram[..., ::-1], axis=-1)[..., -2::-1]


def _finish(result, iou_sum):
  """Adds what follows from the counts, association scores and the summed IoU of matches [19]."""
  tp, fn, fp = (result[name] for name in COUNTS)
  result["LocA"] = np.maximum(1e-10, iou_sum) / np.maximum(1e-10, tp)
  result["DetRe"] = tp / np.maximum(1, tp + fn)
  result["DetPr"] = tp / np.maximum(1, tp + fp)
  result["DetA"] = tp / np.maximum(1, tp + fn + fp)
  result["HOTA"] = np.sqrt(result["DetA"] * result["AssA"])
  result["OWTA"] = np.sqrt(result["DetRe"] * result["AssA"])
  result["HOTA(0)"] = float(result["HOTA"][0])
  result["LocA(0)"] = float(result["LocA"][0])
  result["HOTALocA(0)"] = result["HOTA(0)"] * result["LocA(0)"]
  return result
