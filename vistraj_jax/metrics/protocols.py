"""Scores tracking results under named protocols with fixed settings: HOTA, CLEAR and Identity.

    truth = mot_files.read_table("gt.txt", "truth", length)
    prediction = mot_files.read_table("pred.txt", "prediction", length)
    result = score_sequence(truth, prediction, length, protocol="mot17")
    pooled = combine([result, ...])                          # over sequences
    by_class = score_classes(truth, prediction, length, protocol="nuscenes")
    averages = average_classes({name: combine([...]) for name in by_class})

A result is `{"HOTA": {...}, "CLEAR": {...}, "Identity": {...}, "Count": {...}, "summary": {...}}`
with TrackEval's field names and numbers, as fractions; HOTA's arrays run over `ALPHAS`. Tables are
`tracking.mot_files.Table`, or anything with its fields.

Every protocol works for any data with its class ids. Protocols:
  plain: truth with flag 0 is left out; classes are ignored.
  mot17, mot20: class 1 is scored; predictions on people in vehicles, static people, distractors and
    reflections (2, 7, 8, 12; with mot20 also 6, vehicles) are removed.
  nuscenes: the seven classes of `mot_files.CLASSES`, each with the plain rules, in all frames.
  nuscenes_keyframes: the same in the annotated frames only, 2 a second: frames 1, 1 + r, 1 + 2 r,
    ... with r = frame rate / 2 Hz become a sequence of their own, so that switches, fragments and
    matches are those of consecutive keyframes.
  kitti: car, pedestrian, bicycle. Predictions matched to a neighbour class (vans, sitting people)
    or to truth with flag 0 are removed; so are unmatched ones that lie by more than half in a
    DontCare region or are 25 px high or less. KITTI's own tool also treats truncated and heavily
    occluded objects as neighbours; that takes effect as far as their rows carry flag 0.
"""

import dataclasses
import functools
import types

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.metrics import clear_mot, hota, identity, overlaps

