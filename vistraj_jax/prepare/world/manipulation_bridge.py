"""Demonstrations of the manipulation world as Bridge V2's RLDS TFRecords, at 5 Hz.

Fields, their order of numbers and the TFDS metadata are those of the public `bridge_dataset`
1.0.0: state is x, y, z, roll, pitch, yaw and how far the gripper is open (0..1); an action is the
way to the next state, m and rad, and the gripper (1 open). Left out are the language embedding and
cameras 1 to 3, of which the metadata say that they are not there.
"""

import numpy as np

from vistraj_jax.data import example, images
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.world import manipulation, manipulation_expert

NAME = "bridge_dataset"
RATE = 5  # Hz
_EVERY = 4  # steps of the world in one of the data set
_UNIT = 10  # episodes
_VAL = 10  # every so many-th unit is of split "val"
SPEC = {
  "steps/observation/image_0": ("bytes", (None,)),
  "steps/observation/state": ("float32", (None, 7)),
  "steps/action": ("float32", (None, 7)),
  "steps/discount": ("float32", (None,)),
  "steps/reward": ("float32", (None,)),
  "steps/is_first": ("int64", (None,)),
  "steps/is_last": ("int64", (None,)),
  "steps/is_terminal": ("int64", (None,)),
  "steps/language_instruction": ("bytes", (None,)),
  "episode_metadata/file_path": ("bytes", ()),
  "episode_metadata/episode_id": ("int64", ()),
  "episode_metadata/has_language": ("int64", ()),
  **{f"episode_metadata/has_image_{k}": ("int64", ()) for k in range(4)},
}


def units(out, settings):
  """Returns the units of `manipulation_writer.write`: some episodes each."""
  del out
  count = settings["episodes"]
  return [
    runner.Unit(
      "val" if k % _VAL == _VAL - 1 else "train",
      f"{first:06d}",
      (settings, first, min(first + _UNIT, count)),
    )
    for k, first in enumerate(range(0, count, _UNIT))
  ]


def records_of(settings):
  """Returns the keyword arguments of `runner.run` that tell of the records."""
  return {
    "name": NAME,
    "spec": SPEC,
    "description": "A hand pushes blocks on a table; generated, in the layout of Bridge V2.",
    "features": lambda: _features(settings["size"]),
  }


def write_unit(settings, first, stop):
  """Returns (records of episodes `first` to `stop`, {"episodes", "frames"})."""
  environment = manipulation.Settings(
    size=settings["size"],
    moving_camera=settings["moving_camera"],
    spread=settings["spread"],
    noise=settings["noise"],
    rate=RATE * _EVERY,
  )
  payloads, frames = [], 0
  for number in range(first, stop):
    seed = settings["seed"] * 10**6 + number
    found = manipulation_expert.demonstration(environment, seed, every=_EVERY)
    count = len(found.hand) - 1  # the last state only ends the last action
    payloads.append(_record(found, number, count))
    frames += count
  return payloads, {"episodes": stop - first, "frames": frames}


def _record(found, number, count):
  hand = found.hand
  opened = hand[:, 4:] / manipulation.OPEN
  level = np.zeros((len(hand), 2))  # roll and pitch of a hand that points down
  state = np.concatenate([hand[:, :3], level, hand[:, 3:4], opened], 1)
  action = np.diff(state, axis=0)
  action[:, 6] = found.actions[:-1, 6] < 0
  first, last = np.zeros((2, count), int)
  first[0] = last[-1] = 1
  values = {
    "steps/observation/image_0": [images.encode(f) for f in found.frames["agentview"][:-1]],
    "steps/observation/state": state[:-1],
    "steps/action": action,
    "steps/discount": np.ones(count),
    "steps/reward": last,
    "steps/is_first": first,
    "steps/is_last": last,
    "steps/is_terminal": last,
    "steps/language_instruction": [found.instruction] * count,
    "episode_metadata/file_path": f"generated/{found.seed}",
    "episode_metadata/episode_id": number,
    "episode_metadata/has_language": 1,
    **{f"episode_metadata/has_image_{k}": int(k == 0) for k in range(4)},
  }
  return example.encode(values, SPEC)


def _features(size):
  import tensorflow_datasets as tfds

  features = tfds.features
  flag = features.Scalar(np.bool_)
  number = features.Scalar(np.float32)
  seven = features.Tensor(shape=(7,), dtype=np.float32)
  image = features.Image(shape=(size, size, 3), dtype=np.uint8, encoding_format="jpeg")
  step = {
    "observation": {"image_0": image, "state": seven},
    "action": seven,
    "discount": number,
    "reward": number,
    "is_first": flag,
    "is_last": flag,
    "is_terminal": flag,
    "language_instruction": features.Text(),
  }
  metadata = {f"has_image_{k}": flag for k in range(4)}
  metadata |= {"has_language": flag, "file_path": features.Text()}
  metadata["episode_id"] = features.Scalar(np.int32)
  return features.FeaturesDict({"steps": features.Dataset(step), "episode_metadata": metadata})
