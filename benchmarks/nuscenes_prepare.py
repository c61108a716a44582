"""Measures prepare nuscenes: scene-cameras/s, memory of all its processes, and what trainval takes.

  python -m benchmarks.nuscenes_prepare [--processes 2] [--out nuscenes_prepare.json]

Writes tables of 20 scenes (6 cameras, 40 keyframes with 5 sweeps between, 60 objects in each) and
converts them by the command, once in a loop and once in processes. The time and memory of the
tables grow with their records, those of the units with the scene-cameras: from that follow the
figures for v1.0-trainval. Reference: the original conversion took 2 to 3 hours for about 6,000
scene-cameras.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

from launch import command_line
from tests import nuscenes_tables
from vistraj_jax.core import files
from vistraj_jax.prepare.nuscenes import splits

VERSION = "v1.0-trainval"
# Records of v1.0-trainval in the three large tables: sample_data, ego_pose, sample_annotation.
TRAINVAL_RECORDS = 2 * 2_631_083 + 1_166_187
TRAINVAL_SCENE_CAMERAS = 850 * 6
_OPEN = (
  "import sys; from vistraj_jax.prepare.nuscenes import database;"
  "database.Database(sys.argv[1], sys.argv[2])"
)
_IMPORT = "import nuscenes; from vistraj_jax.prepare.nuscenes import database"


def main(arguments=None):
  """Prints the figures; returns 0."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--scenes", type=int, default=20, help="number of scenes")
  parser.add_argument("--processes", type=int, default=2, help="worker processes")
  parser.add_argument("--out", help="JSON file for the figures")
  args = parser.parse_args(arguments)
  with tempfile.TemporaryDirectory() as name:
    figures = _measure(pathlib.Path(name), args.scenes, args.processes)
  for key, value in figures.items():
    print(f"{key:<44}{value:>12,.1f}")
  if args.out:
    files.write_text(args.out, json.dumps(figures, indent=1))
  return 0


def _measure(folder, scenes, processes):
  root = folder / "nuscenes"
  names = splits.scene_names(VERSION, "train")[:scenes]
  nuscenes_tables.write(root, names, VERSION, keyframes=40, objects=60)
  tables = ("sample_data", "ego_pose", "sample_annotation")
  records = sum(len(json.loads((root / VERSION / f"{t}.json").read_text())) for t in tables)
  start_s, start_mb = _run(["-c", _IMPORT])
  open_s, open_mb = _run(["-c", _OPEN, str(root), VERSION])
  figures = {"scene_cameras": 6 * scenes, "open_tables_s": open_s - start_s}
  units = {}
  for count in (1, processes):
    out = folder / f"out{count}"
    command = ["-m", "launch.prepare", "nuscenes", "--dataroot", str(root), "--out", str(out)]
    seconds, memory = _run([*command, "--processes", str(count)])
    figures[f"seconds_{count}_processes"] = seconds
    figures[f"scene_cameras_per_s_{count}_processes"] = 6 * scenes / seconds
    figures[f"peak_memory_mb_{count}_processes"] = memory
    units[count] = (seconds - open_s) / (6 * scenes)
  scale = TRAINVAL_RECORDS / records
  units = units[processes] * TRAINVAL_SCENE_CAMERAS
  figures["trainval_open_tables_min"] = (open_s - start_s) * scale / 60
  figures[f"trainval_units_min_{processes}_processes"] = units / 60
  figures["trainval_tables_memory_gb"] = (start_mb + (open_mb - start_mb) * scale) / 1e3
  return figures


def _run(arguments):
  """Runs Python; returns (seconds, most resident memory of all its processes together, MB)."""
  start = time.perf_counter()
  process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
  peak, done = [0.0], threading.Event()

  def watch():
    while not done.wait(0.05):
      peak[0] = max(peak[0], _memory(process.pid))

  thread = threading.Thread(target=watch)
  thread.start()
  status = process.wait()
  seconds = time.perf_counter() - start
  done.set()
  thread.join()
  if status:
    raise RuntimeError(f"{arguments}: exit status {status}")
  return seconds, peak[0]


def _memory(pid):
  """Returns the resident memory of a process and its descendants, MB; 0 when it is gone."""
  task = pathlib.Path(f"/proc/{pid}")
  try:
    pages = int((task / "statm").read_text().split()[1])
    children = (task / "task" / str(pid) / "children").read_text().split()
  except OSError:
    return 0.0
  return pages * 4096 / 1e6 + sum(_memory(int(child)) for child in children)


if __name__ == "__main__":
  command_line.run(main)
