"""A drive seen by the cameras -> MOT sequence folders with truth and simulated detections."""

import dataclasses

import numpy as np

from vistraj_jax.prepare import tracks
from vistraj_jax.prepare.world import cameras
from vistraj_jax.tracking import mot_files

FRAME_RATE = 12.0  # Hz
MIN_VISIBILITY = 0.1  # objects hidden more than that have no row
_MIN_SIDE = 5.0  # px


def write(drive, scene, root, seed):
  """Writes `{root}/{scene}_{camera}` for every camera that sees something.

  Args:
    drive: `driving.Drive`.
    scene: name, the first part of the sequence names.
    root: folder of one split.
    seed: of the detector's noise.

  Returns:
    The sequence folders, in the order of the cameras.
  """
  length = int(drive.duration * FRAME_RATE)
  state = drive.at(np.arange(length) / FRAME_RATE)
  folders = []
  for number, camera in enumerate(cameras.RIG):
    truth = truth_table(drive, cameras.observe(drive, state, camera))
    if len(truth):
      info = mot_files.SequenceInfo(
        name=f"{scene}_{camera.name}",
        frame_rate=FRAME_RATE,
        length=length,
        width=cameras.IMAGE_SIZE[0],
        height=cameras.IMAGE_SIZE[1],
      )
      detections = detect(truth, length, np.random.default_rng((seed, number)))
      folders.append(root / info.name)
      tracks.write_folder(folders[-1], info, truth, detections)
  return folders


def truth_table(drive, view):
  """Returns the truth of one camera; ids are 1, 2, ... in order of first appearance."""
  large = (view.box_xywh[..., 2:] >= _MIN_SIDE).all(-1)  # False for nan
  time, agent = np.nonzero(large & (view.visibility >= MIN_VISIBILITY))
  seen, first = np.unique(agent, return_index=True)
  ids = np.zeros(len(drive.class_names), np.int64)
  ids[seen[np.argsort(first)]] = np.arange(1, len(seen) + 1)
  classes = np.array([mot_files.CLASSES.index(name) for name in drive.class_names])
  return mot_files.Table.of(
    frame=time + 1,
    track_id=ids[agent],
    box_xywh=view.box_xywh[time, agent],
    class_id=classes[agent],
    visibility=view.visibility[time, agent].round(2),
  )


def detect(truth, length, rng):
  """Returns what a detector might report: misses, jitter, scores and false alarms.

  Small and hidden objects are missed more often and score lower; centres and sizes are off by
  about 2 % and 3 % of the box; a frame has 0.3 false alarms on average.
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
  false = rng.poisson(0.3 * length)
  model = rng.integers(0, len(truth), false)
  place = rng.random((false, 2)) * cameras.IMAGE_SIZE
  size = box[model, 2:] * rng.uniform(0.7, 1.3, (false, 2))
  return mot_files.Table(
    frame=np.concatenate([hits.frame, rng.integers(1, length + 1, false)]),
    track_id=np.full(len(hits) + false, -1),
    box_xywh=np.concatenate([hits.box_xywh, np.concatenate([place - size / 2, size], 1)]),
    score=np.concatenate([hits.score, rng.beta(2, 4, false)]).round(4),
    class_id=np.concatenate([hits.class_id, truth.class_id[model]]),
    visibility=np.ones(len(hits) + false),
  )
