"""Who may import whom: the floors of the house, and nothing heavy on the way in."""

import ast
import pathlib
import subprocess
import sys

import pytest

REPO = pathlib.Path(__file__).parents[1]
PACKAGE = "vistraj_jax"

# Folder -> folders of ours it may import from, besides itself.
FLOORS = {
  "core": (),
  "nn": ("core",),
  "losses": ("core",),
  "metrics": ("core", "tracking"),  # the rows of MOT files are what is scored
  "tracking": ("core",),
  "data": ("core",),
  "encoders": ("core", "nn", "convert"),  # towers load published weights
  "models": ("core", "nn", "encoders"),
  "tasks": ("core", "nn", "losses", "metrics", "encoders", "models", "convert"),
  "train": ("core",),
  "convert": ("core",),
  "prepare": ("core", "data", "tracking"),  # it writes the formats that they read
  "viz": ("core",),
}
SYSTEMS = ("trackssm", "xmem", "two_stream", "vlm_waypoint", "magvit")
NO_JAX = ("data", "prepare", "tracking", "metrics", "viz", "convert")
NUMPY_ONLY = ("checks", "files", "geometry", "steps", "weights")
NEVER_AT_MODULE_LEVEL = {"absl", "tensorflow", "torch", "apache_beam", "tensorflow_datasets"}


def _imports(path):
  """Yields (module, whether at module level) of every import statement."""
  tree = ast.parse(path.read_text())
  top = set(map(id, tree.body))
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield alias.name, id(node) in top
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      for alias in node.names:
        yield f"{node.module}.{alias.name}", id(node) in top


def _files():
  return sorted((REPO / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("path", _files(), ids=lambda p: str(p.relative_to(REPO)))
def test_floors(path):
  parts = path.relative_to(REPO / PACKAGE).parts
  if len(parts) == 1:
    return
  floor = parts[0]
  system = next((s for s in SYSTEMS if any(s in p for p in parts)), None)
  for module, at_top in _imports(path):
    root, *rest = module.split(".")
    assert root not in ("configs", "launch", "tests"), f"imports {module}"
    assert not (at_top and root in NEVER_AT_MODULE_LEVEL), f"imports {module} at module level"
    if floor in NO_JAX or (floor == "core" and path.stem in NUMPY_ONLY):
      assert root not in ("jax", "flax", "optax", "orbax"), f"{floor} imports {module}"
    if root != PACKAGE:
      continue
    other = rest[0]
    assert other == floor or other in FLOORS[floor], f"{floor} may not import {module}"
    strange = [s for s in SYSTEMS if s != system and any(s in p for p in rest)]
    dispatchers = floor == "prepare"  # one embedded data set per system is made there
    assert not (system and strange) or dispatchers, f"{system} imports {module} of another system"


def test_import_is_light():
  code = (
    "import sys, time; t = time.perf_counter(); import vistraj_jax;"
    "assert time.perf_counter() - t < 0.5;"
    "heavy = {'jax', 'numpy', 'flax', 'grain', 'cv2'} & set(sys.modules);"
    "assert not heavy, heavy"
  )
  subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)


COMMANDS = sorted(p.stem for p in (REPO / "launch").glob("*.py") if "__main__" in p.read_text())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick_and_helps(command):
  arguments = [sys.executable, "-X", "importtime", "-m", f"launch.{command}", "--help"]
  done = subprocess.run(arguments, cwd=REPO, capture_output=True, text=True)
  imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
  assert not imported & {"jax", "flax", "grain", "matplotlib", "cv2", "orbax", "scipy"}
  assert f"python -m launch.{command}" in done.stdout


def test_all_commands_are_found():
  assert {"train", "prepare", "track", "evaluate", "encode", "report"} <= set(COMMANDS)
