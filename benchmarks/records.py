"""Measures records, the input pipeline and preparation on this machine.

  python -m benchmarks.records

Prints one line per figure. Temporary files go to $TMPDIR.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from vistraj_jax.core import geometry
from vistraj_jax.data import example, pipeline, records, trackssm
from vistraj_jax.prepare import mot
from vistraj_jax.prepare.nuscenes import dataset
from vistraj_jax.prepare.world import driving, nuscenes_writer


def _seconds(function, repeats=3):
  """Returns the best of some runs, and the last result."""
  best = np.inf
  for _ in range(repeats):
    start = time.perf_counter()
    result = function()
    best = min(best, time.perf_counter() - start)
  return best, result


def _print(what, value, unit):
  print(f"{what:<58}{value:>14,.0f} {unit}", flush=True)


def main():
  """Runs all measurements."""
  form = argparse.RawDescriptionHelpFormatter
  argparse.ArgumentParser(description=__doc__, formatter_class=form).parse_args()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    _records(folder)
    _preparation(folder)
    _pipeline(folder)
    _geometry()


def _records(folder):
  rng = np.random.default_rng(0)
  for size, count in ((738, 20_000), (606_000, 500)):
    payloads = [rng.bytes(size)] * count
    path = folder / "records"
    seconds, _ = _seconds(lambda p=payloads, path=path: records.write_records(path, p))
    _print(f"write, records of {size} bytes", count / seconds, "records/s")
    seconds, source = _seconds(lambda path=path: records.TFRecordSource([path]))
    _print(f"index, records of {size} bytes", count / seconds, "records/s")
    order = rng.permutation(count)
    seconds, _ = _seconds(lambda s=source, o=order: [len(s[i]) for i in o])
    _print(f"read in random order, records of {size} bytes", count / seconds, "records/s")
  frames = np.arange(100)
  track = {
    "sequence": "s",
    "camera": "c",
    "track_id": 1,
    "class_id": 0,
    "frames": frames,
    "boxes": np.ones((100, 4)),
    "visibility": np.ones(100),
    "is_keyframe": np.ones(100),
    "width": 1600,
    "height": 900,
    "frame_rate": 12.0,
  }
  seconds, data = _seconds(lambda: [example.encode(track, trackssm.SPEC) for _ in range(2000)])
  _print("encode, tracks of 100 boxes", 2000 / seconds, "records/s")
  seconds, _ = _seconds(lambda: [example.decode(d, trackssm.SPEC) for d in data])
  _print("decode, tracks of 100 boxes", 2000 / seconds, "records/s")


def _preparation(folder):
  settings = nuscenes_writer.SETTINGS
  seconds, _ = _seconds(
    lambda: driving.simulate(1, settings["seconds"], settings["moving"], settings["parked"])
  )
  _print("simulate one drive of 19.6 s", 1000 * seconds, "ms")
  start = time.perf_counter()
  nuscenes_writer.write(folder / "nuscenes", processes=2)
  _print("simulated nuScenes database, 2 processes", time.perf_counter() - start, "s")
  start = time.perf_counter()
  statistics = dataset.prepare(
    folder / "nuscenes", folder / "world", version=nuscenes_writer.VERSION, processes=2
  )
  _print("its tracks, 2 processes", time.perf_counter() - start, "s")
  start = time.perf_counter()
  mot.prepare(
    folder / "world" / "train",
    folder / "again",
    split_by="halves",
    classes=tuple(range(7)),
  )
  seconds = time.perf_counter() - start
  boxes = statistics["splits"]["train"]["boxes"]
  _print("MOT folders to records, 1 process", boxes / seconds, "boxes/s")


def _pipeline(folder):
  cfg = {"pipeline": "trackssm", "root": folder / "world"}
  seconds, examples = _seconds(lambda: pipeline.load(cfg, "train", {"history": 5}))
  _print("load the training split", len(examples) / seconds, "windows/s")
  for batch_size in (64, 512, 2048):
    iterator = iter(pipeline.batches(examples, batch_size=batch_size, seed=0, train=True))
    next(iterator)
    count = 200_000 // batch_size
    seconds, _ = _seconds(lambda it=iterator, n=count: [next(it) for _ in range(n)])
    iterator.close()
    _print(f"batches of {batch_size}", count * batch_size / seconds, "windows/s")


def _geometry():
  rng = np.random.default_rng(0)
  n = 10_000
  center = rng.uniform([-40, -3, 1], [40, 3, 80], (n, 3))
  corners = geometry.box_corners(center, rng.uniform(1, 5, (n, 3)), rng.normal(size=(n, 4)))
  intrinsic = np.array([[1260.0, 0, 800], [0, 1260, 470], [0, 0, 1]])
  for clip in ("corners", "hull"):
    seconds, _ = _seconds(
      lambda c=clip: geometry.visible_box(corners, center[:, 2], intrinsic, (1600, 900), c)
    )
    _print(f"project 3-D boxes, clip={clip!r}", n / seconds, "boxes/s")


if __name__ == "__main__":
  main()
