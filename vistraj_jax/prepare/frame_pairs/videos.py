"""Video files -> trajectories: any folder of videos, and EgoDex with its hand poses."""

import functools
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.frame_pairs import trajectories

SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")
# What the action probes of EgoDex predict.
EGODEX_JOINTS = (
  "rightHand",
  "rightThumbTip",
  "rightIndexFingerTip",
  "rightMiddleFingerTip",
  "rightRingFingerTip",
  "rightLittleFingerTip",
)
_RATE_TOLERANCE = 0.01


def prepare(source, out, *, fps=0.0, options=None, **running):
  """Converts a folder of videos, searched with all its subfolders; returns the statistics.

  Args:
    source: folder.
    out: output folder.
    fps: frames a second that are kept; 0 keeps all, which all videos must then have alike.
    options: `trajectories.Options`.
    running: processes, beam; see `runner.run`.

  Raises:
    InputError: no video, one that cannot be read, or videos of different rates.
  """
  options = options or trajectories.Options()
  files = _find(source, SUFFIXES)
  _one_rate(files, fps, options)
  units = _units(source, files, options, lambda path, name: (read, (str(path), name, fps)))
  return _run(source, out, files, units, {"fps": fps}, options, running)


def prepare_egodex(source, out, *, joints=EGODEX_JOINTS, options=None, **running):
  """Converts EgoDex; the folder `test` becomes split "test"; returns the statistics.

  Args:
    source: folder with part1, ..., test, or with tasks.
    out: output folder.
    joints: names of the joints to keep.
    options, running: as `prepare`.

  Raises:
    InputError: as `prepare`; a pose file without the joints, or of another length than its video.
  """
  options = options or trajectories.Options()
  files = _find(source, (".mp4",))
  _one_rate(files, 0.0, options)
  arguments = lambda path, name: (read_egodex, (str(path), name, tuple(joints)))  # noqa: E731
  units = _units(source, files, options, arguments)
  return _run(source, out, files, units, {"joints": list(joints)}, options, running)


def read(path, name, fps):
  """Yields the one trajectory of a video, at `fps` (0: its own rate)."""
  rate = frame_rate(path)
  yield trajectories.Trajectory(
    name=name, frames=frames(path, fps and rate / fps), fps=fps or rate, source="video"
  )


def read_egodex(path, name, joints):
  """Yields the one trajectory of an EgoDex episode, with poses where the .hdf5 is there.

  Positions are in m in the world frame of the episode.
  """
  trajectory = next(read(path, name, 0.0))
  trajectory.source = "egodex"
  poses = pathlib.Path(path).with_suffix(".hdf5")
  if poses.is_file():
    _add_poses(trajectory, poses, joints)
  yield trajectory


def frame_rate(path):
  """Returns the frames a second that a video's header names.

  Raises:
    InputError: not a readable video, or without a rate.
  """
  with _opened(path) as container:
    rate = container.streams.video[0].average_rate
  checks.require(rate, f"{path}: names no frame rate; write the video again.")
  return float(rate)


def frames(path, step=0.0):
  """Yields uint8 [H, W, 3] frames of a video: all, or those nearest to every step-th.

  Args:
    path: video file.
    step: frames of the video from one to the next; 0, or below 1 (29.97 a second for 30): all.

  Raises:
    InputError: the video breaks off or is damaged.
  """
  import av

  wanted, count = 0, 0
  with _opened(path) as container:
    try:
      for number, frame in enumerate(container.decode(video=0)):
        if not step or number >= round(wanted * step):
          yield frame.to_ndarray(format="rgb24")
          wanted += 1
        count += 1
    except av.FFmpegError as error:
      raise checks.InputError(
        f"{path}: damaged after {count} frames ({error}); copy the video again."
      ) from None
  checks.require(count, f"{path}: the video has no frame that can be decoded; copy it again.")


