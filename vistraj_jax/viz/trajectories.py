"""Trajectories over the front image; errors over the horizon, by intent and by hidden state."""

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.viz import style

PAST, TRUTH = "#FFFFFF", "#FFD600"
NEAREST = 0.5  # m in front of the camera; what is nearer is not drawn


def project(xy, calibration):
  """Projects points on the ground to pixels of a Waymo camera.

  Args:
    xy: [N, 2] m, ego frame (x ahead, y left, ground at z = 0).
    calibration: [25]: f_u, f_v, c_u, c_v, k1, k2, p1, p2, k3 in px of the original image, then the
      4 x 4 camera-to-ego matrix by rows. The camera looks along its +x, +y to its left, +z up.

  Returns:
    (pixels [N, 2], in_front bool [N]); pixels of points behind the camera mean nothing.
  """
  calibration = np.asarray(calibration, np.float64)
  f_u, f_v, c_u, c_v, k1, k2, p1, p2, k3 = calibration[:9]
  ego = np.concatenate(
    [np.asarray(xy, np.float64), np.zeros((len(xy), 1)), np.ones((len(xy), 1))], 1
  )
  camera = np.linalg.solve(calibration[9:].reshape(4, 4), ego.T).T
  depth = np.maximum(camera[:, 0], 1e-6)
  u, v = -camera[:, 1] / depth, -camera[:, 2] / depth
  r2 = u**2 + v**2
  radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
  distorted_u = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u**2)
  distorted_v = v * radial + p1 * (r2 + 2 * v**2) + 2 * p2 * u * v
  return np.stack([f_u * distorted_u + c_u, f_v * distorted_v + c_v], -1), camera[:, 0] > NEAREST


def draw_frames(frames, path):
  """Draws frames below one another: the front image with its trajectories, and a plan beside it.

  Args:
    frames: list of {"name", "image" uint8 [H, W, 3], "calibration" [25], "camera_hw" (height, width
      the calibration is for), "past" [16, 6], "future" [20, 2] or None, "predictions" {label: [20,
      2] or [K, 20, 2]}}.
    path: PNG file to write.
  """
  checks.require(frames, f"{path}: no frame to draw.")
  made, axes = style.figure(2, len(frames), width=5.2, height=3.4)
  for row, frame in enumerate(frames):
    _draw_image(axes[2 * row], frame)
    _draw_plan(axes[2 * row + 1], frame)
  style.save(made, path)
  return made


def draw_horizon(runs, path):
  """Draws the mean displacement over the horizon, one line a run; motion models are dashed.

  Args:
    runs: {label: {"by_horizon": [20] m}}.
    path: PNG file to write.
  """
  made, (ax,) = style.figure(1, 1, width=6.0, height=4.0)
  seconds = np.arange(1, 21) / 4
  for i, (label, run) in enumerate(runs.items()):
    ax.plot(
      seconds,
      run["by_horizon"],
      color=style.PALETTE[i % len(style.PALETTE)],
      linestyle=style.line_style(label),
      label=style.readable(label),
    )
  ax.set_xlabel("time ahead (s)", fontsize=9)
  ax.set_ylabel("mean displacement (m)", fontsize=9)
  ax.set_ylim(bottom=0)
  # A car that stands still would hide all others.
  others = [run["by_horizon"][-1] for label, run in runs.items() if label != "stand_still"]
  if others:
    ax.set_ylim(top=1.1 * max(others))
  ax.legend(fontsize=8, frameon=False)
  style.save(made, path)
  return made


