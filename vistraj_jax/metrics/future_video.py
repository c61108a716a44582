"""Scores of predicted future frames, in all and by horizon, and predictors that learn nothing.

MSE, PSNR, MAE and SSIM of whole frames flatter an empty picture; the overlap of the foreground, the
error of the target's centre and the error of the target's and the background's pixels do not.

The foreground of a frame is told by colour: pixels are written as background + matte x (target -
background), with the two colours of the video, and belong to it where the matte exceeds 0.5. Of a
disc of 1 in the red channel on black the matte is the red channel, but where there is another
colour as well: a yellow disc is no red one.

`scores` works on NumPy and on JAX arrays.
"""

import numpy as np

from vistraj_jax.core import images

TARGET = 1  # value of the masks
THRESHOLD = 0.5
BASELINES = ("black", "grey", "copy_last", "straight_line")
_FLOOR = 1e-10  # of the MSE in PSNR: equal frames show 100 dB


def matte(video, colours):
  """Share of the target's colour in each pixel, not clipped; 0 where the colour is another.

  Another colour is one farther from the line through the two than half of what they are apart.

  Args:
    video: float [B, T, H, W, 3] in 0..1.
    colours: [B, 2, 3], background and target, 0..255.

  Returns:
    [B, T, H, W].
  """
  xp = video.__array_namespace__()
  colours = xp.asarray(colours, dtype=video.dtype) / 255
  background, target = colours[:, 0], colours[:, 1]
  way = (target - background)[:, :, None, None, None]
  squared = xp.maximum((way**2).sum(1), 1e-6)
  # Sums over three numbers are slow in NumPy.
  offset = [video[..., k] - background[:, k, None, None, None] for k in range(3)]
  share = sum(offset[k] * way[:, k] for k in range(3)) / squared
  beside = sum((offset[k] - share * way[:, k]) ** 2 for k in range(3))
  return xp.where(beside > THRESHOLD**2 * squared, 0, share)


def centres(share):
  """Centre of the foreground: matte [..., H, W] -> row and column [..., 2] px, valid bool [...].

  Pixels above the threshold are weighted by their matte, at most 1.
  """
  xp = share.__array_namespace__()
  weight = xp.where(share > THRESHOLD, xp.clip(share, 0, 1), 0)
  total = weight.sum((-2, -1))
  rows = (weight.sum(-1) * xp.arange(share.shape[-2])).sum(-1)
  columns = (weight.sum(-2) * xp.arange(share.shape[-1])).sum(-1)
  middle = xp.stack([rows, columns], -1) / xp.maximum(total, _FLOOR)[..., None]
  return middle, total > 0


def scores(predicted, target, known):
  """Scores of every predicted frame, each with the weight that it has in means.

  Args:
    predicted, target: float32 [B, F, H, W, 3] in 0..1.
    known: of the F frames, as `data.future_video.ELEMENT` has them: "foreground" [B, F, H, W],
      "foreground_valid" [B], "centre" [B, F, 2], "centre_valid" [B, F], "colours" [B, 2, 3].
      Where the foreground is not valid, the target's own matte tells it.

  Returns:
    {name: (value [B, F], weight [B, F])} of `pixel_scores` and `foreground_scores`.
  """
  return {**pixel_scores(predicted, target), **foreground_scores(predicted, target, known)}


def pixel_scores(predicted, target):
  """Returns "mse", "mae" and "ssim" of whole frames; see `scores`."""
  xp = predicted.__array_namespace__()
  error = predicted - target
  ones = xp.ones(predicted.shape[:2], predicted.dtype)
  flat = (-1, *predicted.shape[2:])
  alike = images.ssim(predicted.reshape(flat), target.reshape(flat))
  return {
    "mse": ((error**2).mean((-3, -2, -1)), ones),
    "mae": (abs(error).mean((-3, -2, -1)), ones),
    "ssim": (alike.reshape(ones.shape), ones),
  }


