"""A simulated detector: what one might report of known boxes, for data without detections.

The numbers are a rough likeness of a good camera detector, not a fit to one.
"""

import dataclasses
import hashlib

import numpy as np

from vistraj_jax.tracking import mot_files


def generator(name):
  """Returns a random generator that depends on a sequence's name only."""
  digest = hashlib.sha256(name.encode()).digest()
  return np.random.default_rng(np.frombuffer(digest, "<u4"))


def detect(truth, length, image_size, rng):
  """Returns what a detector might report: misses, jitter, scores and false alarms.

  Small and hidden objects are missed more often and score lower; centres and sizes are off by
  about 2 % and 3 % of the box; a frame has 0.3 false alarms on average (none where there is no
  object whose size and class they could have).

  Args:
    truth: `mot_files.Table` with visible shares, 0 to 1, as visibility.
    length: number of frames.
    image_size: (width, height), px.
    rng: `numpy.random.Generator`.

  Returns:
    `mot_files.Table` with ids of -1.
  """
  small = np.clip(np.log2(truth.box_xywh[:, 3] / 20), -1, 3)
  quality = 0.5 + 0.7 * small + 4.0 * (truth.visibility - 0.6) + rng.normal(0, 0.7, len(truth))
  score = 1 / (1 + np.exp(-quality))
  found = rng.random(len(truth)) < np.clip(0.1 + score, 0, 0.98)
  box = truth.box_xywh
  noise = rng.normal(size=(len(truth), 4)) * (0.02, 0.02, 0.03, 0.03)
  size = box[:, 2:] * np.exp(noise[:, 2:])
  center = box[:, :2] + box[:, 2:] / 2 + noise[:, :2] * box[:, 2:]
  hits = dataclasses.replace(
    truth,
    track_id=np.full(len(truth), -1),
    box_xywh=np.concatenate([center - size / 2, size], 1),
    score=score,
    visibility=np.ones(len(truth)),
  ).select(found)
  false = rng.poisson(0.3 * length) if len(truth) else 0
  model = rng.integers(0, max(len(truth), 1), false)
  place = rng.random((false, 2)) * image_size
  size = box[model, 2:] * rng.uniform(0.7, 1.3, (false, 2))
  return mot_files.Table(
    frame=np.concatenate([hits.frame, rng.integers(1, length + 1, false)]),
    track_id=np.full(len(hits) + false, -1),
    box_xywh=np.concatenate([hits.box_xywh, np.concatenate([place - size / 2, size], 1)]),
    score=np.concatenate([hits.score, rng.beta(2, 4, false)]).round(4),
    class_id=np.concatenate([hits.class_id, truth.class_id[model]]),
    visibility=np.ones(len(hits) + false),
  )
