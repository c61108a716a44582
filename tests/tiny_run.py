"""A tiny TrackSSM training for tests: smooth random tracks, and the real config made small."""

import numpy as np

from configs import trackssm as config_file
from vistraj_jax.data import example, records, trackssm


def write_tracks(root, seed=0):
  """Writes 24 training and 8 validation tracks of smooth movers in a 200 x 100 px image."""
  rng = np.random.default_rng(seed)
  for split, count in (("train", 24), ("val", 8)):
    payloads = []
    for k in range(count):
      length = int(rng.integers(10, 16))
      time = np.arange(length)[:, None]
      start, speed = rng.uniform(20, 80, 2), rng.normal(0, 1.0, 2)
      box = np.concatenate([start + speed * time, np.full((length, 2), 15.0)], 1)
      values = {
        "sequence": f"s{k % 2}",
        "camera": "",
        "track_id": k,
        "class_id": k % 7,
        "frames": np.arange(length) + 1,
        "boxes": box,
        "visibility": np.ones(length),
        "is_keyframe": np.ones(length),
        "width": 200,
        "height": 100,
        "frame_rate": 12.0,
      }
      payloads.append(example.encode(values, trackssm.SPEC))
    records.write_records(records.shard_path(root, "trackssm", split, 0, 1), payloads)
  return root


def config(root, **changes):
  """Returns the smoke config on `root`, still smaller; changes are "a.b.c"=value."""
  c = config_file.get_config("smoke")
  c.data.root = str(root)
  c.model.update(width=16, num_layers=1, num_heads=2, state_size=4)
  for name, value in changes.items():
    *path, last = name.split(".")
    node = c
    for part in path:
      node = node[part]
    node[last] = value
  c.lock()
  return c


# One phase over all parameters: half the compilations of the two.
ONE_PHASE = {
  "run": "decoder",
  "phases.decoder.groups": ((".*", "decoder"),),
  "eval_batch_size": 16,  # leaves a padded last batch
}
