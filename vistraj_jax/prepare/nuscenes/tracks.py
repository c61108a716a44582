"""One camera of one nuScenes scene -> boxes on the frame grid -> a MOT folder and track records.

Two ways lead from 2 Hz keyframes to all frames. "image2d" draws straight lines between the 2-D
boxes of neighbouring keyframes. "pose3d" moves the 3-D box (centre on a line, rotation by slerp)
and projects it with the ego pose of the camera image nearest in time, so that boxes lie on the
images between keyframes also when the ego vehicle turns.
"""

import dataclasses
import json
import pathlib

import numpy as np

from vistraj_jax.core import geometry
from vistraj_jax.prepare import detector, tracks
from vistraj_jax.prepare.nuscenes import boxes
from vistraj_jax.prepare.nuscenes import scene as scenes
from vistraj_jax.tracking import mot_files

CLASSES = tuple(range(len(mot_files.CLASSES)))
REASONS = ("category", "visibility", *boxes.REASONS)
KEYFRAME_RATE = 2  # Hz
# Visible share by visibility level, for the simulated detector; level 0 is unknown.
_SHARES = np.array([0.2, 0.2, 0.5, 0.7, 0.9])


@dataclasses.dataclass(frozen=True)
class Conversion:
  """What decides the boxes.

  Attributes:
    frames_per_keyframe: 6 for 12 fps; 1 keeps the keyframes alone.
    min_visibility: annotations below this level (0 to 4) are dropped.
    clip: "corners" or "hull", as `geometry.visible_box`.
    interpolation: "image2d" or "pose3d".
    official_pedestrians: drop the three kinds that the official tracking task drops.
  """

  frames_per_keyframe: int = 6
  min_visibility: int = 1
  clip: str = "corners"
  interpolation: str = "image2d"
  official_pedestrians: bool = False


@dataclasses.dataclass(frozen=True)
class CameraTracks:
  """The tracks of one camera.

  Attributes:
    table: `mot_files.Table` sorted by frame, then id; boxes rounded to 0.01 px.
    is_keyframe: bool [rows], annotated and not interpolated.
    ids: {instance token: track id}.
    reason: int [N] for the N annotations of the scene, index into `REASONS`, -1 if kept.
    class_id: int [N], -1 for dropped categories.
  """

  table: mot_files.Table
  is_keyframe: np.ndarray
  ids: dict
  reason: np.ndarray
  class_id: np.ndarray


def camera_tracks(scene, camera, conversion):
  """Projects and interpolates what one camera of a scene sees.

  Args:
    scene: `scene.Scene`.
    camera: its name.
    conversion: `Conversion`.

  Returns:
    `CameraTracks`.
  """
  names, kind = np.unique(scene.category, return_inverse=True)
  classes = np.array([boxes.class_id(n, conversion.official_pedestrians) for n in names], np.int64)
  classes = classes[kind] if len(kind) else np.zeros(0, np.int64)
  reason = np.select(
    [classes < 0, scene.visibility < conversion.min_visibility],
    [REASONS.index("category"), REASONS.index("visibility")],
    -1,
  )
  wanted = np.flatnonzero(reason < 0)
  view = scene.cameras[camera]
  image = np.flatnonzero(view.is_keyframe)[scene.keyframe[wanted]]
  box, why = boxes.camera_boxes_and_reasons(
    scene.translation[wanted],
    scene.size_wlh[wanted],
    scene.rotation[wanted],
    *_camera_arguments(view, image, conversion),
  )
  reason[wanted] = np.where(why < 0, -1, why + REASONS.index(boxes.REASONS[0]))
  seen = why < 0
  fill = {"image2d": _fill_image, "pose3d": _fill_space}[conversion.interpolation]
  table, is_keyframe, ids = fill(scene, view, conversion, wanted, classes, seen, box)
  table = dataclasses.replace(table, box_xywh=table.box_xywh.round(2))
  return CameraTracks(table, is_keyframe, ids, reason, classes)


def convert(scene_file, camera, conversion, folder, images=None, detections=False):
  """Converts one scene-camera into the MOT folder `folder`/{scene}_{camera}.

  Args:
    scene_file: file of `scene.save`.
    camera: name.
    conversion: `Conversion`.
    folder: of the split.
    images: data root, to link each frame's nearest image; None links nothing.
    detections: write det/det.txt from the simulated detector.

  Returns:
    (list of Example bytes, counts: see `count`).
  """
  scene = scenes.load(scene_file, [camera])
  view = scene.cameras[camera]
  found = camera_tracks(scene, camera, conversion)
  nearest, _ = view.frames(conversion.frames_per_keyframe)
  info = mot_files.SequenceInfo(
    name=f"{scene.name}_{camera}",
    frame_rate=KEYFRAME_RATE * conversion.frames_per_keyframe,
    length=len(nearest),
    width=view.image_size[0],
    height=view.image_size[1],
    image_extension=pathlib.PurePosixPath(view.file[0]).suffix,
  )
  reported = None
  if detections:
    shares = _SHARES[found.table.visibility.astype(int)]
    truth = dataclasses.replace(found.table, visibility=shares)
    rng = detector.generator(info.name)
    reported = detector.detect(truth, info.length, view.image_size, rng)
  links = {}
  if images is not None:
    links = {
      f"{info.image_folder}/{frame:06d}{info.image_extension}": pathlib.Path(images) / view.file[n]
      for frame, n in enumerate(nearest, 1)
    }
  texts = {"instances.json": json.dumps(found.ids, indent=1)}
  folder = pathlib.Path(folder)
  tracks.write_folder(folder / info.name, info, found.table, reported, texts, links)
  interval = conversion.frames_per_keyframe
  payloads, result = tracks.track_records(found.table, info, CLASSES, interval)
  return payloads, {**result, **count(scene, camera, conversion, found)}


