"""Demonstrations of the manipulation world as EgoDex episodes: MP4 at 30 Hz, poses in HDF5.

The world frame has y up, as EgoDex's (x is the robot's right, z points back at it); camera frames
look along +z with +x right and +y down. The hand is a robot's: the thumb is its one finger, the
others are places one above the other on the second.
"""

import pathlib

import numpy as np

from vistraj_jax.core import files, geometry, videos
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.world import manipulation, manipulation_expert
from vistraj_jax.prepare.world import manipulation_physics as physics
from vistraj_jax.prepare.world import manipulation_view as view

RATE = 30  # Hz
_TEST = 10  # every so many-th episode is of "test"
# World from robot: x, y, z = -y, z, -x.
_WORLD = np.array([(0.0, -1, 0), (0, 0, 1), (-1, 0, 0)])
# Height above the tips in m, and which of the two fingers (0 is the left one).
_TIPS = {
  "rightThumbTip": (0.0, 0),
  "rightIndexFingerTip": (0.0, 1),
  "rightMiddleFingerTip": (0.012, 1),
  "rightRingFingerTip": (0.024, 1),
  "rightLittleFingerTip": (0.036, 1),
}


def units(out, settings):
  """Returns the units of `manipulation_writer.write`: one an episode."""
  return [
    runner.Unit("test" if k % _TEST == _TEST - 1 else "part1", f"{k:06d}", (str(out), settings, k))
    for k in range(settings["episodes"])
  ]


def write_unit(out, settings, number):
  """Writes the two files of an episode; returns ([], {"episodes", "frames"})."""
  import h5py

  environment = manipulation.Settings(
    size=settings["size"],
    moving_camera=settings["moving_camera"],
    spread=settings["spread"],
    noise=settings["noise"],
    rate=RATE,
  )
  found = manipulation_expert.demonstration(environment, settings["seed"] * 10**6 + number)
  part = "test" if number % _TEST == _TEST - 1 else "part1"
  folder = pathlib.Path(out) / part / found.instruction.replace(" ", "_")
  with files.atomic_path(folder / f"{number}.hdf5") as temporary, h5py.File(temporary, "w") as file:
    for joint, matrices in transforms(found).items():
      file[f"transforms/{joint}"] = matrices.astype(np.float32)
      if joint != "camera":
        file[f"confidences/{joint}"] = np.ones(len(matrices), np.float32)
    intrinsic = found.viewpoints[0].intrinsic(settings["size"])
    file["camera/intrinsic"] = intrinsic.astype(np.float32)
    file.attrs["task"] = found.instruction.replace(" ", "_")
    file.attrs["llm_description"] = found.instruction
    file.attrs["llm_description2"] = "None"
    file.attrs["which_llm_description"] = "1"
    file.attrs["seed"] = found.seed
  pictures = found.frames["agentview"][..., ::-1]
  videos.write_video(folder / f"{number}.mp4", np.ascontiguousarray(pictures), RATE)
  return [], {"episodes": 1, "frames": len(pictures)}


def transforms(found):
  """Poses of a demonstration: {joint: [T, 4, 4], which map points of the joint to the world}."""
  hand = found.hand
  down = np.stack([_pointing_down(row) for row in hand])
  tips = np.stack([physics.fingers(row) for row in hand])
  arm = np.stack([view.arm_points(row) for row in hand])
  places = {"rightArm": arm[:, 0], "rightForearm": arm[:, 1], "rightHand": arm[:, 2]}
  for name, (height, finger) in _TIPS.items():
    places[name] = np.concatenate([tips[:, finger], hand[:, 2:3] + height], 1)
  matrices = {name: _matrices(down, place) for name, place in places.items()}
  turned = geometry.rotation_matrix(np.stack([v.rotation for v in found.viewpoints]))
  position = np.stack([v.position for v in found.viewpoints])
  return {"camera": _matrices(turned, position), **matrices}


def _pointing_down(hand):
  """Rotation [3, 3] of the hand: x ahead of it, z down."""
  cos, sin = np.cos(hand[3]), np.sin(hand[3])
  return np.array([(cos, sin, 0), (sin, -cos, 0), (0, 0, -1)])


def _matrices(rotation, place):
  matrices = np.tile(np.eye(4), (len(place), 1, 1))
  matrices[:, :3, :3] = _WORLD @ rotation
  matrices[:, :3, 3] = place @ _WORLD.T
  return matrices
