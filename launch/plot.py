"""Draws what runs logged, predicted and scored.

examples:
  python -m launch.plot curves --logs runs/a runs/b --out curves.png
  python -m launch.plot hota --scores runs/scores/scores.json --out hota.png
  python -m launch.plot tracks --data data/nuscenes/val --run runs/trackssm --out tracks.mp4 --truth
  python -m launch.plot waypoints --data data/waymo --runs runs/siglip:SigLIP --out waypoints.png
  python -m launch.plot pairs --run runs/two_stream --gaps 1 3 10 --out pairs.png
  python -m launch.plot attention --run runs/two_stream --data data/bridge --out attention.png
  python -m launch.plot ablation --report report/two_stream/bars.json --out ablation.png
  python -m launch.plot futures --run runs/xmem --out futures.png
  python -m launch.plot videos --predictions scores/val.npz --out strips.png

`python -m launch.plot curves --help` and so on show the options of each.
"""

import functools
import pathlib

from launch import command_line, plot_clips, plot_two_stream, plot_videos
from vistraj_jax.core import checks

CURVES = """Draws training curves of one or several runs: loss, next-box overlap with its baselines
(dashed), learning rates and speed over steps; dotted lines mark where a phase starts."""

HOTA = """Draws HOTA, DetA and AssA over the 19 localisation thresholds, one line per run of the
evaluation; runs called identity, constant_velocity or kalman are dashed."""

TRACKS = """Draws tracks over the images of a MOT folder ({sequence}/img1), or over a blank canvas
where there are none: box and number in the track's own colour, its trail, the box the motion model
expected (dashed, where {run}/predicted/{sequence}.txt exists), and the truth (thin, grey).
Writes an MP4 video and beside it, with the ending .png, a contact sheet. Several sequences, as the
cameras of a scene, are tiled in a grid."""

WAYPOINTS = """Draws front images with the past (white), the driven future (yellow) and what one or
several runs predict, projected through the camera's calibration; beside each image the same from
above, in the ego frame. Frames are chosen by name, or evenly over the split."""

# Order of the six cameras around a car as they are tiled: three to the front, three to the back.
RING = ("FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_LEFT", "BACK", "BACK_RIGHT")


def main(argv=None):
  """Runs one drawing command and prints what it wrote."""
  args = _parser().parse_args(argv)
  return _COMMANDS[args.command](args)


def _parser():
  parser = command_line.parser(__doc__)
  commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(_COMMANDS))
  add = functools.partial(commands.add_parser, formatter_class=command_line.HelpFormatter)

  curves = add("curves", help="training curves from log.jsonl", description=CURVES)
  curves.add_argument(
    "--logs", required=True, nargs="+", metavar="LOG[:LABEL]", help="work folders or log files"
  )
  curves.add_argument("--out", required=True, help="PNG file to write")

  hota = add("hota", help="HOTA over the localisation threshold", description=HOTA)
  hota.add_argument("--scores", required=True, help="scores.json of launch.evaluate")
  hota.add_argument("--protocol", help="one of the protocols scored; else the first")
  hota.add_argument("--class_name", help="one class; else all, weighted by detections")
  hota.add_argument("--out", required=True, help="PNG file to write")

  tracks = add("tracks", help="video and contact sheet of tracks", description=TRACKS)
  tracks.add_argument("--data", required=True, help="folder of sequences, MOT layout")
  tracks.add_argument("--run", required=True, help="folder of a run of launch.track")
  tracks.add_argument(
    "--sequences", nargs="+", help="names of sequences to show side by side; else the first scene"
  )
  tracks.add_argument("--truth", action="store_true", help="also draw the boxes of gt/gt.txt")
  tracks.add_argument("--out", required=True, help="MP4 file to write")
  tracks.add_argument("--first", type=int, default=1, help="first frame")
  tracks.add_argument("--last", type=int, help="last frame; else the end")
  tracks.add_argument("--width", type=int, default=1280, help="width of the video, px")
  tracks.add_argument("--trail", type=float, default=2.0, help="length of the trails, s")
  tracks.add_argument("--sheet_frames", type=int, default=6, help="frames on the contact sheet")

  waypoints = add("waypoints", help="predicted waypoints over images", description=WAYPOINTS)
  waypoints.add_argument("--data", required=True, help="folder of launch.prepare waymo_e2e")
  waypoints.add_argument(
    "--runs", required=True, nargs="+", metavar="RUN[:LABEL]", help="runs of vlm_waypoint"
  )
  waypoints.add_argument("--split", default="val", help="split to show")
  waypoints.add_argument("--camera", default="FRONT", help="whose images")
  waypoints.add_argument("--names", nargs="+", help="frames to show")
  waypoints.add_argument("--count", type=int, default=6, help="frames to show where none is named")
  waypoints.add_argument(
    "--proposals", type=int, default=1, help="proposals of each run, the best by their scores"
  )
  waypoints.add_argument("--out", required=True, help="PNG file to write")

  plot_clips.add_commands(add)
  plot_videos.add_commands(add)
  plot_two_stream.add_commands(add)
  return parser


