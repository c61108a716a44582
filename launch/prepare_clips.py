"""The nuscenes_clips part of launch.prepare: clips of agents for XMem."""

import time

_NUMBERS = {
  "t_in": "observed key frames (2 Hz)",
  "t_out": "future key frames",
  "stride": "key frames from one window to the next",
  "objects": "masks of a clip: the target and the agents that are seen longest beside it",
  "reach": "m from the ego car to each side of the bird's-eye masks; points farther away go",
  "resolution": "m, cells of the bird's-eye masks",
  "points": "most LiDAR points kept of a key frame, a random part",
  "sweeps": "LiDAR sweeps joined for a key frame, itself included",
  "max_sweep_age": "s; older sweeps are not joined",
  "min_pixels": "of a mask that counts as visible",
  "max_hidden": "observed key frames in which the target may be hidden, the first excepted",
  "min_speed": "m/s over the next 2 s; slower targets are left out",
  "seed": "of which points are kept",
}


def clips_arguments(parser):
  """Adds the arguments of `nuscenes_clips`."""
  from vistraj_jax.prepare.nuscenes import clips

  default = clips.DEFAULTS
  add = parser.add_argument
  add("--dataroot", help="folder that holds v1.0-*, maps, samples and sweeps", required=True)
  add("--version", default="v1.0-trainval", help="v1.0-trainval or v1.0-mini")
  add("--split", nargs="+", help="of train, val and test; default: all that have scenes there")
  add(
    "--split_policy",
    default="dev",
    choices=("dev", "seed"),
    help="as in `prepare nuscenes`; splits are of whole scenes, by the official lists",
  )
  add(
    "--inputs",
    nargs="+",
    default=default.inputs,
    help="bev (LiDAR points, masks from above), camera (frames, depth, masks) or both; the target "
    "has to be visible in each",
  )
  add(
    "--cameras",
    nargs="+",
    default=default.cameras,
    help="cameras, of which the one that sees the target best is taken",
  )
  add(
    "--image_size",
    nargs=2,
    type=int,
    metavar=("HEIGHT", "WIDTH"),
    default=default.image_size,
    help="of the stored frames, px",
  )
  for name, text in _NUMBERS.items():
    value = getattr(default, name)
    add(f"--{name}", type=type(value), default=value, help=text)
  add(
    "--anchor",
    default=default.anchor,
    choices=("lidar", "published"),
    help="frame of positions: the ego pose of the last observed sweep; published: that of the "
    "first camera's image, as if the car stood level",
  )
  add("--keep_going", action="store_true", help="skip scenes with bad tables or missing files")


def nuscenes_clips(args, options):
  """Makes the clips and prints the closing report."""
  from vistraj_jax.prepare.nuscenes import clip_rows, clips

  choice = clip_rows.Choice(
    inputs=tuple(args.inputs),
    cameras=tuple(args.cameras),
    image_size=tuple(args.image_size),
    anchor=args.anchor,
    **{name: getattr(args, name) for name in _NUMBERS},
  )
  names = ("version", "split", "split_policy", "keep_going")
  start = time.perf_counter()
  statistics = clips.prepare(
    args.dataroot,
    args.out,
    choice=choice,
    **{name: getattr(args, name) for name in names},
    **options,
  )
  seconds = time.perf_counter() - start
  print(clips.report(statistics))
  count = sum(total["counts"]["clips"] for total in statistics["splits"].values())
  print(f"{count:,} clips in {seconds:.1f} s, {count / seconds:.1f} a second")
  print(f"written: {args.out}")
