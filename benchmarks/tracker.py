"""Times one tracker frame at 50 and 200 tracks: bookkeeping alone, Kalman, and with the network.

  python -m benchmarks.tracker [--out tracker.json]

A seeded scene of objects that move smoothly, 95 % of them detected in each frame; ms per frame,
median over frames after a warm-up. The network runs with fresh weights: its answers are computed,
then replaced by those of constant velocity, so that tracks live as with trained ones. Reference:
the published tracker with the PyTorch network on 2 threads of the same kind of machine, bookkeeping
2 / 12 ms and 34 / 155 ms in all.
"""

import dataclasses
import json
import time

import numpy as np

from launch import command_line
from vistraj_jax.core import files
from vistraj_jax.tracking import detections, mot_files, motion_models, sequences
from vistraj_jax.tracking.settings import PRESETS

IMAGE = (1600, 900)
REFERENCE_MS = {("bookkeeping", 50): 2, ("bookkeeping", 200): 12}
REFERENCE_MS |= {("trackssm", 50): 34, ("trackssm", 200): 155}
WARM_UP = 30


def main(arguments=None):
  """Prints the table; returns 0."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--frames", type=int, default=150, help="frames per measurement")
  parser.add_argument("--out", help="JSON file for the figures")
  args = parser.parse_args(arguments)
  models = {
    "bookkeeping": motion_models.make("identity"),
    "constant_velocity": motion_models.make("constant_velocity"),
    "kalman": motion_models.make("kalman"),
    "trackssm": _network(),
  }
  rows = []
  print(f"{'motion':20s} {'tracks':>6s} {'median ms':>10s} {'p95 ms':>8s} {'reference ms':>13s}")
  for name, motion in models.items():
    for count in (50, 200):
      ms = _frame_ms(motion, count, args.frames)
      reference = REFERENCE_MS.get((name, count))
      row = {"motion": name, "tracks": count, "reference_ms": reference}
      row |= {"median_ms": float(np.median(ms)), "p95_ms": float(np.percentile(ms, 95))}
      rows.append(row)
      shown = "" if reference is None else str(reference)
      print(f"{name:20s} {count:6d} {row['median_ms']:10.2f} {row['p95_ms']:8.2f} {shown:>13s}")
  scene_s = _scene_seconds(models["trackssm"])
  print(f"6 cameras x 235 frames x 36 objects in all, trackssm: {scene_s:.2f} s (target 5 s)")
  if args.out:
    report = {"frames": rows, "scene_of_6_cameras_s": scene_s}
    files.write_text(args.out, json.dumps(report, indent=2) + "\n")
  return 0


def _frame_ms(motion, count, frames):
  times = []
  settings = dataclasses.replace(PRESETS["byte"], max_tracks=4 * count, max_detections=2 * count)
  sequences.track_sequences(
    [_scene("scene", count, frames + WARM_UP)],
    settings,
    motion,
    lambda active, detect_s, track_s: times.append(detect_s + track_s),
  )
  return 1e3 * np.array(times[WARM_UP:])


def _scene_seconds(motion):
  cameras = [_scene(f"camera{k}", 6, 235, seed=k, missed=0.0) for k in range(6)]
  sequences.track_sequences(cameras, PRESETS["byte"], motion)  # compiles
  start = time.perf_counter()
  sequences.track_sequences(cameras, PRESETS["byte"], motion)
  return time.perf_counter() - start


def _scene(name, count, frames, seed=0, missed=0.05):
  """Returns a `SequenceInput` of `count` objects that bounce inside the image."""
  rng = np.random.RandomState(seed)
  sides = rng.uniform(20, 80, (count, 2))
  room = np.array(IMAGE) - sides
  start, speed = rng.uniform(0, 1, (count, 2)) * room, rng.normal(0, 2, (count, 2))
  frame = np.arange(1, frames + 1)[:, None, None]
  path = start + speed * frame + rng.normal(0, 0.5, (frames, count, 2))
  corner = np.abs((path + room) % (2 * room) - room)  # a folded line: it bounces
  box = np.concatenate([corner, np.broadcast_to(sides, corner.shape)], axis=-1)
  seen = rng.uniform(size=(frames, count)) >= missed
  found = np.broadcast_to(frame[..., 0], seen.shape)[seen]
  table = mot_files.Table.of(
    found, np.full(len(found), -1), box[seen], rng.uniform(0.3, 1, len(found)), 0 * found
  )
  return detections.SequenceInput(name, mot_files.SequenceInfo(name, 12.0, frames, *IMAGE), table)


def _network():
  import jax

  from vistraj_jax.models.trackssm import network, predict

  model = network.TrackSSM()
  compute = predict.make_predict(model, network.init(model, jax.random.key(0)), history=5)

  def computed_then_replaced(boxes, counts, image_size):
    compute(boxes, counts, image_size)
    return 2 * boxes[:, -1] - boxes[:, -2]

  return motion_models.learned(computed_then_replaced, 5, "trackssm")


if __name__ == "__main__":
  command_line.run(main)
