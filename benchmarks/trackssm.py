"""Times TrackSSM: forward pass and training step beside PyTorch, and the input pipeline.

  python -m benchmarks.trackssm --torch_python TORCH_VENV/bin/python [--out FILE.json]

Both sides run in processes of their own, one after the other, on 2 threads, with the same
allocator settings (freed memory is kept). Peak memory is that of the process of the training step
(for the peer: of everything). The peer is the same network in plain torch.nn, eager
and under torch.compile; without --torch_python only our side is timed. Tracker frames, scoring and
records have their own files: benchmarks/{tracker,track_scores,records}.py.
"""

import json
import platform
import statistics
import sys
import time

from benchmarks import measure
from launch import command_line
from vistraj_jax.core import files


def main(arguments=None):
  """Prints the table; returns 0."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--repeats", type=int, default=7, help="training steps per measurement")
  parser.add_argument("--torch_python", help="interpreter of an environment with torch")
  parser.add_argument("--out", help="JSON file for the figures")
  parser.add_argument("--part", choices=PARTS, help="time one part of our side in this process")
  args = parser.parse_args(arguments)
  if args.part:
    print(json.dumps(PARTS[args.part](args.repeats)))
    return 0
  repeats = str(args.repeats)
  ours = {}
  for part in PARTS:
    command = (sys.executable, "-m", "benchmarks.trackssm", "--part", part, "--repeats", repeats)
    ours |= measure.run(*command)
  found = {"vistraj_jax": ours}
  if args.torch_python:
    for how in ("eager", "compile"):
      found[f"torch {how}"] = measure.run(
        args.torch_python, "benchmarks/trackssm_torch.py", repeats, how
      )
  names = ("forward_64_ms", "forward_256_ms", "step_512_ms", "peak_gb")
  print("".join(f"{name:>18s}" for name in ("", *names)))
  for who, row in found.items():
    print(f"{who:>18s}" + "".join(f"{row[name]:18.1f}" for name in names))
  print(
    f"training {512e3 / ours['step_512_ms']:,.0f} windows/s, phase with frozen encoder "
    f"{512e3 / ours['frozen_step_512_ms']:,.0f} windows/s; input pipeline "
    f"{ours['pipeline_windows_per_s']:,.0f} windows/s; first training call "
    f"{ours['compile_s']:.1f} s to compile"
  )
  if args.out:
    report = {"processor": platform.processor() or platform.machine(), "rows": found}
    files.write_text(args.out, json.dumps(report, indent=2) + "\n")
  return 0


def _task():
  import jax

  from configs import trackssm as config_file
  from vistraj_jax.tasks import base

  config = config_file.get_config()
  config.augment.kind = "none"
  task = base.make(config)
  return config, task, task.init(jax.random.PRNGKey(0))["params"]


def _boxes():
  import numpy as np

  return np.random.default_rng(0).random((512, 7, 4), np.float32) * 0.1 + 0.2


def _forward(repeats):
  import jax
  import jax.numpy as jnp
  import numpy as np

  _, task, params = _task()
  out = {"parameters": sum(x.size for x in jax.tree.leaves(params)), "jax": jax.__version__}
  forward = jax.jit(lambda p, condition: task.model.apply({"params": p}, condition)[-1])
  for size in (64, 256):
    rows = jnp.asarray(np.tile(_boxes()[:size, 1:6], 2))
    call = lambda rows=rows: forward(params, rows).block_until_ready()  # noqa: E731
    out[f"forward_{size}_ms"] = _median_ms(call, 3 * repeats)
  out["pipeline_windows_per_s"] = _pipeline_rate()
  return out


def _frozen(repeats):
  return {"frozen_step_512_ms": _step(repeats, 0)[0]}


def _training(repeats):
  milliseconds, compile_s = _step(repeats, 1)
  return {"step_512_ms": milliseconds, "compile_s": compile_s, "peak_gb": measure.peak_gb()}


def _step(repeats, number):
  """Returns ms of a training step of 512 windows in phase `number`, and s of the first call."""
  import jax
  import jax.numpy as jnp

  from vistraj_jax.train import optim, phases, state, step

  config, task, params = _task()
  phase = phases.from_config(config, 512)[number]
  tx = optim.build(phase, config.optimizer, params)
  labels = optim.labels_of(phase, params)
  held = state.create({"params": params}, tx, jax.random.PRNGKey(1), 0.0)
  batch = {"boxes": jnp.asarray(_boxes()), "mask": jnp.ones(512)}
  call = jax.jit(
    lambda s, b: step.train_step(s, b, task=task, tx=tx, labels=labels), donate_argnums=0
  )

  def one():
    nonlocal held
    held, _ = jax.block_until_ready(call(held, batch))

  start = time.perf_counter()
  one()
  compile_s = time.perf_counter() - start
  return _median_ms(one, repeats), compile_s


PARTS = {"forward": _forward, "frozen": _frozen, "training": _training}


def _pipeline_rate():
  """Windows per second that the input pipeline gives in batches of 512."""
  import numpy as np

  from vistraj_jax.data import pipeline, trackssm

  rows, length = 100_000, 50
  starts = np.arange(rows - 7)
  starts = starts[starts % length < length - 6]
  tracks = rows // length
  windows = trackssm.Windows(
    boxes=np.zeros((rows, 4), np.float32),
    frames=np.tile(np.arange(length, dtype=np.int32), tracks),
    starts=starts,
    track=starts // length,
    class_id=np.zeros(tracks, np.int32),
    sequence=np.zeros(tracks, np.int32),
    frame_rate=np.full(tracks, 12, np.float32),
    sequences=("s",),
    steps=np.arange(7),
  )
  iterator = iter(pipeline.batches(windows, batch_size=512, seed=0, train=True))
  for _ in range(100):
    next(iterator)
  start = time.perf_counter()
  for _ in range(1000):
    next(iterator)
  return 512_000 / (time.perf_counter() - start)


def _median_ms(function, repeats):
  return 1e3 * statistics.median(measure.times(function, repeats))


if __name__ == "__main__":
  command_line.run(main)
