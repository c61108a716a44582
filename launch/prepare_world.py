"""The simulated nuScenes database part of launch.prepare."""

import pathlib
import time

SPLITS = ("train", "val", "test")
_LEVELS = ("0-40 %", "40-60 %", "60-80 %", "80-100 %")


def world_arguments(parser):
  """Adds the arguments of `world`."""
  for split, count in zip(SPLITS, (14, 4, 2), strict=True):
    parser.add_argument(
      f"--{split}", type=int, default=count, help=f"{split} scenes, one drive each"
    )
  parser.add_argument(
    "--seconds", type=float, default=19.5, help="length of a drive; 19.5 gives 40 keyframes"
  )
  parser.add_argument("--seed", type=int, default=8, help="of the first drive; the next has +1")
  parser.add_argument("--moving", type=int, default=110, help="moving agents of a drive")
  parser.add_argument("--parked", type=int, default=30, help="parked vehicles of a drive")
  parser.add_argument(
    "--sweeps",
    nargs="*",
    default=["test"],
    help="splits whose images and LiDAR sweeps between keyframes have files; the tables list them "
    "for all splits, and keyframes always have files",
  )


def world(args, options):
  """Writes the database and prints what it holds."""
  from vistraj_jax.prepare.world import nuscenes_writer

  settings = {
    **nuscenes_writer.SETTINGS,
    "scenes": {split: getattr(args, split) for split in SPLITS},
    **{name: getattr(args, name) for name in ("seconds", "seed", "moving", "parked", "sweeps")},
  }
  new = not pathlib.Path(args.out).exists()
  start = time.perf_counter()
  statistics = nuscenes_writer.write(args.out, settings, **options)
  print(report(statistics))
  if new:
    seconds = time.perf_counter() - start
    print(f"{statistics['images'] / seconds:.1f} images/s ({seconds:.0f} s)")
  print(f"written: {args.out} (version {nuscenes_writer.VERSION})")


def report(statistics):
  """Returns the closing table: what the database holds, annotations by category and visibility."""
  scenes = ", ".join(f"{count} {split}" for split, count in statistics["scenes"].items())
  lines = [
    f"scenes {sum(statistics['scenes'].values())} ({scenes}), keyframes {statistics['keyframes']}, "
    f"instances {statistics['instances']}",
    f"images {statistics['images']}, LiDAR sweeps {statistics['sweeps']}, "
    f"{statistics['bytes'] / 1e6:.0f} MB",
    "",
    f"{'annotations':<37}{'all':>9}" + "".join(f"{level:>9}" for level in _LEVELS),
  ]
  counts = statistics["annotations"]
  total = [sum(levels) for levels in zip(*counts.values(), strict=True)] or [0] * len(_LEVELS)
  for name, levels in [*counts.items(), ("all", total)]:
    lines.append(f"{name:<37}{sum(levels):>9}" + "".join(f"{n:>9}" for n in levels))
  return "\n".join(lines)
