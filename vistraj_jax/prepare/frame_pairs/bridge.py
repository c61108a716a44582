"""Bridge V2 -> trajectories: its raw folders, or its RLDS TFRecords as TensorFlow Datasets write.

Raw: `.../traj_group*/traj*/images0/im_0.jpg`, ..., with `lang.txt` beside; the pickles there are
not opened, for a pickle can run code. RLDS: `bridge_dataset-<split>.tfrecord-*`, one episode a
record. The robot runs at 5 Hz. Splits go by the hash of the episode's name, not by the source's
own: an episode that the source holds in both is then in one only.
"""

import functools
import pathlib
import re

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import example, records
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.frame_pairs import trajectories

FPS = 5.0
RLDS_NAME = "bridge_dataset"
_UNIT = 50  # raw trajectories a unit
_FRAME = re.compile(r"im_(\d+)\.jpe?g")


def prepare(source, out, *, camera=0, options=None, **running):
  """Converts a Bridge V2 folder; returns the statistics.

  Args:
    source: the folder with the TFRecords, or any folder above raw trajectories.
    out: output folder.
    camera: number of the camera.
    options: `trajectories.Options`; Bridge is squashed to a square by default.
    running: processes, beam; see `runner.run`.

  Raises:
    InputError: no trajectory found, or damaged files.
  """
  options = options or trajectories.Options(resize="squash", val_share=0.1)
  source = pathlib.Path(source)
  checks.require(source.is_dir(), f"--source: {source}: no such folder.")
  shards = sorted(source.glob(f"{RLDS_NAME}-*.tfrecord-*"))
  if shards:
    units = [
      runner.Unit(split, shard.name, (read_rlds, (shard, camera, split, options.val_share)))
      for split in ("train", "val")
      for shard in shards
    ]
    inputs = runner.fingerprint([source / "dataset_info.json"])
  else:
    units, inputs = _raw_units(source, camera, options)
  settings = {"source": str(source.resolve()), "camera": camera, "inputs": inputs}
  work = functools.partial(_convert, options=options)
  return trajectories.prepare(
    out, units=units, work=work, settings=settings, options=options, **running
  )


def read_rlds(shard, camera, split, val_share):
  """Yields the trajectories of one TFRecord file that belong to a split."""
  source = records.TFRecordSource([shard])
  name = f"steps/observation/image_{camera}"
  for i in range(len(source)):
    where, payload = f"{shard}: record {i}", source[i]
    optional = functools.partial(_optional, payload, where)
    path = optional("episode_metadata/file_path", ("bytes", ()), b"").decode()
    number = optional("episode_metadata/episode_id", ("int64", ()), i)
    episode = f"{path}/{number}" if path else f"{shard.name}/{i}"
    if trajectories.split_of(episode, val_share) != split:
      continue
    frames = example.decode(payload, {name: ("bytes", (None,))}, where)[name]
    state = optional("steps/observation/state", ("float32", (None, 7)), None)
    words = optional("steps/language_instruction", ("bytes", (None,)), [])
    yield trajectories.Trajectory(
      name=episode,
      frames=frames,
      fps=FPS,
      source="bridge",
      instruction=words[0].decode() if words else "",
      joints=() if state is None else ("end_effector",),
      pose=None if state is None else state[:, None, :3],
      orientation=None if state is None else _axis_angle(state[:, 3:6])[:, None],
      action=optional("steps/action", ("float32", (None, 7)), None),
    )


def read_raw(folders, camera):
  """Yields the trajectories of raw folders traj*."""
  for folder in map(pathlib.Path, folders):
    numbered = {
      int(found[1]): path
      for path in (folder / f"images{camera}").iterdir()
      if (found := _FRAME.fullmatch(path.name))
    }
    language = folder / "lang.txt"
    words = language.read_text(errors="replace").splitlines() if language.is_file() else []
    # A number that is missing is a damaged frame: what lies on both sides of it is not adjacent.
    paths = (numbered.get(k) for k in range(max(numbered, default=-1) + 1))
    yield trajectories.Trajectory(
      name="/".join(folder.parts[-6:]),
      frames=(None if path is None else path.read_bytes() for path in paths),
      fps=FPS,
      source="bridge",
      instruction=words[0].strip() if words else "",
    )


def _raw_units(source, camera, options):
  folders = sorted(path.parent for path in source.rglob(f"traj*/images{camera}") if path.is_dir())
  checks.require(
    folders,
    f"--source: {source}: neither {RLDS_NAME}-*.tfrecord-* files nor folders traj*/images{camera}; "
    "give the folder of the RLDS release (1.0.0) or of the raw data.",
  )
  units = []
  for split in ("train", "val"):
    name = lambda folder: "/".join(folder.parts[-6:])  # noqa: E731
    mine = [f for f in folders if trajectories.split_of(name(f), options.val_share) == split]
    checks.require(
      mine,
      f"--val_share: {options.val_share} of {len(folders)} trajectories leaves split {split!r} "
      "without any; give another share or more data.",
    )
    units += [
      runner.Unit(split, f"{i:06d}", (read_raw, (tuple(map(str, mine[i : i + _UNIT])), camera)))
      for i in range(0, len(mine), _UNIT)
    ]
  return units, len(folders)


def _convert(read, arguments, options):
  return trajectories.convert(read, arguments, options)


def _optional(payload, where, name, form, default):
  """Returns a field of a record, or `default` where a release does not have it."""
  try:
    return example.decode(payload, {name: form}, where)[name]
  except checks.InputError:
    return default


def _axis_angle(euler):
  """Roll, pitch, yaw [T, 3] in rad -> axis times angle [T, 3]."""
  from scipy.spatial import transform

  return transform.Rotation.from_euler("xyz", np.asarray(euler)).as_rotvec().astype(np.float32)
