"""What probes and policies read from trajectories: changes of pose over a gap, actions of steps.

Positions are in m in the frame of the source, orientations axis times angle in rad. A probe's
target is what happened between two frames: of a hand the changes of position of its joints, of an
arm the change of its end effector's position, its turn seen from the first frame, and the gripper
command of the last step. A policy's target is the action taken at the second of two frames in a
row. Whole videos are held out: neighbouring frames are nearly copies of one another.
"""

import concurrent.futures
import hashlib
import os
import re
from typing import Any, NamedTuple

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import images

END_EFFECTOR = "end_effector"
MIN_CONFIDENCE = 0.3


class Motion(NamedTuple):
  """What a record knows of its T frames besides the pictures.

  Attributes:
    where: names the record in errors.
    video: the video or demonstration that the record is a piece of.
    instruction: what is done, as text.
    joints: names, J of them.
    position, orientation: float64 [T, J, 3]; None where unknown.
    confidence: [T, J] in 0..1; None where unknown.
    action: [T, A]; None where unknown.
  """

  where: str
  video: str
  instruction: str = ""
  joints: tuple = ()
  position: Any = None
  orientation: Any = None
  confidence: Any = None
  action: Any = None


class Changes(NamedTuple):
  """Pairs of frames `gap` apart and what happened in between.

  Attributes:
    index: int [N, 3]: trajectory, first frame, second frame.
    target: float32 [N, K].
    video: text [N].
    groups: {name: columns of the target}: joints of a hand, or position, rotation and gripper.
  """

  index: np.ndarray
  target: np.ndarray
  video: np.ndarray
  groups: dict


class Steps(NamedTuple):
  """Steps of demonstrations from the second on.

  Attributes:
    index: int [N, 3]: trajectory, frame before, frame of the step.
    action, previous: float32 [N, A], of the step and of the one before.
    video, instruction: text [N].
  """

  index: np.ndarray
  action: np.ndarray
  previous: np.ndarray
  video: np.ndarray
  instruction: np.ndarray

  def where(self, kept):
    """Returns the rows for which bool [N] holds."""
    return Steps(*(values[kept] for values in self))


class FramePairs:
  """Random access to pairs of whole frames.

  Args:
    trajectories: `two_stream.Trajectories`.
    index: int [N, 3]: trajectory, first frame, second frame.
    image_size: px; frames of another size are resampled.

  Attributes:
    identity: text of all that decides the frames besides `index`.
  """

  def __init__(self, trajectories, index, image_size):
    self._trajectories, self._index = trajectories, np.asarray(index)
    self._size = (image_size, image_size)
    first, last = self._index[0, :2].tolist(), self._index[-1, ::2].tolist()
    sample = b"".join(trajectories.jpeg(*place) for place in (first, last))
    digest = hashlib.sha256(sample + trajectories.lengths.tobytes()).hexdigest()
    self.identity = f"{trajectories.where} {digest} {image_size}"
    self._threads = concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)))

  def gather(self, rows):
    """Returns {"img_prev", "img_curr"}: uint8 [B, S, S, 3] of pairs int [B]."""
    wanted = [(i, k) for i, a, b in self._index[rows].tolist() for k in (a, b)]
    frames = np.stack(list(self._threads.map(self.frame, wanted)))
    return {"img_prev": frames[::2], "img_curr": frames[1::2]}

  def frame(self, place):
    """Returns one frame uint8 [S, S, 3]; place: (trajectory, frame)."""
    i, k = place
    where = f"{self._trajectories.where} record {i} frame {k}"
    return images.decode(self._trajectories.jpeg(i, k), self._size, where)


def read_motions(trajectories):
  """Returns the list of `Motion` of all trajectories."""
  count = len(trajectories)
  return [_motion(trajectories[i], f"{trajectories.where} record {i}") for i in range(count)]


