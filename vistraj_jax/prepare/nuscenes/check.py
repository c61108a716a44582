"""What one looks at to trust a conversion: prepared boxes beside the camera's images, and numbers.

The boxes are the rows of the prepared gt.txt. Frames 1, 1 + r, ... (r = frame rate / 2 Hz) are
annotated and lie over the camera's keyframe images. The frames between are interpolated; each lies
over the image, of a sweep or of a keyframe, whose time is nearest to the frame's.
"""

import dataclasses
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.prepare.nuscenes import boxes, tracks
from vistraj_jax.tracking import mot_files

# Share of all annotations that one camera of the original project saw, to compare with.
USUAL_SHARE = (0.15, 0.16)


@dataclasses.dataclass(frozen=True)
class Frame:
  """One prepared frame.

  Attributes:
    number: from 1.
    keyframe: the keyframe at it or before it, from 0.
    step: frames since that keyframe; 0 on the keyframe itself.
    image: path of the image below `dataroot`.
    offset_s: time of the image less time of the frame, s.
  """

  number: int
  keyframe: int
  step: int
  image: str
  offset_s: float


def find_sequence(data, camera, scene="0"):
  """Returns (scene name, folder) of one prepared sequence.

  Args:
    data: output folder of `prepare nuscenes`, or one of its splits.
    camera: such as "CAM_FRONT".
    scene: its name, or its number among the scenes of this camera in `data`, sorted, from 0.

  Raises:
    InputError: no such camera or scene in `data`.
  """
  found, cameras = {}, set()
  for folder in mot_files.find_sequences(data):
    name, own = mot_files.scene_and_camera(folder.name)
    cameras.add(own)
    if own == camera:
      found[name] = folder
  checks.choice(f"--camera ({data})", camera, sorted(cameras))
  names = sorted(found)
  if scene in found:
    return scene, found[scene]
  checks.require(
    scene.isdecimal() and int(scene) < len(names),
    f"--scene: {scene!r} is not in {data} with {camera}; give a name such as "
    f"{checks.nearest(scene, names)}, or a number from 0 to {len(names) - 1}.",
  )
  return names[int(scene)], found[names[int(scene)]]


