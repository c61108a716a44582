"""Frames of one camera -> trajectory records of the two-stream data set; splits and the report.

Every source ends here, so all of them resize, cut, count and split in the same way. Nothing is
made up: a damaged frame ends a trajectory and the next good one begins another; trajectories of
one frame are left out; both are counted.
"""

import dataclasses
import hashlib

import numpy as np

from vistraj_jax.core import checks, shares
from vistraj_jax.data import example, images, two_stream
from vistraj_jax.prepare import runner

RESIZE = ("squash", "center_crop")
_COUNTS = ("trajectories", "frames", "damaged_frames", "short", "unreadable")


@dataclasses.dataclass(frozen=True)
class Options:
  """How frames are stored.

  Attributes:
    size: side of the stored square frames in px; smaller sources are not enlarged.
    resize: "squash" the whole frame into the square, or keep its "center_crop".
    chunk: longest trajectory in frames; longer ones are cut. 0: never.
    overlap: frames that two neighbouring chunks share, so that no gap up to it is lost.
    val_share: share of trajectories for validation, by the hash of their name.
    keep_going: leave files that cannot be read out, and count them.
  """

  size: int = 256
  resize: str = "center_crop"
  chunk: int = 300
  overlap: int = 60
  val_share: float = 0.05
  keep_going: bool = False

  def __post_init__(self):
    checks.choice("--resize", self.resize, RESIZE)
    checks.require(self.size >= 16, f"--size: {self.size} received, 16 px or more allowed.")
    checks.require(
      self.chunk == 0 or 0 <= self.overlap < self.chunk - 1,
      f"--chunk, --overlap: {self.chunk} and {self.overlap} frames received; the overlap must be "
      "at least 2 smaller than the chunk, or the chunk 0 (never cut).",
    )
    checks.require(
      0 < self.val_share < 1, f"--val_share: {self.val_share} received, above 0 to below 1 allowed."
    )


@dataclasses.dataclass
class Trajectory:
  """One camera's frames in time order, with what is known of every frame.

  Attributes:
    name: unlike all others of the source.
    frames: iterable of uint8 [H, W, 3] arrays or encoded images (bytes); None for one that the
      source could not read.
    fps: frames a second.
    source: data set.
    instruction: text, or "".
    joints: names; pose [T, J, 3] in m, orientation [T, J, 3] axis times angle in rad, confidence
      [T, J]; action [T, A]. None where unknown.
  """

  name: str
  frames: object
  fps: float
  source: str
  instruction: str = ""
  joints: tuple = ()
  pose: np.ndarray | None = None
  orientation: np.ndarray | None = None
  confidence: np.ndarray | None = None
  action: np.ndarray | None = None


def split_of(name, val_share):
  """Returns "train" or "val" by the hash of a trajectory's name: the same in every preparation."""
  return "val" if shares.is_in_share(name, val_share) else "train"


def records_of(trajectory, options):
  """Returns (list of record bytes, result) of one trajectory.

  Raises:
    InputError: numbers of frames and of poses or actions differ, or a number is not finite.
  """
  jpegs = [stored(frame, options) for frame in trajectory.frames]
  where = f"{trajectory.source} {trajectory.name}"
  for field in ("pose", "orientation", "confidence", "action"):
    rows = getattr(trajectory, field)
    checks.require(
      rows is None or len(rows) == len(jpegs),
      f"{where}: {len(jpegs)} frames and {0 if rows is None else len(rows)} rows of {field}; the "
      "files do not belong together.",
    )
    for k, row in enumerate([] if rows is None else rows):
      checks.require(
        np.isfinite(row).all(),
        f"{where}: {field} of frame {k} is not finite; mend the file, or leave it out with "
        "--keep_going.",
      )
  result = {
    "damaged_frames": sum(jpeg is None for jpeg in jpegs),
    "short": 0,
    "unreadable": 0,
    "lengths": [],
    "fps": [],
    "names": [],
  }
  payloads = []
  for run in _runs(jpegs):
    if len(run) < 2:
      result["short"] += 1
      continue
    for start, stop in _chunks(run.start, run.stop, options):
      whole = (start, stop) == (0, len(jpegs))
      name = trajectory.name if whole else f"{trajectory.name}#{start}"
      payloads.append(_record(trajectory, name, jpegs, start, stop))
      result["lengths"].append(stop - start)
      result["fps"].append(round(float(trajectory.fps), 3))
      result["names"].append(hashlib.sha256(name.encode()).hexdigest()[:16])
  return payloads, result


def convert(read, arguments, options):
  """Work of a unit: every trajectory that `read(*arguments)` yields -> (records, result)."""
  payloads, total = [], nothing()
  try:
    for trajectory in read(*arguments):
      found, result = records_of(trajectory, options)
      payloads += found
      total = {name: total[name] + result[name] for name in total}
  except checks.InputError:
    if not options.keep_going:
      raise
    return [], {**nothing(), "unreadable": 1}
  return payloads, total


def nothing():
  """Returns the result of a unit that found nothing."""
  return {
    "damaged_frames": 0,
    "short": 0,
    "unreadable": 0,
    "lengths": [],
    "fps": [],
    "names": [],
  }


