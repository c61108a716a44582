"""The future-video part of launch.prepare: future_video, generated_videos."""

import pathlib
import time

_SPLITS = {"train": 100, "val": 20, "test": 20}


def future_video_arguments(parser):
  """Adds the arguments of `future_video`."""
  parser.add_argument(
    "--source",
    required=True,
    help="folder of videos, folders of PNG or JPEG images, .npy and .npz arrays, with subfolders; "
    "its folders train, val and test are the splits",
  )
  parser.add_argument(
    "--size", type=int, default=128, help="short side of the stored frames, px; 0: as it is"
  )
  parser.add_argument(
    "--frames", type=int, default=50, help="past + future; shorter videos are an error"
  )
  parser.add_argument(
    "--chunk", type=int, default=300, help="longest record in frames; longer videos are cut"
  )
  parser.add_argument(
    "--fps", type=float, default=0.0, help="frames a second to keep of video files; 0: all"
  )
  parser.add_argument(
    "--val_share", type=float, default=0.1, help="share of videos for validation, without folders"
  )
  parser.add_argument(
    "--keep_going", action="store_true", help="leave short and unreadable videos out, and count"
  )


def generated_videos_arguments(parser):
  """Adds the arguments of `generated_videos`."""
  parser.add_argument(
    "--family",
    default="discs",
    choices=("discs", "curves", "motions"),
    help="discs between walls, a ball in space, or five kinds of turns",
  )
  for split, count in _SPLITS.items():
    parser.add_argument(f"--{split}", type=int, default=count, help=f"{split} clips")
  parser.add_argument("--frames", type=int, default=0, help="of a clip; 0: 50, curves 16")
  parser.add_argument("--size", type=int, default=0, help="side in px; 0: 128, curves 64")
  parser.add_argument(
    "--radius", type=float, default=0.0, help="of the target, share of the side; 0: about 0.04"
  )
  parser.add_argument("--seed", type=int, default=0, help="of all clips")
  parser.add_argument(
    "--clutter", default="none", choices=("none", "light", "moderate", "heavy"), help="how much"
  )
  kinds = ["persistent", "transient", "background", "noise"]
  parser.add_argument(
    "--clutter_kinds",
    nargs="+",
    default=kinds,
    choices=[*kinds, "flash"],
    help="of what; a flash looks like the target for one to three frames",
  )
  parser.add_argument("--objects", type=int, default=1, help="discs: target and other objects")
  parser.add_argument("--colours", nargs="+", default=["red"], help="discs: of the target")
  parser.add_argument(
    "--shapes", nargs="+", default=["circle"], help="discs: circle, square, triangle"
  )
  parser.add_argument(
    "--walls", default="slide", choices=("slide", "bounce"), help="discs: what they do there"
  )
  parser.add_argument(
    "--subpixel", action="store_true", help="discs: positions between pixels, anti-aliased"
  )
  parser.add_argument(
    "--jitter", type=float, default=0.005, help="motions: of positions, share of the side"
  )


def future_video(args, options):
  """Converts videos, image folders and arrays."""
  from vistraj_jax.prepare.future_video import convert

  names = ("size", "frames", "chunk", "fps", "val_share", "keep_going")
  chosen = convert.Options(**{name: getattr(args, name) for name in names})
  start = time.perf_counter()
  statistics = convert.prepare(args.source, args.out, options=chosen, **options)
  print(convert.report(statistics))
  _speed(args.out, sum(total["frames"] for total in statistics["splits"].values()), start)


def generated_videos(args, options):
  """Writes generated videos."""
  from vistraj_jax.prepare.world import video_writer

  names = [name for name in video_writer.SETTINGS if name != "clips"]
  settings = {name: getattr(args, name) for name in names}
  settings["clips"] = {split: getattr(args, split) for split in _SPLITS if getattr(args, split)}
  start = time.perf_counter()
  statistics = video_writer.write(args.out, settings, **options)
  counts = ", ".join(f"{count:,} {split}" for split, count in settings["clips"].items())
  print(f"{statistics['clips']:,} clips ({counts}), {statistics['bytes'] / 1e6:,.1f} MB")
  _speed(args.out, statistics["frames"], start)
  print(f"next: python -m launch.prepare future_video --source {args.out} --out ...")


def _speed(out, frames, start):
  seconds = time.perf_counter() - start
  print(f"{frames:,} frames in {seconds:.1f} s, {frames / seconds:,.0f} a second")
  print(f"written: {pathlib.Path(out)}")