def frames_of(camera, info):
  """Lists the frames of a prepared sequence and the image that each lies over.

  Args:
    camera: `scene.Camera`.
    info: `mot_files.SequenceInfo` of the prepared folder.

  Returns:
    (list of `info.length` `Frame`s, r = frames per keyframe).

  Raises:
    InputError: the folder was not prepared from this scene.
  """
  interval = int(info.frame_rate / tracks.KEYFRAME_RATE)
  checks.require(
    interval >= 1 and interval * tracks.KEYFRAME_RATE == info.frame_rate,
    f"{info.name}: frameRate is {info.frame_rate:g}; `prepare nuscenes` writes a multiple of "
    f"{tracks.KEYFRAME_RATE} Hz: prepare the folder again.",
  )
  image, time = camera.frames(interval)
  checks.require(
    len(image) == info.length,
    f"{info.name}: {info.length} frames at {info.frame_rate:g} Hz do not fit the "
    f"{int(np.sum(camera.is_keyframe))} keyframes of this camera; prepare the folder again from "
    "the same --dataroot and --version.",
  )
  offset = np.asarray(camera.time)[image] - time
  files = np.asarray(camera.file)[image]
  frames = [
    Frame(i + 1, i // interval, i % interval, str(files[i]), float(offset[i]))
    for i in range(info.length)
  ]
  return frames, interval


def require_images(dataroot, frames):
  """Raises InputError, naming the first one, if images of `frames` are missing."""
  paths = dict.fromkeys(frame.image for frame in frames)
  missing = [path for path in paths if not (pathlib.Path(dataroot) / path).is_file()]
  checks.require(
    not missing,
    f"{pathlib.Path(dataroot, *missing[:1])}: no such image ({len(missing)} of the {len(paths)} "
    "that this scene and camera need are missing); the tables alone are enough for `prepare "
    "nuscenes`, but the check draws over the images: complete samples and sweeps, or choose "
    "another --scene.",
  )


def spread(count, keyframes):
  """Returns `count` of the keyframes 0.. that have frames behind them, evenly spread, ascending."""
  return np.unique(np.linspace(0, max(keyframes - 2, 0), count).round().astype(int)).tolist()


def numbers(scene, table, frames, interval):
  """Counts what a conversion must get right.

  Args:
    scene: `scene.Scene`.
    table: `mot_files.Table` of the prepared gt.txt.
    frames, interval: as `frames_of` returns them.

  Returns:
    dict: "keyframe_boxes", "interpolated_boxes", "tracks"; "annotations" of the scene and those of
    the 7 classes; "keyframe_share" of the rows and "expected_share", the sum of n over the sum of
    r n - (r - 1) over all runs of n neighbouring keyframes of a track; "runs"; "image_offset_s",
    the farthest an image is from its frame; and "jump_px", the centre's largest step between
    consecutive frames, with its "jump_track", "jump_frame" and the "median_jump_px" (nan without
    any step).
  """
  on_keyframe = (table.frame - 1) % interval == 0
  keyframe = (table.frame[on_keyframe] - 1) // interval
  track_id = table.track_id[on_keyframe]
  order = np.lexsort((keyframe, track_id))
  joined = (np.diff(track_id[order]) == 0) & (np.diff(keyframe[order]) == 1)
  n, runs = len(order), len(order) - int(joined.sum())
  rows = np.lexsort((table.frame, table.track_id))
  centre = (table.box_xywh[:, :2] + table.box_xywh[:, 2:] / 2)[rows]
  step = (np.diff(table.track_id[rows]) == 0) & (np.diff(table.frame[rows]) == 1)
  jump = np.linalg.norm(np.diff(centre, axis=0), axis=1)[step]
  ends = rows[1:][step]
  result = {
    "keyframe_boxes": n,
    "interpolated_boxes": len(table) - n,
    "tracks": len(set(table.track_id.tolist())),
    "annotations": len(scene.category),
    "annotations_of_classes": sum(boxes.class_id(name) >= 0 for name in scene.category),
    "keyframe_share": n / max(len(table), 1),
    "expected_share": n / max(interval * n - (interval - 1) * runs, 1),
    "runs": runs,
    "image_offset_s": max(abs(frame.offset_s) for frame in frames),
    **{"jump_px": np.nan, "jump_track": -1, "jump_frame": -1, "median_jump_px": np.nan},
  }
  if len(jump):
    worst = int(jump.argmax())
    result["jump_px"], result["median_jump_px"] = float(jump[worst]), float(np.median(jump))
    result["jump_track"] = int(table.track_id[ends[worst]])
    result["jump_frame"] = int(table.frame[ends[worst]])
  return result


def report(found, interval):
  """Returns what `numbers` found as lines with the values to compare with."""
  share = found["keyframe_boxes"] / max(found["annotations"], 1)
  of_classes = found["keyframe_boxes"] / max(found["annotations_of_classes"], 1)
  low, high = (100 * limit for limit in USUAL_SHARE)
  lines = [
    f"boxes: {found['keyframe_boxes']:,} on keyframes, {found['interpolated_boxes']:,} "
    f"interpolated, {found['tracks']:,} tracks",
    f"visible share: {100 * share:.1f} % of the scene's {found['annotations']:,} annotations "
    f"(a camera's usual mean over scenes: {low:.0f} to {high:.0f} %), {100 * of_classes:.1f} % of "
    f"the {found['annotations_of_classes']:,} of the 7 classes",
    f"keyframe share: {100 * found['keyframe_share']:.2f} % of the rows; "
    f"n/({interval}n-{interval - 1}) over the {found['runs']:,} runs of neighbouring keyframes "
    f"gives {100 * found['expected_share']:.2f} %",
    f"largest image offset: {1000 * found['image_offset_s']:.0f} ms between a frame and the image "
    "below it" + (": sweeps are missing in the tables" if found["image_offset_s"] > 0.1 else ""),
  ]
  if found["jump_frame"] > 0:
    lines.append(
      f"largest jump: {found['jump_px']:.1f} px from frame {found['jump_frame'] - 1} to "
      f"{found['jump_frame']} (track {found['jump_track']}); median "
      f"{found['median_jump_px']:.1f} px"
    )
  if not np.isclose(found["keyframe_share"], found["expected_share"]):
    lines.append(
      "note: the keyframe share differs from the expected one: rows are missing or drawn across "
      "gaps, unless --interpolation pose3d found objects in sight between two keyframes only"
    )
  return "\n".join(lines)
