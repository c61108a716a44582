"""Reads what a tracker needs of one sequence: detections, embeddings and camera motion.

Detections come from one of three places:

  truth     gt/gt.txt: rows whose flag is not 0, with score 1 and without their ids
  det       det/det.txt, MOTChallenge rows with id -1
  a folder  `{sequence}.txt` with rows `frame,x,y,w,h,score,class`, or a folder `{sequence}` of one
            text file per frame, named by its number, with rows of six numbers: one that is not
            read, then `x,y,w,h,score`

Boxes are left, top, width, height in px. Frames count from 1.
"""

import dataclasses
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.tracking import mot_files
from vistraj_jax.tracking.tracker import Detections

# COCO's 80 classes, counted from 0, that have a counterpart among `mot_files.CLASSES`.
COCO_CLASSES = {0: 4, 1: 6, 2: 0, 3: 5, 5: 2, 7: 1}


@dataclasses.dataclass(frozen=True)
class SequenceInput:
  """One sequence to track.

  Attributes:
    name: of the sequence's folder.
    info: `mot_files.SequenceInfo`.
    detections: `mot_files.Table` of N rows, scores 0..1, classes from 0.
    embedding: float [N, E], one row per detection, or None.
    camera_motion: float64 [length, 2, 3]; entry f maps pixels of frame f to those of frame f + 1,
      frames counted from 1; entry 0 has no effect, as nothing is tracked yet. Or None.
  """

  name: str
  info: mot_files.SequenceInfo
  detections: mot_files.Table
  embedding: np.ndarray | None = None
  camera_motion: np.ndarray | None = None

  def frames(self):
    """Yields the `Detections` of every frame, empty ones too; rows keep the file's order."""
    order = np.argsort(self.detections.frame, kind="stable")
    table = self.detections.select(order)
    embedding = None if self.embedding is None else self.embedding[order]
    first = np.searchsorted(table.frame, np.arange(1, self.info.length + 2))
    for start, stop in zip(first[:-1], first[1:], strict=True):
      rows = slice(start, stop)
      vectors = None if embedding is None else embedding[rows]
      yield Detections(table.box_xywh[rows], table.score[rows], table.class_id[rows], vectors)


def read_sequence(
  folder,
  source,
  *,
  min_side=5.0,
  class_id=1,
  score_range=None,
  embeddings=None,
  camera_motion=None,
):
  """Reads one sequence.

  Args:
    folder: the sequence's folder with seqinfo.ini.
    source: "truth", "det" or a folder, as above.
    min_side: boxes with a side below this many px are dropped.
    class_id: class of detections in files that name none (1 is MOTChallenge's pedestrian).
    score_range: (low, high), mapped to 0..1 and cut there; None if scores are 0..1 already. Old
      detectors count otherwise: those of MOT15 lie between -1 and 140.
    embeddings: folder of `{sequence}.npy`, [rows of the detections, E] in the order read, before
      boxes are dropped; or None.
    camera_motion: folder of `{sequence}.npy`, [length, 2, 3] as in `SequenceInput`; or None.

  Raises:
    InputError: names the file and line, or the setting, that is wrong.
  """
  folder = pathlib.Path(folder)
  info = mot_files.read_sequence_info(folder)
  table, path = _read_table(folder, source, info.length)
  class_id = np.where(table.class_id < 0, class_id, table.class_id)
  kept = (table.box_xywh[:, 2:] >= min_side).all(1)
  if source == "truth":
    checks.require(
      score_range is None, "--score_range: truth has no scores; use it with other detections."
    )
    kept &= table.score != 0  # the consider flag
    score = np.ones(len(table))
  else:
    score = _scaled(table.score, score_range, path)
  table = dataclasses.replace(table, class_id=class_id, score=score)
  embedding = None
  if embeddings is not None:
    embedding = _read_array(embeddings, folder.name, (len(table), None))
  if camera_motion is not None:
    camera_motion = _read_array(camera_motion, folder.name, (info.length, 2, 3)).astype(np.float64)
  if embedding is not None:
    embedding = embedding[kept]
  return SequenceInput(folder.name, info, table.select(kept), embedding, camera_motion)


