"""Mean IoU of the next box, for motion models that see every true box: by class and by speed.

  python -m benchmarks.next_box --data data/kitti --split val --out next_box.json \\
    --weights runs/mot17:"TrackSSM MOT17" runs/kitti/full:"TrackSSM full"

Every model runs over whole tracks and is asked for the next box of every training window (after
history + 1 boxes in consecutive frames). Speed is the true step of the centre as a share of the
box's height, per frame.
"""

import itertools
import json
import sys

import numpy as np

from launch import command_line, runtime
from vistraj_jax.core import files

HISTORY = 5
SPEEDS = (0.0, 0.01, 0.03, 0.1, np.inf)


def main(arguments=None):
  """Prints the table; returns 0."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--data", required=True, help="folder that launch.prepare wrote")
  parser.add_argument("--split", default="val", help="train, val or test")
  parser.add_argument("--weights", nargs="*", default=[], metavar="PATH:LABEL", help="TrackSSM's")
  parser.add_argument("--out", help="JSON file for the figures")
  args = parser.parse_args(arguments)
  runtime.configure()
  from vistraj_jax.data import trackssm
  from vistraj_jax.models.trackssm import predict
  from vistraj_jax.tracking import mot_files, motion_models

  models = {name: motion_models.make(name) for name in motion_models.NAMES}
  for one in args.weights:
    path, _, label = one.partition(":")
    network = predict.load(path)
    models[label or path] = motion_models.learned(network, network.history, label)
  tracks = _unbroken(trackssm.read_tracks(args.data, args.split))
  found = {name: _run(model, tracks) for name, model in models.items()}
  class_id, speed = found["identity"]["class_id"], found["identity"]["speed"]
  names = dict(enumerate(mot_files.CLASSES))
  rows = {"all": np.ones(len(speed), bool)}
  if len(np.unique(class_id)) > 1:  # a single class may be of another numbering
    rows |= {names.get(c, f"class {c}"): class_id == c for c in np.unique(class_id)}
  for low, high in itertools.pairwise(SPEEDS):
    label = f"{low:g} - {high:g} of the height" if np.isfinite(high) else f"above {low:g}"
    rows[label] = (low <= speed) & (speed < high)
  table = {
    row: {"boxes": int(mask.sum())}
    | {name: float(x["iou"][mask].mean()) for name, x in found.items()}
    for row, mask in rows.items()
    if mask.any()
  }
  print("| rows | boxes | " + " | ".join(found) + " |")
  print("|---|---:|" + "---:|" * len(found))
  for row, values in table.items():
    shown = " | ".join(f"{values[name]:.4f}" for name in found)
    print(f"| {row} | {values['boxes']:,} | {shown} |")
  if args.out:
    files.write_text(args.out, json.dumps(table, indent=2) + "\n")
  return 0


def _unbroken(tracks):
  """Returns [(boxes cxcywh px [L, 4], image size [2], class id)] without gaps in the frames."""
  runs = []
  for track in tracks:
    xywh = np.asarray(track["boxes"], np.float64)
    boxes = np.concatenate([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]], 1)
    size = np.array([track["width"], track["height"]], np.float64)
    for rows in np.split(np.arange(len(boxes)), np.flatnonzero(np.diff(track["frames"]) != 1) + 1):
      if len(rows) > HISTORY + 1:
        runs.append((boxes[rows], size, track["class_id"]))
  return sorted(runs, key=lambda run: -len(run[0]))


def _run(model, runs):
  """Runs all tracks side by side; the longest come first, so that those alive are a prefix."""
  lengths = np.array([len(boxes) for boxes, _, _ in runs])
  size = np.stack([size for _, size, _ in runs])
  classes = np.array([c for _, _, c in runs])
  state = model.start(np.stack([boxes[0] for boxes, _, _ in runs]))
  out = {"iou": [], "class_id": [], "speed": []}
  for t in range(1, lengths[0]):
    alive = int((lengths > t).sum())
    state = {name: value[:alive] for name, value in state.items()}
    truth = np.stack([boxes[t] for boxes, _, _ in runs[:alive]])
    if t > HISTORY:
      before = np.stack([boxes[t - 1] for boxes, _, _ in runs[:alive]])
      out["iou"].append(_iou(model.predict(state, size[:alive]), truth))
      out["class_id"].append(classes[:alive])
      step = np.linalg.norm(truth[:, :2] - before[:, :2], axis=1)
      out["speed"].append(step / before[:, 3])
    state = model.observe(state, truth)
  return {name: np.concatenate(value) for name, value in out.items()}


def _iou(a, b):
  low = np.maximum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
  high = np.minimum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2)
  inside = np.maximum(high - low, 0).prod(1)
  return inside / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - inside)


if __name__ == "__main__":
  sys.exit(command_line.run(main))
