"""Folders of videos, image folders and arrays -> video records of `data.future_video`."""

import dataclasses
import functools
import json
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import example, future_video, images
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.frame_pairs import trajectories
from vistraj_jax.prepare.future_video import sources

SPLITS = ("train", "val", "test")
_TOGETHER = 64  # videos of one .npz file that are one unit of work


@dataclasses.dataclass(frozen=True)
class Options:
  """How videos are stored.

  Attributes:
    size: short side of the stored frames in px; the long side keeps the aspect ratio. 0: as is.
    frames: past + future; shorter videos are an error.
    chunk: longest record in frames; longer videos are cut, with `frames` - 1 shared by neighbours,
      so that every window is whole in one of them.
    fps: frames a second that are kept of video files; 0: all.
    val_share: share of videos for validation, by the hash of their name, where the source has no
      folders train and val.
    keep_going: leave unreadable and short videos out, and count them.
  """

  size: int = 128
  frames: int = 50
  chunk: int = 300
  fps: float = 0.0
  val_share: float = 0.1
  keep_going: bool = False

  def __post_init__(self):
    checks.require(
      self.size == 0 or self.size >= 8, f"--size: {self.size} px; give 8 or more, or 0 to keep."
    )
    checks.require(self.frames >= 2, f"--frames: {self.frames} received, 2 or more allowed.")
    checks.require(
      self.chunk >= 2 * self.frames,
      f"--chunk: {self.chunk} frames received; give twice --frames, {2 * self.frames}, or more.",
    )
    checks.require(self.fps >= 0, f"--fps: {self.fps} received, 0 or more allowed.")
    checks.require(
      0 < self.val_share < 1, f"--val_share: {self.val_share} received, above 0 to below 1 allowed."
    )


def prepare(source, out, *, options=None, processes=1, beam=None):
  """Converts a folder; returns the statistics.

  Args:
    source: folder, see `sources.find`; what lies in its folders train, val and test goes to these
      splits, other videos go by hash.
    out: output folder.
    options: `Options`.
    processes, beam: see `runner.run`.

  Raises:
    InputError: no video, an unreadable or short one, or a split that would be empty.
  """
  options = options or Options()
  source = pathlib.Path(source)
  paths = sources.find(source)
  units = _units(source, paths, options)
  held = [p for path in paths for p in ([path] if path.is_file() else sorted(path.iterdir()))]
  return runner.run(
    out,
    name=future_video.NAME,
    spec=future_video.SPEC,
    description="Videos, one record each, frames as PNG, with masks and centres where known.",
    settings={
      "source": str(source.resolve()),
      "bytes": sum(p.stat().st_size for p in held),
      **dataclasses.asdict(options),
    },
    units=units,
    work=functools.partial(convert, options=options),
    summarize=summarize,
    processes=processes,
    beam=beam,
  )


def convert(path, name, wanted, options):
  """Work of a unit: the clips of one path -> (list of record bytes, result)."""
  result = {"short": 0, "unreadable": 0, "shapes": [], "ids": [], "labels": [], "masked": 0}
  payloads = []
  try:
    for clip in sources.read(path, name, options.fps, wanted):
      rows = records_of(clip, options)
      result["short"] += not rows
      for payload, shape, identity in rows:
        payloads.append(payload)
        result["shapes"].append(shape)
        result["ids"].append(identity)
        result["labels"].append(clip.label)
        result["masked"] += clip.masks is not None
  except checks.InputError:
    if not options.keep_going:
      raise
    result["unreadable"] += 1
  return payloads, result


def records_of(clip, options):
  """Returns [(record bytes, shape, name)] of a clip, several where it is cut; none if too short.

  Raises:
    InputError: frames of mixed sizes, masks or centres of another length, or, unless
      `options.keep_going`, a clip shorter than `options.frames`.
  """
  pngs, size, scaled = [], None, None
  for frame in clip.frames:
    checks.require(
      size in (None, frame.shape[:2]),
      f"{clip.name}: frame {len(pngs)} has {frame.shape[:2]} px, those before {size}; all frames "
      "of a video have one size.",
    )
    size = frame.shape[:2]
    scaled = scaled_size(size, options.size)
    pngs.append(images.encode_png(resized(frame, scaled)))
  if len(pngs) < options.frames:
    checks.require(
      options.keep_going,
      f"{clip.name}: {len(pngs)} frames, fewer than --frames {options.frames} (past + future); "
      "give fewer, leave the video out, or add --keep_going.",
    )
    return []
  masks, centres, valid = _known(clip, size, scaled, len(pngs))
  rows = []
  for start in _starts(len(pngs), options):
    span = slice(start, min(start + options.chunk, len(pngs)))
    whole = span == slice(0, len(pngs))
    shape = (len(pngs[span]), *scaled, 3)
    values = {
      "frames": pngs[span],
      "shape": shape,
      "fps": clip.fps,
      "id": clip.name if whole else f"{clip.name}@{start}",
      "label": clip.label,
      "masks": masks[span],
      "centres": centres[span],
      "centre_valid": valid[span],
      "colours": np.asarray(clip.colours),
      "meta": json.dumps(clip.meta, sort_keys=True),
    }
    rows.append((example.encode(values, future_video.SPEC), list(shape), values["id"]))
  return rows


