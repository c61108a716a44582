"""Draws tracks over frames: box and number in the track's own colour, its trail, predicted boxes.

Cameras of one scene are tiled in a grid. Frames without images get a blank canvas. All sizes of
boxes are in px of the camera's image; drawing happens at the size of the tile.
"""

import colorsys
import concurrent.futures
import dataclasses
import math
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.viz import drawing

BLANK = (30, 27, 24)  # blue, green, red of a canvas without an image
_TRUTH = (170, 170, 170)
_BAR = 26  # height of the legend in px
_EDGE = (70, 66, 62)  # of a tile
_GAP = 6  # px between the frames of a contact sheet
_PAPER = 255


@dataclasses.dataclass(frozen=True)
class Camera:
  """What one tile shows.

  Attributes:
    name: title of the tile.
    width, height: image size in px.
    length: number of frames.
    frame_rate: Hz.
    tracks: rows with `frame` [N] (from 1), `track_id` [N], `box_xywh` [N, 4] (px, top left).
    predicted: the same for the boxes that the motion model expected before it saw the frame, or
      None.
    truth: the same for the true boxes, or None.
    images: folder of the images, or None for a blank canvas.
    extension: file ending of the images, named by frame as 000001.jpg.
  """

  name: str
  width: int
  height: int
  length: int
  frame_rate: float
  tracks: object
  predicted: object = None
  truth: object = None
  images: pathlib.Path | None = None
  extension: str = ".jpg"


