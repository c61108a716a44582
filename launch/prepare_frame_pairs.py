"""The two-stream part of launch.prepare: bridge, egodex, video, libero."""

import time

_SHARES = {"bridge": 0.1, "egodex": 0.05, "video": 0.1, "libero": 0.1}


def bridge_arguments(parser):
  """Adds the arguments of `bridge`."""
  _common(parser, "bridge", "folder of bridge_dataset-*.tfrecord-*, or above raw traj* folders")
  parser.add_argument("--camera", type=int, default=0, help="number of the camera")


def egodex_arguments(parser):
  """Adds the arguments of `egodex`."""
  _common(parser, "egodex", "folder of EgoDex parts or tasks (*.mp4 with *.hdf5 beside)")
  _chunk_arguments(parser)
  parser.add_argument(
    "--joints", nargs="+", default=[], help="joints to keep; default: the right hand's six"
  )


def video_arguments(parser):
  """Adds the arguments of `video`."""
  _common(parser, "video", "folder of videos, searched with its subfolders")
  _chunk_arguments(parser)
  parser.add_argument(
    "--fps", type=float, default=0.0, help="frames a second to keep; 0: all, of one rate"
  )


def libero_arguments(parser):
  """Adds the arguments of `libero`."""
  _common(parser, "libero", "folder of *_demo.hdf5 files, searched with its subfolders")
  parser.add_argument("--camera", default="agentview", help="agentview or eye_in_hand")


def bridge(args, options):
  """Converts Bridge V2."""
  from vistraj_jax.prepare.frame_pairs import bridge as work

  _run(args, work.prepare, camera=args.camera, **options)


def egodex(args, options):
  """Converts EgoDex."""
  from vistraj_jax.prepare.frame_pairs import videos as work

  joints = tuple(args.joints) or work.EGODEX_JOINTS
  _run(args, work.prepare_egodex, joints=joints, **options)


def video(args, options):
  """Converts a folder of videos."""
  from vistraj_jax.prepare.frame_pairs import videos as work

  _run(args, work.prepare, fps=args.fps, **options)


def libero(args, options):
  """Converts LIBERO demonstrations."""
  from vistraj_jax.prepare.frame_pairs import libero as work

  _run(args, work.prepare, camera=args.camera, **options)


def _common(parser, source, text):
  parser.add_argument("--source", required=True, help=text)
  parser.add_argument(
    "--size", type=int, default=256, help="side in px of the square frames that are stored"
  )
  parser.add_argument(
    "--resize",
    default="squash" if source == "bridge" else "center_crop",
    choices=("squash", "center_crop"),
    help="the whole frame in the square, or its centre",
  )
  parser.add_argument(
    "--val_share", type=float, default=_SHARES[source], help="share of trajectories for validation"
  )
  parser.add_argument(
    "--keep_going", action="store_true", help="leave unreadable files out, and count them"
  )


def _chunk_arguments(parser):
  parser.add_argument(
    "--chunk", type=int, default=300, help="longest record in frames; 0: never cut"
  )
  parser.add_argument(
    "--overlap", type=int, default=60, help="frames shared by neighbouring records: the largest gap"
  )


def _run(args, convert, **arguments):
  from vistraj_jax.prepare.frame_pairs import trajectories

  names = ("size", "resize", "val_share", "keep_going", "chunk", "overlap")
  given = {name: getattr(args, name) for name in names if hasattr(args, name)}
  if "chunk" not in given:
    given |= {"chunk": 0, "overlap": 0}
  start = time.perf_counter()
  statistics = convert(args.source, args.out, options=trajectories.Options(**given), **arguments)
  seconds = time.perf_counter() - start
  print(trajectories.report(statistics))
  count = sum(total["frames"] for total in statistics["splits"].values())
  print(f"{count:,} frames in {seconds:.1f} s, {count / seconds:.1f} a second")
  print(f"written: {args.out}")
