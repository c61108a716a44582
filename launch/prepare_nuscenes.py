"""The nuScenes part of launch.prepare."""

import argparse
import sys
import time


def nuscenes_arguments(parser):
  """Adds the arguments of `nuscenes`."""
  parser.add_argument(
    "--dataroot",
    required=True,
    help="folder that holds v1.0-*, maps, samples and sweeps",
  )
  parser.add_argument("--version", default="v1.0-trainval", help="v1.0-trainval or v1.0-mini")
  parser.add_argument(
    "--split", nargs="+", help="of train, val and test; default: all that have scenes there"
  )
  parser.add_argument(
    "--split_policy",
    default="dev",
    choices=("dev", "seed"),
    help="dev: 70 official training scenes validate, the official val scenes test; seed: the "
    "official val scenes do both, which spoils the test",
  )
  parser.add_argument(
    "--cameras", nargs="+", default=argparse.SUPPRESS, help="default: all six cameras"
  )
  parser.add_argument(
    "--target_fps", type=int, default=12, help="a multiple of 2; 2: the keyframes alone"
  )
  parser.add_argument(
    "--min_visibility", type=int, default=1, help="lowest visibility level, 1 to 4; 0: all"
  )
  parser.add_argument(
    "--clip",
    default="corners",
    choices=("corners", "hull"),
    help="corners: bounds of the corners, all in front of the camera; hull: the devkit's rule, "
    "which keeps near objects",
  )
  parser.add_argument(
    "--interpolation",
    default="image2d",
    choices=("image2d", "pose3d"),
    help="between keyframes: lines between 2-D boxes, or 3-D boxes moved and projected",
  )
  parser.add_argument(
    "--official_pedestrians",
    action="store_true",
    help="drop personal mobility, strollers and wheelchairs as the official tracking task does",
  )
  parser.add_argument(
    "--detections", action="store_true", help="also write det/det.txt from a simulated detector"
  )
  parser.add_argument(
    "--images", action="store_true", help="link the image nearest to each frame as img1/000001.jpg"
  )
  parser.add_argument(
    "--keep_going", action="store_true", help="skip and count scenes with bad tables or images"
  )


def nuscenes(args, options):
  """Converts a nuScenes database and prints the closing report."""
  from vistraj_jax.prepare.nuscenes import dataset, report
  from vistraj_jax.tracking import mot_files

  if args.split_policy == "seed":
    print(
      "warning: val and test are the same scenes; early stopping sees the test.", file=sys.stderr
    )
  names = (
    *("version", "split", "split_policy", "target_fps", "min_visibility", "clip", "interpolation"),
    *("official_pedestrians", "detections", "images", "keep_going"),
  )
  chosen = {name: getattr(args, name) for name in names}
  if "cameras" in args:
    chosen["cameras"] = tuple(args.cameras)
  start = time.perf_counter()
  statistics = dataset.prepare(args.dataroot, args.out, **chosen, **options)
  seconds = time.perf_counter() - start
  print(report.text(statistics, dict(enumerate(mot_files.CLASSES))))
  count = sum(total["sequences"] for total in statistics["splits"].values())
  print(f"{count:,} scene-cameras in {seconds:.1f} s, {count / seconds:.1f} a second")
  print(f"written: {args.out}")
