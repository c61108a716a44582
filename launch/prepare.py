"""Prepares data: track records (TFRecord shards) and MOT folders with truth and detections.

  python -m launch.prepare mot --source MOT17/train --out data/mot17 --split_by halves
  python -m launch.prepare kitti --source kitti_tracking --out data/kitti
  python -m launch.prepare embedded --out data/world

A command that was interrupted goes on where it stopped when it is given again.
"""

import argparse
import functools

from launch import command_line
from vistraj_jax.core import checks


def _parser():
  parser = command_line.parser(__doc__)
  commands = parser.add_subparsers(dest="command", required=True, metavar="mot|kitti|embedded")
  add = functools.partial(commands.add_parser, formatter_class=command_line.HelpFormatter)
  mot = add(
    "mot",
    help="MOTChallenge folders",
    description="Converts MOTChallenge folders ({source}/[{split}/]{sequence}/gt/gt.txt).",
  )
  mot.add_argument(
    "--source",
    required=True,
    default=argparse.SUPPRESS,
    help="folder of sequences or of split folders",
  )
  mot.add_argument(
    "--split_by",
    default="halves",
    choices=("halves", "sequences", "folders"),
    help="halves: first half of each sequence trains, second half validates; sequences: by --val "
    "and --test; folders: {source}/train, val, test",
  )
  mot.add_argument("--val", nargs="+", default=[], help="sequences for validation")
  mot.add_argument("--test", nargs="+", default=[], help="sequences for the test split")
  mot.add_argument(
    "--classes",
    nargs="+",
    type=int,
    default=[1],
    help="class ids of gt.txt that become training tracks (1: MOT17's pedestrians, -1: files "
    "without classes); rows of other classes stay in the truth for scoring",
  )
  kitti = add(
    "kitti",
    help="KITTI tracking labels",
    description="Converts KITTI tracking labels ({source}/label_02/*.txt), 10 Hz.",
  )
  kitti.add_argument(
    "--source", required=True, default=argparse.SUPPRESS, help="folder that holds label_02"
  )
  kitti.add_argument(
    "--detections",
    nargs="+",
    default=[],
    help="folders of detector files {sequence}.txt; joined to det/det.txt",
  )
  embedded = add(
    "embedded",
    help="the simulated driving world",
    description="Writes the embedded data set: a seeded driving world seen by 6 cameras at 12 fps.",
  )
  for command in (mot, kitti, embedded):
    command.add_argument("--out", required=True, default=argparse.SUPPRESS, help="output folder")
    command.add_argument("--processes", type=int, default=1, help="worker processes")
  return parser


def main(argv=None):
  """Runs one preparation and prints what it made."""
  args = _parser().parse_args(argv)
  checks.require(args.processes >= 1, f"--processes: {args.processes}; give 1 or more.")
  from vistraj_jax.prepare import tracks
  from vistraj_jax.tracking import mot_files

  names = dict(enumerate(mot_files.CLASSES))
  if args.command == "mot":
    from vistraj_jax.prepare import mot

    names = {}
    statistics = mot.prepare(
      args.source,
      args.out,
      split_by=args.split_by,
      classes=tuple(args.classes),
      val=tuple(args.val),
      test=tuple(args.test),
      processes=args.processes,
    )
  elif args.command == "kitti":
    from vistraj_jax.prepare import kitti

    statistics = kitti.prepare(
      args.source, args.out, detections=args.detections, processes=args.processes
    )
  else:
    from vistraj_jax.prepare import embedded

    statistics = embedded.prepare(args.out, processes=args.processes)
  print(tracks.report(statistics, names))
  print(f"written: {args.out}")


if __name__ == "__main__":
  command_line.run(main)
