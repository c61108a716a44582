"""Clips of an agent: predicted beside true masks over time, and a video up to its futures."""

import dataclasses

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.viz import drawing, futures

FRAME_RATE = 2  # Hz, of key frames
_GAP = 4  # px
_TITLE = 20  # px
_PREDICTED = (40, 120, 255)  # blue, green, red
_TRUE = (80, 255, 80)
_EGO = (255, 229, 0)
_PAPER = (41, 35, 30)


@dataclasses.dataclass(frozen=True)
class Clip:
  """What is shown of a clip of T observed key frames.

  Attributes:
    name: title.
    frames: list of T pictures uint8 [H, W, 3], blue-green-red: images, or points from above.
    truth: bool [T, H, W], the agent's true mask.
    known: bool [T], where there is one.
    probability: float [T, H, W], of the predicted mask, or None.
    is_camera: whether the frames are those of the agent's `futures.View`.
  """

  name: str
  frames: list
  truth: np.ndarray
  known: np.ndarray
  probability: np.ndarray | None
  is_camera: bool


def points_picture(points, reach, size):
  """Returns LiDAR points [N, 2 or more] (x, y in m) from above, uint8 [size, size, 3], ahead up."""
  picture = np.full((size, size, 3), _PAPER, np.uint8)
  cells = np.floor((reach - np.asarray(points)[:, :2]) * (size / (2 * reach))).astype(np.int64)
  cells = cells[((cells >= 0) & (cells < size)).all(-1)]
  picture[cells[:, 0], cells[:, 1]] = 158
  return picture


def overlap(clip, t):
  """Returns the overlap of the predicted and the true mask of frame t, nan where both are empty."""
  predicted = clip.probability[t] > 0.5
  union = (predicted | clip.truth[t]).sum()
  return (predicted & clip.truth[t]).sum() / union if union else float("nan")


def frame_picture(clip, t, height):
  """Draws a frame with the predicted mask as a tint and the true one as an outline.

  Returns:
    uint8 [`height`, W, 3], blue-green-red, W even.
  """
  import cv2

  frame = clip.frames[t]
  width = 2 * round(frame.shape[1] * height / frame.shape[0] / 2)
  canvas = cv2.resize(frame, (width, height), interpolation=cv2.INTER_NEAREST)
  if clip.probability is not None:
    opacity = cv2.resize(clip.probability[t].astype(np.float32), (width, height))[..., None] * 0.7
    canvas = (canvas * (1 - opacity) + np.array(_PREDICTED) * opacity).astype(np.uint8)
  if clip.known[t]:
    mask = cv2.resize(clip.truth[t].astype(np.uint8), (width, height), interpolation=0)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    canvas = np.ascontiguousarray(canvas)
    cv2.drawContours(canvas, outlines, -1, _TRUE, 1)
  return canvas


def mask_sheet(clips, height=160):
  """Draws clips below one another, their frames in order of time, with the overlap of each.

  Args:
    clips: list of `Clip`, all with the same number of frames.
    height: of a frame, px.

  Returns:
    uint8 [H, W, 3], blue-green-red.
  """
  checks.require(clips, "masks: no clip to draw.")
  rows = []
  for clip in clips:
    pictures = [frame_picture(clip, t, height) for t in range(len(clip.frames))]
    width = sum(picture.shape[1] + _GAP for picture in pictures)
    row = np.full((2 * _TITLE + height + _GAP, width, 3), 255, np.uint8)
    drawing.label(row, clip.name, (1, _TITLE), (255, 255, 255), 0.5)
    left, top = 0, 2 * _TITLE
    for t, picture in enumerate(pictures):
      row[top : top + height, left : left + picture.shape[1]] = picture
      drawing.label(row, _title(clip, t), (left + 1, top), _PAPER)
      left += picture.shape[1] + _GAP
    rows.append(row)
  widest = max(row.shape[1] for row in rows)
  rows = [np.pad(r, ((0, 0), (0, widest - r.shape[1]), (0, 0)), constant_values=255) for r in rows]
  return np.concatenate(rows)


