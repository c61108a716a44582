"""Times XMem (62,185,224 parameters) beside PyTorch: video frames, training, memory.

  python -m benchmarks.xmem --torch_python TORCH_VENV/bin/python [--out FILE.json]
  python -m benchmarks.xmem --parts frames video

Parts, each of which takes less than three minutes on 2 cores:
  check     both networks give the same masks, loss and gradients for the same numbers (tiny sizes).
  frames    frames of a 480 x 854 video with 2 objects, after the memory was consolidated once.
  training  forward and backward pass of 8 frames of 128 x 128.
  memory    what the compiled training step of 9 frames of 256 x 256 needs (nothing is run).
  video     cost per frame and size of the state over 20, 100 and 500 frames.
The peer is the same network in plain torch.nn, eager. On a GPU both compute in bfloat16, and our
side also runs 8 videos at once and says which share of a large product's rate it reaches.
"""

import functools
import statistics
import time

from benchmarks import measure, peers
from launch import command_line

LAYOUTS = {"torch": {}, "torch channels last": {"channels_last": True}}
VIDEO = {  # the published settings
  "top_k": 30,
  "mem_every": 5,
  "long_term": True,
  "min_mid": 5,
  "max_mid": 10,
  "num_prototypes": 128,
  "max_long": 10000,
}
SHORT = {**VIDEO, "top_k": 7, "mem_every": 1, "min_mid": 2, "max_mid": 4}
SHORT |= {"num_prototypes": 5, "max_long": 12}
TRAINING = {"top_k": None, "mem_every": 1, "long_term": False}


def _check(sizes):
  """Writes weights, inputs and results for the peer."""
  import jax
  import numpy as np

  from vistraj_jax.convert import xmem as converter
  from vistraj_jax.models.xmem import clip, network, schedule, settings

  model = network.XMem(**sizes["dims"])
  # Larger biases than at the start, so that none can be forgotten.
  params = network.init(model, jax.random.PRNGKey(0))
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  leaves = [x + 0.1 * rng.random(x.shape, np.float32) if x.ndim == 1 else x for x in leaves]
  params = jax.tree.unflatten(tree, leaves)
  # Softer too: else one element gets all the attention, uses tie and probabilities are clamped.
  for layer in (params["key_proj"]["key"], params["decoder"]["pred"]):
    layer["kernel"] = 0.01 * layer["kernel"]
  T, K, size = sizes["frames"], sizes["objects"], sizes["size"]
  images = rng.standard_normal((1, T, *size, 3), np.float32)
  masks = np.asarray(_bars(K, size, 12))[None, None]
  arguments = (images, masks, np.ones((1, 1, K), bool))
  rules = settings.MemorySettings(**sizes["rules"])
  run = jax.jit(lambda p: clip.run_clip(model, rules, p, *arguments, schedule.plan_clip(rules, T)))
  frames = run(params)
  loss, gradients = jax.jit(jax.value_and_grad(_loss(model, sizes["train_rules"], arguments)))(
    params
  )
  first = lambda x: np.moveaxis(np.asarray(x), -1, -3)[0]  # noqa: E731
  stored = {
    "images": first(images),
    "masks": np.broadcast_to(first(masks), (T, K, *size)),
    "probability": first(frames.probability),
    "loss": loss,
  }
  for name, value in converter.to_torch(_host(params), sizes["dims"], "weights").items():
    stored[f"weights/{name}"] = value
  for name, value in converter.to_torch(_host(gradients), sizes["dims"], "gradients").items():
    stored[f"gradients/{name}"] = np.linalg.norm(value)
  np.savez(f"{sizes['folder']}/xmem.npz", **stored)
  return {"parameters": _parameters(params)}


def _frames(sizes):
  import jax

  video = _Video(sizes)
  compile_s = video.step(masks=True)
  for _ in range(sizes["filled"] - 1):
    video.step(masks=True)
  found = [video.step() for _ in range(1 + sizes["frames"])][1:]
  return {
    "parameters": _parameters(video.params),
    "frame_ms": 1e3 * statistics.mean(found),
    "slowest_frame_ms": 1e3 * max(found),
    "frames_per_s": len(found) / sum(found),
    "compile_s": compile_s,
    "peak_gb": measure.peak_gb(),
    **(_on_gpu(sizes) if jax.default_backend() == "gpu" else {}),
  }


