"""Challenge submissions of the Waymo end-to-end driving data: written, read and checked.

An archive is a .tar.gz of files with one serialized E2EDChallengeSubmission each. Every file
repeats who submits; the frames are spread over the files. Predictions are 20 points x, y in m in
the ego frame at the moment of the frame, at 0.25, 0.5, .. 5 s.
"""

import dataclasses
import gzip
import io
import json
import pathlib
import tarfile

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.prepare.waymo_e2e import wire

POINTS = 20
_FRAMES_PER_FILE = 1000
_SHOWN = 5  # names in a sentence
_REQUIRED = ("account_name", "unique_method_name", "num_model_parameters")


@dataclasses.dataclass(frozen=True)
class Submission:
  """A challenge submission (E2EDChallengeSubmission), or one file of several.

  Attributes:
    predictions: {frame name: float32 [20, 2], m}.
    account_name, unique_method_name, affiliation, description, method_link,
      num_model_parameters ("414M"): text.
    authors, public_model_names: tuples of text.
    uses_public_model_pretraining: bool.
    submission_type: 1, an end-to-end driving submission.
    repeated: names of frames that occur more than once; the last prediction is kept.
  """

  predictions: dict
  account_name: str = ""
  unique_method_name: str = ""
  authors: tuple = ()
  affiliation: str = ""
  description: str = ""
  method_link: str = ""
  uses_public_model_pretraining: bool | None = None
  num_model_parameters: str = ""
  public_model_names: tuple = ()
  submission_type: int = 1
  repeated: tuple = ()


# Field number -> attribute of `Submission`.
_TEXT = {
  3: "account_name",
  4: "unique_method_name",
  5: "authors",
  6: "affiliation",
  7: "description",
  8: "method_link",
  12: "num_model_parameters",
  13: "public_model_names",
}


