"""Which scenes train, validate and test: the official lists, and a development part of train.

Early stopping looks at `val`, so the scores on `test` may not come from the same scenes. The
official test set has no public annotations; the official val scenes take its place, and 70 of the
official training scenes validate.
"""

from vistraj_jax.core import checks
from vistraj_jax.prepare.nuscenes import devkit_tables

POLICIES = ("dev", "seed")
_SPLITS = {"v1.0-trainval": ("train", "val", "test"), "v1.0-mini": ("train", "val")}
_DEV_EVERY = 5  # of the 350 scenes that the devkit sets apart for training trackers


def split_names(version):
  """Returns the names of the splits of a version.

  Raises:
    InputError: the version is unknown, or has no annotations.
  """
  checks.require(
    version != "v1.0-test",
    "--version: 'v1.0-test' has no public annotations; choose v1.0-trainval or v1.0-mini.",
  )
  return _SPLITS[checks.choice("--version", version, _SPLITS)]


def scene_names(version, split, policy="dev"):
  """Returns the official names of the scenes of one split, in the devkit's order.

  Args:
    version: "v1.0-trainval" or "v1.0-mini" (whose splits are mini_train and mini_val).
    split: "train", "val" or "test".
    policy: "dev": train is the official train less the development scenes, val is those (every
      fifth of the sorted `train_track` list), test is the official val. "seed": train is the
      official train, val and test are both the official val, so that early stopping sees the test
      data; for comparison with results made that way, v1.0-trainval only.

  Raises:
    InputError: an unknown version, split or policy.
  """
  checks.choice(f"--split ({version})", split, split_names(version))
  checks.choice("--split_policy", policy, POLICIES)
  checks.require(
    policy == "dev" or version != "v1.0-mini",
    "--split_policy: 'seed' is a choice of v1.0-trainval; v1.0-mini has no test split that val "
    "could be: leave it out.",
  )
  official = devkit_tables.devkit("nuscenes.utils.splits").create_splits_scenes()
  if version == "v1.0-mini":
    return list(official[f"mini_{split}"])
  if split == "test" or (policy == "seed" and split == "val"):
    return list(official["val"])
  if policy == "seed":
    return list(official["train"])
  development = sorted(official["train_track"])[::_DEV_EVERY]
  if split == "val":
    return development
  return [name for name in official["train"] if name not in development]
