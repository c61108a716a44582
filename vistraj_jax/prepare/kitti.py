"""KITTI tracking labels and 3-D detector outputs -> MOT folders per split and track records.

Labels are `label_02/{sequence}.txt`: frame (from 0), id, type, truncated, occluded, alpha, left,
top, right, bottom (px), 3-D size, location, rotation. Detections are
`{folder}/{sequence}.txt`: frame, type id, left, top, right, bottom, score (a logit), ...
"""

import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import trackssm
from vistraj_jax.prepare import runner, tracks
from vistraj_jax.tracking import mot_files

# Types that become tracks, by the project's class ids; the others stay in the truth with consider
# flag 0 and class ids of their own, for scorers that want to know them.
TRACKED = {"Car": 0, "Truck": 1, "Tram": 2, "Pedestrian": 4, "Cyclist": 6}
IGNORED = {"Van": 7, "Person": 8, "Person_sitting": 8, "DontCare": 9, "Misc": 10}
DETECTED = {1: 4, 2: 0, 3: 6}  # type id of a detector file: pedestrian, car, cyclist

# The split of the published trackers.
VAL = ("0001", "0006", "0008", "0010", "0012", "0013", "0014", "0015", "0016", "0018", "0019")

# The labels hold neither the number of frames nor the image size of a sequence.
_LENGTHS = (
  *(154, 447, 233, 144, 314, 297, 270, 800, 390, 803, 294),
  *(373, 78, 340, 106, 376, 209, 145, 339, 1059, 837),
)
_SIZES = ((13, 1242, 375), (17, 1224, 370), (19, 1238, 374), (20, 1241, 376))  # up to sequence
_FRAME_RATE = 10.0
# Visible share by "occluded": not, partly, largely, unknown.
_VISIBILITY = {0: 1.0, 1: 0.6, 2: 0.3, 3: 0.0}


def prepare(source, out, *, detections=(), processes=1, beam=None):
  """Converts `source`/label_02 into folder `out`; returns the statistics.

  Args:
    source: folder that holds label_02.
    out: output folder.
    detections: folders of detector files, joined to one det.txt per sequence.
    processes: worker processes.
    beam: pipeline arguments for Apache Beam; None runs locally.

  Raises:
    InputError: missing folders or files, an unknown sequence, a wrong row.
  """
  labels = pathlib.Path(source) / "label_02"
  checks.require(
    labels.is_dir(), f"{labels}: no such folder; give the folder that holds KITTI's label_02."
  )
  found = sorted(labels.glob("*.txt"))
  checks.require(len(found) > 0, f"{labels}: holds no label file (0000.txt, ...).")
  detections = [pathlib.Path(folder) for folder in detections]
  for folder in detections:
    checks.require(folder.is_dir(), f"{folder}: no such folder of detections.")
  units = []
  for path in found:
    split = "val" if path.stem in VAL else "train"
    inputs = [folder / path.name for folder in detections]
    units.append(
      runner.Unit(split, path.stem, (path, inputs, pathlib.Path(out) / split / path.stem))
    )
  settings = {
    "source": str(pathlib.Path(source).resolve()),
    "detections": [str(folder.resolve()) for folder in detections],
    "inputs": runner.fingerprint(
      path for unit in units for path in (unit.arguments[0], *unit.arguments[1])
    ),
  }
  return runner.run(
    out,
    name=trackssm.NAME,
    spec=trackssm.SPEC,
    description="KITTI tracks of boxes, one record per track.",
    settings=settings,
    units=units,
    work=convert_sequence,
    summarize=tracks.summarize,
    processes=processes,
    beam=beam,
  )


def convert_sequence(label_file, detection_files, target):
  """Writes one sequence as MOT folder `target`; returns as `tracks.track_records`."""
  info = sequence_info(label_file)
  truth = read_labels(label_file, info.length)
  checks.require(
    len(truth) > 0, f"{label_file}: holds no label; remove this sequence or complete the file."
  )
  found = [read_detections(path, info.length) for path in detection_files]
  tracks.write_folder(target, info, truth, _concatenate(found) if found else None)
  return tracks.track_records(truth, info, tuple(TRACKED.values()))


def sequence_info(label_file):
  """Returns the `SequenceInfo` of one of the sequences 0000 to 0020."""
  name = pathlib.Path(label_file).stem
  known = [f"{i:04d}" for i in range(len(_LENGTHS))]
  checks.require(
    name in known, f"{label_file}: no KITTI training sequence; known are 0000.txt to 0020.txt."
  )
  width, height = next(size[1:] for size in _SIZES if int(name) <= size[0])
  return mot_files.SequenceInfo(
    name=name,
    frame_rate=_FRAME_RATE,
    length=_LENGTHS[int(name)],
    width=width,
    height=height,
    image_extension=".png",
  )


