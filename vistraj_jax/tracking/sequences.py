"""Tracks whole sequences, several side by side, with one motion call per frame for all of them."""

import time

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.tracking import mot_files
from vistraj_jax.tracking.tracker import Tracker, step_together


def track_sequences(inputs, settings, motion, on_frame=None, on_predicted=None):
  """Tracks sequences in lockstep; each gets the same tracks as if it ran alone.

  Meant for the cameras of one scene: a learned motion model is called once per frame with the
  tracks of all cameras. Sequences may differ in length, frame rate and image size.

  Args:
    inputs: list of `detections.SequenceInput`.
    settings: `settings.TrackerSettings`.
    motion: a motion model, see `motion_models`.
    on_frame: called after every frame with (number of sequences that had it, seconds spent on
      fetching detections, seconds spent on tracking).
    on_predicted: called for every sequence and frame with (index of the sequence, frame from 1,
      ids [N], boxes [N, 4] xywh in px): where the motion model expected live and lost tracks.

  Returns:
    list of `mot_files.Table`, one per sequence, of confirmed tracks; visibility is 1.

  Raises:
    InputError: as `Tracker.step`; sequences that are not of different names.
  """
  names = [one.name for one in inputs]
  checks.require(len(set(names)) == len(names), f"sequences {sorted(names)} need different names.")
  trackers = [
    Tracker(
      settings,
      motion,
      frame_rate=one.info.frame_rate,
      image_size=(one.info.width, one.info.height),
      name=one.name,
    )
    for one in inputs
  ]
  frames = [one.frames() for one in inputs]
  results = [[] for _ in inputs]
  for index in range(max((one.info.length for one in inputs), default=0)):
    start = time.perf_counter()
    active = [i for i, one in enumerate(inputs) if index < one.info.length]
    found = [next(frames[i]) for i in active]
    fetched = time.perf_counter()
    motions = [inputs[i].camera_motion for i in active]
    matrices = [None if m is None else m[index] for m in motions]
    tracks = step_together([trackers[i] for i in active], found, matrices)
    for i, one in zip(active, tracks, strict=True):
      results[i].append(one)
      if on_predicted is not None:
        on_predicted(i, index + 1, *trackers[i].predicted)
    if on_frame is not None:
      on_frame(len(active), fetched - start, time.perf_counter() - fetched)
  return [_to_table(frames) for frames in results]


def _to_table(frames):
  counts = [len(tracks.track_id) for tracks in frames]
  return mot_files.Table.of(
    np.repeat(np.arange(1, len(frames) + 1), counts),
    np.concatenate([tracks.track_id for tracks in frames]),
    np.concatenate([tracks.box_xywh for tracks in frames]),
    np.concatenate([tracks.score for tracks in frames]),
    np.concatenate([tracks.class_id for tracks in frames]),
  )
