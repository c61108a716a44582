"""HOTA, DetA and AssA over the localisation threshold, several runs side by side."""

import json
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.viz import style

QUANTITIES = {"HOTA": "HOTA", "DetA": "detection accuracy", "AssA": "association accuracy"}


def read_scores(path, protocol=None):
  """Reads one protocol of the JSON file of an evaluation.

  Args:
    path: scores.json, or its folder.
    protocol: its name; None takes the first of the file.

  Returns:
    {"protocol": its name, "alphas": the thresholds, "runs": {run: scores}}.

  Raises:
    InputError: naming the file, if it is missing or holds something else, or the protocol.
  """
  path = pathlib.Path(path)
  path = path / "scores.json" if path.is_dir() else path
  checks.require(
    path.is_file(), f"{path}: there is no such file; write it with `python -m launch.evaluate`."
  )
  try:
    scores = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise checks.InputError(f"{path}: no JSON ({error}); evaluate again.") from error
  checks.require(
    isinstance(scores, dict) and scores.get("protocols") and scores.get("alphas"),
    f"{path}: has no 'protocols' and 'alphas', so it is not the scores.json of launch.evaluate.",
  )
  protocol = protocol or next(iter(scores["protocols"]))
  checks.choice(f"protocol of {path}", protocol, scores["protocols"])
  runs = scores["protocols"][protocol]["runs"]
  return {"protocol": protocol, "alphas": scores["alphas"], "runs": runs}


def curves(scores, class_name=None):
  """Returns {run: {quantity: float64 [alphas], fractions}}.

  Args:
    scores: dict of `read_scores`.
    class_name: one class, pooled over sequences; None takes the average over classes weighted by
      their detections.

  Raises:
    InputError: for a class that a run does not have.
  """
  found = {}
  for run, one in scores["runs"].items():
    if class_name is None:
      result = one["over_classes"]["detection_averaged"]
    else:
      checks.choice(f"class of run {run!r}", class_name, one["classes"])
      result = one["classes"][class_name]["COMBINED"]
    found[run] = {name: np.asarray(result["HOTA"][name], np.float64) for name in QUANTITIES}
  return found


def draw_hota(scores, path, class_name=None):
  """Draws three panels to a PNG file and returns the figure; arguments as in `curves`."""
  by_run = curves(scores, class_name)
  made, axes = style.figure(len(QUANTITIES), 1, width=4.2, height=3.6)
  for ax, (name, title) in zip(axes, QUANTITIES.items(), strict=True):
    for index, (run, result) in enumerate(by_run.items()):
      percent = 100 * result[name]
      ax.plot(
        scores["alphas"],
        percent,
        color=style.PALETTE[index % len(style.PALETTE)],
        linestyle=style.line_style(run),
        linewidth=1.6,
        label=f"{style.readable(run)} ({percent.mean():.1f})",
      )
    ax.set_title(f"{title} (mean in brackets)", fontsize=10)
    ax.set_xlabel("localisation threshold alpha (IoU)", fontsize=8)
    ax.set_ylabel(f"{name} (%)", fontsize=8)
    ax.set_xlim(0, 1)
    ax.margins(y=0.1)
    ax.legend(fontsize=7, frameon=True, framealpha=0.85, edgecolor="none", loc="best")
  scope = "all classes, weighted by detections" if class_name is None else f"class {class_name}"
  made.suptitle(f"{scope}; protocol {scores['protocol']}", fontsize=11)
  style.save(made, path)
  return made
