"""Small tables of boxes for the tests of tracking scores."""

import numpy as np

from vistraj_jax.tracking import mot_files

BOX = (100.0, 100.0, 40.0, 80.0)


def table(*rows):
  """Returns the table of rows (frame, id, box) or (frame, id, box, score, class)."""
  padded = [(*row, 1.0, 0)[:5] if len(row) == 3 else row for row in rows]
  columns = zip(*padded, strict=True) if rows else ((), (), (), (), ())
  frame, track_id, box, score, class_id = columns
  return mot_files.Table.of(frame, track_id, box, score, class_id)


def track(track_id, frames, box=BOX, score=1.0, class_id=0):
  """Returns the rows of one standing object."""
  return [(frame, track_id, box, score, class_id) for frame in frames]


def shifted(overlap, box=BOX):
  """Returns `box` moved to the right so that its IoU with `box` is `overlap`."""
  x, y, width, height = box
  return (x + width * (1 - overlap) / (1 + overlap), y, width, height)


def crowd(seed, frames=40, objects=12, noise=6.0):
  """Returns (truth, prediction) of a small crowded scene with misses, switches and false boxes."""
  rng = np.random.default_rng(seed)
  truth, prediction = [], []
  corner = rng.uniform(0, 120, (objects, 2))
  size = rng.uniform(30, 60, (objects, 2))
  speed = rng.normal(0, 2, (objects, 2))
  number = np.arange(objects)
  for frame in range(1, frames + 1):
    corner += speed
    if rng.random() < 0.1:
      number = rng.permutation(number)
    for k in rng.permutation(objects):
      box = np.concatenate([corner[k], size[k]])
      if rng.random() < 0.9:
        truth.append((frame, 10 * k, box, float(rng.random() < 0.9), 0))
      if rng.random() < 0.85:
        prediction.append((frame, 1000 + number[k], box + rng.normal(0, noise, 4), 1.0, 0))
    for extra in range(rng.poisson(0.7)):
      box = np.concatenate([rng.uniform(0, 120, 2), rng.uniform(20, 60, 2)])
      prediction.append((frame, 5000 + 10 * frame + extra, box, 1.0, 0))
  return table(*truth), table(*prediction)
