"""Bars of an ablation: every run's mean over seeds, its spread, and the single seeds as dots."""

import json
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.viz import style


def read_rows(path):
  """Reads the rows of a report.

  Args:
    path: JSON file: a list of {"run": name, "metric": {name: [one value a seed]}}.

  Raises:
    InputError: naming the file, if it is missing or holds something else.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"{path}: there is no such file; give a report's JSON file.")
  try:
    rows = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise checks.InputError(f"{path}: no JSON ({error}); write the report again.") from error
  checks.require(
    isinstance(rows, list) and rows and all(_is_row(row) for row in rows),
    f'{path}: a list of {{"run": name, "metric": {{name: [one number a seed]}}}} is wanted.',
  )
  return rows


def draw(rows, path, metrics=None):
  """Draws one panel a metric to a PNG file and returns the figure.

  Args:
    rows: of `read_rows`. A run that lacks a metric has no bar there.
    path: PNG file.
    metrics: names; all by default, in the order in which they come.

  Raises:
    InputError: a metric that no run has.
  """
  known = list(dict.fromkeys(name for row in rows for name in row["metric"]))
  metrics = [checks.choice("--metrics", name, known) for name in metrics or known]
  columns = min(len(metrics), 3)
  count = -(-len(metrics) // columns)
  made, axes = style.figure(columns, count, width=3.6, height=0.9 + 0.19 * len(rows))
  for ax, name in zip(axes[: len(metrics)], metrics, strict=True):
    _panel(ax, rows, name)
  for ax in axes[len(metrics) :]:
    ax.set_axis_off()
  made.suptitle("bar: mean over seeds; line: standard deviation; dots: seeds", fontsize=8)
  style.save(made, path)
  return made


def _panel(ax, rows, name):
  shown = [(k, row) for k, row in enumerate(rows) if name in row["metric"]]
  for place, (k, row) in enumerate(shown):
    values = np.array(row["metric"][name], np.float64)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    colour = style.PALETTE[k % len(style.PALETTE)]
    ax.barh(place, values.mean(), 0.7, color=colour, alpha=0.55, label=f"{values.mean():.4g}")
    ax.errorbar(values.mean(), place, xerr=spread, color="0.2", capsize=3, linewidth=1.2)
    ax.plot(values, np.full(len(values), place), "o", color=colour, markersize=3.5)
    ax.annotate(
      f"{values.mean():.3g}",
      (max(values.max(), values.mean() + spread, 0), place),
      xytext=(4, 0),
      textcoords="offset points",
      va="center",
      fontsize=7,
    )
  ax.set_title(style.readable(name), fontsize=10)
  ax.set_yticks(range(len(shown)), [style.readable(row["run"]) for _, row in shown])
  ax.set_ylim(len(shown) - 0.4, -0.6)  # the first row on top
  ax.axvline(0, color="0.4", linewidth=0.8)
  ax.margins(x=0.15)


def _is_row(row):
  if not (isinstance(row, dict) and isinstance(row.get("run"), str)):
    return False
  metric = row.get("metric")
  return isinstance(metric, dict) and all(
    isinstance(values, list)
    and values
    and all(isinstance(v, (int, float)) and np.isfinite(v) for v in values)
    for values in metric.values()
  )
