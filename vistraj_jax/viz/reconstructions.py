"""What a video tokenizer keeps: frames above their reconstruction."""

import numpy as np

from vistraj_jax.core import files

_COLUMNS = 8  # frames of a window in a picture
_GAP = 2  # px


def draw(path, truth, decoded):
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
