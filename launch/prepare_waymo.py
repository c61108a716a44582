"""The Waymo part of launch.prepare."""

import time


def waymo_e2e_arguments(parser):
  """Adds the arguments of `waymo_e2e`."""
  parser.add_argument(
    "--source",
    required=True,
    help="folder of training_*, val_* and test_*.tfrecord-* shards",
  )
  parser.add_argument(
    "--split", nargs="+", default=[], help="of train, val and test; default: all that are there"
  )
  parser.add_argument(
    "--cameras", nargs="+", default=["FRONT"], help="names of the cameras to keep, or all"
  )
  parser.add_argument(
    "--size",
    type=int,
    default=384,
    help="side in px of the square images that are stored; 0: the original JPEG bytes",
  )
  parser.add_argument(
    "--keep_going",
    action="store_true",
    help="leave damaged records and incomplete frames out, and count them",
  )


def waymo_e2e(args, options):
  """Converts Waymo end-to-end driving shards and prints the closing report."""
  from vistraj_jax.data import waymo_e2e as data
  from vistraj_jax.prepare.waymo_e2e import convert

  start = time.perf_counter()
  statistics = convert.prepare(
    args.source,
    args.out,
    splits=tuple(args.split),
    cameras=data.CAMERAS if args.cameras == ["all"] else tuple(args.cameras),
    size=args.size,
    keep_going=args.keep_going,
    **options,
  )
  seconds = time.perf_counter() - start
  print(convert.report(statistics))
  count = sum(total["frames"] for total in statistics["splits"].values())
  print(f"{count:,} frames in {seconds:.1f} s, {count / seconds:.1f} a second")
  print(f"written: {args.out}")