class Scene:
  """Pictures of one or several cameras, frame by frame.

  Args:
    cameras: list of `Camera`.
    width: of the whole picture in px.
    trail_seconds: how far back the trail of a track reaches.

  Attributes:
    length: number of frames of the longest camera.
    size: (height, width) of the picture in px, both even, as video encoders need it.
    legend: uint8 [legend height, width, 3], the strip below the tiles.
  """

  def __init__(self, cameras, width=1280, trail_seconds=2.0):
    checks.require(cameras, "there is no sequence to draw.")
    self.length = max(camera.length for camera in cameras)
    columns = math.ceil(math.sqrt(len(cameras)))
    rows = math.ceil(len(cameras) / columns)
    tile_width = 2 * (width // (2 * columns))
    aspect = max(camera.height / camera.width for camera in cameras)
    tile_height = 2 * round(tile_width * aspect / 2)
    self.size = (rows * tile_height + _BAR, columns * tile_width)
    self._tiles = [
      _Tile(camera, tile_width, tile_height, round(trail_seconds * camera.frame_rate))
      for camera in cameras
    ]
    self._places = [
      (index // columns * tile_height, index % columns * tile_width)
      for index in range(len(cameras))
    ]
    # Decoding the images takes most of the time, and does so outside of Python's lock.
    self._threads = concurrent.futures.ThreadPoolExecutor(len(cameras))
    self.legend = _legend(
      self.size[1],
      trail_seconds,
      any(camera.predicted is not None for camera in cameras),
      any(camera.truth is not None for camera in cameras),
    )

  def frame(self, number):
    """Returns the picture of frame `number` (from 1): uint8 [height, width, 3], blue-green-red.

    Raises:
      InputError: naming an image that cannot be read.
    """
    return np.concatenate([self.tiles(number), self.legend])

  def tiles(self, number):
    """Returns `frame(number)` without the legend below."""
    picture = np.zeros((self.size[0] - _BAR, self.size[1], 3), np.uint8)
    drawn = self._threads.map(lambda tile: tile.draw(number), self._tiles)
    for one, (top, left) in zip(drawn, self._places, strict=True):
      picture[top : top + one.shape[0], left : left + one.shape[1]] = one
    return picture


def colour(track_id):
  """Returns the track's (blue, green, red), the same in every frame, camera and run."""
  # Steps of the golden ratio around the colour circle keep neighbours apart.
  hue = (track_id * 0.618034) % 1.0
  red, green, blue = colorsys.hsv_to_rgb(hue, (0.65, 0.9)[track_id % 2], 1.0)
  return round(255 * blue), round(255 * green), round(255 * red)


def contact_sheet(cameras, frames, columns=2, width=1920, trail_seconds=2.0):
  """Returns one picture of several frames, row by row: uint8 [H, width or less, 3], BGR."""
  scene = Scene(cameras, (width - (columns - 1) * _GAP) // columns, trail_seconds)
  height, width = scene.size[0] - _BAR, scene.size[1]
  rows = math.ceil(len(frames) / columns)
  sheet = np.full((rows * (height + _GAP), columns * (width + _GAP) - _GAP, 3), _PAPER, np.uint8)
  for index, number in enumerate(frames):
    top, left = index // columns * (height + _GAP), index % columns * (width + _GAP)
    sheet[top : top + height, left : left + width] = scene.tiles(number)
  legend = np.full((_BAR, sheet.shape[1], 3), scene.legend[0, 0], np.uint8)
  legend[:, :width] = scene.legend
  return np.concatenate([sheet, legend])


class _Rows:
  """Rows of a table by frame, and the past of each row's track."""

  def __init__(self, table, scale, offset):
    order = np.lexsort((table.frame, table.track_id))
    self.track_id = np.asarray(table.track_id)[order]
    self.frame = np.asarray(table.frame)[order]
    self.corners = drawing.box_corners(np.asarray(table.box_xywh)[order], scale, offset)
    self.centres = (self.corners[:, :2] + self.corners[:, 2:]) // 2
    self._by_frame = np.argsort(self.frame, kind="stable")
    self._sorted_frames = self.frame[self._by_frame]

  def at(self, frame):
    """Returns the indices of a frame's rows."""
    first, end = np.searchsorted(self._sorted_frames, (frame, frame + 1))
    return self._by_frame[first:end]

  def trail(self, row, count):
    """Returns centres [K, 2] of the row's track, from `count` frames before it up to it."""
    first = max(0, row - count)
    past = slice(first, row + 1)
    same = (self.track_id[past] == self.track_id[row]) & (
      self.frame[past] >= self.frame[row] - count
    )
    return self.centres[past][same]


class _Tile:
  """One camera at the size of its place in the grid."""

  def __init__(self, camera, width, height, trail):
    self.width, self.height = width, height
    self._camera, self._trail = camera, trail
    scale = min(width / camera.width, height / camera.height)
    self._inner = round(camera.width * scale), round(camera.height * scale)
    self._offset = (width - self._inner[0]) // 2, (height - self._inner[1]) // 2
    tables = camera.tracks, camera.predicted, camera.truth
    self._tracks, self._predicted, self._truth = (
      None if table is None else _Rows(table, scale, self._offset) for table in tables
    )
    self._scale = scale

  def draw(self, number):
    """Returns frame `number`: uint8 [height, width, 3]."""
    import cv2

    canvas = np.zeros((self.height, self.width, 3), np.uint8)
    (left, top), (width, height) = self._offset, self._inner
    canvas[top : top + height, left : left + width] = self._background(number)
    if self._truth is not None:
      for row in self._truth.at(number):
        drawing.solid_box(canvas, self._truth.corners[row], _TRUTH)
    if self._predicted is not None:
      for row in self._predicted.at(number):
        own = colour(int(self._predicted.track_id[row]))
        drawing.dashed_box(canvas, self._predicted.corners[row], own)
    rows = self._tracks.at(number)
    for row in rows:
      trail = self._tracks.trail(row, self._trail)
      own = colour(int(self._tracks.track_id[row]))
      cv2.polylines(canvas, [trail.reshape(-1, 1, 2)], False, own, 1, cv2.LINE_AA)
      for centre in trail[:-1]:
        cv2.circle(canvas, centre.tolist(), 1, own, -1, cv2.LINE_AA)
    for row in rows:
      corners, track_id = self._tracks.corners[row], int(self._tracks.track_id[row])
      drawing.solid_box(canvas, corners, colour(track_id), 2)
      drawing.label(canvas, str(track_id), corners[:2], colour(track_id))
    camera = self._camera
    seconds = (number - 1) / camera.frame_rate
    title = f"{camera.name}  frame {number}/{camera.length}  {seconds:.1f} s"
    drawing.label(canvas, title, (2, 16), (20, 20, 20))
    cv2.rectangle(canvas, (0, 0), (self.width - 1, self.height - 1), _EDGE, 1)
    return canvas

  def _background(self, number):
    camera = self._camera
    if camera.images is None or number > camera.length:
      return np.full((self._inner[1], self._inner[0], 3), BLANK, np.uint8)
    path = camera.images / f"{number:06d}{camera.extension}"
    what = f"no readable image of frame {number}; complete the folder, or remove it to draw on a "
    return drawing.read_image(path, self._inner, self._scale, what + "blank canvas.")


def _legend(width, trail_seconds, with_predicted, with_truth):
  """Returns the strip that says what the lines mean: uint8 [bar height, width, 3]."""
  import cv2

  strip = np.full((_BAR, width, 3), 20, np.uint8)
  middle, example = _BAR // 2, colour(3)
  entries = ["track and its number", f"trail of {trail_seconds:g} s"]
  entries += ["predicted box"] * with_predicted + ["truth"] * with_truth
  x = 10
  for text in entries:
    box = np.array([x, middle - 6, x + 22, middle + 6], np.int32)
    if text == "truth":
      drawing.solid_box(strip, box, _TRUTH)
    elif text == "predicted box":
      drawing.dashed_box(strip, box, example)
    elif text.startswith("trail"):
      cv2.line(strip, (x, middle), (x + 22, middle), example, 1, cv2.LINE_AA)
      for dot in range(x, x + 23, 11):
        cv2.circle(strip, (dot, middle), 1, example, -1, cv2.LINE_AA)
    else:
      drawing.solid_box(strip, box, example, 2)
    (size, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    place = (x + 28, middle + 4)
    cv2.putText(strip, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, drawing.TEXT, 1, cv2.LINE_AA)
    x += 28 + size + 24
  return strip
