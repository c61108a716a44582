"""Frames of a video file or of a folder of images, and label masks.

A label mask is uint8 [H, W]: the number of the object of each pixel, 0 for background. It is stored
as a palette PNG, as DAVIS and YouTube-VOS do.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vistraj_jax.core import checks, files

IMAGES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")


class Video(NamedTuple):
  """Frames to read.

  Attributes:
    names: of the frames, without endings; of a video file 00000, 00001 and so on, as many as it
      claims to have.
    frame_rate: Hz, None for a folder.
    size: (height, width).
    images: iterator of uint8 [height, width, 3], red-green-blue, one a name; it raises InputError
      where a video is damaged, or has not as many frames as it claims.
  """

  names: list[str]
  frame_rate: float | None
  size: tuple[int, int]
  images: Iterator


@contextlib.contextmanager
def open_video(path):
  """Opens a folder of images or a video file; a context manager that gives `Video`.

  Raises:
    InputError: nothing there, no frames, an unreadable frame, or frames of different sizes.
  """
  path = pathlib.Path(path)
  checks.require(path.exists(), f"{path}: there is no such folder or video file.")
  if path.is_dir():
    yield _open_folder(path)
    return
  checks.require(
    path.suffix.lower() in VIDEOS,
    f"{path}: neither a folder of images nor a video file; known endings are {list(VIDEOS)}.",
  )
  import av

  try:
    container = av.open(str(path))
  except av.error.FFmpegError as error:
    raise checks.InputError(f"{path}: not a readable video ({error}).") from error
  with container:
    checks.require(container.streams.video, f"{path}: there is no picture track in this file.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    size = (stream.codec_context.height, stream.codec_context.width)
    count = stream.frames
    if not count:  # Matroska and WebM do not say it
      count = sum(packet.size > 0 for packet in container.demux(stream))
      container.seek(0)
    names = [f"{i:05d}" for i in range(count)]
    rate = float(stream.average_rate or 25)
    yield Video(names, rate, size, _decoded(container, stream, count, path))


def _decoded(container, stream, count, path):
  import av

  done = 0
  try:
    for frame in container.decode(stream):
      done += 1
      if done <= count:
        yield frame.to_ndarray(format="rgb24")
  except av.error.FFmpegError as error:
    raise checks.InputError(
      f"{path}: damaged after {done} frames ({error}); copy the video again."
    ) from None
  checks.require(
    done == count,
    f"{path}: claims {count} frames, but {done} can be decoded; copy or encode the video again.",
  )


def label_files(folder):
  """Returns {name of the frame: path} of the PNG files of a folder.

  Raises:
    InputError: no such folder, or no PNG in it.
  """
  folder = pathlib.Path(folder)
  checks.require(folder.is_dir(), f"{folder}: there is no such folder of masks.")
  found = {path.stem: path for path in sorted(folder.glob("*.png"))}
  checks.require(found, f"{folder}: there are no PNG masks in it.")
  return found


def read_labels(path):
  """Reads a label mask: palette or grey PNG; black and white (0, 255) is object 1.

  Raises:
    InputError: an unreadable file, or a colour picture.
  """
  from PIL import Image, UnidentifiedImageError

  try:
    with Image.open(path) as image:
      mode, labels = image.mode, np.array(image)
  except (UnidentifiedImageError, OSError) as error:
    raise checks.InputError(f"{path}: not a readable PNG mask ({error}).") from error
  checks.require(
    mode in ("P", "L", "1"),
    f"{path}: a picture of mode {mode}, no mask; give a palette PNG with object numbers.",
  )
  if mode != "P" and set(np.unique(labels)) <= {0, 255}:
    labels = labels > 0
  return labels.astype(np.uint8)


def write_labels(path, labels):
  """Writes a label mask as a palette PNG, atomically."""
  from PIL import Image

  image = Image.fromarray(labels)
  image.putpalette(palette().tobytes())
  with files.atomic_path(path) as temporary:
    image.save(temporary, format="PNG")


def palette():
  """Colours of DAVIS and PASCAL VOC by object number: uint8 [256, 3], red-green-blue."""
  number = np.arange(256)
  bits = (number[:, None] >> np.arange(8)) & 1  # lowest first: red, green, blue, red, ...
  colours = np.zeros((256, 3), np.int64)
  for i in range(8):
    colours[:, i % 3] |= bits[:, i] << (7 - i // 3)
  return colours.astype(np.uint8)


def _open_folder(path):
  from PIL import Image, UnidentifiedImageError

  paths = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES)
  checks.require(paths, f"{path}: there are no images in it; known endings are {list(IMAGES)}.")
  with Image.open(paths[0]) as first:
    size = first.size[::-1]

  def read():
    for one in paths:
      try:
        with Image.open(one) as image:
          picture = np.array(image.convert("RGB"))
      except (UnidentifiedImageError, OSError) as error:
        raise checks.InputError(f"{one}: not a readable image ({error}).") from error
      checks.require(
        picture.shape[:2] == size,
        f"{one}: {picture.shape[:2]} px where {size} are wanted; all frames have one size.",
      )
      yield picture

  return Video([p.stem for p in paths], None, size, read())
