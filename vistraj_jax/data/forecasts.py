"""Files of predicted futures: what launch.predict writes and launch.evaluate scores.

One .npz holds the futures of a split with their truth, so that scoring needs nothing else.
Positions are in m in the ego frame of each clip's anchor; R clips, K futures, T_out steps.
"""

import pathlib

import numpy as np

from vistraj_jax.core import checks, files

NAME = "predictions.npz"
ARRAYS = {
  "row": ("int32", ("R",)),  # number of the record in the split
  "futures": ("float32", ("R", "K", "T_out", 2)),
  "probabilities": ("float32", ("R", "K")),  # sum 1
  "future_xy": ("float32", ("R", "T_out", 2)),
  "future_valid": ("float32", ("R", "T_out")),
  "past_xy": ("float32", ("R", "T_in", 2)),
  "past_valid": ("float32", ("R", "T_in")),
  "anchor_pose": ("float32", ("R", 7)),  # ego in global: x, y, z, quaternion w, x, y, z
}
STRINGS = ("sample_id", "scene", "instance_token", "sample_token", "category")
# The target's mask, 255 times its probability; only where it was asked for.
MASKS = "mask_probability"  # uint8 [R, T_in, H, W]


def save(path, arrays):
  """Writes {name: array} of `ARRAYS`, `STRINGS` and, if there, `MASKS`, checked."""
  arrays = dict(arrays)
  masks = {MASKS: arrays.pop(MASKS)} if MASKS in arrays else {}
  found = _checked(arrays, str(path))
  with files.atomic_path(path) as temporary, open(temporary, "wb") as file:
    np.savez_compressed(file, **found, **masks)


def load(path, masks=False):
  """Returns {name: array} of `ARRAYS` and `STRINGS`, and `MASKS` if asked for.

  Args:
    path: the file, the folder it is in, or the folder of a run with forecasts/.
    masks: whether to read the masks.

  Raises:
    InputError: no such file, or one that lacks something.
  """
  file = find(path)
  with np.load(file) as stored:
    names = set(stored.files)
    wanted = {*ARRAYS, *STRINGS, *([MASKS] if masks else [])}
    checks.require(
      wanted <= names,
      f"{file}: {sorted(wanted - names)} are missing; write it with launch.predict.",
    )
    found = _checked({name: stored[name] for name in (*ARRAYS, *STRINGS)}, str(file))
    return found | ({MASKS: stored[MASKS]} if masks else {})


def find(path):
  """Returns the file that `path` means, see `load`."""
  path = pathlib.Path(path)
  for file in (path, path / NAME, path / "forecasts" / NAME):
    if file.is_file():
      return file
  raise checks.InputError(f"{path}: holds no {NAME}; write it with `python -m launch.predict`.")


def _checked(arrays, where):
  """Returns the arrays in their types; raises InputError unless all shapes agree and are finite."""
  found, sizes = {}, {}
  for name, (dtype, shape) in ARRAYS.items():
    array = np.asarray(arrays[name], dtype)
    wanted = tuple(sizes.get(s) if isinstance(s, str) else s for s in shape)
    checks.shape(f"{where}: {name}", array, wanted)
    sizes |= {s: n for s, n in zip(shape, array.shape, strict=True) if isinstance(s, str)}
    checks.require(
      bool(np.isfinite(array).all()), f"{where}: {name} is not finite everywhere; predict anew."
    )
    found[name] = array
  for name in STRINGS:
    found[name] = np.asarray(arrays[name], np.str_)
    checks.shape(f"{where}: {name}", found[name], (sizes["R"],))
  return found