def scaled_size(size, short):
  """Returns (height, width) with the short side `short` px, or as it is where `short` is 0."""
  if not short:
    return tuple(size)
  return tuple(max(short, round(side * short / min(size))) for side in size)


def resized(frame, size, nearest=False):
  """Resizes uint8 [H, W, 3] or [H, W] to (height, width): bilinear, smoothed where it shrinks."""
  from PIL import Image

  if frame.shape[:2] == tuple(size):
    return frame
  kernel = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
  return np.asarray(Image.fromarray(frame).resize(tuple(size)[::-1], kernel))


def summarize(results):
  """Adds results up: {"splits": {split: counts, "shapes", "ids", "labels": {label: count}}}.

  Raises:
    InputError: a split without a video.
  """
  splits = {}
  for unit, result in results:
    total = splits.setdefault(unit.split, {name: type(v)() for name, v in result.items()})
    for name, value in result.items():
      total[name] = total[name] + value
  for split, total in splits.items():
    checks.require(
      total["ids"],
      f"split {split!r} has no video ({total['short']} too short, {total['unreadable']} unreadable "
      "files); give more data, or another --val_share.",
    )
    labels = total.pop("labels")
    total["labels"] = {str(label): labels.count(label) for label in sorted(set(labels))}
    total["videos"] = len(total["ids"])
    total["frames"] = sum(shape[0] for shape in total["shapes"])
  return {"splits": splits}


def report(statistics):
  """Returns the closing table of a preparation."""
  names = ("videos", "frames", "short", "unreadable", "masked")
  lines = ["split" + "".join(f"{name:>12}" for name in names) + "  sizes, px"]
  for split, total in statistics["splits"].items():
    sizes = sorted({f"{shape[1]} x {shape[2]}" for shape in total["shapes"]})
    shown = ", ".join(sizes[:3]) + (f", {len(sizes) - 3} more" if len(sizes) > 3 else "")
    lines.append(f"{split:<5}" + "".join(f"{total[n]:>12,}" for n in names) + f"  {shown}")
  return "\n".join(lines)


def _known(clip, size, scaled, length):
  """Returns (PNG masks, centres in px of the stored frames, centre_valid), empty where unknown."""
  for field in ("masks", "centres", "centre_valid"):
    rows = getattr(clip, field)
    checks.require(
      rows is None or len(rows) == length,
      f"{clip.name}: {length} frames and {0 if rows is None else len(rows)} rows of {field}; they "
      "do not belong together.",
    )
  masks = [] if clip.masks is None else clip.masks
  masks = [images.encode_png(resized(np.asarray(mask, np.uint8), scaled, True)) for mask in masks]
  if clip.centres is None:
    return masks, np.zeros((0, 2)), np.zeros(0)
  valid = np.asarray(clip.centre_valid, np.float32)
  ratio = np.array(scaled) / size
  centres = (np.asarray(clip.centres, np.float64) + 0.5) * ratio - 0.5  # of pixel centres
  return masks, np.where(valid[:, None] > 0, centres, 0), valid


def _starts(length, options):
  """Returns the first frames of the records of a video."""
  if length <= options.chunk:
    return [0]
  step = options.chunk - options.frames + 1
  return list(range(0, length - options.frames + 1, step))


def _units(source, paths, options):
  units = []
  for path in paths:
    name = path.relative_to(source).as_posix()
    top = name.split("/")[0]
    groups = {}
    try:
      found = sources.names(path, source)
    except checks.InputError:
      if not options.keep_going:
        raise
      found = [name]
    for number, own in enumerate(found):
      split = top if top in SPLITS else trajectories.split_of(own, options.val_share)
      groups.setdefault(split, []).append(number)
    for split, numbers in groups.items():
      for first in range(0, len(numbers), _TOGETHER):
        wanted = tuple(numbers[first : first + _TOGETHER])
        unit = f"{name.replace('/', '__')}@{wanted[0]}"
        units.append(runner.Unit(split, unit, (str(path), name, wanted)))
  units.sort(key=lambda unit: SPLITS.index(unit.split))
  splits = {unit.split for unit in units}
  checks.require(
    {"train", "val"} <= splits,
    f"--val_share: {options.val_share} of {len(paths)} files leaves only {sorted(splits)}; give "
    "another share, more videos, or folders train and val.",
  )
  return units