def foreground_scores(predicted, target, known):
  """Scores of the target and of what is around it; arguments as of `scores`.

  Returns:
    "mse_target", "mse_background" of the pixels inside and outside the true foreground; "iou" of
    the foreground, where either frame has one; "centre_error" in px, where there is a centre to
    find and one was found, and "centre_found", the share of those.
  """
  xp = predicted.__array_namespace__()
  squared = sum((predicted[..., k] - target[..., k]) ** 2 for k in range(3)) / 3
  share = matte(predicted, known["colours"])
  has_mask = xp.asarray(known["foreground_valid"])[:, None, None, None] > 0
  own = matte(target, known["colours"]) > THRESHOLD
  truth = xp.where(has_mask, xp.asarray(known["foreground"]) == TARGET, own)
  ours = share > THRESHOLD
  both, either = (ours & truth).sum((-2, -1)), (ours | truth).sum((-2, -1))
  inside, outside = truth.sum((-2, -1)), (~truth).sum((-2, -1))
  middle, found = centres(share)
  offset = middle - xp.asarray(known["centre"], dtype=middle.dtype)
  there = xp.asarray(known["centre_valid"], dtype=squared.dtype)

  def some(count):
    return xp.asarray(count > 0, dtype=squared.dtype)

  return {
    "mse_target": (_mean(squared, truth, inside), some(inside)),
    "mse_background": (_mean(squared, ~truth, outside), some(outside)),
    "iou": (both / xp.maximum(either, 1), some(either)),
    "centre_error": (xp.sqrt((offset**2).sum(-1)), there * found),
    "centre_found": (some(found), there),
  }


class Totals:
  """Adds scores up over batches, by frame of the future."""

  def __init__(self):
    self._sums = {}

  def add(self, found, mask):
    """Adds what `scores` returns, of the rows whose mask [B] is 1."""
    mask = np.asarray(mask, np.float64)[:, None]
    for name, (value, weight) in found.items():
      weight = np.asarray(weight, np.float64) * mask
      value = np.where(weight > 0, np.asarray(value, np.float64), 0)
      new = np.stack([(value * weight).sum(0), weight.sum(0)])
      self._sums[name] = self._sums.get(name, 0) + new

  def summary(self):
    """Returns {name: mean over all frames}, with "psnr" in dB of the mean MSE; NaN of nothing."""
    return _with_psnr({name: _ratio(*sums.sum(1)) for name, sums in self._sums.items()})

  def by_horizon(self):
    """Returns {name: float64 [F]}, the mean of each frame of the future, the first one first."""
    return _with_psnr({name: _ratio(*sums) for name, sums in self._sums.items()})


class Comparison:
  """Scores of predictors beside those that learn nothing, on the same windows.

  Args:
    score: `scores`, or a compiled one.
  """

  def __init__(self, score=scores):
    self._score = score
    self._totals = {}
    self._windows = 0

  def add(self, batch, past, predicted):
    """Adds a batch.

    Args:
      batch: of `data.future_video`, with "mask" [B] where rows are padding.
      past: P, frames of the window that were seen.
      predicted: {name: float32 [B, F, H, W, 3] in 0..1}, such as the network's and, as "ceiling",
        the tokenizer's decoding of the true future.
    """
    video = np.asarray(batch["video"], np.float32) / 255
    seen, truth = video[:, :past], video[:, past:]
    known = {
      name: np.asarray(batch[name])[:, past:] for name in ("foreground", "centre", "centre_valid")
    }
    known |= {name: np.asarray(batch[name]) for name in ("foreground_valid", "colours")}
    mask = np.asarray(batch.get("mask", np.ones(len(video))))
    every = {**predicted, **trivial_predictions(seen, truth.shape[1], known["colours"])}
    for name, frames in every.items():
      totals = self._totals.setdefault(name, Totals())
      totals.add(self._score(np.asarray(frames, np.float32), truth, known), mask)
    self._windows += int(mask.sum())

  def report(self):
    """Returns {"windows": n, "scores": {predictor: {score: number}}, "horizon": {predictor:
    {score: [F]}}}, ready for JSON; None where there was nothing to score."""
    return {
      "windows": self._windows,
      "scores": {name: _plain(one.summary()) for name, one in self._totals.items()},
      "horizon": {name: _plain(one.by_horizon()) for name, one in self._totals.items()},
    }


