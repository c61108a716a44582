"""Video files, folders of images and NumPy arrays -> clips: frames with what is known of them.

Arrays are .npy files with one video, and .npz files with many: `videos` [N, T, H, W, C] or
[N, T, C, H, W], uint8 or float in 0..1, and optionally `labels` [N], `masks` [N, T, H, W],
`centres` [N, T, 2], `centre_valid` [N, T], `colours` [N, 2, 3], `fps`, `meta` [N] (JSON).
"""

import dataclasses
import json
import pathlib
import zipfile
from typing import Any

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import frames as frame_files
from vistraj_jax.prepare.frame_pairs import videos

ARRAYS = (".npy", ".npz")
# Optional arrays of a .npz file: shape after N, of a video of T frames with H x W px.
_FIELDS = {
  "masks": lambda t, h, w: (t, h, w),
  "centres": lambda t, h, w: (t, 2),
  "centre_valid": lambda t, h, w: (t,),
  "colours": lambda t, h, w: (2, 3),
  "labels": lambda t, h, w: (),
  "meta": lambda t, h, w: (),
}


@dataclasses.dataclass
class Clip:
  """One video.

  Attributes:
    name: unlike all others of the source.
    frames: iterable of uint8 [H, W, 3], of one size.
    fps: frames a second, 0 unknown.
    label: class, -1 unknown.
    masks: uint8 [T, H, W], values of `data.future_video`, or None.
    centres: float [T, 2], row, column in px, of the target; centre_valid [T], 0 where it cannot be
      seen. None where unknown.
    colours: uint8 [2, 3] of background and target.
    meta: JSON-able.
  """

  name: str
  frames: Any
  fps: float = 0.0
  label: int = -1
  masks: np.ndarray | None = None
  centres: np.ndarray | None = None
  centre_valid: np.ndarray | None = None
  colours: Any = ((0, 0, 0), (255, 255, 255))
  meta: dict = dataclasses.field(default_factory=dict)


def find(source):
  """Returns the videos of a folder and its subfolders as sorted paths.

  A folder that holds images is one video, its frames in the order of their names.

  Raises:
    InputError: no such folder, or nothing in it.
  """
  source = pathlib.Path(source)
  checks.require(source.is_dir(), f"--source: {source}: no such folder.")
  files = [p for p in source.rglob("*") if p.suffix.lower() in (*videos.SUFFIXES, *ARRAYS)]
  images = {p.parent for p in source.rglob("*") if p.suffix.lower() in frame_files.IMAGES}
  checks.require(
    files or images,
    f"--source: {source}: no file ending in {', '.join((*videos.SUFFIXES, *ARRAYS))} and no folder "
    "of PNG or JPEG images; give another folder.",
  )
  return sorted(files) + sorted(images)


def names(path, source):
  """Returns the names of the clips that `read` finds in one path of `find`."""
  name = path.relative_to(source).as_posix()
  if path.suffix.lower() != ".npz" or path.is_dir():
    return [name]
  return [f"{name}#{k}" for k in range(_npz_shape(path)[0])]


def read(path, name, fps, wanted=(0,)):
  """Yields the clips of one path of `find`.

  Args:
    path: video file, folder of images, .npy or .npz file.
    name: of the path, the start of the clips' names.
    fps: frames a second that are kept of video files, and the rate of folders and arrays that name
      none; 0 keeps all.
    wanted: numbers of the videos of a .npz file.

  Raises:
    InputError: unreadable, frames of mixed sizes, values out of range, or arrays that do not
      belong together.
  """
  path = pathlib.Path(path)
  ending = path.suffix.lower()
  if path.is_dir():
    yield Clip(name, _folder(path), fps)
  elif ending == ".npy":
    yield Clip(name, _pixels(_load(path)[None], path)(0), fps)
  elif ending == ".npz":
    yield from _npz(path, name, fps, wanted)
  else:
    rate = videos.frame_rate(path)
    checks.require(
      rate >= fps * 0.99, f"--fps: {fps:g} received, but {path} has {rate:g} a second; give less."
    )
    yield Clip(name, videos.frames(path, fps and rate / fps), fps or rate)


def _folder(path):
  with frame_files.open_video(path) as video:
    yield from video.images


def _npz(path, name, fps, wanted):
  found = _load(path)
  count, length = found["videos"].shape[:2]
  pixels = _pixels(found["videos"], path)
  size = pixels(0).shape[1:3] if count else (0, 0)
  for field, shape in _FIELDS.items():
    if field in found:
      checks.shape(f"{path}: {field}", found[field], (count, *shape(length, *size)))
  rate = float(found.get("fps", fps))
  rows = {field: found[field] for field in _FIELDS if field in found}
  for k in wanted:
    own = {field: array[k] for field, array in rows.items()}
    clip = Clip(f"{name}#{k}", pixels(k), rate, label=int(own.pop("labels", -1)))
    clip.meta = json.loads(str(own.pop("meta", "{}")))
    for field, value in own.items():
      setattr(clip, field, value)
    if clip.centres is not None and clip.centre_valid is None:
      clip.centre_valid = np.isfinite(clip.centres).all(-1)
    yield clip


def _pixels(array, path):
  """Returns a function of the number of a video -> uint8 [T, H, W, 3]; checks shape and values."""
  shape = array.shape
  last = len(shape) == 5 and shape[4] in (1, 3)
  checks.require(
    last or (len(shape) == 5 and shape[2] in (1, 3)),
    f"{path}: shape {shape[1:] if path.suffix == '.npy' else shape} received; a .npy file holds "
    "one video [T, H, W, 3] or [T, 3, H, W], `videos` of a .npz file one axis N more in front.",
  )
  kind = array.dtype
  checks.require(
    kind == np.uint8 or np.issubdtype(kind, np.floating),
    f"{path}: numbers of type {kind} received; give uint8 of 0..255 or float of 0..1.",
  )

  def video(k):
    pixels = np.asarray(array[k])
    if kind != np.uint8:
      low, high = float(pixels.min(initial=0)), float(pixels.max(initial=0))
      checks.require(
        low >= 0 and high <= 1,  # also false of NaN
        f"{path}: video {k} has float values of {low:g} to {high:g}; give float of 0..1 or uint8 "
        "of 0..255.",
      )
      pixels = np.round(pixels * 255).astype(np.uint8)
    pixels = pixels if last else np.moveaxis(pixels, 1, -1)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))

  return video


def _load(path):
  """Returns the array of a .npy file, or {name: array} of a .npz file."""
  try:
    if path.suffix.lower() == ".npy":
      return np.load(path, mmap_mode="r", allow_pickle=False)
    found = np.load(path, allow_pickle=False)
    with found:
      held = {name: found[name] for name in found.files}
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise checks.InputError(f"{path}: no readable {path.suffix} file ({error}).") from None
  checks.require(
    "videos" in held, f"{path}: no array `videos`; it has {sorted(held)}; rename the one meant."
  )
  return held


def _npz_shape(path):
  """Returns the shape of `videos` without reading it."""
  try:
    with zipfile.ZipFile(path) as archive, archive.open("videos.npy") as file:
      version = np.lib.format.read_magic(file)
      header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
      return header(file)[0]
  except KeyError:
    return _load(path)["videos"].shape  # names what is there
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise checks.InputError(f"{path}: no readable .npz file ({error}).") from None
