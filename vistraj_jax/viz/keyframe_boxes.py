"""Draws annotated and interpolated boxes over a camera's images, so that one can tell them apart.

Boxes on keyframes are solid, in the frames between dashed; the colour is that of the class, the
number that of the track. The title of a frame says KEYFRAME and which, or how far it is behind one.
"""

import dataclasses
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.viz import drawing

_COLOURS = ("#56B4E9", "#E69F00", "#F0E442", "#CC79A7", "#FF5A4D", "#2EE59D", "#B98CFF")
_ON_KEYFRAME = (60, 220, 255)  # blue, green, red of its title and frame
_BETWEEN = (70, 66, 62)
_BAR = 30  # height of the legend in px
_GAP = 6  # px between the pictures of a sheet
_PAPER = 255


@dataclasses.dataclass(frozen=True)
class Sequence:
  """What is drawn.

  Attributes:
    name: title.
    width, height: image size in px.
    frame_rate: Hz.
    frames: list of objects with `number` (from 1), `keyframe`, `step` (0 on a keyframe) and
      `image`, the path below `images`.
    boxes: rows with `frame` [N], `track_id` [N], `class_id` [N], `box_xywh` [N, 4] (px, top left).
    class_names: names of the classes from 0, at most 7.
    images: folder of the images.
  """

  name: str
  width: int
  height: int
  frame_rate: float
  frames: list
  boxes: object
  class_names: tuple
  images: pathlib.Path


def colour(class_id):
  """Returns the (blue, green, red) of a class."""
  return drawing.colour(_COLOURS[class_id])


def picture(sequence, number, width):
  """Draws one frame without the legend: uint8 [H, `width`, 3], blue-green-red, H even.

  Raises:
    InputError: naming an image that cannot be read.
  """
  import cv2

  frame = sequence.frames[number - 1]
  scale = width / sequence.width
  size = width, 2 * round(sequence.height * scale / 2)
  what = f"no readable image of frame {number}; complete the images."
  canvas = drawing.read_image(sequence.images / frame.image, size, scale, what)
  rows = np.flatnonzero(sequence.boxes.frame == number)
  outline = drawing.dashed_box if frame.step else drawing.solid_box
  corners = drawing.box_corners(sequence.boxes.box_xywh[rows], scale)
  classes = sequence.boxes.class_id[rows].tolist()
  for own, class_id in zip(corners, classes, strict=True):
    outline(canvas, own, colour(class_id), 2)
  for own, class_id, row in zip(corners, classes, rows, strict=True):
    drawing.label(canvas, str(sequence.boxes.track_id[row]), own[:2], colour(class_id))
  title, edge = f"KEYFRAME {frame.keyframe}", _ON_KEYFRAME
  if frame.step:
    title, edge = f"{frame.keyframe} +{frame.step}/{sequence.frame_rate:g} s", _BETWEEN
  title += f"   frame {number}/{len(sequence.frames)}"
  cv2.rectangle(canvas, (0, 0), (size[0] - 1, size[1] - 1), edge, 1 if frame.step else 3)
  drawing.label(canvas, title, (4, 18), edge, 0.45)
  return canvas


def video_pictures(sequence, width=1280):
  """Yields the pictures of all frames with the legend: uint8 [H, `width`, 3], H and W even."""
  width -= width % 2
  legend = _legend(sequence, width)
  for frame in sequence.frames:
    yield np.concatenate([picture(sequence, frame.number, width), legend])


def sheet(sequence, keyframes, width=480):
  """Draws keyframes and the frames behind each, a row per keyframe.

  Args:
    sequence: a `Sequence`.
    keyframes: numbers of keyframes, from 0.
    width: of one picture in px.

  Returns:
    uint8 [H, W, 3], blue-green-red.

  Raises:
    InputError: there is no such keyframe; an image cannot be read.
  """
  by_keyframe = {}
  for frame in sequence.frames:
    by_keyframe.setdefault(frame.keyframe, []).append(frame.number)
  for keyframe in keyframes:
    checks.require(
      keyframe in by_keyframe,
      f"keyframe {keyframe}: {sequence.name} has keyframes 0 to {max(by_keyframe)}.",
    )
  rows = [[picture(sequence, n, width) for n in by_keyframe[keyframe]] for keyframe in keyframes]
  height = rows[0][0].shape[0]
  columns = max(map(len, rows))
  shape = len(rows) * (height + _GAP), columns * (width + _GAP) - _GAP, 3
  paper = np.full(shape, _PAPER, np.uint8)
  for i, row in enumerate(rows):
    for j, one in enumerate(row):
      top, left = i * (height + _GAP), j * (width + _GAP)
      paper[top : top + height, left : left + width] = one
  return np.concatenate([paper, _legend(sequence, paper.shape[1])])


def _legend(sequence, width):
  """Returns the strip that names the sequence, the lines and the classes: uint8 [bar, width, 3]."""
  import cv2

  strip = np.full((_BAR, width, 3), 20, np.uint8)
  font, middle = cv2.FONT_HERSHEY_SIMPLEX, _BAR // 2
  entries = [(None, sequence.name), (drawing.solid_box, "annotated")]
  entries += [(drawing.dashed_box, "interpolated"), *enumerate(sequence.class_names)]
  x = 10
  for mark, text in entries:
    if mark is not None:
      box = np.array([x, middle - 7, x + 24, middle + 7], np.int32)
      outline = mark if callable(mark) else drawing.solid_box
      own = drawing.TEXT if callable(mark) else colour(mark)
      outline(strip, box, own, 2 if callable(mark) else -1)
      x += 30
    cv2.putText(strip, text, (x, middle + 4), font, 0.42, drawing.TEXT, 1, cv2.LINE_AA)
    x += cv2.getTextSize(text, font, 0.42, 1)[0][0] + 18
  return strip
