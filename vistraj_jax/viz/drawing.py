"""Small things drawn on pictures (uint8 [H, W, 3], blue-green-red): boxes, labels, images below.

Corners are int32 left, top, right, bottom in px of the picture.
"""

import numpy as np

from vistraj_jax.core import checks

TEXT = (255, 255, 255)
_DASH = 5  # px


def colour(text):
  """Returns the (blue, green, red) of "#RRGGBB"."""
  return tuple(int(text[i : i + 2], 16) for i in (5, 3, 1))


def box_corners(boxes_xywh, scale, offset=(0, 0)):
  """Turns left, top, width, height [N, 4] into corners [N, 4] of a picture `scale` times as big."""
  boxes = np.asarray(boxes_xywh, np.float64).reshape(-1, 4) * scale
  low = boxes[:, :2] + offset
  corners = np.concatenate([low, low + boxes[:, 2:]], 1).round()
  # cv2 draws coordinates of 16 bits; far outside the picture is far enough.
  return corners.clip(-8000, 8000).astype(np.int32)


def solid_box(canvas, corners, colour, thickness=1):
  """Draws the outline of one box."""
  import cv2

  left, top, right, bottom = corners.tolist()
  cv2.rectangle(canvas, (left, top), (right, bottom), colour, thickness)


def dashed_box(canvas, corners, colour, thickness=1):
  """Draws the dashed outline of one box."""
  import cv2

  left, top, right, bottom = corners.tolist()
  period = 2 * _DASH + 4 * (thickness - 1)  # thick lines have round ends, which eat the gaps
  pieces = []
  for x in range(left, right, period):
    pieces += [[(x, y), (min(x + _DASH, right), y)] for y in (top, bottom)]
  for y in range(top, bottom, period):
    pieces += [[(x, y), (x, min(y + _DASH, bottom))] for x in (left, right)]
  pieces = np.array(pieces, np.int32).reshape(-1, 2, 2)
  cv2.polylines(canvas, pieces, False, colour, thickness)


def label(canvas, text, corner, background, size=0.38):
  """Writes text on a filled strip whose lower left is `corner`, kept inside the canvas."""
  import cv2

  font = cv2.FONT_HERSHEY_SIMPLEX
  (width, height), below = cv2.getTextSize(text, font, size, 1)
  height += below + 1
  blue, green, red = background
  bright = 0.114 * blue + 0.587 * green + 0.299 * red > 110
  left = int(np.clip(corner[0] - 1, 0, max(0, canvas.shape[1] - width - 4)))
  bottom = int(np.clip(corner[1], height, canvas.shape[0]))
  cv2.rectangle(canvas, (left, bottom - height), (left + width + 2, bottom), background, -1)
  ink = (0, 0, 0) if bright else TEXT
  cv2.putText(canvas, text, (left + 1, bottom - below), font, size, ink, 1, cv2.LINE_AA)


def read_image(path, size, scale, what):
  """Reads an image scaled to `size` (width, height), which is `scale` times its own.

  Raises:
    InputError: naming `path`, and saying `what` (such as "no readable image of frame 3; ...").
  """
  import cv2

  # JPEG files decode at half or quarter size much faster than whole.
  flag = cv2.IMREAD_COLOR
  if scale <= 0.5:
    flag = cv2.IMREAD_REDUCED_COLOR_4 if scale <= 0.25 else cv2.IMREAD_REDUCED_COLOR_2
  image = cv2.imread(str(path), flag)
  checks.require(image is not None, f"{path}: {what}")
  return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
