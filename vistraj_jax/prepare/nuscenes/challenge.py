"""Futures as the nuScenes prediction challenge wants them: JSON in global coordinates.

A list with one entry a clip, as the devkit's `Prediction.serialize` writes it: "instance",
"sample" (the last observed key frame), "prediction" [K, T_out, 2] m and "probabilities" [K].
"""

import json

import numpy as np

from vistraj_jax.core import checks, files, geometry
from vistraj_jax.prepare.nuscenes import devkit_tables

MOST_MODES = 25  # the devkit refuses more
SCORES = ("min_ade", "min_fde", "miss_rate")


def to_global(xy, anchor_pose):
  """Positions on the ground plane of each anchor's ego vehicle.

  Args:
    xy: [R, ..., 2], m, ego frame of the anchor.
    anchor_pose: [R, 7], ego in global: x, y, z, quaternion w, x, y, z.

  Returns:
    float64 [R, ..., 2], m.
  """
  pose = np.asarray(anchor_pose, np.float64)
  rotation = geometry.rotation_matrix(pose[:, 3:])[:, :2, :2]
  moved = np.einsum("rij,r...j->r...i", rotation, np.asarray(xy, np.float64))
  return moved + pose[:, :2].reshape(-1, *(1,) * (moved.ndim - 2), 2)


def entries(forecasts):
  """Returns the challenge's list of a {name: array} as `data.forecasts.load` gives it.

  Raises:
    InputError: more futures than the challenge allows, or an agent twice in a key frame.
  """
  futures = forecasts["futures"]
  checks.require(
    futures.shape[1] <= MOST_MODES,
    f"challenge: {futures.shape[1]} futures an agent received, {MOST_MODES} allowed; predict fewer "
    "(config.model.head.modes).",
  )
  pairs = list(zip(forecasts["instance_token"], forecasts["sample_token"], strict=True))
  checks.require(
    len(set(pairs)) == len(pairs),
    "challenge: an agent stands twice in the same key frame; predict on rows of one camera only.",
  )
  return [
    {
      "instance": str(instance),
      "sample": str(sample),
      "prediction": xy.tolist(),
      "probabilities": shares.tolist(),
    }
    for (instance, sample), xy, shares in zip(
      pairs,
      to_global(futures, forecasts["anchor_pose"]),
      np.asarray(forecasts["probabilities"], np.float64),
      strict=True,
    )
  ]


def write(path, forecasts):
  """Writes the challenge's JSON file."""
  files.write_text(path, json.dumps(entries(forecasts)) + "\n")


def devkit_scores(path, truth, counts, tolerance):
  """What the devkit's own metrics say of a challenge file.

  Args:
    path: the JSON file.
    truth: {(instance, sample): [T_out, 2]}, m, global.
    counts: numbers of most probable futures.
    tolerance: of a miss, m.

  Returns:
    {"min_ade_1": mean over agents, ...} for `SCORES` and all counts.

  Raises:
    InputError: an agent without truth.
  """
  data_classes, metrics = (
    devkit_tables.devkit(f"nuscenes.eval.prediction.{name}") for name in ("data_classes", "metrics")
  )
  listed = [data_classes.Prediction.deserialize(one) for one in json.loads(open(path).read())]
  counts = list(counts)
  measures = {
    "min_ade": metrics.MinADEK(counts, []),
    "min_fde": metrics.MinFDEK(counts, []),
    "miss_rate": metrics.MissRateTopK(counts, [], tolerance),
  }
  found = {name: [] for name in SCORES}
  for one in listed:
    key = (one.instance, one.sample)
    checks.require(key in truth, f"{path}: there is no truth for agent {key[0]} in {key[1]}.")
    for name in SCORES:
      found[name].append(np.asarray(measures[name](np.asarray(truth[key]), one), np.float64)[0])
  return {
    f"{name}_{k}": float(np.mean([values[i] for values in found[name]]))
    for name in SCORES
    for i, k in enumerate(counts)
  }
