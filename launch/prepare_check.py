"""`launch.prepare check`: draws prepared boxes over the real images, and prints what to expect."""

import argparse

from launch import command_line
from vistraj_jax.core import checks

DESCRIPTION = """Draws the boxes that `prepare nuscenes` wrote over the camera's images: those of
keyframes solid, the interpolated ones dashed over the nearest sweep; colours are classes. Writes
{scene}_{camera}.png, a row for each chosen keyframe and the frames behind it, and
{scene}_{camera}.mp4, the whole scene. Boxes must sit on the objects and move smoothly from keyframe
to keyframe."""


def arguments(parser):
  """Adds the options of the command."""
  add = parser.add_argument
  add("--dataroot", help="folder that holds v1.0-*, samples and sweeps", required=True)
  add("--version", default="v1.0-trainval", help="version folder of the tables")
  add("--data", help="output folder of `prepare nuscenes`", required=True)
  add("--scene", default="0", help="name, or number among the prepared scenes, from 0")
  add("--camera", default="CAM_FRONT", help="one of the prepared cameras")
  add("--samples", type=int, default=5, help="keyframes on the sheet, evenly spread")
  add(
    "--keyframes",
    type=int,
    nargs="+",
    default=argparse.SUPPRESS,
    help="these keyframes instead, from 0",
  )
  add("--width", type=int, default=480, help="width of one picture on the sheet, px")
  add("--out", help="folder for the sheet and the video", required=True)


def run(args):
  """Draws the sheet and the video and prints the numbers."""
  import pathlib

  import tqdm

  from vistraj_jax.prepare.nuscenes import check, database
  from vistraj_jax.tracking import mot_files
  from vistraj_jax.viz import keyframe_boxes, video

  command_line.require_folder(args.out)
  for name, least, most in (("samples", 1, 1000), ("width", 64, 4096)):
    value = getattr(args, name)
    checks.require(
      least <= value <= most, f"--{name}: {value} is not allowed; choose {least} to {most}."
    )
  scene_name, folder = check.find_sequence(args.data, args.camera, args.scene)
  info = mot_files.read_sequence_info(folder)
  truth = folder / "gt" / "gt.txt"
  table = mot_files.read_table(truth, "truth", info.length)
  known = range(len(mot_files.CLASSES))
  for class_id in set(table.class_id.tolist()):
    checks.require(
      class_id in known,
      f"{truth}: holds class {class_id}; `prepare nuscenes` writes 0 to {known[-1]}: give its "
      "output folder as --data.",
    )
  print(f"opening the tables of {args.version} ...", flush=True)
  scene = database.Database(args.dataroot, args.version).scene(scene_name)
  checks.choice(f"--camera ({scene_name})", args.camera, scene.cameras)
  frames, interval = check.frames_of(scene.cameras[args.camera], info)
  last = frames[-1].keyframe
  keyframes = getattr(args, "keyframes", check.spread(args.samples, last + 1))
  for keyframe in keyframes:
    checks.require(
      0 <= keyframe <= last,
      f"--keyframes: {keyframe} received, but {scene_name} {args.camera} has 0 to {last}.",
    )
  print(f"{scene_name} {args.camera}: {info.length} frames at {info.frame_rate:g} Hz")
  print(check.report(check.numbers(scene, table, frames, interval), interval))
  check.require_images(args.dataroot, frames)

  sequence = keyframe_boxes.Sequence(
    name=f"{scene_name} {args.camera}",
    width=info.width,
    height=info.height,
    frame_rate=info.frame_rate,
    frames=frames,
    boxes=table,
    class_names=mot_files.CLASSES,
    images=pathlib.Path(args.dataroot),
  )
  sheet = pathlib.Path(args.out) / f"{scene_name}_{args.camera}.png"
  video.write_png(sheet, keyframe_boxes.sheet(sequence, keyframes, args.width))
  pictures = tqdm.tqdm(
    keyframe_boxes.video_pictures(sequence), desc="drawing", unit="frame", total=len(frames)
  )
  movie = sheet.with_suffix(".mp4")
  video.write_video(movie, pictures, info.frame_rate)
  print(f"written: {sheet} (keyframes {', '.join(map(str, keyframes))}), {movie}")
