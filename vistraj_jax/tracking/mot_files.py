"""Reads and writes MOTChallenge folders: box tables (gt.txt, det.txt, predictions) and seqinfo.ini.

A data set is `{root}/{split}/{sequence}/{gt/gt.txt, det/det.txt, seqinfo.ini}`; the predictions of
a run are `{out}/data/{sequence}.txt`. A row is
`frame,id,left,top,width,height,score,class,visibility[,-1]`: frames count from 1, boxes are in
pixels of the image with the origin at its top left corner. Commas or blanks separate columns.
"""

import configparser
import dataclasses
import pathlib
import re

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.tracking import decimal_text

# Class ids of this project's own files; MOTChallenge folders keep theirs (1 = pedestrian, ...).
CLASSES = ("car", "truck", "bus", "trailer", "pedestrian", "motorcycle", "bicycle")

LARGEST = 1e8  # px, of boxes to learn from or to track: far below what overflows as float32

# Fewest columns per kind of file, and the names of all that are read.
_FEWEST = {"truth": 8, "prediction": 7, "detection": 7}
_COLUMNS = ("frame", "id", "left", "top", "width", "height", "score", "class", "visibility")


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of one file in the file's order, as arrays of equal length N.

  Attributes:
    frame: int64 [N], from 1.
    track_id: int64 [N], -1 in detections.
    box_xywh: float64 [N, 4], left, top, width, height in px.
    score: float64 [N], confidence; in truth the consider flag (0 = do not evaluate).
    class_id: int64 [N], -1 where the file has none.
    visibility: float64 [N], 1.0 where the file has none.
  """

  frame: np.ndarray
  track_id: np.ndarray
  box_xywh: np.ndarray
  score: np.ndarray
  class_id: np.ndarray
  visibility: np.ndarray

  def __len__(self):
    return len(self.frame)

  def select(self, rows):
    """Returns the table of `rows`, a boolean mask [N] or indices."""
    fields = dataclasses.fields(self)
    return Table(**{field.name: getattr(self, field.name)[rows] for field in fields})

  @staticmethod
  def of(frame=(), track_id=(), box_xywh=(), score=None, class_id=None, visibility=None):
    """Returns a table of array-likes; score and visibility default to 1, class to -1."""
    frame = np.asarray(frame, np.int64)
    n = len(frame)
    filled = [
      np.full(n, v) if a is None else np.asarray(a)
      for a, v in ((score, 1.0), (class_id, -1), (visibility, 1.0))
    ]
    return Table(
      frame,
      np.asarray(track_id, np.int64),
      np.asarray(box_xywh, np.float64).reshape(n, 4),
      filled[0].astype(np.float64),
      filled[1].astype(np.int64),
      filled[2].astype(np.float64),
    )


@dataclasses.dataclass(frozen=True)
class SequenceInfo:
  """What seqinfo.ini says: frame_rate in Hz, length in frames, image size in px.

  `class_base` is the number of the first class in the folder's files (0 here, 1 in exports).
  """

  name: str
  frame_rate: float
  length: int
  width: int
  height: int
  image_folder: str = "img1"
  image_extension: str = ".jpg"
  class_base: int = 0


def read_table(path, kind, length=None):
  """Reads one text file of boxes.

  An empty file gives a table of no rows. MOT15 files, whose last three columns are world
  coordinates, are read with class -1 and visibility 1.

  Args:
    path: the file.
    kind: "truth" (8 columns or more), "prediction" or "detection" (7 or more). Truth and
      predictions need ids from 0, each at most once in a frame; detections ignore the id.
    length: number of frames of the sequence; None leaves the last frame unchecked.

  Raises:
    InputError: names file, line and value for a missing file, too few or unequal columns, text or
      nan or inf in a number, a fractional frame, id or class, a frame outside 1..length, a negative
      id or size, or an id twice in one frame.
  """
  checks.choice("kind", kind, _FEWEST)
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"{path}: no such {kind} file; give the path of a text file.")
  data = path.read_bytes()
  if not data.strip():
    return Table.of()
  columns = decimal_text.parse_table(data)
  if columns is None or columns.shape[1] < _FEWEST[kind]:
    columns = _read_by_line(path, data, kind)
  table = _to_table(path, columns)
  _check_rows(path, table, kind, length)
  return table


def write_table(path, table, decimals=2):
  """Writes `table` sorted by frame, then id; boxes with `decimals` digits; appears atomically."""
  box = f"%.{decimals}f"
  row = ",".join(["%d", "%d", box, box, box, box, "%.6g", "%d", "%.6g", "-1"])
  order = np.lexsort((table.track_id, table.frame))
  numbers = [
    table.frame,
    table.track_id,
    *table.box_xywh.T,
    table.score,
    table.class_id,
    table.visibility,
  ]
  rows = zip(*(column[order].tolist() for column in numbers), strict=True)
  files.write_text(path, "".join(f"{row % values}\n" for values in rows))


def read_sequence_info(folder):
  """Reads `folder`/seqinfo.ini; image folder, extension and classBase are optional.

  Raises:
    InputError: names the file and key that is missing or wrong.
  """
  path = pathlib.Path(folder) / "seqinfo.ini"
  checks.require(path.is_file(), f"{path}: no such file; a sequence folder needs a seqinfo.ini.")
  parser = configparser.ConfigParser(interpolation=None)
  try:
    parser.read_string(path.read_text(encoding="utf-8"))
  except (configparser.Error, UnicodeDecodeError) as error:
    reason = " ".join(str(error).split())
    raise checks.InputError(f"{path}: cannot be read as an INI file ({reason}).") from error
  checks.require(parser.has_section("Sequence"), f"{path}: the section [Sequence] is missing.")
  section = parser["Sequence"]

  def number(key, kind, lowest, default=None):
    if key not in section and default is not None:
      return default
    what = "a whole number" if kind is int else "a number"
    limit = f"from {lowest}" if kind is int else f"above {lowest}"
    checks.require(key in section, f"{path}: {key} is missing; write {what} {limit}.")
    try:
      value = kind(section[key])
      allowed = lowest <= value if kind is int else lowest < value < float("inf")
    except ValueError:
      allowed = False
    checks.require(allowed, f"{path}: {key} is {section[key]!r}; write {what} {limit}.")
    return value

  return SequenceInfo(
    name=section.get("name", path.parent.name),
    frame_rate=number("frameRate", float, 0),
    length=number("seqLength", int, 1),
    width=number("imWidth", int, 1),
    height=number("imHeight", int, 1),
    image_folder=section.get("imDir", "img1"),
    image_extension=section.get("imExt", ".jpg"),
    class_base=number("classBase", int, 0, default=0),
  )


def write_sequence_info(folder, info):
  """Writes `folder`/seqinfo.ini atomically."""
  files.write_text(
    pathlib.Path(folder) / "seqinfo.ini",
    f"[Sequence]\nname={info.name}\nimDir={info.image_folder}\nframeRate={info.frame_rate:.12g}\n"
    f"seqLength={info.length}\nimWidth={info.width}\nimHeight={info.height}\n"
    f"imExt={info.image_extension}\nclassBase={info.class_base}\n",
  )


def find_sequences(root):
  """Returns the sequence folders in `root`, or in its split folders, sorted by path.

  Raises:
    InputError: `root` is no folder, or holds no folder with a seqinfo.ini.
  """
  root = pathlib.Path(root)
  if not root.is_dir():
    beside = root.parent.iterdir() if root.parent.is_dir() else ()
    known = checks.nearest(root.name, [path.name for path in beside if path.is_dir()])
    raise checks.InputError(f"{root}: no such folder; {root.parent} holds {known}.")
  for pattern in ("*/seqinfo.ini", "*/*/seqinfo.ini"):
    found = sorted(path.parent for path in root.glob(pattern))
    if found:
      return found
  raise checks.InputError(
    f"{root}: holds no sequence; expected folders with a seqinfo.ini in it or in its splits."
  )


def scene_and_camera(name):
  """Splits a sequence name `{scene}_CAM_*` or `{scene}-CAM_*`; without a camera it gives ""."""
  found = re.fullmatch(r"(.*)[_-](CAM_[A-Z_]+)", name)
  return (found[1], found[2]) if found else (name, "")


def _read_by_line(path, data, kind):
  """Reads line by line what `decimal_text` left, to accept it or to name the line that is wrong."""
  rows = []
  fewest = _FEWEST[kind]
  delimiter = "," if b"," in data else None
  for line, text in _lines(data):
    cells = text.rstrip(" \t,").split(delimiter)
    if len(cells) < fewest:
      raise checks.InputError(
        f"{path}:{line}: {len(cells)} columns; a {kind} row needs at least {fewest}: "
        f"{','.join(_COLUMNS[:fewest])}."
      )
    if rows and len(cells) != len(rows[0]):
      raise checks.InputError(
        f"{path}:{line}: {len(cells)} columns where the first row has {len(rows[0])}; "
        "all rows need the same columns."
      )
    try:
      rows.append([float(cell) for cell in cells])
    except ValueError:
      for index, cell in enumerate(cells):
        _require_number(f"{path}:{line}", index, cell)
  return np.array(rows)


def _require_number(where, index, cell):
  try:
    float(cell)
  except ValueError:
    name = _COLUMNS[index] if index < len(_COLUMNS) else f"column {index + 1}"
    shown = cell.strip()[:40]
    raise checks.InputError(f"{where}: {name} is {shown!r}; write a number.") from None


def _lines(data):
  """Yields (line number, text) of the lines that are not blank."""
  for number, line in enumerate(data.splitlines(), 1):
    if line.strip():
      yield number, line.decode("utf-8", "replace")


def _to_table(path, columns):
  count = columns.shape[1]
  class_id = columns[:, 7] if count > 7 else np.full(len(columns), -1.0)
  visibility = columns[:, 8] if count > 8 else np.ones(len(columns))
  if count > 9 and (class_id != np.floor(class_id)).any() and (columns[:, 9] != -1).any():
    # MOT15: columns 8 to 10 are a position in the world; our own files end in -1.
    class_id, visibility = np.full(len(columns), -1.0), np.ones(len(columns))
  for index, name in enumerate(_COLUMNS[:7]):
    _require_rows(path, np.isfinite(columns[:, index]), columns[:, index], name, "a finite number")
  for name, values in (("frame", columns[:, 0]), ("id", columns[:, 1]), ("class", class_id)):
    whole = (values == np.floor(values)) & (np.abs(values) < 2**53)
    _require_rows(path, whole, values, name, "a whole number")
  return Table(
    frame=columns[:, 0].astype(np.int64),
    track_id=columns[:, 1].astype(np.int64),
    box_xywh=np.ascontiguousarray(columns[:, 2:6]),
    score=columns[:, 6].copy(),
    class_id=class_id.astype(np.int64),
    visibility=np.where(visibility >= 0, visibility, 1.0),
  )


def _check_rows(path, table, kind, length):
  frames = "a frame from 1" if length is None else f"a frame from 1 to {length}, the last one"
  inside = (table.frame >= 1) & (table.frame <= (2**53 if length is None else length))
  _require_rows(path, inside, table.frame, "frame", frames)
  for index, name in enumerate(("left edge", "top edge", "width", "height")):
    value = table.box_xywh[:, index]
    if index > 1:
      _require_rows(path, value >= 0, value, name, "a size of 0 px or more")
    near = (abs(value) <= LARGEST) | (kind == "prediction")
    _require_rows(path, near, value, name, f"a number within {LARGEST:g} px")
  if kind == "detection":
    return
  hint = "an id of 0 or more (a detection file has -1)"
  _require_rows(path, table.track_id >= 0, table.track_id, "id", hint)
  order = np.lexsort((table.track_id, table.frame))
  frame, track_id = table.frame[order], table.track_id[order]
  again = np.flatnonzero((frame[1:] == frame[:-1]) & (track_id[1:] == track_id[:-1]))
  if len(again):
    row = order[again + 1].min()
    raise checks.InputError(
      f"{path}:{_line_of(path, row)}: id {table.track_id[row]} is in frame {table.frame[row]} "
      "twice; an id may appear once in a frame."
    )


def _require_rows(path, good, values, name, allowed):
  if not good.all():
    row = int(np.argmin(good))
    raise checks.InputError(
      f"{path}:{_line_of(path, row)}: {name} is {values[row]:.12g}; write {allowed}."
    )


def _line_of(path, row):
  """Returns the line number of table row `row`: blank lines hold no row."""
  return [number for number, _ in _lines(path.read_bytes())][row]