def draw_intents(runs, path):
  """Draws bars of ADE@5s by intent, one colour a run.

  Args:
    runs: {label: {"by_intent": {intent: {"ade_5s" m, "frames"}}}}.
    path: PNG file to write.
  """
  shown = {label: run["by_intent"] for label, run in runs.items() if label != "stand_still"}
  intents = list(dict.fromkeys(intent for found in shown.values() for intent in found))
  checks.require(intents, f"{path}: no run has a scored frame.")
  made, (ax,) = style.figure(1, 1, width=1.5 + 2.0 * len(intents), height=4.0)
  width = 0.8 / len(shown)
  for i, (label, found) in enumerate(shown.items()):
    ax.bar(
      np.arange(len(intents)) + (i - (len(shown) - 1) / 2) * width,
      [found.get(intent, {"ade_5s": 0})["ade_5s"] for intent in intents],
      width,
      color=style.PALETTE[i % len(style.PALETTE)],
      hatch="//" if label in style.BASELINES else None,
      edgecolor="white",
      label=style.readable(label),
    )
  frames = next(iter(shown.values()))
  titles = [f"{name}\n({frames.get(name, {'frames': 0})['frames']:,} frames)" for name in intents]
  ax.set_xticks(np.arange(len(intents)), titles, fontsize=9)
  ax.set_ylabel("ADE@5s (m)", fontsize=9)
  ax.legend(fontsize=7, frameon=False)
  style.save(made, path)
  return made


def draw_layers(curves, path):
  """Draws a score over the hidden states of an encoder.

  Args:
    curves: {label: {layer number: ADE@5s m}}; a curve of one value is a level line (a baseline).
    path: PNG file to write.
  """
  made, (ax,) = style.figure(1, 1, width=6.0, height=4.0)
  for i, (label, curve) in enumerate(curves.items()):
    colour = style.PALETTE[i % len(style.PALETTE)]
    if len(curve) == 1:
      ax.axhline(
        next(iter(curve.values())), color=colour, linestyle="--", label=style.readable(label)
      )
    else:
      ax.plot(list(curve), list(curve.values()), ".-", color=colour, label=style.readable(label))
  ax.set_xlabel("hidden state (0: embedded patches)", fontsize=9)
  ax.set_ylabel("ADE@5s (m)", fontsize=9)
  ax.legend(fontsize=8, frameon=False)
  style.save(made, path)
  return made


def _draw_image(ax, frame):
  height, width = frame["image"].shape[:2]
  scale = np.array([width, height]) / np.array(frame["camera_hw"])[::-1]
  ax.imshow(frame["image"])
  for _, colour, thickness, paths in _lines(frame):
    for xy in paths:
      pixels, in_front = project(xy, frame["calibration"])
      pixels = np.where(in_front[:, None], pixels * scale, np.nan)
      ax.plot(*pixels.T, ".-", color=colour, linewidth=thickness, markersize=3)
  ax.set_xlim(0, width)
  ax.set_ylim(height, 0)
  ax.set_axis_off()
  ax.set_title(frame["name"], fontsize=8)


def _draw_plan(ax, frame):
  """From above, ahead is up."""
  for label, colour, thickness, paths in _lines(frame):
    colour = "0.5" if colour == PAST else colour
    for i, xy in enumerate(paths):
      name = label if i == 0 else None
      ax.plot(
        -xy[:, 1], xy[:, 0], ".-", color=colour, linewidth=thickness, markersize=3, label=name
      )
  ax.set_aspect("equal", adjustable="datalim")
  ax.set_xlabel("to the right (m)", fontsize=8)
  ax.set_ylabel("ahead (m)", fontsize=8)
  ax.legend(fontsize=7, frameon=False)


def _lines(frame):
  """Yields (label, colour, line width, list of paths [N, 2]); what comes later lies on top."""
  yield "past", PAST, 1.2, [np.asarray(frame["past"])[:, :2]]
  if frame["future"] is not None:
    yield "truth", TRUTH, 4.0, [np.asarray(frame["future"])]
  for i, (label, xy) in enumerate(frame["predictions"].items()):
    xy = np.asarray(xy)
    colour = style.PALETTE[(1 + i) % len(style.PALETTE)]
    yield style.readable(label), colour, 1.2, list(xy if xy.ndim == 3 else xy[None])
