"""Tiny Waymo end-to-end shards for tests: real wire format, random small images."""

import numpy as np

from vistraj_jax.data import images, records, waymo_e2e
from vistraj_jax.prepare.waymo_e2e import messages

SHARD = {
  "train": "training_202504031202_202504151040",
  "val": "val_202504211843",
  "test": "test_202504211836-202504220845",
}
SIZE = (22, 20)  # height, width of the images


def frame(sequence, index, seed=0, **changes):
  """Returns a `messages.Frame` of 8 cameras with smooth states; `changes` replace fields."""
  rng = np.random.default_rng((seed, index))
  speed = rng.uniform(2, 12)
  time = np.arange(-15, 1) / 4
  past = np.stack(
    [speed * time, 0 * time, 0 * time + speed, 0 * time, 0 * time, 0.1 * time], -1
  ).astype(np.float32)
  ahead = np.arange(1, 21) / 4
  future = np.stack([speed * ahead, 0.1 * ahead**2, 0 * ahead], -1).astype(np.float32)
  pose = np.eye(4)
  pose[:3, 3] = 1.5, 0, 2
  values = {
    "name": f"{sequence}-{index:03d}",
    "intent": 1 + index % 3,
    "past": past,
    "future": future,
    "rated": (),
    "images": {},
    "calibrations": {
      name: messages.Calibration(np.arange(9) + 10.0, pose, SIZE[1], SIZE[0])
      for name in waymo_e2e.CAMERAS
    },
  }
  return messages.Frame(**{**values, **changes})


def jpegs(seed, cameras=waymo_e2e.CAMERAS):
  """Returns {camera: JPEG}; every camera has a brightness of its own."""
  rng = np.random.default_rng(seed)
  order = rng.permutation(len(cameras))  # never the same order twice
  return {
    cameras[k]: images.encode(
      np.full((*SIZE, 3), 30 * waymo_e2e.CAMERAS.index(cameras[k]) + 10, np.uint8)
      + rng.integers(0, 3, (*SIZE, 3), np.uint8)
    )
    for k in order
  }


def payload(value, seed=0, cameras=waymo_e2e.CAMERAS):
  """Returns the record of a frame."""
  return messages.write_frame(value, jpegs(seed, cameras))


def write(folder, split, shards):
  """Writes lists of records as the shards of a split; returns their paths."""
  paths = []
  for number, payloads in enumerate(shards):
    name = f"{SHARD[split]}.tfrecord-{number:05d}-of-{len(shards):05d}"
    records.write_records(folder / name, payloads)
    paths.append(folder / name)
  return paths
