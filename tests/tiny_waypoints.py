"""Tiny waypoint trainings for tests: cached features, or small images in the public wire format."""

import numpy as np
import waymo_shards as shards

from configs import vlm_waypoint as config_file
from vistraj_jax.data import features
from vistraj_jax.prepare.waymo_e2e import convert, messages

HEADER = features.Header(
  encoder="tiny",
  checkpoint="random-0",
  preprocess="none",
  position_rule="exact",
  pooling="mean",
  layers=(0, -1),
  dtype="float32",
  camera="FRONT",
  images="original",
)
# Small enough to compile in a second; the head is the real one, narrower.
TINY = {
  "data.dev_share": 0.0,
  "model.head.width": 16,
  "eval_batch_size": 16,  # leaves a padded last batch
  "eval_every": {"steps": 8},
  "steps_per_call": 4,
  "phases.head.batch_size": 8,
  "phases.head.epochs": None,
  "phases.head.steps": 16,
  "phases.head.warmup_steps": 2,
}


def states(count, seed):
  """Returns the columns of `count` frames; the future bends where the first feature says so."""
  rng = np.random.default_rng(seed)
  speed = rng.uniform(0, 12, count)
  time, ahead = np.arange(-15, 1) / 4, np.arange(1, 21) / 4
  zero = np.zeros((count, 16))
  past = np.stack(
    [speed[:, None] * time, zero, zero + speed[:, None], zero, zero, zero + 0.1], axis=-1
  )
  bend = rng.normal(size=count)
  future = np.stack([speed[:, None] * ahead, bend[:, None] * 0.2 * ahead**2], axis=-1)
  has_future = np.ones(count)
  has_future[-1] = seed == 0  # the last validation frame has no future
  rated = np.full((count, 3), -1.0)
  rated[::4] = [9, 5, 2]
  rated_xy = np.zeros((count, 3, 21, 2))
  rated_xy[:, :, :20] = future[:, None] * np.array([1, 0.9, 0.5])[:, None, None]
  rated_xy[:, :, 20] = rated_xy[:, :, 19]
  names = [f"{'abcd'[i % 4] * 32}-{i:03d}" for i in range(count)]
  columns = {
    "name": np.array(names),
    "cluster": np.array([("Cyclist", "Others")[i % 2] for i in range(count)]),
    "past": past.astype(np.float32),
    "future": (future * has_future[:, None, None]).astype(np.float32),
    "has_future": has_future.astype(np.float32),
    "intent": (1 + np.arange(count) % 3).astype(np.int32),
    "rated/xy": rated_xy.astype(np.float32),
    "rated/len": np.where(rated >= 0, 21, 0).astype(np.int32),
    "rated/score": rated.astype(np.float32),
  }
  return columns, bend


def write_features(folder, header=HEADER, width=6):
  """Writes 48 training and 19 validation frames of `width` features in two layers."""
  for seed, (split, count) in enumerate((("train", 48), ("val", 19))):
    columns, bend = states(count, seed)
    vectors = np.random.default_rng(seed).normal(size=(count, 2, width))
    vectors[:, 1, 0] = bend
    features.write_features(folder, split, header, [{**columns, "features": vectors}])
  return folder


def write_images(folder):
  """Writes shards of 20 training and 9 validation frames and prepares them; returns the folder."""
  for split, count in (("train", 20), ("val", 9)):
    rated = tuple(messages.Rated(np.full((21, 2), k, np.float32), 9.0 - k) for k in range(3))
    frames = [
      shards.frame(
        ("ab" if split == "train" else "cd")[i % 2] * 32, i, rated=rated if split == "val" else ()
      )
      for i in range(count)
    ]
    payloads = [shards.payload(frame, i) for i, frame in enumerate(frames)]
    shards.write(folder / "source", split, [payloads])
  convert.prepare(folder / "source", folder / "data", size=28, splits=("train", "val"))
  return folder / "data"


def config(variant, folder, **changes):
  """Returns a variant on the data in `folder`; changes are "a.b.c"=value, None deletes."""
  c = config_file.get_config(variant)
  c.data.root = str(folder)
  if "features" in c.data:
    c.data.features = str(folder)
  for name, value in changes.items():
    *path, last = name.split(".")
    node = c
    for part in path:
      node = node[part]
    if value is None:
      del node[last]
    else:
      node[last] = value
  c.lock()
  return c
