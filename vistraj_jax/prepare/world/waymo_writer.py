"""Drives of the simulated world -> end-to-end driving shards in the public wire format.

Names, cameras, calibrations, states and extra files are those of the Waymo Open data; frames of a
shard's sequences are mixed. What lies ahead depends on what is seen: signals, cars that stop or
turn, people who cross. An intent says where the route leads within 40 m, not when.
"""

import hashlib
import json
import pathlib

import numpy as np

from vistraj_jax.core import files, geometry
from vistraj_jax.data import images, records, waymo_e2e
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.waymo_e2e import convert, messages
from vistraj_jax.prepare.world import cameras, driving, render, town

# Raise the version whenever the world or this writer change: cached copies are then made again.
SETTINGS = {
  "version": 1,
  "sequences": {"train": 120, "val": 20, "test": 4},
  "shards": {"train": 6, "val": 2, "test": 2},
  "cameras": {"train": ["FRONT"], "val": list(waymo_e2e.CAMERAS), "test": ["FRONT"]},
  "frames": 20,  # of each sequence
  "width": 324,  # px of the front images, 972 in the public data
  "moving": 60,
  "parked": 25,
  "seed": 40,
}
SUBMISSION_FRAMES = "test_sequence_frames_for_submission.json"
_SECONDS = 20.0
_FIRST, _LAST = 4.5, 14.7  # s, of the frames of a drive
_FRAME_RATE = 10  # frame numbers a second
_RATE = 4  # states a second
_ROUTE = 40.0  # m
_TURN = 0.5  # rad
_FOCAL = 1042.0  # px of images 972 px wide: 50 degrees
_AHEAD = (0.5, -0.5, 0.5, -0.5)  # quaternion of a camera that looks along the ego's +x
# Place in the ego frame in m, direction in degrees, height in px of images 972 px wide.
_MOUNTS = {
  "FRONT": ((1.54, -0.02, 2.11), 0, 1079),
  "FRONT_LEFT": ((1.50, 0.10, 2.11), 45, 1079),
  "FRONT_RIGHT": ((1.49, -0.10, 2.11), -45, 1079),
  "SIDE_LEFT": ((1.43, 0.12, 2.11), 90, 1079),
  "SIDE_RIGHT": ((1.43, -0.12, 2.11), -90, 1079),
  "REAR_LEFT": ((1.05, 0.12, 2.11), 135, 587),
  "REAR": ((1.00, 0.0, 2.11), 180, 551),
  "REAR_RIGHT": ((1.05, -0.12, 2.11), -135, 587),
}
_CLUSTERS = {  # what is nearest in front of the car; spelled as in the public file
  "pedestrian": "Pedestrian",
  "bicycle": "Cyclist",
  "motorcycle": "Cyclist",
  "bus": "Special Vehicles",
  "truck": "Special Vehicles",
  "trailer": "Special Vehicles",
  "car": "Multi-Lane Maneuvers",
}


def write(out, settings=None, processes=1):
  """Writes shards and extra files into folder `out`; returns {"sequences", "frames"}.

  An interrupted run goes on with the shards that are missing; finished ones stay.

  Args:
    out: folder, the --source of `launch.prepare waymo_e2e`.
    settings: dictionary as `SETTINGS`, which is the default.
    processes: worker processes.
  """
  out = pathlib.Path(out)
  settings = SETTINGS if settings is None else settings
  units, first = [], 0
  for split, count in settings["sequences"].items():
    shards = settings["shards"][split]
    for number in range(shards):
      numbers = [first + k for k in range(number, count, shards)]
      name = f"{convert.PREFIXES[split]}world.tfrecord-{number:05d}-of-{shards:05d}"
      units.append(runner.Unit(split, name, (out / name, settings, split, numbers)))
    first += count

  def finish(_, results):
    found = [(unit.split, part["result"]) for unit, part in results]
    clusters = {k: v for split, r in found if split == "val" for k, v in r["clusters"].items()}
    listed = {k: v for split, r in found if split == "test" for k, v in r["listed"].items()}
    files.write_text(out / convert.CLUSTERS, json.dumps(clusters, indent=1))
    files.write_text(out / SUBMISSION_FRAMES, json.dumps(listed, indent=1))
    sequences = sum(len(result["clusters"]) for _, result in found)
    return {"sequences": sequences, "frames": sum(result["frames"] for _, result in found)}

  return runner.resume(
    out,
    settings={"writer": "waymo", **settings},
    units=units,
    work=write_shard,
    finish=finish,
    processes=processes,
  )


