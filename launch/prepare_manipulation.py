"""The manipulation world's part of launch.prepare."""

import pathlib
import time


def manipulation_arguments(parser):
  """Adds the arguments of `manipulation`."""
  parser.add_argument(
    "--layout",
    required=True,
    choices=("bridge", "egodex", "libero"),
    help="public layout to write, and then the command of launch.prepare that reads it",
  )
  parser.add_argument(
    "--episodes",
    type=int,
    help="successful episodes; else 320 (bridge), 100 (egodex), 50 of each task (libero)",
  )
  parser.add_argument("--size", type=int, help="side of the frames in px; else 128, for egodex 256")
  parser.add_argument(
    "--camera",
    choices=("still", "moving"),
    help="whether the room's camera moves; else moving for egodex only",
  )
  parser.add_argument(
    "--spread",
    type=float,
    help="how far scenes of a task differ, 0 (not) to 1 (anywhere); else 1, for libero 0.25",
  )
  parser.add_argument(
    "--noise", type=float, help="what the hand does beside its command, in commands; else 0.1"
  )
  parser.add_argument("--seed", type=int, default=0, help="of the whole set")


def manipulation(args, options):
  """Writes the demonstrations and prints what there are."""
  from vistraj_jax.prepare.world import manipulation_writer

  names = ("episodes", "size", "spread", "noise", "seed")
  given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
  if args.camera:
    given["moving_camera"] = args.camera == "moving"
  new = not pathlib.Path(args.out).exists()
  start = time.perf_counter()
  settings = manipulation_writer.usual(args.layout, given)
  found = manipulation_writer.write(args.out, settings, **options)
  print(f"episodes {found['episodes']:,}, all successful; frames {found['frames']:,}")
  if new:
    seconds = time.perf_counter() - start
    print(f"{found['frames'] / seconds:.1f} frames/s ({seconds:.0f} s)")
  print(f"written: {args.out} (read it with `launch.prepare {args.layout} --source {args.out}`)")
