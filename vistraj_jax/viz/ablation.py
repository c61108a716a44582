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
  made, axes = style.figure(columns, count, width=1.6 + 0.55 * len(rows), height=3.2)
  for ax, name in zip(axes, metrics, strict=False):
    _panel(ax, rows, name)
  for ax in axes[len(metrics) :]:
    ax.set_axis_off()
  made.suptitle("bar: mean over seeds; line: standard deviation; dots: seeds", fontsize=8)
  style.save(made, path)
  return made


def _panel(ax, rows, name):
  for k, row in enumerate(rows):
    values = np.array(row["metric"].get(name, ()), np.float64)
    if not len(values):
      continue
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    colour = style.PALETTE[k % len(style.PALETTE)]
    ax.bar(k, values.mean(), 0.7, color=colour, alpha=0.55, label=f"{values.mean():.4g}")
    ax.errorbar(k, values.mean(), spread, color="0.2", capsize=3, linewidth=1.2)
    ax.plot(np.full(len(values), k), values, "o", color=colour, markersize=3.5)
    ax.annotate(
      f"{values.mean():.3g}",
      (k, max(values.max(), values.mean() + spread, 0)),
      xytext=(0, 2),
      textcoords="offset points",
      ha="center",
      fontsize=7,
    )
  ax.set_title(style.readable(name), fontsize=10)
  ax.set_xticks(range(len(rows)), [style.readable(row["run"]) for row in rows])
  ax.tick_params(axis="x", rotation=30)
  ax.set_xlim(-0.6, len(rows) - 0.4)
  ax.axhline(0, color="0.4", linewidth=0.8)
  ax.margins(y=0.12)


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