def _curves(args):
  from vistraj_jax.viz import curves

  _check_ending(args.out, ".png")
  runs = {}
  for log in args.logs:
    path, label = _labelled(log)
    checks.require(
      label not in runs, f"--logs: two runs are called {label!r}; write {path}:LABEL for one."
    )
    runs[label] = curves.read_log(path)
  curves.draw_training(runs, args.out)
  print(f"written: {args.out} ({sum(map(len, runs.values())):,} log lines of {len(runs)} runs)")
  return 0


def _hota(args):
  from vistraj_jax.viz import hota

  _check_ending(args.out, ".png")
  scores = hota.read_scores(args.scores, args.protocol)
  hota.draw_hota(scores, args.out, args.class_name)
  print(f"written: {args.out} ({len(scores['runs'])} runs)")
  return 0


def _tracks(args):
  import time

  import numpy as np
  import tqdm

  from vistraj_jax.viz import tracks, video

  _check_ending(args.out, ".mp4")
  limits = {"width": (64, 4096), "sheet_frames": (1, 1000), "trail": (0, 600)}
  for name, (least, most) in limits.items():
    value = getattr(args, name)
    checks.require(
      least <= value <= most, f"--{name}: {value} is not allowed; choose {least} to {most}."
    )
  cameras = _cameras(args)
  scene = tracks.Scene(cameras, args.width, args.trail)
  last = scene.length if args.last is None else args.last
  checks.require(
    1 <= args.first <= last <= scene.length,
    f"--first {args.first} --last {last}: no frames; there are frames 1 to {scene.length}.",
  )
  start = time.perf_counter()
  numbers = tqdm.tqdm(range(args.first, last + 1), desc="drawing", unit="frame")
  rate = cameras[0].frame_rate
  count = video.write_video(args.out, (scene.frame(number) for number in numbers), rate)
  chosen = np.linspace(args.first, last, min(args.sheet_frames, count)).round().astype(int)
  sheet = pathlib.Path(args.out).with_suffix(".png")
  columns = 3 if len(cameras) == 1 else 2
  video.write_png(sheet, tracks.contact_sheet(cameras, chosen, columns, trail_seconds=args.trail))
  print(
    f"written: {args.out} ({count} frames, {len(cameras)} sequences, {rate:g} Hz, "
    f"{time.perf_counter() - start:.1f} s), {sheet} (frames {', '.join(map(str, chosen))})"
  )
  return 0


