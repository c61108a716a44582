"""Times the two-stream predictor (base, 192,307,427 parameters) beside PyTorch, and its pipeline.

  python -m benchmarks.two_stream --torch_python TORCH_VENV/bin/python [--out FILE.json]
  python -m benchmarks.two_stream --parts training apart

Parts, each of which takes less than three minutes on 2 cores:
  check     both networks give the same image, loss and gradients for the same numbers (tiny sizes).
  forward   4 pairs of 224 x 224 from uint8 images to predicted ones.
  training  forward and backward pass of 4 pairs with dropout and batch statistics.
  apart     both again with the two streams one after the other (config.model.stack_streams=False).
  pipeline  pairs/s that the input pipeline makes of JPEG records of 256 x 256.
The peer is the same network in plain torch.nn with its fused attention, eager. On a GPU both
compute 64 pairs in bfloat16, and our side also says which share of the rate of a large matrix
product it reaches.
"""

import pathlib
import statistics
import time

from benchmarks import measure, peers
from launch import command_line

# Of one pair at 224: multiplications and additions of the products and convolutions.
FORWARD_GFLOP, TRAINING_GFLOP = 75.8, 227.4


def _check(sizes):
  """Writes weights, inputs and results for the peer."""
  import jax
  import numpy as np

  from vistraj_jax.convert import two_stream as converter

  task, variables, batch = _built(sizes)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: x + 0.1 * rng.random(x.shape, np.float32) if x.ndim == 1 else x, variables
  )
  images, _ = jax.jit(task.network.apply)(variables, batch["img_t"], batch["img_tk"])
  loss, gradients = jax.jit(jax.value_and_grad(_loss(task, batch)))(
    variables["params"], variables["batch_stats"]
  )
  host = lambda tree: jax.tree.map(np.asarray, tree)  # noqa: E731
  stored = {"image": images[0], "loss": loss, "img_t": batch["img_t"], "img_tk": batch["img_tk"]}
  for name, value in _tensors(converter, host(variables)).items():
    stored[f"weights/{name}"] = value
  for name, value in _tensors(converter, {"params": host(gradients)}).items():
    stored[f"gradients/{name}"] = np.linalg.norm(value)
  np.savez(f"{sizes['folder']}/two_stream.npz", **stored)
  return {"parameters": _count(variables)}


def _forward(sizes):
  import jax

  task, variables, batch = _built(sizes)
  call = jax.jit(lambda v, *pair: task.network.apply(v, *pair)[0])
  arguments = (variables, batch["img_t"], batch["img_tk"])
  return {
    "parameters": _count(variables),
    **_timed(call, arguments, sizes, "forward", FORWARD_GFLOP),
    "peak_gb": measure.peak_gb(),
  }


def _training(sizes):
  import jax

  task, variables, batch = _built(sizes)
  call = jax.jit(jax.value_and_grad(_loss(task, batch)))
  arguments = (variables["params"], variables["batch_stats"])
  return {
    "parameters": _count(variables),
    **_timed(call, arguments, sizes, "pass", TRAINING_GFLOP),
    "peak_gb": measure.peak_gb(),
  }


def _apart(sizes):
  found = _forward(sizes) | _training(sizes)
  return {name: value for name, value in found.items() if name != "parameters"}


def _pipeline(sizes):
  from configs import two_stream as config_file
  from vistraj_jax.data import pipeline

  config = config_file.get_config()
  config.data.root = str(_written(sizes))
  examples = pipeline.load(config.data, "train", config.model)
  iterator = iter(pipeline.batches(examples, batch_size=sizes["batch"], seed=0, train=True))
  next(iterator)  # starts the thread that reads ahead
  start = time.perf_counter()
  for _ in range(sizes["batches"]):
    next(iterator)
  return {"pairs_per_s": sizes["batches"] * sizes["batch"] / (time.perf_counter() - start)}


