"""Predicted futures of videos: strips past | truth | prediction, videos side by side, scores over
the horizon.

A file of predictions is .npz: "past" uint8 [N, P, H, W, 3], "truth" uint8 [N, F, H, W, 3], "fps",
"ids" [N], and one uint8 [N, F, H, W, 3] under the name of each predictor. Red, green, blue.
"""

import zipfile

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.viz import drawing, style

# Scores by horizon: title and unit, in drawing order.
PANELS = {
  "psnr": "PSNR (dB)",
  "ssim": "SSIM",
  "iou": "IoU of the foreground",
  "centre_error": "error of the centre (px)",
}
_OTHERS = ("past", "truth", "fps", "ids")
_GAP, _HEADER = 4, 14  # px
_DIVIDER, _GROUND = (0, 160, 255), (40, 40, 40)  # blue, green, red
_RATE = 10.0  # Hz, where the file tells none


def write_predictions(path, past, truth, predicted, fps, ids):
  """Writes a file of predictions, atomically.

  Args:
    path: file ending in `.npz`.
    past, truth: uint8 [N, P, H, W, 3], [N, F, H, W, 3].
    predicted: {name: uint8 [N, F, H, W, 3]}, the main predictor first.
    fps: frames a second, 0 unknown.
    ids: names of the N videos.
  """
  checks.require(str(path).endswith(".npz"), f"{path}: predictions end in '.npz'; rename it.")
  arrays = {"past": past, "truth": truth, "fps": np.float64(fps), "ids": np.array(ids, str)}
  for name, video in predicted.items():
    checks.require(name not in _OTHERS, f"{path}: a predictor cannot be called {name!r}.")
    checks.shape(f"{path}: {name}", video, truth.shape)
    arrays[name] = video
  with files.atomic_path(path) as temporary:
    np.savez_compressed(temporary, **arrays)


def read_predictions(path):
  """Returns {"past", "truth", "fps", "ids", "predicted": {name: array}} of a file.

  Raises:
    InputError: missing or damaged, without prediction, or with arrays that do not fit.
  """
  try:
    with np.load(path, allow_pickle=False) as file:
      found = {name: file[name] for name in file.files}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
    raise checks.InputError(f"{path}: no readable .npz file of predictions ({error}).") from None
  missing = [name for name in _OTHERS if name not in found]
  checks.require(
    not missing, f"{path}: no array {missing}; it has {sorted(found)}; give predicted videos."
  )
  predicted = {name: video for name, video in found.items() if name not in _OTHERS}
  checks.require(predicted, f"{path}: holds no prediction; predict again.")
  for name, video in predicted.items():
    checks.shape(f"{path}: {name}", video, found["truth"].shape)
  return {**{name: found[name] for name in _OTHERS}, "predicted": predicted}


