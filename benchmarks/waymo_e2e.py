"""Measures the way of end-to-end driving frames to the network on this machine, on one core each.

  python -m benchmarks.waymo_e2e [--out timing.json]

Records are made up: 8 cameras in the public sizes, camera noise, JPEG quality tuned to 330 kB for a
front image, 2.3 MB a record. Nothing is read from anywhere else. Prints one line per figure.
"""

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np

from vistraj_jax.core import files
from vistraj_jax.data import features, images, pipeline, records, waymo_e2e
from vistraj_jax.prepare.waymo_e2e import convert, messages
from vistraj_jax.prepare.world import waymo_writer

_COUNT = 40  # records
_FOUND = {}


def main(argv=None):
  """Runs all measurements."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--out", help="JSON file for the figures")
  args = parser.parse_args(argv)
  jpegs = {name: _jpeg(*_size(name)) for name in waymo_e2e.CAMERAS}
  _decoding(jpegs["FRONT"])
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    path = _shard(folder, jpegs)
    _reading(path)
    _conversion(folder)
    _features(folder)
  start = time.perf_counter()
  found, _ = waymo_writer.sequence_frames(waymo_writer.SETTINGS, "train", 0)
  seconds = time.perf_counter() - start
  _print(f"world: a drive of {len(found)} front images, embedded size", seconds, "s")
  if args.out:
    files.write_text(args.out, json.dumps(_FOUND, indent=1) + "\n")


def _seconds(function, repeats=5):
  """Returns the best of some runs, and the last result."""
  best = np.inf
  for _ in range(repeats):
    start = time.perf_counter()
    result = function()
    best = min(best, time.perf_counter() - start)
  return best, result


def _print(what, value, unit):
  _FOUND[what] = {"value": round(value, 4), "unit": unit}
  print(f"{what:<62}{value:>12,.2f} {unit}", flush=True)


def _size(name):
  _, calibration = waymo_writer.mount(name, 972)
  return calibration.height, calibration.width


def _jpeg(height, width):
  """A picture with edges and noise, 0.31 bytes a pixel."""
  import simplejpeg

  rng = np.random.default_rng(0)
  y, x = np.mgrid[:height, :width]
  image = np.stack([np.sin(x / 17 + k) + np.sign(np.cos(y / 23 - k)) for k in range(3)], -1)
  image = (128 + 50 * image + rng.normal(0, 12, image.shape)).clip(0, 255).astype(np.uint8)
  low, high = 20, 99
  while low < high:  # the quality that comes nearest to a real front image
    middle = (low + high) // 2
    size = len(simplejpeg.encode_jpeg(image, middle, colorsubsampling="420"))
    low, high = (
      (middle + 1, high) if size < 330_000 * image.size / (1079 * 972 * 3) else (low, middle)
    )
  return simplejpeg.encode_jpeg(image, low, colorsubsampling="420")


def _decoding(jpeg):
  print(f"front image of {len(jpeg):,} bytes, {images.size_of(jpeg)}")
  decode = images.decode
  for what, function in (
    ("decode at full size", lambda: decode(jpeg)),
    ("decode at half size (DCT), 540 x 486", lambda: decode(jpeg, (540, 486))),
    ("decode at half size and resize to 384", lambda: decode(jpeg, (384, 384))),
    ("decode at quarter size and resize to 224", lambda: decode(jpeg, (224, 224))),
  ):
    seconds, image = _seconds(function)
    _print(f"{what}, one core", 1 / seconds, "images/s")
  small = images.encode(decode(jpeg, (384, 384)))
  seconds, _ = _seconds(lambda: images.encode(image))
  seconds, image = _seconds(lambda: decode(small))
  _print(f"decode a stored image of 384, {len(small):,} bytes, one core", 1 / seconds, "images/s")
  seconds, _ = _seconds(lambda: images.encode(image))
  _print("encode an image of 384, one core", 1 / seconds, "images/s")


def _shard(folder, jpegs):
  calibrations = {name: waymo_writer.mount(name, 972)[1] for name in jpegs}
  rng = np.random.default_rng(0)
  payloads = [
    messages.write_frame(
      messages.Frame(
        name=f"{k % 4:032x}-{k:03d}",
        intent=1,
        past=rng.normal(size=(16, 6)),
        future=rng.normal(size=(20, 3)),
        rated=(),
        images={},
        calibrations=calibrations,
      ),
      jpegs,
    )
    for k in range(_COUNT)
  ]
  path = folder / "source" / "val_benchmark.tfrecord-00000-of-00001"
  records.write_records(path, payloads)
  print(f"shard of {_COUNT} records of {len(payloads[0]):,} bytes, 8 cameras (in the page cache)")
  return path


def _reading(path):
  source = records.TFRecordSource([path])
  payload = source[0]
  for what, calibrations in (("with calibrations", True), ("without", False)):
    seconds, _ = _seconds(lambda c=calibrations: messages.read_frame(payload, calibrations=c), 300)
    _print(f"walk over the wire format, {what}", 1e6 * seconds, "us a record")
  seconds, _ = _seconds(lambda: [records.TFRecordSource([path])[i] for i in range(_COUNT)])
  size = path.stat().st_size
  _print("read and verify checksums", size / seconds / 1e6, "MB/s")

  def index():
    scan = records.TFRecordSource([path])
    return [messages.read_frame(scan[i], calibrations=False) for i in range(_COUNT)]

  seconds, _ = _seconds(index)
  _print("scan: read, verify, walk", size / seconds / 1e6, "MB/s")
  _print("scan: read, verify, walk", _COUNT / seconds, "records/s")


def _conversion(folder):
  for size, cameras in ((384, ("FRONT",)), (0, ("FRONT",)), (0, waymo_e2e.CAMERAS)):
    start = time.perf_counter()
    out = folder / f"{size}-{len(cameras)}"
    convert.prepare(folder / "source", out, size=size, cameras=cameras)
    seconds = time.perf_counter() - start
    what = f"{'front camera' if len(cameras) == 1 else '8 cameras'}, size {size or 'original'}"
    _print(f"convert, {what}, 1 process", _COUNT / seconds, "frames/s")
    size = sum(p.stat().st_size for p in out.glob("*.tfrecord-*"))
    _print(f"convert, {what}: stored", size / _COUNT / 1e3, "kB a frame")
  for size in (384, 0):
    cfg = {
      "visual": "image",
      "camera": "FRONT",
      "image_size": 384,
      "root": str(folder / f"{size}-1"),
    }
    frames = waymo_e2e.load(cfg, "val", {})
    seconds, _ = _seconds(lambda f=frames: f.gather(np.arange(_COUNT)), 3)
    what = "stored at 384" if size else "original, to 384"
    _print(f"batches of images, {what}, all cores", _COUNT / seconds, "images/s")


def _features(folder):
  """Feature files of 1152 numbers a frame, as of a whole small split."""
  count = 50_000
  states = waymo_e2e.states_of(waymo_e2e.read_index(folder / "384-1", "val"))
  row = np.resize(np.arange(_COUNT), count)
  states = {name: value[row] for name, value in states.items()}
  states["features"] = np.random.default_rng(0).normal(size=(count, 1, 1152)).astype(np.float32)
  header = features.Header("e", "c", "p", "exact", "mean", (-1,), "bfloat16", "FRONT", "original")
  start = time.perf_counter()
  features.write_features(folder, "val", header, [states])
  _print("write features of 1152", count / (time.perf_counter() - start), "frames/s")
  cfg = {"pipeline": "waymo_e2e", "visual": "features", "features": str(folder), "layer": -1}
  seconds, found = _seconds(lambda: pipeline.load(cfg, "val", {}), 2)
  _print("read features of 1152 into memory", count / seconds, "frames/s")
  size = features.shard_path(folder, "val", 0, 1).stat().st_size
  _print("features of 1152: stored", size / count / 1e3, "kB a frame")
  iterator = iter(pipeline.batches(found, batch_size=128, seed=0, train=True))
  next(iterator)
  seconds, _ = _seconds(lambda: [next(iterator) for _ in range(200)], 2)
  iterator.close()
  _print("batches of 128 features", 200 * 128 / seconds, "frames/s")


if __name__ == "__main__":
  main()