def from_yolox(rows, input_size, image_size, coco=False):
  """Turns the kept outputs of a YOLOX detector into detections.

  Args:
    rows: [N, 7] left, top, right, bottom in px of the detector's input, objectness, class score,
      class.
    input_size: (width, height) in px of the detector's input, the image scaled to fit at its
      top left corner.
    image_size: (width, height) in px of the image.
    coco: classes are COCO's 80; those without a counterpart in `mot_files.CLASSES` are dropped.

  Returns:
    `tracker.Detections` in px of the image.
  """
  checks.shape("YOLOX rows", rows, (None, 7))
  scale = min(i / o for i, o in zip(input_size, image_size, strict=True))
  corners = np.asarray(rows[:, :4], np.float64) / scale
  box_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
  score = np.asarray(rows[:, 4], np.float64) * rows[:, 5]
  class_id = np.asarray(rows[:, 6], np.int64)
  if coco:
    class_id = np.array([COCO_CLASSES.get(c, -1) for c in class_id.tolist()], np.int64)
  kept = class_id >= 0
  return Detections(box_xywh[kept], score[kept], class_id[kept])


def _read_table(folder, source, length):
  """Returns the table of all rows and the path it came from."""
  if source == "truth":
    path = folder / "gt" / "gt.txt"
    return mot_files.read_table(path, "truth", length), path
  if source == "det":
    path = folder / "det" / "det.txt"
    return mot_files.read_table(path, "detection", length), path
  source = pathlib.Path(source)
  checks.require(
    source.is_dir(),
    f"--detections: {str(source)!r} is neither 'truth', 'det' nor a folder of detections.",
  )
  path = source / f"{folder.name}.txt"
  if path.is_file():
    rows = _read_rows(path, 7)
    frame, class_id, values = rows[:, 0], rows[:, 6], rows[:, 1:6]
  else:
    path = source / folder.name
    checks.require(
      path.is_dir(),
      f"{source}: holds neither {folder.name}.txt nor a folder {folder.name} of detections.",
    )
    frame, values = _read_frames(path)
    class_id = np.full(len(frame), -1.0)
  _check_rows(path, frame, values, class_id, length)
  table = mot_files.Table.of(frame, np.full(len(frame), -1), values[:, :4], values[:, 4], class_id)
  return table, path


def _read_frames(folder):
  """Returns frames [N] and x, y, w, h, score [N, 5] of the text files of single frames."""
  frames, parts = [np.zeros(0)], [np.zeros((0, 5))]
  for path in sorted(folder.glob("*.txt")):
    checks.require(
      path.stem.isdecimal(), f"{path}: the name is no frame number; name it like 000001.txt."
    )
    rows = _read_rows(path, 6)
    frames.append(np.full(len(rows), float(path.stem)))
    parts.append(rows[:, 1:])
  return np.concatenate(frames), np.concatenate(parts)


def _read_rows(path, columns):
  """Returns [N, columns] of one file of numbers between commas or blanks."""
  rows = []
  for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
    cells = line.replace(",", " ").split()
    if not cells:
      continue
    checks.require(
      len(cells) == columns, f"{path}:{number}: {len(cells)} columns; {columns} are needed."
    )
    try:
      rows.append([float(cell) for cell in cells])
    except ValueError as error:
      raise checks.InputError(f"{path}:{number}: {line!r} is not all numbers.") from error
  return np.array(rows).reshape(-1, columns)


def _check_rows(path, frame, values, class_id, length):
  good = np.isfinite(values).all(1) & (values[:, 2:4] >= 0).all(1)
  good &= (frame == np.floor(frame)) & (frame >= 1) & (frame <= length)
  good &= class_id == np.floor(class_id)
  if not good.all():
    row = int(np.argmin(good))
    raise checks.InputError(
      f"{path}: frame {frame[row]:g}, box {values[row, :4].tolist()}, score {values[row, 4]:g}, "
      f"class {class_id[row]:g}: needs a frame of 1..{length}, finite numbers, sizes of 0 or more "
      "and a whole class."
    )


def _scaled(score, score_range, path):
  if score_range is not None:
    low, high = score_range
    checks.require(
      low < high, f"--score_range: {low:g} {high:g} is not allowed; give the lower score first."
    )
    return np.clip((score - low) / (high - low), 0.0, 1.0)
  if len(score):
    checks.require(
      score.min() >= 0 and score.max() <= 1,
      f"{path}: scores reach from {score.min():g} to {score.max():g}; map them to 0..1 with "
      "--score_range LOW HIGH.",
    )
  return score


def _read_array(folder, name, shape):
  path = pathlib.Path(folder) / f"{name}.npy"
  checks.require(path.is_file(), f"{path}: no such file; every sequence needs one.")
  try:
    array = np.load(path, allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise checks.InputError(f"{path}: is not a NumPy array file ({error}).") from error
  checks.shape(str(path), array, shape)
  checks.require(
    array.dtype.kind == "f" and np.isfinite(array).all(),
    f"{path}: holds {array.dtype} with nan or inf, or whole numbers; write finite floats.",
  )
  return array
