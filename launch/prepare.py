"""Prepares data: track records (TFRecord shards) and MOT folders with truth and detections.

  python -m launch.prepare mot --source MOT17/train --out data/mot17 --split_by halves
  python -m launch.prepare kitti --source kitti_tracking --out data/kitti
  python -m launch.prepare nuscenes --dataroot nuscenes --version v1.0-trainval --out data/nuscenes
  python -m launch.prepare nuscenes_clips --dataroot nuscenes --version v1.0-mini --out data/clips
  python -m launch.prepare waymo_e2e --source waymo_e2e --split train val --out data/waymo
  python -m launch.prepare bridge --source bridge_dataset/1.0.0 --out data/bridge
  python -m launch.prepare world --out data/nuscenes_world --processes 2
  python -m launch.prepare manipulation --layout libero --out data/libero_demos --processes 2

A command that was interrupted, or stopped at bad data, goes on where it stopped when it is given
again; --keep_going may be added, other settings may not change. The work is done here, in
--processes, or on a cluster by Apache Beam (--runner; all its workers must see --out).
"""

import functools
import shlex

from launch import (
  command_line,
  prepare_check,
  prepare_clips,
  prepare_frame_pairs,
  prepare_future_video,
  prepare_manipulation,
  prepare_nuscenes,
  prepare_waymo,
  prepare_world,
)
from vistraj_jax.core import checks


def main(argv=None):
  """Runs one preparation and prints what it made."""
  args = _parser().parse_args(argv)
  if args.command == "check":
    prepare_check.run(args)
  else:
    run = _PREPARATIONS[args.command][-1]
    run(args, _runner_options(args))


def _parser():
  parser = command_line.parser(__doc__)
  names = "|".join([*_PREPARATIONS, "check"])
  commands = parser.add_subparsers(dest="command", required=True, metavar=names)
  add = functools.partial(commands.add_parser, formatter_class=command_line.HelpFormatter)
  for name, (text, description, arguments, _) in _PREPARATIONS.items():
    command = add(name, help=text, description=description)
    arguments(command)
    command.add_argument("--out", required=True, help="output folder")
    _runner_arguments(command)
  text = "pictures of prepared boxes over the images"
  prepare_check.arguments(add("check", help=text, description=prepare_check.DESCRIPTION))
  return parser


def _runner_arguments(parser):
  parser.add_argument("--processes", type=int, default=1, help="worker processes, --runner local")
  parser.add_argument(
    "--runner",
    default="local",
    help="local, or a runner of Apache Beam: DirectRunner, FlinkRunner, DataflowRunner, ...",
  )
  parser.add_argument(
    "--beam_options", default="", help="for Beam's runner: --beam_options='--a=1 --b=2'"
  )


def _runner_options(args):
  """Returns the keyword arguments of the conversions that say how units are run."""
  checks.require(args.processes >= 1, f"--processes: {args.processes}; give 1 or more.")
  if args.runner == "local":
    checks.require(
      not args.beam_options, "--beam_options: the local runner has none; give --runner."
    )
    return {"processes": args.processes}
  checks.require(
    args.processes == 1,
    f"--processes: {args.processes}; with --runner {args.runner} the number of workers is one of "
    "--beam_options.",
  )
  try:
    return {"beam": [f"--runner={args.runner}", *shlex.split(args.beam_options)]}
  except ValueError as error:
    raise checks.InputError(
      f"--beam_options: {args.beam_options!r} has quotes that do not match ({error}); write them "
      "as in a shell."
    ) from None


def _print_report(args, statistics, class_names):
  from vistraj_jax.prepare import tracks

  print(tracks.report(statistics, class_names))
  print(f"written: {args.out}")


def _class_names():
  from vistraj_jax.tracking import mot_files

  return dict(enumerate(mot_files.CLASSES))


def _mot_arguments(parser):
  parser.add_argument(
    "--source",
    required=True,
    help="folder of sequences or of split folders",
  )
  parser.add_argument(
    "--split_by",
    default="halves",
    choices=("halves", "sequences", "folders"),
    help="halves: first half of each sequence trains, second half validates; sequences: by --val "
    "and --test; folders: {source}/train, val, test",
  )
  parser.add_argument("--val", nargs="+", default=[], help="sequences for validation")
  parser.add_argument("--test", nargs="+", default=[], help="sequences for the test split")
  parser.add_argument(
    "--classes",
    nargs="+",
    type=int,
    default=[1],
    help="class ids of gt.txt that become training tracks (1: MOT17's pedestrians, -1: files "
    "without classes); rows of other classes stay in the truth for scoring",
  )