def prepare(out, *, units, work, settings, options, processes=1, beam=None):
  """Runs the units and writes the data set; returns its statistics.

  Args:
    out: output folder.
    units: list of `runner.Unit`.
    work: of `runner.run`; its results are those of `convert`.
    settings: JSON-able dictionary of what decides the content besides `options`.
    options: `Options`.
    processes, beam: see `runner.run`.
  """
  return runner.run(
    out,
    name=two_stream.NAME,
    spec=two_stream.SPEC,
    description="Camera trajectories, one record each, frames as JPEG.",
    settings={**settings, **dataclasses.asdict(options)},
    units=units,
    work=work,
    summarize=summarize,
    processes=processes,
    beam=beam,
  )


def summarize(results):
  """Adds results up: {"splits": {split: counts, "lengths", "fps"}}; see `data.two_stream`.

  Raises:
    InputError: a split without a trajectory.
  """
  splits = {}
  for unit, result in results:
    total = splits.setdefault(unit.split, nothing())
    for name in total:
      total[name] = total[name] + result[name]
  for split, total in splits.items():
    checks.require(
      total["lengths"],
      f"split {split!r} has no trajectory of two or more frames ({total['short']} shorter, "
      f"{total['unreadable']} files unreadable); give more data, or another --val_share.",
    )
    names = total.pop("names")
    total["duplicates"] = len(names) - len(set(names))
    total["trajectories"], total["frames"] = len(names), sum(total["lengths"])
  return {"splits": splits}


def report(statistics):
  """Returns the closing table of a preparation."""
  names = (*_COUNTS, "duplicates")
  lines = ["split" + "".join(f"{name.replace('_', ' '):>16}" for name in names) + f"{'Hz':>8}"]
  for split, total in statistics["splits"].items():
    rates = sorted(set(total["fps"]))
    shown = f"{rates[0]:g}" if len(rates) == 1 else f"{rates[0]:g}-{rates[-1]:g}"
    lines.append(f"{split:<5}" + "".join(f"{total[n]:>16,}" for n in names) + f"{shown:>8}")
  lines.append("short: a single frame, left out; damaged frames end a trajectory.")
  return "\n".join(lines)


def stored(frame, options):
  """Returns the JPEG bytes of one frame at its stored size, or None if it is damaged.

  JPEGs that have the right size already are kept as they are.
  """
  if frame is None:
    return None
  if isinstance(frame, bytes):
    try:
      image = decode(frame)
    except checks.InputError:
      return None
    height, width = image.shape[:2]
    if height == width <= options.size and frame[:2] == b"\xff\xd8":
      return frame
    frame = image
  return images.encode(resized(frame, options.size, options.resize))


def resized(image, size, resize):
  """Returns uint8 [H, W, 3] as a square of at most `size` px.

  Args:
    image: uint8 [H, W, 3].
    size: px.
    resize: of RESIZE.
  """
  from PIL import Image

  height, width = image.shape[:2]
  side = min(height, width)
  if resize == "center_crop":
    top, left = (height - side) // 2, (width - side) // 2
    image = np.ascontiguousarray(image[top : top + side, left : left + side])
  goal = (min(size, side),) * 2
  picture = Image.fromarray(image).resize(goal, Image.Resampling.LANCZOS, reducing_gap=2.0)
  return np.asarray(picture)


def decode(data, where="image"):
  """Returns uint8 [H, W, 3] of an encoded image, JPEG or PNG.

  Raises:
    InputError: damaged, or another format.
  """
  if data[:2] == b"\xff\xd8":
    return images.decode(data, where=where)
  import io

  from PIL import Image, UnidentifiedImageError

  try:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
      return np.asarray(picture.convert("RGB"))
  except (OSError, UnidentifiedImageError, SyntaxError) as error:
    raise checks.InputError(f"{where}: neither a whole JPEG nor a PNG ({error}).") from None


def _runs(jpegs):
  """Returns ranges of frames without a damaged one between."""
  good = np.array([jpeg is not None for jpeg in jpegs], bool)
  edges = np.flatnonzero(np.diff(np.concatenate([[0], good, [0]]).astype(int)))
  return [range(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _chunks(start, stop, options):
  """Returns (start, stop) of pieces of equal length; neighbours share `overlap` frames."""
  length = stop - start
  if not options.chunk or length <= options.chunk:
    return [(start, stop)]
  count = -(-(length - options.overlap) // (options.chunk - options.overlap))
  piece = -(-(length + (count - 1) * options.overlap) // count)
  starts = [start + round(i * (length - piece) / (count - 1)) for i in range(count)]
  return [(first, first + piece) for first in starts]


def _record(trajectory, name, jpegs, start, stop):
  def cut(rows, width):
    return np.zeros((0, *width)) if rows is None else np.reshape(rows[start:stop], (-1, *width))

  action = trajectory.action
  size = min(images.size_of(jpegs[start]))
  values = {
    "frames": jpegs[start:stop],
    "num_frames": stop - start,
    "fps": trajectory.fps,
    "size": size,
    "source": trajectory.source,
    "trajectory_id": name,
    "instruction": trajectory.instruction,
    "joints": list(trajectory.joints),
    "pose": cut(trajectory.pose, (3,)),
    "orientation": cut(trajectory.orientation, (3,)),
    "confidence": cut(trajectory.confidence, ()),
    "action": cut(action, ()),
    "action_size": 0 if action is None else np.shape(action)[1],
  }
  return example.encode(values, two_stream.SPEC)
