"""What a video tokenizer does: frames beside their reconstruction, and how often codes occur."""

import numpy as np

from vistraj_jax.core import files
from vistraj_jax.viz import style

_COLUMNS = 8  # frames of a window in a picture
_GAP = 2  # px


def code_usage(path, usage):
  """Draws how often codes occur against their rank, both logarithmic.

  Args:
    path: PNG to write.
    usage: {"tokens", "distinct", "of", "perplexity", "counts": [[code, times], ...] falling}.
  """
  figure, (ax,) = style.figure(1, 1)
  times = [count for _, count in usage["counts"]]
  ax.loglog(range(1, len(times) + 1), times, color=style.PALETTE[0], marker=".", linewidth=1)
  ax.set_xlabel("rank of the code", fontsize=9)
  ax.set_ylabel(f"times in {usage['tokens']:,} tokens", fontsize=9)
  ax.set_title(
    f"{usage['distinct']:,} of {usage['of']:,} codes in use, perplexity {usage['perplexity']:.1f}",
    fontsize=9,
  )
  style.save(figure, path)


def reconstructions(path, truth, decoded):
  """Writes a PNG with two rows a window: its frames, evenly chosen, and what was decoded of them.

  Args:
    path: PNG to write.
    truth, decoded: float [N, T, H, W, 3], RGB in 0..1.
  """
  import cv2

  chosen = np.linspace(0, truth.shape[1] - 1, min(_COLUMNS, truth.shape[1])).round().astype(int)
  rows = []
  for pair in zip(truth[:, chosen], decoded[:, chosen], strict=True):
    for frames in pair:
      framed = np.pad(frames, ((0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=0.5)
      rows.append(np.concatenate(framed, 1))
  picture = (255 * np.clip(np.concatenate(rows), 0, 1)).round().astype(np.uint8)
  ok, data = cv2.imencode(".png", picture[..., ::-1])
  assert ok
  with files.atomic_path(path) as temporary:
    temporary.write_bytes(data)