def _mot(args, options):
  from vistraj_jax.prepare import mot

  statistics = mot.prepare(
    args.source,
    args.out,
    split_by=args.split_by,
    classes=tuple(args.classes),
    val=tuple(args.val),
    test=tuple(args.test),
    **options,
  )
  _print_report(args, statistics, {})


def _kitti_arguments(parser):
  parser.add_argument("--source", required=True, help="folder that holds label_02")
  parser.add_argument(
    "--detections",
    nargs="+",
    default=[],
    help="folders of detector files {sequence}.txt; joined to det/det.txt",
  )


def _kitti(args, options):
  from vistraj_jax.prepare import kitti

  statistics = kitti.prepare(args.source, args.out, detections=args.detections, **options)
  _print_report(args, statistics, _class_names())


# Name: (help, description, function that adds arguments, function of those and of how units run).
_PREPARATIONS = {
  "mot": (
    "MOTChallenge folders",
    "Converts MOTChallenge folders ({source}/[{split}/]{sequence}/gt/gt.txt).",
    _mot_arguments,
    _mot,
  ),
  "kitti": (
    "KITTI tracking labels",
    "Converts KITTI tracking labels ({source}/label_02/*.txt), 10 Hz.",
    _kitti_arguments,
    _kitti,
  ),
  "nuscenes": (
    "a nuScenes database",
    "Converts nuScenes tables: 2-D boxes of 6 cameras, 7 classes, 2 Hz keyframes to 12 fps.",
    prepare_nuscenes.nuscenes_arguments,
    prepare_nuscenes.nuscenes,
  ),
  "nuscenes_clips": (
    "clips of agents of a nuScenes database",
    "Makes clips of agents: observed key frames with masks of 3-D boxes, LiDAR points, camera "
    "frames and depth, and the agent's future positions.",
    prepare_clips.clips_arguments,
    prepare_clips.nuscenes_clips,
  ),
  "waymo_e2e": (
    "Waymo Open end-to-end driving shards",
    "Converts E2EDFrame TFRecords: images by camera name, ego states, intents, ratings.",
    prepare_waymo.waymo_e2e_arguments,
    prepare_waymo.waymo_e2e,
  ),
  "bridge": (
    "Bridge V2 trajectories",
    "Converts Bridge V2, raw folders or RLDS TFRecords, to trajectory records.",
    prepare_frame_pairs.bridge_arguments,
    prepare_frame_pairs.bridge,
  ),
  "egodex": (
    "EgoDex episodes",
    "Converts EgoDex videos with their hand poses to trajectory records.",
    prepare_frame_pairs.egodex_arguments,
    prepare_frame_pairs.egodex,
  ),
  "video": (
    "any folder of videos",
    "Converts videos to trajectory records.",
    prepare_frame_pairs.video_arguments,
    prepare_frame_pairs.video,
  ),
  "future_video": (
    "videos, image folders and arrays for future prediction",
    "Converts videos, folders of images and arrays to video records, with masks where known.",
    prepare_future_video.future_video_arguments,
    prepare_future_video.future_video,
  ),
  "generated_videos": (
    "generated videos of moving objects",
    "Writes generated videos as arrays, a --source of future_video: discs, curves, motions, with "
    "or without clutter, with masks and centres.",
    prepare_future_video.generated_videos_arguments,
    prepare_future_video.generated_videos,
  ),
  "libero": (
    "LIBERO demonstrations",
    "Converts LIBERO's HDF5 demonstrations to trajectory records.",
    prepare_frame_pairs.libero_arguments,
    prepare_frame_pairs.libero,
  ),
  "manipulation": (
    "demonstrations in a generated manipulation world",
    "Writes demonstrations of a hand that pushes blocks on a table, in the layout of Bridge V2 "
    "(RLDS), EgoDex or LIBERO: a --source of those commands.",
    prepare_manipulation.manipulation_arguments,
    prepare_manipulation.manipulation,
  ),
  "world": (
    "a simulated nuScenes database",
    "Writes drives of the simulated world as a nuScenes database: tables, images of 6 cameras, "
    "LiDAR sweeps, maps.",
    prepare_world.world_arguments,
    prepare_world.world,
  ),
}


if __name__ == "__main__":
  command_line.run(main)
