"""Error of boxes between keyframes, against the simulated world's own boxes at 12 Hz.

  python -m launch.prepare world --out data/world
  python -m benchmarks.interpolation --dataroot data/world [--out FILE.json]

The database holds annotations at 2 Hz only. Its drives are simulated again and seen at all frames;
interpolated boxes are compared with these by class, by speed of the object over ground and by the
turning rate of the ego car. IoU, and the largest distance of an edge in px; each by "image2d" and
"pose3d" (see prepare/nuscenes/tracks.py), and as the box of the keyframe before, which is what one
has without interpolation.
"""

import itertools
import json
import pathlib

import numpy as np

from launch import command_line
from vistraj_jax.core import checks, files
from vistraj_jax.tracking import mot_files

WAYS = ("keyframe before", "image2d", "pose3d")
SPEEDS = (0.0, 0.5, 3.0, 8.0, np.inf)  # m/s
TURNS = (0.0, 2.0, 10.0, np.inf)  # degrees/s


def main(arguments=None):
  """Prints the table; returns 0."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--dataroot", required=True, help="folder that launch.prepare world wrote")
  parser.add_argument("--out", help="JSON file for the figures")
  args = parser.parse_args(arguments)

  found = measure(args.dataroot)
  names = dict(enumerate(mot_files.CLASSES))
  rows = {"all": np.ones(len(found["class_id"]), bool)}
  rows |= {names[c]: found["class_id"] == c for c in np.unique(found["class_id"])}
  rows |= _bins(found["speed"], SPEEDS, "object at", "m/s")
  rows |= _bins(found["turn"], TURNS, "ego turns at", "degrees/s")
  table = {}
  for row, mask in rows.items():
    if mask.any():
      table[row] = {"boxes": int(mask.sum())}
      for way in WAYS:
        iou, edge = found[way]["iou"][mask], found[way]["edge"][mask]
        table[row][way] = {
          "mean_iou": float(iou.mean()),
          "median_px": float(np.median(edge)),
          "p95_px": float(np.quantile(edge, 0.95)),
        }
  print("| boxes between keyframes | number | " + " | ".join(f"{w}: IoU, px" for w in WAYS) + " |")
  print("|---|---:|" + "---:|" * len(WAYS))
  for row, values in table.items():
    shown = [
      f"{v['mean_iou']:.3f}, {v['median_px']:.1f} ({v['p95_px']:.1f})"
      for v in (values[way] for way in WAYS)
    ]
    print(f"| {row} | {values['boxes']:,} | " + " | ".join(shown) + " |")
  print("px: largest distance of an edge, median and (95 %).")
  if args.out:
    files.write_text(args.out, json.dumps(table, indent=1) + "\n")
  return 0


def measure(dataroot):
  """Compares all boxes between keyframes of a simulated database.

  Returns:
    {"class_id", "speed" m/s, "turn" degrees/s: [N]; and per way {"iou", "edge" px: [N]}}.
  """
  import tqdm

  from vistraj_jax.prepare import runner
  from vistraj_jax.prepare.nuscenes import database
  from vistraj_jax.prepare.world import nuscenes_writer

  statistics = pathlib.Path(dataroot) / runner.STATISTICS
  checks.require(
    statistics.is_file(),
    f"--dataroot: {dataroot} holds no {runner.STATISTICS}; only the simulated world knows the "
    "boxes between keyframes: write it with `python -m launch.prepare world`.",
  )
  settings = json.loads(statistics.read_text())["settings"]
  opened = database.Database(dataroot, nuscenes_writer.VERSION)
  parts = [
    part
    for number, (_, name) in enumerate(tqdm.tqdm(nuscenes_writer.scenes(settings), desc="scenes"))
    for part in _scene(opened.scene(name), nuscenes_writer.simulate(settings, number))
  ]
  joined = {
    name: np.concatenate([p[name] for p in parts]) for name in ("class_id", "speed", "turn")
  }
  for way in WAYS:
    joined[way] = {k: np.concatenate([p[way][k] for p in parts]) for k in ("iou", "edge")}
  return joined


def _scene(scene, drive):
  """Yields the comparison of every camera: the entries of `measure` for its boxes."""
  from vistraj_jax.prepare.nuscenes import tracks
  from vistraj_jax.prepare.world import cameras, nuscenes_tables, nuscenes_writer

  steps = nuscenes_writer.CAMERA_RATE // nuscenes_writer.KEYFRAME_RATE
  frames = np.arange(steps * (len(scene.time) - 1) + 1)
  time = frames / nuscenes_writer.CAMERA_RATE
  state = drive.at(time)
  turn = np.rad2deg(np.abs(np.gradient(np.unwrap(state.yaw[:, 0]), time)))
  classes = np.array([mot_files.CLASSES.index(name) for name in drive.class_names])
  agents = {nuscenes_tables.instance_token(scene.name, a): a for a in range(len(drive.class_names))}
  for camera in cameras.RIG:
    true = cameras.boxes(drive, state, camera)
    boxes = {}
    for way in WAYS[1:]:
      conversion = tracks.Conversion(frames_per_keyframe=steps, interpolation=way)
      found = tracks.camera_tracks(scene, camera.name, conversion)
      agent = {number: agents[token] for token, number in found.ids.items()}
      boxes[way] = np.full_like(true, np.nan)
      rows = [agent[number] for number in found.table.track_id]
      boxes[way][found.table.frame - 1, rows] = found.table.box_xywh
    boxes[WAYS[0]] = boxes["image2d"][frames - frames % steps]
    in_all = np.isfinite([true, *boxes.values()]).all((0, -1))
    frame, agent = np.nonzero(in_all & (frames % steps != 0)[:, None])
    yield {
      "class_id": classes[agent],
      "speed": state.speed[frame, agent],
      "turn": turn[frame],
      **{way: _compare(boxes[way][frame, agent], true[frame, agent]) for way in WAYS},
    }


def _compare(box_xywh, true_xywh):
  """Returns {"iou" [N], "edge" [N] px, the largest distance of an edge}."""
  low, true_low = box_xywh[:, :2], true_xywh[:, :2]
  high, true_high = low + box_xywh[:, 2:], true_low + true_xywh[:, 2:]
  edge = np.maximum(np.abs(low - true_low), np.abs(high - true_high)).max(1)
  common = np.clip(np.minimum(high, true_high) - np.maximum(low, true_low), 0, None).prod(1)
  union = box_xywh[:, 2:].prod(1) + true_xywh[:, 2:].prod(1) - common
  return {"iou": common / union, "edge": edge}


def _bins(values, edges, what, unit):
  rows = {}
  for low, high in itertools.pairwise(edges):
    label = f"{low:g} - {high:g} {unit}" if np.isfinite(high) else f"above {low:g} {unit}"
    rows[f"{what} {label}"] = (low <= values) & (values < high)
  return rows


if __name__ == "__main__":
  command_line.run(main)
