"""Training curves from JSON-lines logs: one panel per quantity, phases marked, baselines dashed."""

import json
import math
import pathlib

from vistraj_jax.core import checks
from vistraj_jax.viz import style

# Panel of a scalar by the start of its name -> title and unit of the y axis, in drawing order.
# "loss/<term>/train" and the like are told from "loss/train" by their extra level.
PANELS = {
  "loss": "loss",
  "loss terms": "loss terms",
  "iou": "mean IoU of the next box",
  "ade_3s": "ADE up to 3 s (m)",
  "ade_5s": "ADE up to 5 s (m)",
  "ade_5s_by_intent": "ADE up to 5 s (m), by intent",
  "fde_5s": "displacement at 5 s (m)",
  "lr": "learning rate",
  "grad_norm": "gradient norm before clipping",
  "examples/s": "speed (examples/s)",
}
_FROM_ZERO = ("lr", "grad_norm", "examples/s")
_NOT_DRAWN = ("step", "phase", "epoch", "time", "steps/s")


def read_log(path):
  """Reads a log of JSON lines.

  Args:
    path: the file, or the work folder that holds it as `log.jsonl`. Every line is an object with
      `step` (over all phases) and `phase`; the other numbers are scalars.

  Returns:
    List of dicts, ascending in `step`. A last line cut by a kill is left out.

  Raises:
    InputError: naming the file and line, for a missing or empty log, or a line that is none.
  """
  path = pathlib.Path(path)
  path = path / "log.jsonl" if path.is_dir() else path
  checks.require(
    path.is_file(), f"{path}: there is no such log; give a work folder or its log.jsonl."
  )
  lines = path.read_text(encoding="utf-8").splitlines()
  rows = []
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      if number == len(lines):
        continue
      raise checks.InputError(f"{path}:{number}: no JSON object ({error.msg}).") from error
    checks.require(
      isinstance(row, dict) and isinstance(row.get("step"), int) and "phase" in row,
      f"{path}:{number}: an object with an integer 'step' and a 'phase' is wanted.",
    )
    rows.append(row)
  checks.require(rows, f"{path}: the log is empty; train for at least one logged step.")
  return sorted(rows, key=lambda row: row["step"])


def phase_starts(rows):
  """Returns [(phase, step at which it starts)] in the order of the log; the first is step 0."""
  starts, last = [], 0
  for row in rows:
    if not starts or starts[-1][0] != row["phase"]:
      starts.append((row["phase"], last))
    last = row["step"]
  return starts


def draw_training(runs, path):
  """Draws the curves of one or several runs to a PNG file.

  Args:
    runs: {label: rows of `read_log`}.
    path: PNG file to write.

  Returns:
    The figure.

  Raises:
    InputError: if no run has a scalar to draw.
  """
  by_panel = _panels(runs)
  checks.require(
    by_panel, f"{path}: the logs of {list(runs)} hold no scalars, so there is nothing to draw."
  )
  columns = min(3, len(by_panel))
  made, axes = style.figure(columns, math.ceil(len(by_panel) / columns))
  for ax, (panel, names) in zip(axes[: len(by_panel)], by_panel.items(), strict=True):
    _draw_panel(ax, panel, names, runs)
  for ax in axes[len(by_panel) :]:
    ax.remove()
  if len(runs) == 1:
    made.suptitle(next(iter(runs)), fontsize=11)
  style.save(made, path)
  return made


def _panels(runs):
  """Returns {panel: [scalar names]}, known panels first, then others by name."""
  names = {
    name: None
    for rows in runs.values()
    for row in rows
    for name, value in row.items()
    if name not in _NOT_DRAWN and isinstance(value, int | float)
  }
  found = {}
  for name in names:
    found.setdefault(_panel_of(name), []).append(name)
  for members in found.values():
    members.sort(key=lambda name: (_series(name) in style.BASELINES, "train" not in name))
  order = [panel for panel in PANELS if panel in found]
  return {panel: found[panel] for panel in order + sorted(set(found) - set(order))}


def _panel_of(name):
  if name in PANELS:
    return name
  parts = name.split("/")
  return "loss terms" if parts[0] == "loss" and len(parts) > 2 else parts[0]


def _series(name):
  """Returns what a legend calls a scalar: its name without that of the panel."""
  return "" if name in PANELS else name.partition("/")[2]


def _draw_panel(ax, panel, names, runs):
  """One quantity of all runs; colour tells the series of one run, or the runs if several."""
  several, shared = len(runs) > 1, set()
  for index, (label, rows) in enumerate(runs.items()):
    for number, name in enumerate(names):
      points = _points(rows, name)
      series = _series(name)
      is_baseline = series in style.BASELINES
      # A baseline does not depend on the run: one line is enough.
      if not points or (several and series in shared):
        continue
      if is_baseline:
        shared.add(series)
      is_train = series.endswith("train")
      colour = style.PALETTE[(index if several else number) % len(style.PALETTE)]
      ax.plot(
        *zip(*points, strict=True),
        color="0.4" if several and is_baseline else colour,
        linestyle="-." if several and _is_second(series, names) else style.line_style(series),
        linewidth=1.0 if is_train else 1.6,
        alpha=0.55 if is_train and several else 1.0,
        marker="" if len(points) > 40 or (is_baseline and len(points) > 1) else ".",
        markersize=4,
        label=_label(label, series, several and not is_baseline),
      )
  _mark_phases(ax, runs)
  ax.set_title(PANELS.get(panel, style.readable(panel)), fontsize=10, pad=18)
  ax.set_xlabel("step (over all phases)", fontsize=8)
  last = max(rows[-1]["step"] for rows in runs.values()) or 1
  ax.set_xlim(-0.02 * last, 1.02 * last)  # the same in all panels, first point in sight
  if panel in _FROM_ZERO:
    ax.set_ylim(bottom=0)
  if panel == "lr":
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}" if value else "0")
  if len(names) > 1 or several:
    ax.legend(fontsize=7, frameon=True, framealpha=0.85, edgecolor="none")


def _points(rows, name):
  """Returns [(step, value)] of a scalar; learning rates jump between phases, so nan parts them."""
  points, phase = [], None
  for row in rows:
    if name in row:
      if name.startswith("lr/") and points and row["phase"] != phase:
        points.append((row["step"], math.nan))
      points.append((row["step"], row[name]))
      phase = row["phase"]
  return points


def _is_second(series, names):
  """Whether a series needs another line style, as its run's colour is taken already."""
  return series != _series(names[0]) and series not in (*style.BASELINES, "train", "val")


def _label(run, series, with_run):
  if not with_run:
    return style.readable(series)
  return f"{run}: {style.readable(series)}" if series else run


def _mark_phases(ax, runs):
  """A dotted line where a phase starts; names above the panel, if all runs have the same."""
  starts = [phase_starts(rows) for rows in runs.values()]
  for index, one in enumerate(starts):
    colour = "0.35" if len(runs) == 1 else style.PALETTE[index % len(style.PALETTE)]
    for _, step in one[1:]:
      ax.axvline(step, color=colour, linestyle=":", linewidth=1.0)
  if all(one == starts[0] for one in starts):
    for phase, step in starts[0]:
      ax.annotate(
        style.readable(phase),
        (step, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(3, 3),
        textcoords="offset points",
        fontsize=7,
        color="0.35",
      )