def read_labels(path, length):
  """Reads one label file as truth `Table`; DontCare rows get ids of their own, above the others.

  Raises:
    InputError: names file, line and value.
  """
  frames, ids, boxes, flags, classes, visibility = [], [], [], [], [], []
  seen = {}
  for line, cells in _lines(path, None, 17):
    where = f"{path}:{line}"
    frame, track_id = _whole(where, "frame", cells[0]), _whole(where, "id", cells[1])
    kind = checks.choice(f"{where}: type", cells[2], [*TRACKED, *IGNORED])
    occluded = _whole(where, "occluded", cells[4])
    _check_frame(where, frame, length)
    if kind == "DontCare":
      track_id = -1
    else:
      checks.require(track_id >= 0, f"{where}: id is {track_id}; ids of objects start at 0.")
      first = seen.setdefault((frame, track_id), line)
      checks.require(
        first == line, f"{where}: id {track_id} is in frame {frame} twice (line {first})."
      )
    frames.append(frame + 1)
    ids.append(track_id)
    boxes.append(_box(where, cells[6:10]))
    flags.append(float(kind in TRACKED))
    classes.append(TRACKED[kind] if kind in TRACKED else IGNORED[kind])
    visibility.append(_VISIBILITY.get(occluded, 1.0))
  ids = np.array(ids, np.int64)
  free = ids < 0
  ids[free] = ids.max(initial=-1) + 1 + np.arange(free.sum())
  return mot_files.Table.of(frames, ids, boxes, flags, classes, visibility)


def read_detections(path, length):
  """Reads one detector file as `Table`; the score is the sigmoid of the file's.

  Raises:
    InputError: names file, line and value.
  """
  checks.require(
    path.is_file(), f"{path}: no such file; every sequence needs one, an empty one if need be."
  )
  frames, boxes, scores, classes = [], [], [], []
  for line, cells in _lines(path, ",", 7):
    where = f"{path}:{line}"
    frame = _whole(where, "frame", cells[0])
    _check_frame(where, frame, length)
    kind = checks.choice(f"{where}: type id", _whole(where, "type id", cells[1]), DETECTED)
    frames.append(frame + 1)
    boxes.append(_box(where, cells[2:6]))
    scores.append(1.0 / (1.0 + np.exp(-_number(where, "score", cells[6]))))
    classes.append(DETECTED[kind])
  return mot_files.Table.of(frames, np.full(len(frames), -1), boxes, scores, classes)


def _concatenate(tables):
  columns = ("frame", "track_id", "box_xywh", "score", "class_id", "visibility")
  return mot_files.Table(*(np.concatenate([getattr(t, c) for t in tables]) for c in columns))


def _lines(path, delimiter, fewest):
  """Yields (line number, cells) of the lines that are not blank."""
  for number, text in enumerate(path.read_text().splitlines(), 1):
    if text.strip():
      cells = text.split(delimiter)
      checks.require(
        len(cells) >= fewest, f"{path}:{number}: {len(cells)} columns, at least {fewest} wanted."
      )
      yield number, cells


def _number(where, name, text):
  try:
    value = float(text)
  except ValueError:
    raise checks.InputError(f"{where}: {name} is {text!r}; write a number.") from None
  largest = mot_files.LARGEST
  checks.require(
    abs(value) <= largest,  # not so of nan
    f"{where}: {name} is {text}; write a finite number within {largest:g}.",
  )
  return value


def _whole(where, name, text):
  value = _number(where, name, text)
  checks.require(value == int(value), f"{where}: {name} is {text}; write a whole number.")
  return int(value)


def _check_frame(where, frame, length):
  checks.require(
    0 <= frame < length, f"{where}: frame is {frame}; the sequence has frames 0 to {length - 1}."
  )


def _box(where, cells):
  """Turns left, top, right, bottom into left, top, width, height, px."""
  names = ("left", "top", "right", "bottom")
  left, top, right, bottom = (
    _number(where, name, cell) for name, cell in zip(names, cells, strict=True)
  )
  checks.require(
    right >= left and bottom >= top,
    f"{where}: box {left:g}, {top:g}, {right:g}, {bottom:g} has a negative size.",
  )
  return left, top, right - left, bottom - top