def write_shard(path, settings, split, numbers):
  """Simulates the drives `numbers` and writes their frames, mixed, as one shard.

  Returns:
    ([], {"frames": count, "clusters": {sequence: cluster}, "listed": {sequence: frame}}).
  """
  payloads, clusters, listed = [], {}, {}
  for number in numbers:
    found, cluster = sequence_frames(settings, split, number)
    clusters[waymo_e2e.sequence_of(found[0][0])] = cluster
    name = found[len(found) // 2][0]
    listed[waymo_e2e.sequence_of(name)] = int(name.rpartition("-")[2])
    payloads += [payload for _, payload in found]
  order = np.random.default_rng((settings["seed"], numbers[0])).permutation(len(payloads))
  records.write_records(path, (payloads[k] for k in order))
  return [], {"frames": len(payloads), "clusters": clusters, "listed": listed}


def sequence_frames(settings, split, number):
  """Simulates one drive.

  Returns:
    ([(frame name, record bytes)], name of the scenario cluster).
  """
  seed = settings["seed"] + number
  name = hashlib.sha256(f"{split} {seed}".encode()).hexdigest()[:32]
  lane = town.LANES[number % 2]  # every other drive may turn right
  drive = driving.simulate(seed, _SECONDS, settings["moving"], settings["parked"], lane)
  rig = [(camera_name, *mount(camera_name, settings["width"])) for camera_name in _MOUNTS]
  rig = [entry for entry in rig if entry[0] in settings["cameras"][split]]
  renderer = render.Renderer(drive)
  times = np.linspace(_FIRST, _LAST, settings["frames"]).round(1)
  state = drive.at(times)
  found = []
  for k, time in enumerate(times):
    moment = renderer.moment(state, k, time)
    jpegs = {c: images.encode(renderer.image(moment, camera)[..., ::-1]) for c, camera, _ in rig}
    past, future = states(drive, time)
    frame = messages.Frame(
      name=f"{name}-{round(time * _FRAME_RATE):03d}",
      intent=intent(drive, state.center[k, 0, :2]),
      past=past,
      future=future[: 0 if split == "test" else waymo_e2e.FUTURE],
      rated=rated(past, future, k == len(times) // 2) if split == "val" else (),
      images={},
      calibrations={c: calibration for c, _, calibration in rig},
    )
    found.append((frame.name, messages.write_frame(frame, jpegs)))
  return found, _cluster(drive, state, len(times) // 2)


def mount(name, width):
  """Returns a camera of the rig as (`cameras.Camera`, `messages.Calibration`).

  Args:
    name: of `waymo_e2e.CAMERAS`.
    width: px.
  """
  place, degrees, height = _MOUNTS[name]
  scale = width / 972
  height, focal = round(height * scale), _FOCAL * scale
  turn = geometry.yaw_quaternion(np.deg2rad(degrees))
  camera = cameras.Camera(
    name,
    place,
    tuple(geometry.multiply_quaternions(turn, _AHEAD)),
    np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]),
    (width, height),
  )
  extrinsic = np.eye(4)
  extrinsic[:3, :3], extrinsic[:3, 3] = geometry.rotation_matrix(turn), place
  intrinsic = np.array([focal, focal, width / 2, height / 2, 0, 0, 0, 0, 0])
  return camera, messages.Calibration(intrinsic, extrinsic, width, height)


def states(drive, time):
  """Returns the ego car's past float32 [16, 6] and future [21, 3] in its frame at `time`, s.

  Velocities and accelerations are differences backwards in time, and the last ones repeat those
  before them, as in the public data: they tell nothing of what comes.
  """
  steps = np.arange(-waymo_e2e.PAST - 1, waymo_e2e.FUTURE + 2)
  found = drive.at(time + steps / _RATE)
  now = waymo_e2e.PAST + 1  # row of step 0
  xyz = geometry.into_frame(
    found.ego_translation, found.ego_translation[now], found.ego_rotation[now]
  )
  velocity = np.diff(xyz[:, :2], axis=0, prepend=np.nan) * _RATE
  acceleration = np.diff(velocity, axis=0, prepend=np.nan) * _RATE
  past = np.concatenate([xyz[:, :2], velocity, acceleration], 1)[2 : now + 1]
  past[-1, 2:] = past[-2, 2:]
  return past.astype(np.float32), xyz[now + 1 :].astype(np.float32)


def intent(drive, place):
  """Returns where the ego car's route leads from `place` [2]: the number of an intent."""
  path = drive.paths[0]
  here = int(np.argmin(np.square(path - place).sum(1)))
  ahead = np.diff(path[here : here + int(_ROUTE / town.STEP)], axis=0)
  ahead = ahead[np.abs(ahead).sum(1) > 1e-6]
  yaw = np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))
  turned = yaw[-1] - yaw[0] if len(yaw) else 0.0
  name = "straight" if abs(turned) < _TURN else "left" if turned > 0 else "right"
  return waymo_e2e.INTENTS.index(name)


def rated(past, future, is_rated):
  """Returns three rated trajectories of 21 points, or the placeholders of other frames.

  What was driven is best; the same way at three quarters of the speed, and going on at constant
  velocity, lose a point for every metre that they are off on average.
  """
  if not is_rated:
    return (messages.Rated(np.zeros((0, 2), np.float32), -1.0),) * 3
  driven = future[:, :2]
  steps = np.arange(1, len(driven) + 1)
  way = np.concatenate([np.zeros((1, 2)), driven])
  slow = np.stack(
    [np.interp(0.75 * steps, np.arange(len(way)), way[:, axis]) for axis in (0, 1)], -1
  )
  straight = steps[:, None] / _RATE * past[-1, 2:4]
  found = []
  for xy in (driven, slow, straight):
    off = np.linalg.norm(xy - driven, axis=1).mean()
    found.append(messages.Rated(xy.astype(np.float32), float(np.clip(round(9 - off), 0, 10))))
  return tuple(found)


def _cluster(drive, state, k):
  """Names the scenario at row k: a turn, or the class of the nearest agent in front."""
  if intent(drive, state.center[k, 0, :2]) != waymo_e2e.INTENTS.index("straight"):
    return "Interections"
  local = geometry.into_frame(state.center[k], state.ego_translation[k], state.ego_rotation[k])
  front = (local[:, 0] > 2) & (local[:, 0] < 40) & (np.abs(local[:, 1]) < 10)
  if not front.any():
    return "Others"
  nearest = np.argmin(np.where(front, local[:, 0], np.inf))
  return _CLUSTERS[drive.class_names[nearest]]