def _video(sizes):
  video = _Video(sizes)
  video.step(masks=True)
  found, spent = {"parameters": _parameters(video.params)}, []
  for t in range(1, max(sizes["lengths"]) + 1):
    spent.append(video.step())
    if t in sizes["lengths"]:
      found[f"to_{t}_frame_ms"] = 1e3 * statistics.mean(spent)
      found[f"at_{t}_frame_ms"] = 1e3 * statistics.median(spent[-20:])
      found[f"at_{t}_state_mb"] = video.state_bytes() / 1e6
  return {**found, "peak_gb": measure.peak_gb()}


def _training(sizes):
  import jax

  model, params = _model()
  call = jax.jit(jax.value_and_grad(_loss(model, sizes["rules"], _clip_arguments(sizes))))
  start = time.perf_counter()
  call = call.lower(params).compile()
  compile_s = time.perf_counter() - start
  spent = measure.times(lambda: jax.block_until_ready(call(params)), sizes["repeats"])
  return {
    "parameters": _parameters(params),
    "pass_ms": 1e3 * statistics.median(spent),
    "compile_s": compile_s,
    "peak_gb": measure.peak_gb(),
  }


def _memory(sizes):
  """Of a step with AdamW, from the compiler's own account."""
  import jax
  import optax

  model, params = _model()
  tx = optax.adamw(1e-5)
  loss = _loss(model, sizes["rules"], _clip_arguments(sizes), remat=True)

  def step(params, state):
    value, gradients = jax.value_and_grad(loss)(params)
    updates, state = tx.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, value

  shapes = jax.eval_shape(lambda: (params, tx.init(params)))
  found = jax.jit(step, donate_argnums=(0, 1)).lower(*shapes).compile().memory_analysis()
  return {
    "parameters": _parameters(params),
    "arguments_gb": found.argument_size_in_bytes / 1e9,
    "temporary_gb": found.temp_size_in_bytes / 1e9,
    "together_gb": (found.argument_size_in_bytes + found.temp_size_in_bytes) / 1e9,
  }


class _Video:
  """Random frames through `clip.step`, one after the other, with one compiled program."""

  def __init__(self, sizes):
    import jax
    import numpy as np

    from vistraj_jax.models.xmem import clip, schedule, settings

    self.model, self.params = _model()
    rules = settings.MemorySettings(**sizes["rules"])
    self.planner = schedule.Planner(rules, schedule.num_slots(rules))
    self.objects, self.size, self.batch = sizes["objects"], sizes["size"], sizes.get("batch", 1)
    self.state = clip.init_state(self.model, rules, self.size, self.objects, self.batch)
    rng = np.random.default_rng(0)
    shape = (self.batch, *self.size, 3)
    self.images = [jax.device_put(rng.standard_normal(shape, np.float32)) for _ in range(4)]
    masks = np.asarray(_bars(self.objects, self.size, 40))
    self.masks = jax.device_put(np.broadcast_to(masks, (self.batch, *masks.shape)))
    self.call = jax.jit(lambda *args: clip.step(self.model, rules, *args), donate_argnums=1)

  def step(self, masks=False):
    """Returns the wall time of one frame in s."""
    import jax
    import numpy as np

    mask = (0, range(self.objects)) if masks else ()
    plan = self.planner.next(*mask)
    given = np.full((self.batch, self.objects), masks)
    image = self.images[int(plan.time) % len(self.images)]
    start = time.perf_counter()
    self.state, frame = self.call(self.params, self.state, image, self.masks, given, plan)
    jax.block_until_ready((self.state, frame))
    return time.perf_counter() - start

  def state_bytes(self):
    import jax

    return sum(leaf.nbytes for leaf in jax.tree.leaves(self.state))


def _on_gpu(sizes):
  """Several videos at once: frames/s, and the share of the rate of a large product."""
  import jax

  from vistraj_jax.models.xmem import clip

  video = _Video({**sizes, "batch": sizes["gpu_batch"]})
  for _ in range(sizes["filled"]):
    video.step(masks=True)
  spent = statistics.mean([video.step() for _ in range(1 + sizes["frames"])][1:])

  def work(method, *arguments):
    call = functools.partial(video.model.apply, {"params": video.params}, method=method)
    flops = jax.jit(call).lower(*arguments).cost_analysis()["flops"]
    return flops, jax.eval_shape(call, *arguments)

  image, masks, hidden = clip.pad(video.images[0]), clip.pad(video.masks), video.state.hidden
  encoding, features = work("encode_image", image)
  writing, (value, _) = work("encode_value", image, features.f16, masks, hidden)
  segmenting, _ = work("segment", features, value, hidden)
  flops = encoding + segmenting + writing / sizes["rules"]["mem_every"]
  return {
    "together_frames_per_s": sizes["gpu_batch"] / spent,
    "gflop_per_frame": flops / sizes["gpu_batch"] / 1e9,
    **peers.share_of_product(flops / spent),
  }


