"""A drive seen by the cameras -> MOT sequence folders with truth and simulated detections."""

import numpy as np

from vistraj_jax.prepare import detector, tracks
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
      rng = np.random.default_rng((seed, number))
      detections = detector.detect(truth, length, cameras.IMAGE_SIZE, rng)
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