def count(scene, camera, conversion, found):
  """Counts what became of the annotations of one scene-camera.

  Returns:
    {"scene", "camera", "annotations" of the scene, "rejected" {reason: count}, "of_classes"
    {class id: {"annotations", "keyframe_boxes", "interpolated_boxes", "expected_boxes"}}}: the
    number of boxes expected of n keyframes in a row is f n - (f - 1), f frames per keyframe.
  """
  f = conversion.frames_per_keyframe
  of_classes = {}
  for class_id in sorted(set(found.class_id[found.class_id >= 0].tolist())):
    rows = found.table.class_id == class_id
    annotated = found.table.select(rows & found.is_keyframe)
    order = np.lexsort((annotated.frame, annotated.track_id))
    apart = np.diff(annotated.frame[order]) != f
    runs = (apart | (np.diff(annotated.track_id[order]) != 0)).sum() + (len(order) > 0)
    of_classes[str(class_id)] = {
      "annotations": int((found.class_id == class_id).sum()),
      "keyframe_boxes": len(annotated),
      "interpolated_boxes": int(rows.sum()) - len(annotated),
      "expected_boxes": int(f * len(annotated) - (f - 1) * runs),
    }
  rejected = {name: int((found.reason == i).sum()) for i, name in enumerate(REASONS)}
  return {
    "scene": scene.name,
    "camera": camera,
    "annotations": len(scene.keyframe),
    "rejected": rejected,
    "of_classes": of_classes,
  }


def _camera_arguments(view, image, conversion):
  """Returns the camera's arguments of `boxes.camera_boxes` for boxes seen in images `image`."""
  ego_pose = view.ego_pose[image]
  return ego_pose, view.sensor_pose, view.intrinsic, view.image_size, conversion.clip


def _fill_image(scene, view, conversion, wanted, classes, seen, box):
  """Returns (table, is_keyframe, ids) with straight lines between the 2-D boxes."""
  rows = wanted[seen]
  track_id, ids = boxes.dense_ids(scene.instance[rows].tolist())
  table, is_keyframe = boxes.keyframes_to_frames(
    scene.keyframe[rows],
    track_id,
    box[seen],
    classes[rows],
    scene.visibility[rows],
    conversion.frames_per_keyframe,
  )
  return table, is_keyframe, ids


def _fill_space(scene, view, conversion, wanted, classes, seen, box):
  """Returns (table, is_keyframe, ids) with 3-D boxes that move between their annotations.

  An object may be seen between two keyframes in which it is not, and the other way round.
  """
  f = conversion.frames_per_keyframe
  rows = wanted[seen]
  numbers, tokens = boxes.dense_ids(scene.instance.tolist())
  annotated, _ = boxes.keyframes_to_frames(
    scene.keyframe[rows], numbers[rows], box[seen], classes[rows], scene.visibility[rows], 1
  )
  order = wanted[np.lexsort((scene.keyframe[wanted], numbers[wanted]))]
  joined = (np.diff(numbers[order]) == 0) & (np.diff(scene.keyframe[order]) == 1)
  first, second = order[:-1][joined], order[1:][joined]
  step = np.tile(np.arange(1, f), len(first))
  first, second = np.repeat(first, f - 1), np.repeat(second, f - 1)
  weight = (step / f)[:, None]
  frame = f * scene.keyframe[first] + step  # from 0
  image = view.frames(f)[0][frame]
  between = boxes.camera_boxes_and_reasons(
    scene.translation[first] * (1 - weight) + scene.translation[second] * weight,
    scene.size_wlh[first] * (1 - weight) + scene.size_wlh[second] * weight,
    geometry.slerp(scene.rotation[first], scene.rotation[second], weight[:, 0]),
    *_camera_arguments(view, image, conversion),
  )[0]
  shown = np.isfinite(between[:, 0])
  lowest = np.minimum(scene.visibility[first], scene.visibility[second])
  table = mot_files.Table.of(
    frame=np.concatenate([f * (annotated.frame - 1) + 1, frame[shown] + 1]),
    track_id=np.concatenate([annotated.track_id, numbers[first][shown]]),
    box_xywh=np.concatenate([annotated.box_xywh, between[shown]]),
    class_id=np.concatenate([annotated.class_id, classes[first][shown]]),
    visibility=np.concatenate([annotated.visibility, lowest[shown]]),
  )
  is_keyframe = np.arange(len(table)) < len(annotated)
  # Ids count objects in order of their first row, the first in the tables first.
  shown_first = np.lexsort((table.track_id, table.frame))
  tokens = np.array(list(tokens), np.str_)[table.track_id - 1]
  _, ids = boxes.dense_ids(tokens[shown_first].tolist())
  table = dataclasses.replace(table, track_id=np.array([ids[t] for t in tokens], np.int64))
  order = np.lexsort((table.track_id, table.frame))
  return table.select(order), is_keyframe[order], ids
