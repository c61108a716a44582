"""Speed of training the waypoint head on cached features that lie on the device.

  taskset -c 0 python -m benchmarks.vlm_head            # one core
  python -m benchmarks.vlm_head --epoch --out FILE.json # all cores, and an epoch of 400k frames

The step is that of `configs/vlm_waypoint.py`: rows gathered by index, dropout, the head of 926,248
parameters in float32, ADE, clipping, AdamW; up to 100 steps in one compiled call.
Samples/s are wall time. On a machine that others use, samples per CPU second say what one core
does when it is free.
"""

import json
import time

import numpy as np

from launch import command_line, runtime
from vistraj_jax.core import files

WIDTH, FRAMES = 1152, 400_000
BATCHES = (16, 128, 1024)


def main(argv=None):
  """Measures and prints samples/s of every batch size, and the seconds of an epoch."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--frames", type=int, default=20_000, help="frames on the device")
  parser.add_argument("--seconds", type=float, default=5.0, help="measured for each batch size")
  parser.add_argument("--epoch", action="store_true", help="also time a whole epoch of 400k frames")
  parser.add_argument("--out", help="JSON file to write")
  args = parser.parse_args(argv)
  runtime.configure()
  import jax

  device = jax.devices()[0]
  found = {"device": device.device_kind, "cores": _cores(), "samples_per_second": {}}
  found["samples_per_cpu_second"] = {}
  print(f"{found['device']}, {found['cores']} cores, jax {jax.__version__}")
  examples = _examples(args.frames)
  for batch in BATCHES:
    rate, per_cpu_second = _rate(examples, batch, args.seconds)
    found["samples_per_second"][batch] = rate
    found["samples_per_cpu_second"][batch] = per_cpu_second
    print(
      f"batch {batch:5d}: {rate:10,.0f} samples/s, {1e3 * batch / rate:7.3f} ms a step; "
      f"{per_cpu_second:10,.0f} samples per CPU second"
    )
  if args.epoch:
    examples = _examples(FRAMES)
    found["epoch_seconds"] = {}
    for batch in BATCHES[1:]:
      seconds = _epoch(examples, batch)
      found["epoch_seconds"][batch] = seconds
      print(f"batch {batch:5d}: epoch of {FRAMES:,} frames in {seconds:.1f} s")
  if args.out:
    files.write_text(args.out, json.dumps(found, indent=2) + "\n")
  return 0


def _examples(count):
  """Random frames as `waymo_e2e.Frames.resident` gives them: features in bfloat16."""
  import ml_dtypes

  rng = np.random.default_rng(0)
  features = np.empty((count, WIDTH), ml_dtypes.bfloat16)
  for first in range(0, count, 10_000):
    rows = slice(first, min(first + 10_000, count))
    features[rows] = rng.standard_normal((rows.stop - rows.start, WIDTH), np.float32)
  return {
    "features": features,
    "past": rng.standard_normal((count, 16, 6), np.float32),
    "future": rng.standard_normal((count, 20, 2), np.float32),
    "has_future": np.ones(count, np.float32),
    "intent": rng.integers(0, 4, count, np.int32),
  }


def _compiled(examples, batch_size):
  """Returns (function of state and rows [K, B] -> state, first state)."""
  import functools

  import jax

  from configs import vlm_waypoint as config_file
  from vistraj_jax.tasks import base
  from vistraj_jax.train import optim, partition, phases, state, step

  config = config_file.get_config()
  config.phases.head.batch_size = batch_size
  shapes = {name: array.shape[1:] for name, array in examples.items()}
  known = {"shapes": shapes, "past_mean": np.zeros((16, 6)), "past_std": np.ones((16, 6))}
  task = base.make(config, {"train": known})
  phase = phases.from_config(config, FRAMES)[0]
  params = task.init(jax.random.PRNGKey(0))
  tx = optim.build(phase, config.optimizer, params["params"])
  labels = optim.labels_of(phase, params["params"])
  plan = partition.make(config.parallel, config.mesh, config.partition)
  fixed = step.Fixed({}, plan.put_fixed(examples))
  steps = functools.partial(step.train_steps, task=task, tx=tx, labels=labels)
  call = plan.compile(steps, donate=True)
  first = plan.put_state(state.create(params, tx, jax.random.PRNGKey(0), 0.0))

  def run(train_state, rows):
    batches = {"row": rows, "mask": np.ones(rows.shape, np.float32)}
    train_state, scalars = call(train_state, plan.put_batch(batches, stacked=True), fixed)
    return train_state, plan.fetch(scalars)

  return run, first


def _rate(examples, batch_size, seconds):
  """Samples/s of wall and of CPU time over at least `seconds`, after one call that compiles."""
  run, train_state = _compiled(examples, batch_size)
  rng = np.random.default_rng(1)
  count = len(examples["intent"])
  steps = max(4, min(100, 12_800 // batch_size))
  rows = rng.integers(0, count, (steps, batch_size), np.int32)
  train_state, _ = run(train_state, rows)
  start, cpu, samples = time.perf_counter(), time.process_time(), 0
  while time.perf_counter() - start < seconds:
    train_state, _ = run(train_state, rng.integers(0, count, (steps, batch_size), np.int32))
    samples += rows.size
  return samples / (time.perf_counter() - start), samples / (time.process_time() - cpu)


def _epoch(examples, batch_size):
  """Seconds of one pass over all frames in random order; compiled before."""
  run, train_state = _compiled(examples, batch_size)
  steps = 100
  order = np.random.default_rng(2).permutation(len(examples["intent"])).astype(np.int32)
  calls = len(order) // (steps * batch_size)
  rows = order[: calls * steps * batch_size].reshape(calls, steps, batch_size)
  train_state, _ = run(train_state, rows[0])
  start = time.perf_counter()
  for one in rows:
    train_state, _ = run(train_state, one)
  # The few frames that do not fill a call count by their number.
  return (time.perf_counter() - start) * len(order) / rows.size


def _cores():
  import os

  return len(os.sched_getaffinity(0))


if __name__ == "__main__":
  command_line.run(main)
