"""One sequence's box table -> track records and a MOT folder, and the report over all sequences.

Every source of tracks (MOTChallenge folders, KITTI labels, nuScenes, the simulated world) ends
here, so all of them count, skip and write in the same way.
"""

import numpy as np

from vistraj_jax.core import files
from vistraj_jax.data import example, trackssm
from vistraj_jax.tracking import mot_files

_COUNTS = ("boxes", "tracks", "windows", "short_tracks")


def track_records(truth, info, classes, keyframe_interval=1):
  """Turns the truth of one sequence into track records.

  A track is the rows of one id with consider flag 1, a class in `classes` and an area. Tracks
  without a window of 7 boxes in consecutive frames are skipped and counted.

  Args:
    truth: `mot_files.Table`.
    info: `mot_files.SequenceInfo`.
    classes: class ids, counted from `info.class_base` on.
    keyframe_interval: frames 1, 1 + interval, ... are annotated, those between interpolated.

  Returns:
    (list of Example bytes, {"frames", "boxes", "tracks", "windows", "short_tracks", "classes":
    {class id: the same four}}).
  """
  class_id = truth.class_id - info.class_base
  kept = (truth.score == 1) & np.isin(class_id, classes) & (truth.box_xywh[:, 2:] > 0).all(1)
  rows = np.flatnonzero(kept)
  rows = rows[np.lexsort((truth.frame[rows], truth.track_id[rows]))]
  ids = truth.track_id[rows]
  _, camera = mot_files.scene_and_camera(info.name)
  payloads = []
  result = {"frames": info.length, **dict.fromkeys(_COUNTS, 0), "classes": {}}
  for track in np.split(rows, np.flatnonzero(np.diff(ids)) + 1) if len(rows) else ():
    frames = truth.frame[track]
    windows = trackssm.num_windows(frames)
    values = {
      "sequence": info.name,
      "camera": camera,
      "track_id": truth.track_id[track[0]],
      "class_id": class_id[track[0]],
      "frames": frames,
      "boxes": truth.box_xywh[track],
      "visibility": truth.visibility[track],
      "is_keyframe": (frames - 1) % keyframe_interval == 0,
      "width": info.width,
      "height": info.height,
      "frame_rate": info.frame_rate,
    }
    if windows:
      payloads.append(example.encode(values, trackssm.SPEC))
    of_class = result["classes"].setdefault(str(int(class_id[track[0]])), dict.fromkeys(_COUNTS, 0))
    for counts in (result, of_class):
      counts["boxes"] += len(track)
      counts["tracks"] += int(windows > 0)
      counts["short_tracks"] += int(windows == 0)
      counts["windows"] += windows
  return payloads, result


def write_folder(folder, info, truth, detections=None, texts=None, links=None):
  """Writes one MOT sequence folder atomically.

  Args:
    folder: the folder.
    info: `mot_files.SequenceInfo`, for seqinfo.ini.
    truth: `mot_files.Table`, for gt/gt.txt.
    detections: `mot_files.Table` for det/det.txt, or None.
    texts: {path in the folder: text} of further files.
    links: {path in the folder: target} of symbolic links.
  """
  with files.atomic_folder(folder) as temporary:
    mot_files.write_sequence_info(temporary, info)
    mot_files.write_table(temporary / "gt" / "gt.txt", truth)
    if detections is not None:
      mot_files.write_table(temporary / "det" / "det.txt", detections)
    for name, text in (texts or {}).items():
      files.write_text(temporary / name, text)
    for name, target in (links or {}).items():
      (temporary / name).parent.mkdir(exist_ok=True)
      (temporary / name).symlink_to(target)


def summarize(results):
  """Adds the results of `track_records` up: {"splits": {split: {sequences, ..., classes}}}."""
  splits = {}
  for unit, result in results:
    total = splits.setdefault(
      unit.split, {"sequences": 0, "frames": 0, **dict.fromkeys(_COUNTS, 0), "classes": {}}
    )
    for part in result.get("sequences", [result]):
      total["sequences"] += 1
      total["frames"] += part["frames"]
      for name in _COUNTS:
        total[name] += part[name]
      for class_id, counts in part["classes"].items():
        of_class = total["classes"].setdefault(class_id, dict.fromkeys(_COUNTS, 0))
        for name in _COUNTS:
          of_class[name] += counts[name]
  for total in splits.values():
    total["classes"] = dict(sorted(total["classes"].items(), key=lambda item: int(item[0])))
  return {"splits": splits}


def report(statistics, class_names):
  """Returns the closing table of a preparation; `class_names` {class id: name}."""
  header = f"{'split':<8}{'class':<14}{'sequences':>10}{'frames':>9}"
  lines = [header + "".join(f"{name:>13}" for name in _COUNTS)]
  for split, total in statistics["splits"].items():
    row = f"{split:<8}{'all':<14}{total['sequences']:>10}{total['frames']:>9}"
    lines.append(row + "".join(f"{total[name]:>13}" for name in _COUNTS))
    for class_id, counts in total["classes"].items():
      name = class_names.get(int(class_id), f"class {class_id}")
      lines.append(f"{'':<8}{name:<33}" + "".join(f"{counts[name]:>13}" for name in _COUNTS))
  lines.append("windows: 7 boxes of one track in consecutive frames; short tracks have none.")
  return "\n".join(lines)
