"""Track objects through the sequences of a MOT folder, from detections or from truth boxes.

example:
  python -m launch.track --data data/kitti/val --detections truth --motion kalman --out runs/kalman
  python -m launch.track --data data/kitti/val --detections det --motion trackssm \\
    --weights runs/trackssm --out runs/trackssm_det

Writes {out}/data/{sequence}.txt (frame,id,x,y,w,h,score,class,1,-1; px, two decimals),
{out}/experiment_config.json and {out}/timing.json; with --save_predictions also
{out}/predicted/{sequence}.txt in the same layout. Score them with `python -m launch.evaluate`.

detections: `truth` reads gt/gt.txt (rows whose flag is not 0, score 1, ids hidden); `det` reads
  det/det.txt; a folder holds {sequence}.txt with rows frame,x,y,w,h,score,class, or a folder
  {sequence} of one file per frame, 000001.txt, with rows ignored,x,y,w,h,score.
embeddings: {folder}/{sequence}.npy, float [detections, E], one appearance vector per row of the
  detections' file. Pairs that look alike match although their boxes overlap less.
camera motion: {folder}/{sequence}.npy, float [frames, 2, 3], the affine map from pixels of the
  frame before to pixels of each frame; the first is not used.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
import time

from launch import command_line, runtime
from vistraj_jax.core import checks, files
from vistraj_jax.tracking.settings import PRESETS, TrackerSettings

MOTIONS = ("trackssm", "kalman", "constant_velocity", "identity")


def main(arguments=None):
  """Runs the command line; returns 0."""
  args = _parser().parse_args(arguments)
  command_line.require_folder(args.out)
  checks.require(
    args.parallel_sequences >= 1,
    f"--parallel_sequences: {args.parallel_sequences} is not allowed; choose 1 or more.",
  )
  checks.require(
    0 <= args.min_side < float("inf"),
    f"--min_side: {args.min_side} is not allowed; choose a size in px, 0 to keep all boxes.",
  )
  settings = _settings(args)
  motion = _motion(args)

  import tqdm

  from vistraj_jax.tracking import detections, interpolate, mot_files, sequences, timing

  folders = mot_files.find_sequences(args.data)
  print(f"tracker: {', '.join(f'{k}={v}' for k, v in dataclasses.asdict(settings).items())}")
  inputs = [
    detections.read_sequence(
      folder,
      args.detections,
      min_side=args.min_side,
      class_id=args.class_id,
      score_range=args.score_range,
      embeddings=args.embeddings,
      camera_motion=args.camera_motion,
    )
    for folder in tqdm.tqdm(folders, desc="reading", unit="sequence")
  ]
  names = [one.name for one in inputs]
  checks.require(
    len(set(names)) == len(names),
    f"--data: several splits of {args.data} hold a sequence of the same name; name one split.",
  )
  _warn_of_frame_rates(motion, inputs)

  frames = sum(one.info.length for one in inputs)
  times, tables, start = timing.FrameTimes(), [], time.perf_counter()
  expected = [[] for _ in inputs]
  with tqdm.tqdm(total=frames, desc="tracking", unit="frame") as bar:

    def on_frame(count, detect, track):
      times.add(count, detect, track)
      bar.update(count)

    for first in range(0, len(inputs), args.parallel_sequences):
      group = inputs[first : first + args.parallel_sequences]
      on_predicted = None
      if args.save_predictions:

        def on_predicted(index, frame, track_id, box_xywh, first=first):
          expected[first + index].append((frame, track_id, box_xywh))

      tables += sequences.track_sequences(group, settings, motion, on_frame, on_predicted)
  seconds = time.perf_counter() - start

  out = pathlib.Path(args.out)
  with files.atomic_folder(out / "data") as folder:
    for one, table in zip(inputs, tables, strict=True):
      if args.interpolate_gaps:
        table = interpolate.fill_gaps(table)
      mot_files.write_table(folder / f"{one.name}.txt", table)
  if (out / "predicted").is_dir():
    shutil.rmtree(out / "predicted")  # of an earlier run; its boxes do not belong to these tracks
  if args.save_predictions:
    with files.atomic_folder(out / "predicted") as folder:
      for one, frames_of_one in zip(inputs, expected, strict=True):
        mot_files.write_table(folder / f"{one.name}.txt", _predicted_table(frames_of_one))
  config = {
    "arguments": vars(args),
    "tracker": dataclasses.asdict(settings),
    "sequences": {one.name: one.info.frame_rate for one in inputs},
  }
  files.write_text(out / "experiment_config.json", json.dumps(config, indent=2) + "\n")
  files.write_text(out / "timing.json", json.dumps(times.summary(), indent=2) + "\n")
  objects = sum(len(set(table.track_id.tolist())) for table in tables)
  print(
    f"tracked {len(inputs)} sequences, {frames:,} frames, {sum(map(len, tables)):,} boxes in "
    f"{objects:,} tracks with motion {motion.name}: {seconds:.2f} s, "
    f"{frames / seconds:,.0f} frames/s. Written to {out / 'data'}."
  )
  return 0


def _parser():
  parser = command_line.parser(__doc__)
  add = parser.add_argument
  add("--data", required=True, help="folder of sequences, or of splits of sequences, MOT layout")
  add("--detections", required=True, help="truth, det or a folder, see above")
  add("--motion", required=True, choices=MOTIONS, help="where a track will be in the next frame")
  add(
    "--weights",
    default=argparse.SUPPRESS,
    help="trackssm only: work folder of a training, or a .safetensors file",
  )
  add(
    "--pad",
    choices=("first", "last"),
    default=argparse.SUPPRESS,
    help="trackssm only: short histories repeat the first box in front (fine-tuned weights) or "
    "the last one behind (released weights) [first]",
  )
  add("--preset", choices=tuple(PRESETS), default="byte", help="tracking loop")
  add("--out", required=True, help="folder of the run; its data folder is replaced")
  add("--parallel_sequences", type=int, default=6, help="sequences tracked side by side")
  add("--min_side", type=float, default=5.0, help="drop boxes with a side below this, px")
  add("--class_id", type=int, default=1, help="class of detections in files that name none")
  add(
    "--score_range",
    type=float,
    nargs=2,
    metavar=("LOW", "HIGH"),
    help="map these scores to 0..1 and cut there; for files that count otherwise, as MOT15's do",
  )
  add(
    "--save_predictions",
    action="store_true",
    help="also write where the motion model expected each live or lost track, to draw it",
  )
  add("--embeddings", help="folder of appearance vectors, see above")
  add("--camera_motion", help="folder of camera motions, see above")
  add(
    "--interpolate_gaps",
    action="store_true",
    help="fill gaps of fewer than 20 frames in tracks of more than 25 boxes",
  )
  group = parser.add_argument_group("tracker settings", "a cost is 1 - overlap; [defaults]")
  for field in dataclasses.fields(TrackerSettings):
    values = {name: getattr(preset, field.name) for name, preset in PRESETS.items()}
    shown = ", ".join(f"{name} {value}" for name, value in values.items())
    if len(set(values.values())) == 1:
      shown = values["byte"]
    kind = {"metavar": "VALUE", "type": int if field.name == "max_lost_frames" else field.type}
    if field.type is bool:
      kind = {"action": argparse.BooleanOptionalAction}
    about = f"{field.metadata['about']} [{shown}]"
    group.add_argument(f"--{field.name}", default=argparse.SUPPRESS, help=about, **kind)
  return parser


def _settings(args):
  names = [field.name for field in dataclasses.fields(TrackerSettings)]
  given = {name: value for name, value in vars(args).items() if name in names}
  return dataclasses.replace(PRESETS[args.preset], **given)


def _motion(args):
  from vistraj_jax.tracking import motion_models

  if args.motion != "trackssm":
    for name in ("weights", "pad"):
      checks.require(
        name not in args, f"--{name}: motion {args.motion} does not use it; leave it out."
      )
    return motion_models.make(args.motion)
  checks.require(
    "weights" in args,
    "--weights: motion trackssm needs the work folder of a training or a .safetensors file.",
  )
  from vistraj_jax.models.trackssm import predict

  runtime.configure()
  function = predict.load(args.weights, pad=getattr(args, "pad", "first"))
  return motion_models.learned(function, function.history, "trackssm", function.frame_rate)


def _predicted_table(frames):
  """Returns the expected boxes [(frame, ids, boxes)] of a sequence that have a size, as a table."""
  import numpy as np

  from vistraj_jax.tracking import mot_files

  count = [len(track_id) for _, track_id, _ in frames]
  table = mot_files.Table.of(
    np.repeat([frame for frame, _, _ in frames], count),
    np.concatenate([track_id for _, track_id, _ in frames]),
    np.concatenate([box_xywh for _, _, box_xywh in frames]),
  )
  return table.select((table.box_xywh[:, 2:] >= 0).all(1))


def _warn_of_frame_rates(motion, inputs):
  if motion.frame_rate is None:
    return
  far = [one.name for one in inputs if not 0.5 <= one.info.frame_rate / motion.frame_rate <= 2.0]
  if far:
    rates = sorted({one.info.frame_rate for one in inputs})
    print(
      f"warning: motion {motion.name} was trained at {motion.frame_rate:g} Hz, but {len(far)} "
      f"sequences ({far[0]}, ...) run at a rate more than 2 times apart (rates {rates} Hz); "
      "expect worse predictions.",
      file=sys.stderr,
    )


if __name__ == "__main__":
  command_line.run(main)
