"""Tiny two-stream data for tests: a block that slides over a table, as prepared trajectories."""

import json

import numpy as np

from vistraj_jax.data import example, images, records, two_stream


def frames(length, size=48, seed=0):
  """Returns uint8 [T, size, size, 3]: a coloured block at constant speed over a smooth ground."""
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:size, :size] / size
  ground = np.stack([0.3 + 0.3 * x, 0.3 + 0.3 * y, 0.4 + 0 * x], -1)
  start, speed = rng.uniform(0.2, 0.5, 2), rng.uniform(-0.02, 0.03, 2)
  colour = rng.uniform(0.5, 1, 3)
  out = []
  for t in range(length):
    top, left = start + speed * t
    inside = (abs(y - top) < 0.12) & (abs(x - left) < 0.12)
    out.append(np.where(inside[..., None], colour, ground))
  return (255 * np.stack(out)).astype(np.uint8)


def record(name, pictures, fps=5.0, **fields):
  """Returns the record of one trajectory: pictures are uint8 images or JPEG bytes."""
  jpegs = [p if isinstance(p, bytes) else images.encode(p) for p in pictures]
  nothing = np.zeros((0, 3))
  values = {
    "frames": jpegs,
    "num_frames": len(jpegs),
    "fps": fps,
    "size": 48,
    "source": "test",
    "trajectory_id": name,
    "instruction": "",
    "joints": [],
    "pose": nothing,
    "orientation": nothing,
    "confidence": nothing[:, 0],
    "action": nothing[:, 0],
    "action_size": 0,
    **fields,
  }
  return example.encode(values, two_stream.SPEC)


def write(root, splits=(("train", 6), ("val", 2)), lengths=(9, 12), fps=5.0):
  """Writes generated trajectories as launch.prepare does; returns the folder."""
  statistics = {}
  for split, count in splits:
    found = [lengths[k % len(lengths)] for k in range(count)]
    payloads = [
      record(f"{split}{k}", frames(n, seed=hash((split == "val", k)) % 1000), fps)
      for k, n in enumerate(found)
    ]
    records.write_records(records.shard_path(root, two_stream.NAME, split, 0, 1), payloads)
    statistics[split] = {"lengths": found, "fps": [fps] * count}
  (root / two_stream.STATISTICS).write_text(json.dumps({"splits": statistics}))
  return root


def write_motions(root, kind, splits=(("train", 6), ("val", 2)), length=8, fps=20.0, size=24):
  """Writes trajectories whose block moves as the pose says; returns the folder.

  Args:
    kind: "arm": an end effector with orientations and actions, as LIBERO has; "hand": two joints
      with confidences, as EgoDex has.
  """
  statistics = {}
  for number, (split, count) in enumerate(splits):
    payloads = [motion_record(kind, f"{split}{k}", length, 100 * number + k, fps, size)
                for k in range(count)]  # fmt: skip
    records.write_records(records.shard_path(root, two_stream.NAME, split, 0, 1), payloads)
    statistics[split] = {"lengths": [length] * count, "fps": [fps] * count}
  found = {"settings": {"camera": "eye_in_hand"}, "splits": statistics}
  (root / two_stream.STATISTICS).write_text(json.dumps(found))
  return root


def motion_record(kind, name, length, seed, fps=20.0, size=24, **changes):
  """Returns one record of `write_motions`; a block wanders over a plain ground."""
  rng = np.random.default_rng(seed)
  action = rng.uniform(-1, 1, (length, 7)).astype(np.float32)
  action[:, 2:6] *= 0.01
  place = 0.5 + 0.08 * np.cumsum(np.concatenate([np.zeros((1, 2)), action[:-1, :2]]), 0)
  y, x = np.mgrid[:size, :size] / size
  pictures = []
  for left, top in place % 1.0:
    inside = (abs(y - top) < 0.2) & (abs(x - left) < 0.2)
    pictures.append(np.where(inside[..., None], (230, 120, 40), (60, 90, 60)).astype(np.uint8))
  position = np.concatenate([place, np.zeros((length, 1))], 1)
  fields = {
    "instruction": "push",
    "size": size,
    "joints": ["end_effector"],
    "pose": position,
    "orientation": np.cumsum(action[:, 3:6], 0),
    "action": action.ravel(),
    "action_size": 7,
  }
  if kind == "hand":
    fields = {
      "size": size,
      "joints": ["rightHand", "rightThumbTip"],
      "pose": np.repeat(position, 2, 0),
      "confidence": np.ones(2 * length),
    }
  return record(name, pictures, fps, **{**fields, **changes})
