"""Sheets of predicted frames, and what a network's classification tokens look at."""

import numpy as np

from vistraj_jax.viz import drawing, video

_SIDE = 176  # px of a picture on a sheet, about
_HEADER = 22  # px
_GREY = (70, 70, 70)
_FULL_ERROR = 0.25  # of full brightness: the hottest colour
_FULL_SHARE = 4  # times the even share of attention: the same


def draw_sheet(rows, path):
  """Writes (img_t, prediction, truth, error), one row a pair, to a PNG file.

  Args:
    rows: list of dicts: "img_t", "truth" uint8 [S, S, 3], "prediction" float [S, S, 3] in 0..1
      (red, green, blue), "text" said of the pair, "copy_text" of the frame t as a prediction.
    path: ends in ".png".

  Returns:
    uint8 [H, W, 3], blue, green, red, as written. Error is the mean of the three colours'
    absolute differences; a quarter of full brightness and more has the hottest colour.
  """
  titles = ("frame t", "prediction", "truth: frame t + k", "error")
  sheet = [_titled(titles, rows[0]["truth"].shape[0])]
  for row in rows:
    prediction = (255 * np.clip(row["prediction"], 0, 1)).round().astype(np.uint8)
    error = np.abs(prediction.astype(float) - row["truth"]).mean(-1) / 255
    tiles = [_enlarged(x[..., ::-1]) for x in (row["img_t"], prediction, row["truth"])]
    tiles.append(_enlarged(_heat(error / _FULL_ERROR)))
    drawing.label(tiles[0], row["copy_text"], (2, tiles[0].shape[0] - 3), _GREY)
    drawing.label(tiles[1], row["text"], (2, tiles[1].shape[0] - 3), _GREY)
    sheet.append(np.concatenate(tiles, 1))
  sheet = np.concatenate(sheet)
  video.write_png(path, sheet)
  return sheet


def draw_attention(rows, blocks, streams, path):
  """Writes maps of attention over frames, one row a pair and stream, to a PNG file.

  Args:
    rows: list of dicts: "img_t", "img_tk" uint8 [S, S, 3]; "attention" float [streams, shown
      blocks, N], shares of the patches in raster order; "text" said of the pair.
    blocks: numbers of the shown blocks, from 1.
    streams: their names.
    path: ends in ".png".

  Returns:
    uint8 [H, W, 3], blue, green, red, as written. The hottest colour is four times the even share
    1 / N; on a map stand its maximum and the share of all patches together.
  """
  size = rows[0]["img_t"].shape[0]
  sheet = [_titled(("frame t", "frame t + k", *(f"block {k}" for k in blocks)), size)]
  for row in rows:
    for stream, name in enumerate(streams):
      tiles = [_enlarged(row[k][..., ::-1]) for k in ("img_t", "img_tk")]
      drawing.label(tiles[0], row["text"], (2, tiles[0].shape[0] - 3), _GREY)
      drawing.label(tiles[1], f"CLS of {name}", (2, tiles[1].shape[0] - 3), _GREY)
      for weights in row["attention"][stream]:
        tiles.append(_overlaid(row["img_tk"][..., ::-1], weights))
      sheet.append(np.concatenate(tiles, 1))
  sheet = np.concatenate(sheet)
  video.write_png(path, sheet)
  return sheet


def _overlaid(image, weights):
  import cv2

  side = round(len(weights) ** 0.5)
  picture = _enlarged(image)
  grid = (weights * len(weights) / _FULL_SHARE).reshape(side, side).astype(np.float32)
  grid = cv2.resize(grid, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
  grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
  tile = cv2.addWeighted(grey, 0.45, _heat(grid), 0.55, 0)
  text = f"max {weights.max():.2f} of {weights.sum():.2f}"
  drawing.label(tile, text, (2, tile.shape[0] - 3), _GREY)
  return tile


def _heat(values):
  """Values [H, W] in 0..1 -> uint8 [H, W, 3], blue, green, red."""
  import cv2

  return cv2.applyColorMap((255 * np.clip(values, 0, 1)).astype(np.uint8), cv2.COLORMAP_INFERNO)


def _enlarged(image):
  """Small pictures a whole number of times as big, with their pixels to be seen."""
  import cv2

  times = _times(image.shape[0])
  size = (image.shape[1] * times, image.shape[0] * times)
  return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_NEAREST)


def _times(size):
  return max(1, round(_SIDE / size))


def _titled(titles, size):
  width = size * _times(size)
  strip = np.full((_HEADER, width * len(titles), 3), 255, np.uint8)
  for k, title in enumerate(titles):
    drawing.label(strip, title, (k * width + 3, _HEADER - 4), (255, 255, 255), 0.42)
  return strip