def strips(found, rows, columns=6, side=72):
  """Draws videos below one another: past and truth above, below the truth what was predicted.

  Args:
    found: as of `read_predictions`.
    rows: numbers of the videos.
    columns: frames of the past and of the future that are shown, each, evenly spread.
    side: least height of a frame in px; smaller ones grow by whole numbers.

  Returns:
    uint8 [H, W, 3], blue, green, red.
  """
  past, future = (
    np.unique(np.linspace(0, found[name].shape[1] - 1, columns).round().astype(int))
    for name in ("past", "truth")
  )
  blocks = [_header(found, past, future, side)]
  for row in rows:
    left = _line(found["past"][row, past], side)
    divider = np.full((left.shape[0], _GAP, 3), _DIVIDER, np.uint8)
    blocks.append(np.hstack([left, divider, _line(found["truth"][row, future], side)]))
    for name, video in found["predicted"].items():
      text = np.full_like(left, _GROUND)
      decibels = _psnr(video[row], found["truth"][row])
      drawing.label(
        text, f"{style.readable(name)} {decibels:.1f} dB", (4, left.shape[0] // 2), _GROUND
      )
      blocks.append(np.hstack([text, divider, _line(video[row, future], side)]))
    blocks.append(np.full((2 * _GAP, blocks[-1].shape[1], 3), 255, np.uint8))
  return np.ascontiguousarray(np.vstack(blocks[:-1]))


def frames(found, rows, side=128):
  """Yields the pictures of a video, past then future: truth and predictions side by side.

  Arguments as of `strips`; a picture is uint8 [H, W, 3], blue, green, red, of even sides.
  """
  lengths = [found[name].shape[1] for name in ("past", "truth")]
  names = ["truth", *found["predicted"]]
  for t in range(sum(lengths)):
    ahead = t - lengths[0]  # 0 is the first frame of the future
    lines = []
    for row in rows:
      if ahead < 0:
        shown = [found["past"][row, t]] * len(names)
      else:
        shown = [found["truth"][row, ahead]]
        shown += [video[row, ahead] for video in found["predicted"].values()]
      lines += [_line(np.stack(shown), side)]
    picture = np.vstack(lines)
    header = np.full(
      (_HEADER + 2, picture.shape[1], 3), _GROUND if ahead < 0 else _DIVIDER, np.uint8
    )
    width = picture.shape[1] // len(names)
    for k, name in enumerate(names):
      text = "past" if ahead < 0 else f"{style.readable(name)} +{ahead + 1}"
      drawing.label(header, text, (k * width + 3, _HEADER), tuple(map(int, header[0, 0])), 0.36)
    picture = np.vstack([header, picture])
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    yield np.ascontiguousarray(picture[:height, :width])


def frame_rate(found):
  """Returns the rate of a file of predictions in Hz."""
  return float(found["fps"]) or _RATE


def draw_horizon(scores, path):
  """Draws scores over the frames of the future, one panel per score, baselines dashed.

  Args:
    scores: {predictor: {name of PANELS: [F]}}; scores that no predictor has get no panel.
    path: PNG file.

  Returns:
    the figure.

  Raises:
    InputError: nothing to draw.
  """
  names = [name for name in PANELS if any(name in series for series in scores.values())]
  checks.require(names, f"{path}: there are no scores by horizon; known are {list(PANELS)}.")
  made, axes = style.figure(min(len(names), 2), -(-len(names) // 2))
  lines = {}
  for ax, name in zip(axes[: len(names)], names, strict=True):
    for index, (predictor, series) in enumerate(scores.items()):
      if name not in series:
        continue
      values = np.array(series[name], np.float64)
      (lines[style.readable(predictor)],) = ax.plot(
        1 + np.arange(len(values)),
        values,
        color=style.PALETTE[index % len(style.PALETTE)],
        linestyle=style.line_style(predictor),
        linewidth=1.6,
      )
    ax.set_title(PANELS[name], fontsize=10)
    ax.set_xlabel("frames ahead", fontsize=8)
    ax.xaxis.get_major_locator().set_params(integer=True)
  for ax in axes[len(names) :]:
    ax.set_visible(False)
  made.legend(  # below all panels, where it hides no line
    lines.values(), lines.keys(), loc="outside lower center", ncols=7, fontsize=8, frameon=False
  )
  style.save(made, path)
  return made


def _header(found, past, future, side):
  """Frame numbers above the columns: 0 is the last one of the past."""
  wide = _scaled(found["truth"][0, 0], side).shape[1] + 1
  width = (len(past) + len(future)) * wide + _GAP
  header = np.full((_HEADER, width, 3), _GROUND, np.uint8)
  numbers = [*(past - found["past"].shape[1] + 1), *(future + 1)]
  for k, number in enumerate(numbers):
    left = k * wide + (_GAP if k >= len(past) else 0)
    drawing.label(header, f"{number:+d}" if number else "0", (left + 3, _HEADER - 1), _GROUND, 0.34)
  return header


def _line(pictures, side):
  """Frames [K, H, W, 3] next to each other, one dark px behind each; to blue, green, red."""
  edge = lambda picture: np.pad(picture, ((0, 1), (0, 1), (0, 0)), constant_values=90)  # noqa: E731
  return np.hstack([edge(_scaled(picture, side)) for picture in pictures])[..., ::-1]


def _scaled(picture, side):
  times = max(1, -(-side // picture.shape[0]))
  return picture.repeat(times, 0).repeat(times, 1)


def _psnr(a, b):
  error = ((a.astype(np.float64) - b) ** 2).mean() / 255**2
  return -10 * np.log10(error + 1e-10)