def _opened(path):
  import av

  try:
    container = av.open(str(path))
  except (av.FFmpegError, OSError) as error:
    raise checks.InputError(f"{path}: no readable video ({error}).") from None
  if not container.streams.video:
    container.close()
    raise checks.InputError(f"{path}: holds no video stream.")
  return container


def _add_poses(trajectory, path, joints):
  import h5py
  from scipy.spatial import transform

  try:
    with h5py.File(path) as file:
      missing = [joint for joint in joints if f"transforms/{joint}" not in file]
      checks.require(
        not missing,
        f"{path}: no data set transforms/{missing[0] if missing else ''}; it has "
        f"{sorted(file.get('transforms', {}))[:6]} ...; name others with --joints.",
      )
      matrices = np.stack([file[f"transforms/{joint}"][()] for joint in joints], 1)
      names = [f"confidences/{joint}" for joint in joints]
      has_confidence = all(name in file for name in names)
      confidence = np.stack([file[n][()] for n in names], 1) if has_confidence else None
      words = file.attrs.get("llm_description", "")
      if file.attrs.get("which_llm_description", "1") == "2":
        words = file.attrs.get("llm_description2", words)
  except OSError as error:
    raise checks.InputError(f"{path}: no readable HDF5 file ({error}).") from None
  rotation = transform.Rotation.from_matrix(matrices[..., :3, :3].reshape(-1, 3, 3))
  trajectory.joints = tuple(joints)
  trajectory.pose = matrices[..., :3, 3]
  trajectory.orientation = rotation.as_rotvec().reshape(*matrices.shape[:2], 3)
  trajectory.confidence = confidence
  trajectory.instruction = str(words)


def _find(source, suffixes):
  source = pathlib.Path(source)
  checks.require(source.is_dir(), f"--source: {source}: no such folder.")
  files = sorted(path for path in source.rglob("*") if path.suffix.lower() in suffixes)
  checks.require(
    files, f"--source: {source}: no file ending in {', '.join(suffixes)}; give another folder."
  )
  return files


def _one_rate(files, fps, options):
  """Raises InputError unless all videos have one rate, or rates of at least `fps`."""
  rates = {}
  for path in files:
    try:
      rates[path] = frame_rate(path)
    except checks.InputError:
      if not options.keep_going:
        raise
  checks.require(rates, f"{files[0].parent}: none of {len(files)} videos can be read.")
  slow, fast = min(rates, key=rates.get), max(rates, key=rates.get)
  if fps:
    checks.require(
      rates[slow] >= fps * (1 - _RATE_TOLERANCE),
      f"--fps: {fps:g} received, but {slow} has {rates[slow]:g} a second; give that or less.",
    )
    return
  checks.require(
    rates[fast] <= rates[slow] * (1 + _RATE_TOLERANCE),
    f"{slow} has {rates[slow]:g} frames a second and {fast} has {rates[fast]:g}, so that a gap "
    "would be different times; give --fps, or prepare them into separate folders.",
  )


def _units(source, files, options, arguments):
  """One unit a video; the folder `test` is a split of its own, the rest goes by hash."""
  units = []
  for path in files:
    name = path.relative_to(source).as_posix()
    split = trajectories.split_of(name, options.val_share)
    split = "test" if name.startswith("test/") else split
    units.append(runner.Unit(split, name.replace("/", "__"), arguments(path, name)))
  order = ("train", "val", "test")
  units.sort(key=lambda unit: order.index(unit.split))
  found = {unit.split for unit in units}
  checks.require(
    {"train", "val"} <= found,
    f"--val_share: {options.val_share} of {len(files)} videos leaves only {sorted(found)}; give "
    "another share or more videos.",
  )
  return units


def _run(source, out, files, units, settings, options, running):
  sizes = [path.stat().st_size for path in files]
  settings = {"source": str(pathlib.Path(source).resolve()), "bytes": sum(sizes), **settings}
  work = functools.partial(_convert, options=options)
  return trajectories.prepare(
    out, units=units, work=work, settings=settings, options=options, **running
  )


def _convert(read, arguments, options):
  return trajectories.convert(read, arguments, options)
