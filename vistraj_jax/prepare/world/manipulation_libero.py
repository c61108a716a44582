"""Demonstrations of the manipulation world as LIBERO's HDF5 files, one a task.

Pictures stand upright, in files as in roll-outs. The attribute `env_args` of a file holds the
settings of the environment, so that a policy can be tried where its demonstrations were made.
"""

import dataclasses
import json
import pathlib

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.world import manipulation, manipulation_expert

SUITE = "libero_generated"
ENVIRONMENT = "TablePushing"


def units(out, settings):
  """Returns the units of `manipulation_writer.write`: one a task, with all its demonstrations."""
  return [
    runner.Unit(SUITE, task.replace(" ", "_"), (str(out), settings, number))
    for number, task in enumerate(manipulation.TASKS)
  ]


def write_unit(out, settings, number):
  """Writes the file of a task; returns ([], {"episodes", "frames"})."""
  import h5py

  task = manipulation.TASKS[number]
  environment = manipulation.Settings(
    task=task,
    size=settings["size"],
    moving_camera=settings["moving_camera"],
    spread=settings["spread"],
    noise=settings["noise"],
  )
  count = settings["episodes"]
  path = pathlib.Path(out) / SUITE / f"{task.replace(' ', '_')}_demo.hdf5"
  frames = 0
  with files.atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
    data = file.create_group("data")
    for k in range(count):
      seed = (settings["seed"] + number) * 100_000 + k
      found = manipulation_expert.demonstration(environment, seed, manipulation.CAMERAS)
      _write(data.create_group(f"demo_{k}"), found)
      frames += len(found.actions)
    data.attrs["env_name"] = ENVIRONMENT
    data.attrs["env_args"] = json.dumps(
      {"env_name": ENVIRONMENT, "env_kwargs": dataclasses.asdict(environment)}
    )
    data.attrs["problem_info"] = json.dumps(
      {"problem_name": ENVIRONMENT, "domain_name": "robosuite", "language_instruction": task}
    )
    data.attrs["macros_image_convention"] = "opencv"  # the first row is the top
    data.attrs["num_demos"], data.attrs["total"] = count, frames
  return [], {"episodes": count, "frames": frames}


def environment(path):
  """Returns the `manipulation.Environment` in which the demonstrations of a file were made.

  Raises:
    InputError: no readable file, or one that this world did not write.
  """
  import h5py

  try:
    with h5py.File(path) as file:
      text = file["data"].attrs["env_args"] if "data" in file else "{}"
  except OSError as error:
    raise checks.InputError(f"{path}: no readable HDF5 file ({error}).") from None
  except KeyError:
    text = "{}"
  found = json.loads(text)
  checks.require(
    found.get("env_name") == ENVIRONMENT,
    f"{path}: env_args name the environment {found.get('env_name')!r}; only those of "
    f"{ENVIRONMENT!r} (`launch.prepare manipulation --layout libero`) can be run here.",
  )
  return manipulation.Environment(manipulation.Settings(**found["env_kwargs"]))


def orientation(yaw):
  """Axis times angle [T, 3] of a hand that points down: half a turn about x, then `yaw` [T]."""
  half = np.asarray(yaw) / 2
  return np.pi * np.stack([np.cos(half), np.sin(half), np.zeros_like(half)], -1)


def _write(group, found):
  count = len(found.actions)
  last = np.zeros(count, np.uint8)
  last[-1] = 1
  position, turned = found.hand[:, :3], orientation(found.hand[:, 3])
  quaternion = np.concatenate([turned[:, :2] / np.pi, np.zeros((count, 2))], 1)  # x, y, z, w
  width = found.hand[:, 4:] / 2
  fingers = np.concatenate([width, -width], 1)
  gathered = np.concatenate([found.blocks.reshape(count, -1), found.hand], 1)
  content = {
    "actions": found.actions.astype(np.float64),
    "dones": last,
    "rewards": last,
    "robot_states": np.concatenate([fingers, position, quaternion], 1),
    "states": gathered,
    "obs/ee_pos": position,
    "obs/ee_ori": turned,
    "obs/ee_states": np.concatenate([position, turned], 1),
    "obs/gripper_states": fingers,
    "obs/joint_states": found.joints,
  }
  for name, values in content.items():
    group[name] = values
  for camera, pictures in found.frames.items():
    group.create_dataset(
      f"obs/{camera}_rgb",
      data=pictures,
      chunks=(1, *pictures.shape[1:]),
      compression="gzip",
      compression_opts=1,
    )
  group.attrs["num_samples"] = count
  group.attrs["init_state"] = gathered[0]
  group.attrs["seed"] = found.seed