def pose_changes(motions, gap, limit=0, seed=0):
  """Pairs `gap` frames apart and the change of pose from the first to the second.

  A pair counts if all joints have confidence 0.3 or more in both frames.

  Args:
    motions: list of `Motion`, all of one kind; trajectory i of the result is motions[i].
    gap: frames.
    limit: most pairs, drawn at random; 0 for all.
    seed: of that draw.

  Returns:
    `Changes`. With the only joint "end_effector": position change, rotation vector of
    R_t^-1 R_{t+k} where orientations are known, last number of action t+k-1 where actions are.
    With other joints: their position changes, joint by joint.

  Raises:
    InputError: records without poses or of several kinds, a gap that no trajectory reaches over,
      or no pair with enough confidence.
  """
  checks.require(gap >= 1, f"--gaps: {gap} received, 1 or more frames allowed.")
  for motion in motions:
    checks.require(
      motion.position is not None,
      f"{motion.where}: has no pose, so there is nothing to probe for; use data of "
      "`launch.prepare egodex` or `libero`.",
    )
    checks.require(
      _kind(motion) == _kind(motions[0]),
      f"{motion.where}: has {_kind(motion)}, {motions[0].where} has {_kind(motions[0])}; "
      "prepare each source into a folder of its own.",
    )
  longest = max(len(motion.position) for motion in motions)
  checks.require(
    gap < longest,
    f"--gaps: {gap} received, but the longest trajectory has {longest} frames; give "
    f"{longest - 1} or less.",
  )
  index, target, video = [], [], []
  for i, motion in enumerate(motions):
    if len(motion.position) <= gap:
      continue
    starts = np.arange(len(motion.position) - gap)
    if motion.confidence is not None:
      sure = (motion.confidence >= MIN_CONFIDENCE).all(1)
      starts = starts[sure[starts] & sure[starts + gap]]
    index.append(np.stack([np.full_like(starts, i), starts, starts + gap], 1))
    target.append(_change(motion, starts, gap))
    video += [motion.video] * len(starts)
  index, target, video = np.concatenate(index), np.concatenate(target), np.array(video)
  checks.require(
    len(index) > 0,
    f"{motions[0].where} and {len(motions) - 1} others: no pair of frames {gap} apart has all "
    f"joints with confidence {MIN_CONFIDENCE}; choose other data.",
  )
  if limit and len(index) > limit:
    kept = np.sort(np.random.default_rng(seed).permutation(len(index))[:limit])
    index, target, video = index[kept], target[kept], video[kept]
  return Changes(index, target.astype(np.float32), video, _groups(motions[0]))


def demonstration_steps(motions):
  """Returns the `Steps` of all motions.

  Raises:
    InputError: a record without actions, or with another number of them than the first.
  """
  index, action, previous, video, words = [], [], [], [], []
  for i, motion in enumerate(motions):
    checks.require(
      motion.action is not None,
      f"{motion.where}: has no actions, so there is nothing to imitate; use data of "
      "`launch.prepare libero` or `bridge`.",
    )
    size, wanted = motion.action.shape[1], motions[0].action.shape[1]
    checks.require(
      size == wanted,
      f"{motion.where}: actions of {size} numbers, {motions[0].where} has {wanted}; prepare each "
      "robot into a folder of its own.",
    )
    at = np.arange(1, len(motion.action))
    index.append(np.stack([np.full_like(at, i), at - 1, at], 1))
    action.append(motion.action[1:])
    previous.append(motion.action[:-1])
    video += [motion.video] * len(at)
    words += [motion.instruction] * len(at)
  action, previous = (np.concatenate(x).astype(np.float32) for x in (action, previous))
  return Steps(np.concatenate(index), action, previous, np.array(video), np.array(words))


def held_out(video, share=0.2, seed=42):
  """Returns bool [N]: which rows belong to the videos that are held out.

  The names in order are permuted by RandomState(seed); the last `share` of them is held out.

  Args:
    video: text [N].
    share: of the videos.
    seed: of the permutation.

  Raises:
    InputError: fewer than two videos.
  """
  names = np.unique(video)
  checks.require(
    len(names) >= 2, f"split by video: {len(names)} video received, two or more wanted."
  )
  order = np.random.RandomState(seed).permutation(len(names))
  kept = min(max(int(len(names) * (1 - share)), 1), len(names) - 1)
  return np.isin(video, names[order[kept:]])


def _motion(record, where):
  length, joints = int(record["num_frames"]), tuple(name.decode() for name in record["joints"])

  def rows(name, *width):
    values = np.asarray(record[name], np.float64)
    return values.reshape(length, *width) if values.size else None

  return Motion(
    where=where,
    video=re.sub(r"#\d+$", "", record["trajectory_id"].decode()),  # pieces of a long video
    instruction=record["instruction"].decode(),
    joints=joints,
    position=rows("pose", len(joints), 3),
    orientation=rows("orientation", len(joints), 3),
    confidence=rows("confidence", len(joints)),
    action=rows("action", int(record["action_size"])),
  )


def _kind(motion):
  """What decides which numbers the target has, as text."""
  known = [name for name in ("orientation", "action") if getattr(motion, name) is not None]
  return " and ".join([f"joints {list(motion.joints)}", *known])


def _change(motion, starts, gap):
  ends = starts + gap
  moved = (motion.position[ends] - motion.position[starts]).reshape(
    len(starts), 3 * len(motion.joints)
  )
  if motion.joints != (END_EFFECTOR,):
    return moved
  parts = [moved]
  if motion.orientation is not None:
    from scipy.spatial.transform import Rotation

    first, second = (Rotation.from_rotvec(motion.orientation[at, 0]) for at in (starts, ends))
    parts.append((first.inv() * second).as_rotvec())
  if motion.action is not None:
    parts.append(motion.action[ends - 1, -1:])
  return np.concatenate(parts, 1)


def _groups(motion):
  if motion.joints != (END_EFFECTOR,):
    return {name: list(range(3 * j, 3 * j + 3)) for j, name in enumerate(motion.joints)}
  groups, width = {"position": [0, 1, 2]}, 3
  if motion.orientation is not None:
    groups["rotation"], width = [3, 4, 5], 6
  if motion.action is not None:
    groups["gripper"] = [width]
  return groups