def read_listed(path):
  """Returns the names of the frames to submit, in order.

  Args:
    path: JSON file {sequence: index of its frame}, or a text file with one frame name a line.

  Raises:
    InputError: no such file, other content, or a frame listed twice.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"--frames: {path}: no such file.")
  text = path.read_text()
  if path.suffix == ".json":
    try:
      listed = json.loads(text)
    except ValueError as error:
      raise checks.InputError(f"--frames: {path}: no JSON ({error}).") from None
    good = isinstance(listed, dict) and all(isinstance(v, int) for v in listed.values())
    checks.require(good, f"--frames: {path}: wants {{sequence: index}}.")
    names = [f"{sequence}-{index:03d}" for sequence, index in listed.items()]
  else:
    names = [line.strip() for line in text.splitlines() if line.strip()]
  twice = _repeated(names)
  checks.require(names, f"--frames: {path}: lists no frame.")
  checks.require(not twice, f"--frames: {path}: {_names(twice)} listed twice.")
  return names


def write_archive(path, submission, listed):
  """Writes the archive of exactly the listed frames, atomically, and reads it again to check it.

  Args:
    path: output file, .tar.gz.
    submission: `Submission`; predictions of other frames are left out.
    listed: frame names.

  Returns:
    As `check_archive`.

  Raises:
    InputError: `path` is no .tar.gz, a listed frame has no prediction, or as `check_archive`.
  """
  checks.require(str(path).endswith(".tar.gz"), f"--out: {path}; give a name that ends in .tar.gz.")
  missing = [name for name in listed if name not in submission.predictions]
  checks.require(
    not missing,
    f"submission: {len(missing)} of {len(listed)} listed frames have no prediction: "
    f"{_names(missing)}; prepare the data set that holds them.",
  )
  groups = [listed[i : i + _FRAMES_PER_FILE] for i in range(0, len(listed), _FRAMES_PER_FILE)]
  with files.atomic_path(path) as temporary:
    with (
      open(temporary, "wb") as f,
      gzip.GzipFile("", "wb", fileobj=f, mtime=0) as packed,
      tarfile.open(fileobj=packed, mode="w") as archive,
    ):
      for number, names in enumerate(groups):
        part = {name: submission.predictions[name] for name in names}
        data = write_submission(dataclasses.replace(submission, predictions=part))
        entry = tarfile.TarInfo(f"submission.binproto-{number:05d}-of-{len(groups):05d}")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return check_archive(temporary, listed, where=str(path))


def check_archive(path, listed, where=None):
  """Checks an archive against the list of frames.

  Returns:
    {"files", "frames", "median_end": median distance of the last points from the origin in m} and
    the fields of `Submission` that say who submits.

  Raises:
    InputError: all that is wrong, in one sentence for each kind.
  """
  where = where or str(path)
  parts = _read_archive(path, where)
  problems, frames, seen = [], {}, []
  for name, part in parts:
    seen += [*part.repeated, *part.predictions]
    frames |= part.predictions
    lacking = [field for field in _REQUIRED if not getattr(part, field)]
    if part.uses_public_model_pretraining is None:
      lacking.append("uses_public_model_pretraining")
    if lacking:
      problems.append(f"{name} does not say {', '.join(lacking)}")
    if part.submission_type != 1:
      problems.append(f"{name} is of submission type {part.submission_type}, not 1")
    if _about(part) != _about(parts[0][1]):
      problems.append(f"{name} says other things about the submission than {parts[0][0]}")
  listed_set = set(listed)
  wrong = {
    "occur more than once": _repeated(seen),
    "are missing": [name for name in listed if name not in frames],
    "are not listed": [name for name in frames if name not in listed_set],
    f"do not have {POINTS} points": [n for n, xy in frames.items() if len(xy) != POINTS],
    "have points that are not finite": [n for n, xy in frames.items() if not np.isfinite(xy).all()],
  }
  for what, names in wrong.items():
    if names:
      problems.append(f"{len(names)} frames {what}: {_names(names)}")
  checks.require(not problems, f"{where}: no valid submission: {'; '.join(problems)}.")
  ends = [np.linalg.norm(xy[-1]) for xy in frames.values()]
  return {
    "files": len(parts),
    "frames": len(frames),
    "median_end": float(np.median(ends)),
    **_about(parts[0][1]),
  }


def write_submission(submission):
  """Returns the bytes of an E2EDChallengeSubmission, fields in ascending order."""
  data = b""
  for name, xy in submission.predictions.items():
    data += wire.message(1, wire.message(1, name) + wire.message(2, wire.packed_floats(xy, (1, 2))))
  data += wire.integer(2, submission.submission_type)
  for number in range(3, 14):
    if number == 11 and submission.uses_public_model_pretraining is not None:
      data += wire.integer(11, int(submission.uses_public_model_pretraining))
    elif number in _TEXT:
      value = getattr(submission, _TEXT[number])
      for text in (value,) if isinstance(value, str) else value:
        data += wire.message(number, text) if text else b""
  return data


def read_submission(data, where="submission"):
  """Reads an E2EDChallengeSubmission.

  Raises:
    InputError: the bytes are no such message; x and y of a trajectory differ in length.
  """
  predictions, repeated, values = {}, [], {name: [] for name in _TEXT.values()}
  numbers = {}
  try:
    for number, kind, first, last in wire.fields(data, 0, len(data)):
      if number == 1 and kind == wire.BYTES:
        name, trajectory = "", {}
        for inner, inner_kind, begin, end in wire.fields(data, first, last):
          if inner == 1 and inner_kind == wire.BYTES:
            name = wire.text(data, begin, end)
          elif inner == 2 and inner_kind == wire.BYTES:
            wire.float_columns(data, begin, end, trajectory)
        repeated += [name] if name in predictions else []
        predictions[name] = wire.table(trajectory, (1, 2), f"{where}: frame {name}")
      elif number in _TEXT and kind == wire.BYTES:
        values[_TEXT[number]].append(wire.text(data, first, last))
      elif number in (2, 11) and kind == wire.VARINT:
        numbers[number] = first
  except wire.WrongBytes:
    raise checks.InputError(f"{where}: no challenge submission; write it again.") from None
  lists = ("authors", "public_model_names")
  return Submission(
    predictions=predictions,
    submission_type=numbers.get(2, 0),
    uses_public_model_pretraining=bool(numbers[11]) if 11 in numbers else None,
    repeated=tuple(repeated),
    **{k: tuple(v) if k in lists else (v[-1] if v else "") for k, v in values.items()},
  )


def _read_archive(path, where):
  """Returns [(file name, Submission)]."""
  checks.require(pathlib.Path(path).is_file(), f"{where}: no such file.")
  parts = []
  try:
    with tarfile.open(path, "r:gz") as archive:
      for entry in archive:
        if entry.isfile():
          data = archive.extractfile(entry).read()
          parts.append((entry.name, read_submission(data, f"{where}: {entry.name}")))
  except (tarfile.TarError, EOFError, OSError) as error:
    raise checks.InputError(f"{where}: no .tar.gz archive ({error}).") from None
  checks.require(parts, f"{where}: the archive holds no file.")
  return parts


def _about(submission):
  """What a submission says of itself: all fields but the predictions."""
  values = dataclasses.asdict(dataclasses.replace(submission, predictions={}))
  return {k: v for k, v in values.items() if k not in ("predictions", "repeated")}


def _repeated(names):
  seen = set()
  return [name for name in names if name in seen or seen.add(name)]


def _names(names):
  rest = len(names) - _SHOWN
  return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