def video_pictures(clip, agent, height=360, hold=6):
  """Yields the pictures of a clip's video: observed frames with masks, then its futures.

  Args:
    clip: `Clip`.
    agent: `futures.Agent` of the same clip.
    height: px, even.
    hold: pictures of one key frame.

  Yields:
    uint8 [`height`, W, 3], blue-green-red, at `hold` times FRAME_RATE.
  """
  count = len(clip.frames)
  last = frame_picture(clip, count - 1, height)
  for t in range(count):
    seen = frame_picture(clip, t, height)
    drawing.label(seen, _title(clip, t), (4, 18), _PAPER)
    plan = _plan(agent, height, known=t + 1, steps=0)
    for _ in range(hold):
      yield np.concatenate([seen, plan], 1)
  scale = height / clip.frames[-1].shape[0]
  for step in range(1, agent.futures.shape[1] + 1):
    seen = last.copy()
    if clip.is_camera:
      for _, colour, thickness, line in _lines(agent, step):
        _draw_line(seen, agent.view.project(line) * scale, colour, thickness)
    drawing.label(seen, f"+{step / FRAME_RATE:.1f} s", (4, 18), _PAPER)
    plan = _plan(agent, height, known=count, steps=step)
    for _ in range(hold):
      yield np.concatenate([seen, plan], 1)


def _title(clip, t):
  text = f"{(t + 1 - len(clip.frames)) / FRAME_RATE:.1f} s"
  if not clip.known[t]:
    return f"{text}  not annotated"
  if clip.probability is None:
    return text
  value = overlap(clip, t)
  return f"{text}  IoU {value:.2f}" if np.isfinite(value) else f"{text}  hidden"


def _lines(agent, steps):
  """Yields (name, colour, thickness, line [N, 2]) of the first `steps` positions, best last."""
  yield "", drawing.colour(futures.TRUTH), 5, agent.driven()[: 1 + steps]
  for colour, probability, line in reversed(agent.ranked()):
    yield f"{probability:.0%}", drawing.colour(colour), 2, line[: 1 + steps]


def _plan(agent, size, known, steps):
  """The agent from above, ahead up, with `known` positions of its past: uint8 [size, size, 3]."""
  import cv2

  low, high = futures.seen_area(agent)
  middle, half = (low + high) / 2, (high - low).max() / 2
  points = np.zeros((0, 2)) if agent.points is None else agent.points[:, :2] - middle
  canvas = points_picture(points, half, size)

  def place(xy):
    return ((half - (np.asarray(xy) - middle)) * (size / (2 * half)))[:, ::-1]

  _draw_line(canvas, place(agent.past[:known]), drawing.colour(futures.PAST), 2)
  ego = place(np.zeros((1, 2)))[0].round().astype(int).tolist()
  cv2.drawMarker(canvas, ego, _EGO, cv2.MARKER_TRIANGLE_UP, 14, 2)
  if steps:
    for name, colour, thickness, line in _lines(agent, steps):
      pixels = place(line)
      _draw_line(canvas, pixels, colour, thickness)
      if name:
        drawing.label(canvas, name, pixels[-1].round().astype(int).tolist(), colour)
  return canvas


def _draw_line(canvas, pixels, colour, thickness):
  """Draws a line through px [N, 2]; it breaks at nan."""
  import cv2

  for start, end in zip(pixels[:-1], pixels[1:], strict=True):
    if np.isfinite([start, end]).all():
      ends = [tuple(np.clip(p, -8000, 8000).round().astype(int).tolist()) for p in (start, end)]
      cv2.line(canvas, *ends, colour, thickness, cv2.LINE_AA)
  for point in pixels[np.isfinite(pixels).all(-1)]:
    at = tuple(np.clip(point, -8000, 8000).round().astype(int).tolist())
    cv2.circle(canvas, at, thickness, colour, -1, cv2.LINE_AA)