# Score, title and format of the columns of `as_rows`.
_COLUMNS = (
  ("mse", "MSE", ".6f"),
  ("psnr", "PSNR dB", ".2f"),
  ("mae", "MAE", ".5f"),
  ("ssim", "SSIM", ".4f"),
  ("lpips", "LPIPS", ".4f"),
  ("iou", "IoU", ".3f"),
  ("centre_error", "centre px", ".2f"),
  ("centre_found", "found", ".3f"),
  ("mse_target", "MSE target", ".4f"),
  ("mse_background", "MSE background", ".6f"),
)


def as_rows(report):
  """Returns the rows [predictor, value, ...] of a table, header first; "-" where nothing was.

  Scores that no predictor has get no column.
  """
  columns = [one for one in _COLUMNS if any(one[0] in own for own in report["scores"].values())]
  rows = [["predictor", *(title for _, title, _ in columns)]]
  for name, found in report["scores"].items():
    values = [(found.get(key), form) for key, _, form in columns]
    cells = ["-" if value is None else format(value, form) for value, form in values]
    rows.append([name.replace("_", " "), *cells])
  return rows


def trivial_predictions(past, future, colours):
  """Predictions without a network.

  Args:
    past: float32 [B, P, H, W, 3] in 0..1.
    future: F, frames to predict.
    colours: [B, 2, 3], background and target, 0..255.

  Returns:
    {name of BASELINES: float32 [B, F, H, W, 3]}; "straight_line" as `straight_line` has it.
  """
  past = np.asarray(past, np.float32)
  last = np.repeat(past[:, -1:], future, 1)
  return {
    "black": np.zeros_like(last),
    "grey": np.full_like(last, 0.5),
    "copy_last": last,
    "straight_line": straight_line(past, future, colours),
  }


def straight_line(past, future, colours):
  """The last frame with its foreground moved on along a straight line.

  The line is fitted to the measured centres of the past, each axis for itself, by least squares;
  the foreground moves by whole pixels and stops at the border of the frame. Where it was, the
  background's colour appears. Videos whose last frame has no foreground stay as they are.

  Args and result as in `trivial_predictions`.
  """
  past = np.asarray(past, np.float32)
  measured, valid = centres(matte(past, colours))
  own = matte(past[:, -1:], colours)[:, 0] > THRESHOLD
  out = np.repeat(past[:, -1:], future, 1)
  for video, points, seen, shown, pair in zip(out, measured, valid, own, colours, strict=True):
    if not seen[-1]:
      continue
    rows, columns = np.nonzero(shown)
    pixels = video[0][rows, columns]
    shifts = _extrapolated(points, seen, future) - points[-1]
    video[:, rows, columns] = np.asarray(pair[0], np.float32) / 255
    for frame, shift in zip(video, shifts, strict=True):
      down, right = (
        int(np.clip(round(s), -axis.min(), side - 1 - axis.max()))
        for s, axis, side in zip(shift, (rows, columns), shown.shape, strict=True)
      )
      frame[rows + down, columns + right] = pixels
  return out


def _extrapolated(points, seen, future):
  """Returns float64 [F, 2] from measured centres [P, 2] by least squares."""
  frames = np.flatnonzero(seen)
  if len(frames) < 2:
    return np.repeat(points[frames[-1:]], future, 0)
  slope, start = np.polyfit(frames, points[frames], 1)
  return start + slope * (len(points) + np.arange(future))[:, None]


def _mean(squared, inside, count):
  xp = squared.__array_namespace__()
  return xp.where(inside, squared, 0).sum((-2, -1)) / xp.maximum(count, 1)


def _ratio(total, weight):
  with np.errstate(invalid="ignore", divide="ignore"):
    return total / weight


def _with_psnr(found):
  return {**found, "psnr": -10 * np.log10(found["mse"] + _FLOOR)} if "mse" in found else found


def _plain(found):
  """Returns numbers and lists of Python, None for what is not finite."""
  lists = {name: np.atleast_1d(value).tolist() for name, value in found.items()}
  lists = {k: [x if np.isfinite(x) else None for x in row] for k, row in lists.items()}
  return {name: lists[name] if np.ndim(found[name]) else lists[name][0] for name in found}