def _waypoints(args):
  import numpy as np

  from launch import runtime, waypoint_scores
  from vistraj_jax.data import images, waymo_e2e
  from vistraj_jax.viz import trajectories

  _check_ending(args.out, ".png")
  runtime.configure()
  cfg = {"root": args.data, "visual": "image", "camera": args.camera, "image_size": 0}
  shown = waymo_e2e.load(cfg, args.split, {})
  row = {name: i for i, name in enumerate(shown.names.tolist())}
  names = args.names or shown.names[np.linspace(0, len(shown) - 1, args.count).astype(int)].tolist()
  unknown = [name for name in names if name not in row]
  checks.require(not unknown, f"--names: {unknown[:3]} are not in split {args.split!r}.")
  drawn = [_frame(shown, row[name], args.camera, images) for name in names]
  for run in args.runs:
    path, label = _labelled(run)
    frames = waypoint_scores.load_frames(waypoint_scores.read_config(path), args.split)
    own = {name: i for i, name in enumerate(frames.names.tolist())}
    absent = [name for name in names if name not in own]
    checks.require(not absent, f"--runs: {path} read other frames: {absent[:3]} are not there.")
    out = waypoint_scores.predict_rows(path, frames, np.array([own[name] for name in names]))
    best = np.argsort(out.scores, axis=1)[:, : args.proposals]
    for k, frame in enumerate(drawn):
      frame["predictions"][label] = out.xy[k if len(out.xy) > 1 else 0][best[k]]
  trajectories.draw_frames(drawn, args.out)
  print(f"written: {args.out} ({len(drawn)} frames, {len(args.runs)} runs)")
  return 0


def _frame(frames, index, camera, images):
  """Returns what `trajectories.draw_frames` shows of one frame, without predictions."""
  from vistraj_jax.data import waymo_e2e

  record, where = frames.images.frame(index), str(frames.names[index])
  place = record["cameras"].tolist().index(1 + waymo_e2e.CAMERAS.index(camera))
  has_future = frames.states["has_future"][index] > 0
  return {
    "name": where,
    "image": images.decode(record[f"image/{camera}"], None, where),
    "calibration": record[f"calib/{camera}"],
    "camera_hw": record["camera_hw"][place],
    "past": frames.states["past"][index],
    "future": frames.states["future"][index] if has_future else None,
    "predictions": {},
  }


def _cameras(args):
  from vistraj_jax.tracking import mot_files
  from vistraj_jax.viz import tracks

  folders = {folder.name: folder for folder in mot_files.find_sequences(args.data)}
  names = args.sequences or _first_scene(folders)
  run = pathlib.Path(args.run)
  cameras = []
  for name in names:
    checks.choice("--sequences", name, folders)
    folder = folders[name]
    info = mot_files.read_sequence_info(folder)
    read = functools.partial(mot_files.read_table, length=info.length)
    predicted = run / "predicted" / f"{name}.txt"
    images = folder / info.image_folder
    cameras.append(
      tracks.Camera(
        name=name,
        width=info.width,
        height=info.height,
        length=info.length,
        frame_rate=info.frame_rate,
        tracks=read(run / "data" / f"{name}.txt", "prediction"),
        predicted=read(predicted, "prediction") if predicted.exists() else None,
        truth=read(folder / "gt" / "gt.txt", "truth") if args.truth else None,
        images=images if images.is_dir() else None,
        extension=info.image_extension,
      )
    )
  return cameras


def _first_scene(names):
  """Returns the first sequence and all that differ from it only in their camera, front first."""
  from vistraj_jax.tracking import mot_files

  parts = {name: mot_files.scene_and_camera(name) for name in names}
  scene = parts[next(iter(names))][0]
  cameras = [name for name in names if parts[name][0] == scene]
  order = {f"CAM_{place}": index for index, place in enumerate(RING)}
  return sorted(cameras, key=lambda name: order.get(parts[name][1], -1))


def _labelled(argument):
  """Splits PATH[:LABEL]; the label is the name of the run's folder if none is given."""
  path = pathlib.Path(argument)
  if not path.exists() and ":" in argument:
    path, _, label = argument.rpartition(":")
    return pathlib.Path(path), label
  return path, (path if path.is_dir() else path.parent).resolve().name


def _check_ending(path, ending):
  checks.require(path.endswith(ending), f"--out: {path} does not end in {ending!r}; rename it.")


_COMMANDS = {
  "curves": _curves,
  "hota": _hota,
  "tracks": _tracks,
  "waypoints": _waypoints,
  "masks": plot_clips.masks,
  "futures": plot_clips.futures,
  "clip": plot_clips.clip,
  "videos": plot_videos.videos,
  "horizon": plot_videos.horizon,
  "codes": plot_videos.codes,
  "pairs": plot_two_stream.pairs,
  "attention": plot_two_stream.attention,
  "ablation": plot_two_stream.ablation,
}


if __name__ == "__main__":
  command_line.run(main)
