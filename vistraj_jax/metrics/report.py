"""Arranges the scores of several runs over many sequences as plain dicts, and as tables.

Sequences pool by counts: over all of them, and over those of one camera.
"""

import numpy as np

from vistraj_jax.metrics import protocols

# Column title, where it is found, and whether it is a fraction (shown in percent) or a count.
COLUMNS = (
  *(("HOTA", "HOTA", True), ("DetA", "DetA", True), ("AssA", "AssA", True)),
  *(("LocA", "LocA", True), ("MOTA", "MOTA", True), ("MOTP", "MOTP", True)),
  *(("IDF1", "IDF1", True), ("IDP", "IDP", True), ("IDR", "IDR", True)),
  *(("IDSW", "IDSW", False), ("Frag", "Frag", False), ("FP", "FP", False), ("FN", "FN", False)),
  *(("MT", "MT", False), ("ML", "ML", False)),
)

POOLED = "COMBINED"


def arrange(scores, cameras):
  """Pools and averages the scores of one run.

  Args:
    scores: {sequence: {class name: result of `protocols.score_sequence`}}.
    cameras: {sequence: name of its camera, or ""}.

  Returns:
    {"classes": {class: {"COMBINED": result, "sequences": {sequence: result}}},
     "over_classes": {"class_averaged": result, "class_averaged_nonempty": result,
                      "detection_averaged": result,
                      "sequences": {sequence: detection-averaged result}},
     "cameras": {camera: {"classes": {class: result},
                          "over_classes": {the same three averages}}}}
  """
  names = list(next(iter(scores.values())))
  classes = {}
  for name in names:
    single = {sequence: by_class[name] for sequence, by_class in scores.items()}
    classes[name] = {POOLED: protocols.combine(single.values()), "sequences": single}
  over = protocols.average_classes({name: one[POOLED] for name, one in classes.items()})
  over["sequences"] = {
    sequence: protocols.combine(by_class.values()) for sequence, by_class in scores.items()
  }
  by_camera = {}
  for camera in sorted(set(cameras.values()) - {""}):
    own = [by_class for sequence, by_class in scores.items() if cameras[sequence] == camera]
    pooled = {name: protocols.combine([by_class[name] for by_class in own]) for name in names}
    by_camera[camera] = {"classes": pooled, "over_classes": protocols.average_classes(pooled)}
  return {"classes": classes, "over_classes": over, "cameras": by_camera}


def plain(value):
  """Returns `value` with arrays as lists and NumPy numbers as Python's, ready for JSON."""
  if isinstance(value, dict):
    return {key: plain(one) for key, one in value.items()}
  return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def class_table(runs):
  """Returns the rows of the closing table, one block per class, runs side by side.

  Args:
    runs: {label: what `arrange` returns}.

  Returns:
    list of [class, run, value, ...] strings, the header first. Classes without any box are left
    out, also of the mean; the two averages come first where there are several classes.
  """
  first = next(iter(runs.values()))
  blocks = []
  if len(first["classes"]) > 1:
    blocks += [
      (title, {label: run["over_classes"][key] for label, run in runs.items()})
      for title, key in (
        ("mean of classes", "class_averaged_nonempty"),
        ("all classes", "detection_averaged"),
      )
    ]
  for name in first["classes"]:
    block = {label: run["classes"][name][POOLED] for label, run in runs.items()}
    if any(map(_has_boxes, block.values())):
      blocks.append((name, block))
  rows = [_header("class")]
  for title, block in blocks:
    rows += [[title, label, *_values(result)] for label, result in block.items()]
  return rows


def camera_table(runs, by_class=False):
  """Returns the rows [camera, run, value, ...], the header first; none without cameras.

  Args:
    runs: {label: what `arrange` returns}.
    by_class: for each camera the mean of its classes and every class that has any box, instead of
      one block over all boxes.
  """
  rows = [_header("camera, class" if by_class else "camera")]
  for camera, first in next(iter(runs.values()))["cameras"].items():
    own = {label: run["cameras"][camera] for label, run in runs.items()}
    key = "class_averaged_nonempty" if by_class else "detection_averaged"
    blocks = [("mean", {label: one["over_classes"][key] for label, one in own.items()})]
    if by_class:
      for name in first["classes"]:
        blocks.append((name, {label: one["classes"][name] for label, one in own.items()}))
    for name, block in blocks:
      if not by_class or any(map(_has_boxes, block.values())):
        title = f"{camera} {name}" if by_class else camera
        rows += [[title, label, *_values(result)] for label, result in block.items()]
  return rows if len(rows) > 1 else []


def sequence_table(runs):
  """Returns the rows [sequence, run, value, ...] over all classes, the header first."""
  rows = [_header("sequence")]
  for sequence in next(iter(runs.values()))["over_classes"]["sequences"]:
    for label, run in runs.items():
      rows.append([sequence, label, *_values(run["over_classes"]["sequences"][sequence])])
  return rows


def as_text(rows):
  """Returns rows of strings as an aligned table; a repeated first column is left blank."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines, last = [], None
  for row in rows:
    shown = [row[0] if row[0] != last else "", *row[1:]]
    cells = [cell.ljust(width) for cell, width in zip(shown[:2], widths[:2], strict=True)]
    cells += [cell.rjust(width) for cell, width in zip(shown[2:], widths[2:], strict=True)]
    lines.append("  ".join(cells).rstrip())
    last = row[0]
  return "\n".join(lines)


def as_markdown(rows):
  """Returns rows of strings as a Markdown table."""
  rule = ["---", "---", *("---:" for _ in rows[0][2:])]
  return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def _header(first):
  return [first, "run", *(title for title, _, _ in COLUMNS)]


def _has_boxes(result):
  return result["Count"]["GT_Dets"] + result["Count"]["Dets"] > 0


def _values(result):
  """Returns the cells of a row; without a true or predicted box there is nothing to score."""
  if not _has_boxes(result):
    return ["-"] * len(COLUMNS)
  summary = result["summary"]
  return [
    f"{100 * summary[key]:.2f}" if ratio else f"{summary[key]:,}" for _, key, ratio in COLUMNS
  ]