def _model():
  """Returns (network, parameters on the device)."""
  import jax
  import jax.numpy as jnp

  from vistraj_jax.models.xmem import network

  dtype = jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32
  model = network.XMem(dtype=dtype)
  return model, jax.block_until_ready(network.init(model, jax.random.PRNGKey(0)))


def _loss(model, rules, arguments, remat=False):
  """Returns the function of parameters: cross-entropy of the frames after the first."""
  import jax
  import jax.numpy as jnp

  from vistraj_jax.models.xmem import clip, schedule, settings

  rules = settings.MemorySettings(**rules)
  images, masks, _ = arguments
  T, K = images.shape[1], masks.shape[-1]
  deep = [t % 5 == 0 for t in range(T)]
  planned = schedule.plan_clip(rules, T, last_is_end=True, deep=deep)
  labels = (masks[:, 0] * jnp.arange(1, 1 + K)).sum(-1).astype(int)
  truth = jax.nn.one_hot(labels, 1 + K)[:, None]

  def loss(params):
    frames = clip.run_clip(model, rules, params, *arguments, planned, remat=remat)
    return -(jax.nn.log_softmax(frames.logits[:, 1:]) * truth).sum(-1).mean()

  return loss


def _clip_arguments(sizes):
  """Returns random images [1, T, H, W, 3], the masks of frame 0, and that all are given."""
  import numpy as np

  T, K, size = sizes["frames"], sizes["objects"], sizes["size"]
  images = np.random.default_rng(0).standard_normal((1, T, *size, 3), np.float32)
  return images, np.asarray(_bars(K, size, 16))[None, None], np.ones((1, 1, K), bool)


def _bars(objects, size, width):
  """float32 [H, W, K]: object k is the k-th vertical bar."""
  import numpy as np

  masks = np.zeros((*size, objects), np.float32)
  for k in range(objects):
    masks[:, width * k : width * (k + 1), k] = 1
  return masks


def _host(tree):
  import jax
  import numpy as np

  return jax.tree.map(np.asarray, tree)


def _parameters(params):
  from vistraj_jax.convert import xmem as converter

  return sum(converter.parameter_counts(params).values())


PARTS = {
  "check": peers.Part(
    _check,
    {
      "size": [40, 64],
      "objects": 2,
      "frames": 12,
      "dims": {"key_dim": 16, "value_dim": 32, "hidden_dim": 8},
      "rules": SHORT,
      "train_rules": TRAINING,
      "tolerance": 2e-3,
    },
    {"frames": 8},
    needs_peer=True,
  ),
  "frames": peers.Part(
    _frames,
    {"size": [480, 854], "objects": 2, "gpu_batch": 8, "filled": 10, "frames": 10, "rules": VIDEO},
    {"size": [64, 96], "gpu_batch": 2, "frames": 6, "rules": SHORT},
    LAYOUTS,
  ),
  "training": peers.Part(
    _training,
    {"size": [128, 128], "objects": 2, "frames": 8, "repeats": 3, "rules": TRAINING},
    {"size": [32, 48], "frames": 3, "repeats": 1},
    LAYOUTS,
  ),
  "memory": peers.Part(
    _memory,
    {"size": [256, 256], "objects": 1, "frames": 9, "rules": TRAINING},
    {"size": [32, 32], "frames": 3},
    {},
  ),
  "video": peers.Part(
    _video,
    {"size": [128, 128], "objects": 1, "lengths": [20, 100, 500], "rules": VIDEO},
    {"size": [32, 48], "lengths": [10, 20], "rules": SHORT},
  ),
}


def main(arguments=None):
  """Prints the tables; returns 0."""
  return peers.main("xmem", __doc__, PARTS, arguments)


if __name__ == "__main__":
  command_line.run(main)
