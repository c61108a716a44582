"""Times the SmolVLM tower (412,987,248 parameters, 384 x 384 pixels, float32) beside PyTorch.

  python -m benchmarks.vlm_tower --torch_python TORCH_VENV/bin/python [--out FILE.json]

Both sides run in processes of their own, one after the other, on 2 threads and with the same
allocator settings (freed memory is kept), from uint8 images to pooled vectors. The peer is the same
network in plain torch.nn with its fused attention; without --torch_python only ours is timed.
"""

import json
import platform
import statistics
import sys
import time

from benchmarks import measure
from launch import command_line
from vistraj_jax.core import files

GFLOP = 666.4  # of one image


def main(arguments=None):
  """Prints the table; returns 0."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--repeats", type=int, default=5, help="calls per measurement")
  parser.add_argument("--batch", type=int, default=1, help="images per call")
  parser.add_argument("--torch_python", help="interpreter of an environment with torch")
  parser.add_argument("--out", help="JSON file for the figures")
  parser.add_argument("--ours", action="store_true", help="time our side in this process")
  args = parser.parse_args(arguments)
  if args.ours:
    print(json.dumps(_ours(args.repeats, args.batch)))
    return 0
  numbers = [str(args.repeats), str(args.batch)]
  ours = [sys.executable, "-m", "benchmarks.vlm_tower", "--ours"]
  found = {"vistraj_jax": measure.run(*ours, "--repeats", numbers[0], "--batch", numbers[1])}
  if args.torch_python:
    found["torch"] = measure.run(args.torch_python, "benchmarks/vlm_tower_torch.py", *numbers)
  print(f"{'':12s}{'median':>12s}{'fastest':>12s}{'rate':>16s}{'peak memory':>14s}")
  for who, row in found.items():
    print(
      f"{who:12s}{row['s_per_image']:10.2f} s{row['fastest_s_per_image']:10.2f} s"
      f"{GFLOP / row['fastest_s_per_image']:10.0f} GFLOP/s{row['peak_gb']:11.1f} GB"
    )
  row = found["vistraj_jax"]
  print(f"ours: {row['trace_s']:.1f} s to trace, {row['compile_s']:.1f} s to compile")
  if args.torch_python:
    ratio = row["s_per_image"] / found["torch"]["s_per_image"]
    print(f"ours / torch: {ratio:.2f}")
  if args.out:
    report = {"processor": platform.processor() or platform.machine(), "rows": found}
    files.write_text(args.out, json.dumps(report, indent=2) + "\n")
  return 0


def _ours(repeats, batch):
  import jax
  import numpy as np

  from vistraj_jax import encoders

  encoder = encoders.make("smolvlm_tower")
  params = jax.block_until_ready(encoder.init(jax.random.key(0, impl="rbg")))
  images = np.random.default_rng(0).integers(0, 256, (batch, 384, 384, 3), np.uint8)
  start = time.perf_counter()
  lowered = jax.jit(lambda p, x: encoder.encode(p, x).pooled).lower(params, images)
  trace_s = time.perf_counter() - start
  start = time.perf_counter()
  call = lowered.compile()
  compile_s = time.perf_counter() - start
  times = measure.times(lambda: call(params, images).block_until_ready(), repeats)
  return {
    "parameters": sum(x.size for x in jax.tree.leaves(params)),
    "s_per_image": statistics.median(times) / batch,
    "fastest_s_per_image": min(times) / batch,
    "trace_s": trace_s,
    "compile_s": compile_s,
    "peak_gb": measure.peak_gb(),
    "jax": jax.__version__,
  }


if __name__ == "__main__":
  command_line.run(main)