ALPHAS = hota.ALPHAS
METRICS = {"HOTA": hota, "CLEAR": clear_mot, "Identity": identity}
COUNT = ("Dets", "GT_Dets", "IDs", "GT_IDs")


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How files become scored boxes.

  Attributes:
    classes: {class name: function (truth, prediction, length) -> Overlaps of what is scored}.
    truth_classes, prediction_classes: class ids that the files may hold, or None = any.
    keyframe_rate: Hz of the frames that are scored, from frame 1 on, or None = all frames.
  """

  classes: dict
  truth_classes: range | None = None
  prediction_classes: range | None = None
  keyframe_rate: int | None = None


def _plain(truth, prediction, length, class_id=None):
  """Rows of the class (None = all) on both sides; truth with flag 0 is left out."""
  rows, true_rows = slice(None), _flag(truth)
  if class_id is not None:
    rows, true_rows = prediction.class_id == class_id, true_rows & (truth.class_id == class_id)
  return overlaps.find(_rows(truth, true_rows), _rows(prediction, rows), length)


def _motchallenge(truth, prediction, length, distractors):
  """Class 1; predictions whose best match is a distractor are removed."""
  pairs = overlaps.find(truth, prediction, length)
  truth = _rows(truth, overlaps.by_frame(truth))
  matches = _match_at_half(pairs)
  rows = np.ones(len(pairs.prediction_id), bool)
  removing = np.isin(truth.class_id[pairs.pair_truth[matches]], distractors)
  rows[pairs.pair_prediction[matches[removing]]] = False
  return pairs.keep(_flag(truth) & (truth.class_id == 1), rows)


def _kitti(truth, prediction, length, class_id, neighbours=()):
  """One class; neighbours, ignored regions and low boxes take predictions away."""
  regions = _rows(truth, truth.class_id == 9)
  truth = _rows(truth, np.isin(truth.class_id, (class_id, *neighbours)))
  prediction = _rows(prediction, prediction.class_id == class_id)
  pairs = overlaps.find(truth, prediction, length)
  truth = _rows(truth, overlaps.by_frame(truth))
  height = prediction.box_xywh[overlaps.by_frame(prediction), 3]
  scored = _flag(truth) & (truth.class_id == class_id)
  matches = _match_at_half(pairs)
  covered = overlaps.share_inside(regions, prediction, length) > 0.5 + overlaps.EPSILON
  rows = ~covered & (height > 25 + overlaps.EPSILON)
  rows[pairs.pair_prediction[matches]] = scored[pairs.pair_truth[matches]]
  return pairs.keep(scored, rows)


def _match_at_half(pairs):
  near = np.flatnonzero(pairs.iou >= 0.5 - overlaps.EPSILON)
  return overlaps.match(pairs, near, pairs.iou[near])


def _flag(truth):
  return truth.score.astype(np.int64) != 0


def _rows(table, rows):
  fields = ("frame", "track_id", "box_xywh", "score", "class_id")
  return types.SimpleNamespace(**{name: getattr(table, name)[rows] for name in fields})


_CLASSES = ("car", "truck", "bus", "trailer", "pedestrian", "motorcycle", "bicycle")
_partial = functools.partial

_BY_CLASS = {name: _partial(_plain, class_id=i) for i, name in enumerate(_CLASSES)}

# Class ids 7 to 10 of truth are KITTI's vans, sitting people, ignored regions and the rest.
PROTOCOLS = {
  "plain": Protocol({"all": _plain}),
  "mot17": Protocol(
    {"pedestrian": _partial(_motchallenge, distractors=(2, 7, 8, 12))}, range(1, 14), range(-1, 2)
  ),
  "mot20": Protocol(
    {"pedestrian": _partial(_motchallenge, distractors=(2, 6, 7, 8, 12))},
    *(range(1, 14), range(-1, 2)),
  ),
  "nuscenes": Protocol(_BY_CLASS, range(11), range(7)),
  "nuscenes_keyframes": Protocol(_BY_CLASS, range(11), range(7), keyframe_rate=2),
  "kitti": Protocol(
    {
      "car": _partial(_kitti, class_id=0, neighbours=(7,)),
      "pedestrian": _partial(_kitti, class_id=4, neighbours=(8,)),
      "bicycle": _partial(_kitti, class_id=6),
    },
    *(range(11), range(7)),
  ),
}


def score_sequence(truth, prediction, length, protocol="plain", class_name=None, frame_rate=None):
  """Scores one class of one sequence.

  Args:
    truth, prediction: tables of boxes; `truth.score` is the consider flag.
    length: number of frames; frames run from 1 to `length`.
    protocol: a key of `PROTOCOLS`.
    class_name: one of the protocol's classes; needed where it has several.
    frame_rate: Hz; needed by protocols that score keyframes only.

  Returns:
    The result dict described above.

  Raises:
    InputError: unknown protocol or class, a frame outside the sequence, an id twice in a frame, a
      class id the protocol does not know, or a frame rate that the keyframe rate does not divide.
  """
  rules = _protocol(protocol)
  if class_name is None and len(rules.classes) == 1:
    (class_name,) = rules.classes
  checks.choice(f"class of protocol {protocol!r}", class_name, rules.classes)
  sides = _scored_frames(truth, prediction, length, protocol, frame_rate)
  return _score(rules.classes[class_name](*sides))


def score_classes(truth, prediction, length, protocol="nuscenes", frame_rate=None):
  """Scores every class of the protocol: {class name: result}; see `score_sequence`."""
  rules = _protocol(protocol)
  sides = _scored_frames(truth, prediction, length, protocol, frame_rate)
  return {name: _score(of(*sides)) for name, of in rules.classes.items()}


def keyframe_interval(protocol, frame_rate):
  """Returns how many frames lie from one scored frame to the next; 1 if all are scored.

  Args:
    protocol: a key of `PROTOCOLS`.
    frame_rate: Hz, or None if it is unknown.

  Raises:
    InputError: the keyframe rate of the protocol does not divide the frame rate.
  """
  rate = _protocol(protocol).keyframe_rate
  if rate is None:
    return 1
  interval = 0 if frame_rate is None else frame_rate / rate
  checks.require(
    interval >= 1 and interval == int(interval),
    f"frame rate: {frame_rate} Hz received; protocol {protocol!r} scores {rate} frames a second, "
    f"so give a multiple of {rate} Hz, or choose a protocol that scores all frames.",
  )
  return int(interval)


def combine(results):
  """Pools the results of one class over sequences, by counts; `results` as a list or dict."""
  results = _listed(results)
  checks.require(results, "combine: no result received; pass at least one.")
  pooled = {name: metric.combine([r[name] for r in results]) for name, metric in METRICS.items()}
  pooled["Count"] = {name: sum(r["Count"][name] for r in results) for name in COUNT}
  return _with_summary(pooled)


def average_classes(results):
  """Averages the (pooled) results of several classes.

  Args:
    results: {class name: result}, or a list of results.

  Returns:
    {"class_averaged": means of ratios and sums of counts over all classes,
     "class_averaged_nonempty": the same over classes with any true or predicted box,
     "detection_averaged": ratios from summed counts}.
  """
  results = _listed(results)
  checks.require(results, "average_classes: no result received; pass at least one.")
  filled = [r for r in results if r["Count"]["Dets"] + r["Count"]["GT_Dets"]] or results
  return {
    "class_averaged": _average(results),
    "class_averaged_nonempty": _average(filled),
    "detection_averaged": combine(results),
  }


def _protocol(name):
  return PROTOCOLS[checks.choice("protocol", name, PROTOCOLS)]


def _listed(results):
  return list(results.values() if isinstance(results, dict) else results)


def _average(results):
  averaged = {name: metric.average([r[name] for r in results]) for name, metric in METRICS.items()}
  averaged["Count"] = {name: sum(r["Count"][name] for r in results) for name in COUNT}
  return _with_summary(averaged)


def _scored_frames(truth, prediction, length, protocol, frame_rate):
  """Returns truth, prediction and length of the frames that the protocol scores, checked."""
  interval = keyframe_interval(protocol, frame_rate)
  _check_classes(truth, prediction, _protocol(protocol), protocol)
  if interval == 1:
    return truth, prediction, length
  sides = []
  for name, table in (("truth", truth), ("prediction", prediction)):
    overlaps.check_frames(name, table.frame, length)
    rows = _rows(table, (table.frame - 1) % interval == 0)
    rows.frame = (rows.frame - 1) // interval + 1
    sides.append(rows)
  return *sides, (length - 1) // interval + 1


def _check_classes(truth, prediction, rules, protocol):
  for side, table, known in (
    ("truth", truth, rules.truth_classes),
    ("prediction", prediction, rules.prediction_classes),
  ):
    if known is None:
      continue
    wrong = np.flatnonzero((table.class_id < known.start) | (table.class_id >= known.stop))
    if len(wrong):
      raise checks.InputError(
        f"{side}: class {table.class_id[wrong[0]]} in frame {table.frame[wrong[0]]}; protocol "
        f"{protocol!r} allows classes {known.start} to {known.stop - 1}."
      )


def _score(pairs):
  result = {name: metric.score(pairs) for name, metric in METRICS.items()}
  result["Count"] = {
    "Dets": len(pairs.prediction_id),
    "GT_Dets": len(pairs.truth_id),
    "IDs": pairs.num_prediction_ids,
    "GT_IDs": pairs.num_truth_ids,
    "Frames": pairs.length,
  }
  return _with_summary(result)


def _with_summary(result):
  """Adds the numbers people quote: HOTA averaged over thresholds, CLEAR and Identity."""
  h, c, i = result["HOTA"], result["CLEAR"], result["Identity"]
  names = ("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr")
  summary = {name: float(np.mean(h[name])) for name in names}
  summary["HOTA(0)"] = h["HOTA(0)"]
  summary |= {name: c[name] for name in ("MOTA", "MOTP", "IDSW")}
  summary |= {name: c[f"CLR_{name}"] for name in ("FP", "FN", "TP")}
  summary |= {name: c[name] for name in ("MT", "PT", "ML", "Frag")}
  summary |= {name: i[name] for name in ("IDF1", "IDP", "IDR", "IDTP", "IDFP", "IDFN")}
  return result | {"summary": summary}