def _written(sizes):
  """Writes trajectories of noisy frames, which decode as slowly as photographs; their folder."""
  import numpy as np

  from vistraj_jax.prepare import runner
  from vistraj_jax.prepare.frame_pairs import trajectories

  def read(count):
    for number in range(count):
      rng = np.random.default_rng(number)
      ground = np.mgrid[:256, :256].sum(0)[..., None] / 2.5
      noise = rng.normal(0, 15, (sizes["length"], 256, 256, 3))
      frames = np.clip(ground + noise, 0, 255).astype(np.uint8)
      yield trajectories.Trajectory(str(number), frames, 5.0, "noise")

  options = trajectories.Options()
  folder = pathlib.Path(sizes["folder"]) / "records"
  trajectories.prepare(
    folder,
    units=[runner.Unit("train", "all", (sizes["trajectories"],))],
    work=lambda count: trajectories.convert(read, (count,), options),
    settings={},
    options=options,
  )
  return folder


def _built(sizes):
  """Returns (task, variables, batch of random pairs on the device)."""
  import jax
  import numpy as np

  from configs import two_stream as config_file
  from vistraj_jax.tasks import base

  on_gpu = jax.default_backend() == "gpu"
  config = config_file.get_config()
  config.model.update(sizes["model"])
  config.model.dtype = "bfloat16" if on_gpu else "float32"
  task = base.make(config)
  variables = jax.block_until_ready(task.init(jax.random.PRNGKey(0)))
  rows, side = sizes["gpu_batch" if on_gpu else "batch"], config.model.image_size
  rng = np.random.default_rng(0)
  pair = {
    name: rng.integers(0, 256, (rows, side, side, 3), np.uint8) for name in ("img_t", "img_tk")
  }
  ones = {name: np.ones(rows, np.float32) for name in ("weight", "valid", "mask")}
  return task, variables, jax.device_put({**pair, **ones, "position": np.arange(rows)})


def _loss(task, batch):
  import jax

  def loss(params, batch_stats):
    variables = {"params": params, "batch_stats": batch_stats}
    terms, _ = task.losses(variables, batch, jax.random.PRNGKey(1), train=True)
    return sum(weight * term.value for weight, term in terms.values())

  return loss


def _timed(call, arguments, sizes, name, gflop):
  """Returns the figures of a compiled call, and on a GPU the share of a product's rate."""
  import jax

  start = time.perf_counter()
  call = call.lower(*arguments).compile()
  compile_s = time.perf_counter() - start
  spent = measure.times(lambda: jax.block_until_ready(call(*arguments)), sizes["repeats"])
  median = statistics.median(spent)
  on_gpu = jax.default_backend() == "gpu"
  rate = sizes["gpu_batch" if on_gpu else "batch"] / median
  found = {
    f"{name}_ms": 1e3 * median,
    f"{name}_pairs_per_s": rate,
    f"{name}_compile_s": compile_s,
  }
  shares = peers.share_of_product(1e9 * gflop * rate) if on_gpu else {}
  return found | {f"{name}_{figure}": value for figure, value in shares.items()}


def _tensors(converter, variables):
  return converter.to_torch(variables, "predictor", "benchmark")["model_state_dict"]


def _count(variables):
  import jax

  return sum(x.size for x in jax.tree.leaves(variables["params"]))


SIZES = {"batch": 4, "gpu_batch": 64, "repeats": 5, "model": {"dropout": 0.1}}
TINY = {"image_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_stages": 2}
SMOKE = {"gpu_batch": 4, "repeats": 1, "model": {**TINY, "dropout": 0.1}}
PARTS = {
  "check": peers.Part(
    _check,
    {"batch": 2, "gpu_batch": 2, "model": {**TINY, "depth": 4, "dropout": 0.0}, "tolerance": 1e-3},
    {},
    needs_peer=True,
  ),
  "forward": peers.Part(_forward, SIZES, SMOKE),
  "training": peers.Part(_training, SIZES, SMOKE),
  "apart": peers.Part(
    _apart,
    {**SIZES, "repeats": 3, "model": {"dropout": 0.1, "stack_streams": False}},
    {**SMOKE, "model": {**TINY, "dropout": 0.1, "stack_streams": False}},
    {},
  ),
  "pipeline": peers.Part(
    _pipeline,
    {"trajectories": 40, "length": 30, "batch": 64, "batches": 60},
    {"trajectories": 2, "length": 12, "batch": 8, "batches": 2},
    {},
  ),
}


def main(arguments=None):
  """Prints the tables; returns 0."""
  return peers.main("two_stream", __doc__, PARTS, arguments)


if __name__ == "__main__":
  command_line.run(main)
