"""LIBERO demonstrations (HDF5, one file a task) -> trajectories with end-effector and actions.

Images are stored as the file has them. The camera runs at 20 Hz.
"""

import functools
import json
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.frame_pairs import trajectories

FPS = 20.0
CAMERAS = ("agentview", "eye_in_hand")


def prepare(source, out, *, camera="agentview", options=None, **running):
  """Converts a folder of *_demo.hdf5 files; splits go by demonstration; returns the statistics.

  Args:
    source: folder, searched with all its subfolders.
    out: output folder.
    camera: of CAMERAS.
    options: `trajectories.Options`.
    running: processes, beam; see `runner.run`.

  Raises:
    InputError: no file, or one without the expected data sets.
  """
  checks.choice("--camera", camera, CAMERAS)
  options = options or trajectories.Options(val_share=0.1)
  source = pathlib.Path(source)
  checks.require(source.is_dir(), f"--source: {source}: no such folder.")
  files = sorted(source.rglob("*.hdf5"))
  checks.require(files, f"--source: {source}: no file *.hdf5; give the folder of the demos.")
  units = [
    runner.Unit(
      split,
      path.relative_to(source).as_posix().replace("/", "__"),
      (str(path), path.relative_to(source).as_posix(), camera, split, options.val_share),
    )
    for split in ("train", "val")
    for path in files
  ]
  settings = {
    "source": str(source.resolve()),
    "camera": camera,
    "bytes": sum(path.stat().st_size for path in files),
  }
  work = functools.partial(_convert, options=options)
  return trajectories.prepare(
    out, units=units, work=work, settings=settings, options=options, **running
  )


def read(path, name, camera, split, val_share):
  """Yields the demonstrations of one file that belong to a split."""
  import h5py

  try:
    with h5py.File(path) as file:
      checks.require(
        "data" in file, f"{path}: no group 'data'; it has {sorted(file)}: no LIBERO demonstrations."
      )
      words = _instruction(file["data"].attrs, path)
      demos = sorted(file["data"], key=lambda demo: (len(demo), demo))  # demo_2 before demo_10
      for demo in demos:
        whole = f"{name}:{demo}"
        if trajectories.split_of(whole, val_share) == split:
          yield _trajectory(file["data"][demo], whole, words, camera, f"{path}: data/{demo}")
  except OSError as error:
    raise checks.InputError(f"{path}: no readable HDF5 file ({error}).") from None


def _trajectory(demo, name, words, camera, where):
  wanted = ("actions", f"obs/{camera}_rgb", "obs/ee_pos", "obs/ee_ori")
  missing = [key for key in wanted if key not in demo]
  checks.require(
    not missing,
    f"{where}: no data set {missing[0] if missing else ''!r}; it has {sorted(demo)} and obs "
    f"{sorted(demo.get('obs', {}))}.",
  )
  frames = demo[f"obs/{camera}_rgb"][()]
  checks.require(
    frames.ndim == 4 and frames.shape[-1] == 3 and frames.dtype == np.uint8,
    f"{where}: obs/{camera}_rgb is {frames.dtype} {frames.shape}, uint8 [T, H, W, 3] is wanted.",
  )
  return trajectories.Trajectory(
    name=name,
    frames=list(frames),
    fps=FPS,
    source="libero",
    instruction=words,
    joints=("end_effector",),
    pose=demo["obs/ee_pos"][()][:, None],
    orientation=demo["obs/ee_ori"][()][:, None],
    action=demo["actions"][()],
  )


def _instruction(attributes, path):
  try:
    return str(json.loads(attributes.get("problem_info", "{}")).get("language_instruction", ""))
  except json.JSONDecodeError:
    raise checks.InputError(f"{path}: attribute problem_info of 'data' is no JSON.") from None


def _convert(*arguments, options):
  return trajectories.convert(read, arguments, options)
