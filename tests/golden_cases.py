"""Reads golden cases: weights are rebuilt from tensor names, inputs and outputs are stored."""

import importlib.util
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).parent / "golden"
_SPEC = importlib.util.spec_from_file_location("golden_fill", ROOT / "fill.py")
fill = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(fill)


class Case(NamedTuple):
  """One golden case: `manifest` as in manifest.json, `arrays` as in io.npz."""

  folder: pathlib.Path
  manifest: dict[str, Any]
  arrays: dict[str, np.ndarray]

  @property
  def config(self):
    return self.manifest["config"]

  def checkpoint(self):
    """Returns the checkpoint as {PyTorch tensor name: float32 array}."""
    return fill.state_dict(self.folder / "manifest.json")

  def input(self, name):
    """Returns a stored input (as `name` or `in_<name>`), or makes one from its fill rule."""
    for key in (name, f"in_{name}"):
      if key in self.arrays:
        return self.arrays[key]
    spec = self.manifest["inputs"][name]
    key = f"{self.folder.name}_{name}" if self.folder.parent.name == "trackssm" else name
    return fill.tensor(f"input:{key}", spec["shape"], spec.get("fill", "unit"))

  def check(self, name, value, rtol=None, atol=None):
    """Compares `value` with the stored output `name` at the manifest's tolerance."""
    tolerance = self.manifest["tolerance"]
    value = np.asarray(value)[self._stored_slice(name)]
    np.testing.assert_allclose(
      value,
      self.arrays[name],
      rtol=tolerance["rtol"] if rtol is None else rtol,
      atol=tolerance["atol"] if atol is None else atol,
      err_msg=f"{self.folder.name}: {name}",
    )

  def _stored_slice(self, name):
    """Returns the index of what is stored: of strides, or of a text such as "[::4, ::4]"."""
    output = self.manifest["outputs"].get(name, {})
    strides = output.get("stride", [])
    if "stored_slice" in output:
      parts = output["stored_slice"].strip("[]").split(",")
      strides = [int(part.split(":")[-1] or 1) for part in parts]
    return tuple(slice(None, None, s) for s in strides)


def load(system, case):
  """Returns the case `tests/golden/<system>/<case>`."""
  folder = ROOT / system / case
  manifest = json.loads((folder / "manifest.json").read_text())
  with np.load(folder / "io.npz") as file:
    arrays = {k: file[k] for k in file.files}
  return Case(folder, manifest, arrays)
