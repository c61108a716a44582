"""`launch.plot videos`, `horizon` and `codes`: predicted videos, their scores, use of codes."""

import json

from launch import command_line

VIDEOS = """Draws predicted videos: with --out ending in .png a strip of past, truth and prediction
for each video, with .mp4 a film of truth and predictions side by side."""

HORIZON = """Draws PSNR, SSIM, IoU of the foreground and error of the centre over the frames of the
future. Predictors that learn nothing are dashed."""

CODES = """Draws how often codes occur, by rank, and how many tokens the commonest cover; from
counts (.npy, one integer a code) or from a report of launch.tokenize."""


def add_commands(add):
  """Adds the three commands; `add` is that of the subparsers."""
  videos = add("videos", help="predicted videos as strips or a film", description=VIDEOS)
  videos.add_argument("--predictions", required=True, help=".npz file of predicted videos")
  videos.add_argument("--count", type=int, default=4, help="videos to show")
  videos.add_argument("--names", nargs="+", help="ids of the videos to show; else spread evenly")
  videos.add_argument("--predictors", nargs="+", help="predictors to show; else all of the file")
  videos.add_argument("--columns", type=int, default=6, help="frames shown of past and of future")
  videos.add_argument("--out", required=True, help="PNG or MP4 file to write")

  horizon = add("horizon", help="scores over the frames of the future", description=HORIZON)
  horizon.add_argument(
    "--scores", required=True, nargs="+", metavar="FILE[:LABEL]", help="JSON files with horizon"
  )
  horizon.add_argument("--out", required=True, help="PNG file to write")

  codes = add("codes", help="how often the codes of a tokenizer occur", description=CODES)
  codes.add_argument(
    "--counts", required=True, nargs="+", metavar="FILE[:LABEL]", help=".npy counts or reports"
  )
  codes.add_argument("--out", required=True, help="PNG file to write")


def videos(args):
  """Draws predicted videos."""
  import numpy as np

  from vistraj_jax.core import checks
  from vistraj_jax.viz import future_video, video

  found = future_video.read_predictions(args.predictions)
  for name in args.predictors or ():
    checks.choice("--predictors", name, found["predicted"])
  if args.predictors:
    found["predicted"] = {name: found["predicted"][name] for name in args.predictors}
  limits = {"count": (1, 64), "columns": (2, 32)}
  for name, (least, most) in limits.items():
    value = getattr(args, name)
    checks.require(
      least <= value <= most, f"--{name}: {value} is not allowed; choose {least} to {most}."
    )
  ids = found["ids"].tolist()
  for name in args.names or ():
    checks.require(name in ids, f"--names: {name} is not there; near: {checks.nearest(name, ids)}.")
  spread = np.unique(np.linspace(0, len(ids) - 1, args.count).round().astype(int))
  rows = [ids.index(name) for name in args.names] if args.names else spread.tolist()
  if args.out.endswith(".mp4"):
    rate = future_video.frame_rate(found)
    count = video.write_video(args.out, future_video.frames(found, rows), rate)
    print(f"written: {args.out} ({count} frames, {rate:g} Hz, {len(rows)} videos)")
  else:
    video.write_png(args.out, future_video.strips(found, rows, args.columns))
    print(f"written: {args.out} ({len(rows)} videos)")
  return 0


def horizon(args):
  """Draws scores over the horizon."""
  from vistraj_jax.core import checks
  from vistraj_jax.viz import future_video

  scores = {}
  for label, path in command_line.labelled("--scores", args.scores).items():
    checks.require(path.is_file(), f"--scores: {path}: there is no such file.")
    try:
      found = json.loads(path.read_text())["horizon"]
    except (ValueError, TypeError, KeyError):
      raise checks.InputError(
        f"--scores: {path} holds no 'horizon': {{predictor: {{score: numbers}}}}; give scores that "
        "were made by frame of the future."
      ) from None
    several = len(args.scores) > 1
    for name, series in found.items():
      same = several and name not in future_video.style.BASELINES
      scores.setdefault(f"{label} {name}" if same else name, series)
  future_video.draw_horizon(scores, args.out)
  print(f"written: {args.out} ({len(scores)} predictors)")
  return 0


def codes(args):
  """Draws the use of codes."""
  from vistraj_jax.viz import codes as pictures

  files = command_line.labelled("--counts", args.counts)
  runs = {label: pictures.read_counts(path) for label, path in files.items()}
  pictures.draw_code_usage(runs, args.out)
  print(f"written: {args.out} ({len(runs)} tokenizers)")
  return 0
