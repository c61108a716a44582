"""Times what is dear in MagVit's futures: long attention, entropies of codes, nearest codes.

  python -m benchmarks.magvit --torch_python TORCH_VENV/bin/python [--out FILE.json]
  python -m benchmarks.magvit --parts entropies nearest

Parts:
  check      attention and its gradients are those of the peer (small sizes).
  attention  25,600 tokens, 8 heads of 32, float32: forward, and forward and backward; temporary
             memory as the compiler counts it. The peer is PyTorch's fused attention.
  entropies  the two entropies of the LFQ loss over 2^18 codes for 7,168 tokens, with gradient.
  nearest    nearest of 262,144 code vectors for 25,600 vectors of 256.
  step       a training step of one clip, 25 frames of 128 px before and after, as a tokenizer
             without strides in time sees it: 25,600 tokens, 12 layers of width 256, float32.
"""

import statistics

from benchmarks import measure, peers
from launch import command_line


def _check(sizes):
  import jax
  import numpy as np

  q, k, v = _vectors(sizes)
  out, gradients = jax.jit(_attention_pass())(q, k, v)
  stored = {"q": q, "k": k, "v": v, "out": out}
  stored |= dict(zip(("q_gradient", "k_gradient", "v_gradient"), gradients, strict=True))
  np.savez(f"{sizes['folder']}/magvit.npz", **stored)
  return {}


def _attention(sizes):
  import jax

  from vistraj_jax.nn import attention

  arguments = _vectors(sizes)
  forward = jax.jit(lambda q, k, v: attention.attention(q, k, v)).lower(*arguments).compile()
  both = jax.jit(_attention_pass()).lower(*arguments).compile()
  return {
    **_timed("forward", forward, arguments, sizes),
    **_timed("both", both, arguments, sizes),
    "peak_gb": measure.peak_gb(),
  }


def _entropies(sizes):
  import jax

  from vistraj_jax.nn import quantize

  z = jax.random.normal(jax.random.PRNGKey(0), (sizes["tokens"], sizes["bits"]))

  def loss(z):
    of_token, of_mean = quantize.code_entropies(z)
    return of_token - of_mean

  forward = jax.jit(loss).lower(z).compile()
  both = jax.jit(jax.value_and_grad(loss)).lower(z).compile()
  return {**_timed("forward", forward, (z,), sizes), **_timed("both", both, (z,), sizes)}


def _nearest(sizes):
  import jax

  from vistraj_jax.nn import quantize

  keys = jax.random.split(jax.random.PRNGKey(0))
  z = jax.random.normal(keys[0], (sizes["vectors"], sizes["width"]))
  codes = jax.random.normal(keys[1], (sizes["codes"], sizes["width"]))
  call = jax.jit(quantize.nearest).lower(z, codes).compile()
  return {**_timed("forward", call, (z, codes), sizes), "peak_gb": measure.peak_gb()}


def _step(sizes):
  import functools

  import jax
  import numpy as np

  from configs import magvit as settings
  from vistraj_jax.tasks import base
  from vistraj_jax.train import optim, phases, state, step

  config = settings.get_config("full")
  config.model.tokenizer.multipliers = (1, 1, 4)
  config.model.transformer.update(sizes["transformer"])
  config.data.update(past=sizes["frames"], future=sizes["frames"], image_size=sizes["side"])
  task, phase = base.make(config).for_phase("predictor"), phases.from_config(config, 4)[1]
  variables = task.init(jax.random.PRNGKey(0))
  tx = optim.build(phase, config.optimizer, variables["params"])
  labels = optim.labels_of(phase, variables["params"])
  shape = (1, 2 * sizes["frames"], sizes["side"], sizes["side"], 3)
  batch = {
    "video": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
    "colours": np.full((1, 2, 3), 200, np.uint8),
    "mask": np.ones(1, np.float32),
  }
  start = state.create(variables, tx, jax.random.PRNGKey(1), 0.0)
  run = jax.jit(functools.partial(step.train_step, task=task, tx=tx, labels=labels))
  call = run.lower(start, batch).compile()
  return {**_timed("step", call, (start, batch), sizes), "peak_gb": measure.peak_gb()}


def _vectors(sizes):
  """Queries, keys and values [1, N, heads, D]."""
  import jax

  shape = (1, sizes["tokens"], sizes["heads"], sizes["width"])
  return [jax.random.normal(key, shape) for key in jax.random.split(jax.random.PRNGKey(0), 3)]


def _attention_pass():
  """(q, k, v) -> attention, gradients of the sum of its squares."""
  import jax

  from vistraj_jax.nn import attention

  def both(q, k, v):
    out, backward = jax.vjp(lambda *x: attention.attention(*x), q, k, v)
    return out, backward(2 * out)

  return both


def _timed(name, call, arguments, sizes):
  import jax

  spent = measure.times(
    lambda: jax.block_until_ready(call(*arguments)), sizes["repeats"], sizes.get("warm", 1)
  )
  return {
    f"{name}_ms": 1e3 * statistics.median(spent),
    f"{name}_temporary_gb": call.memory_analysis().temp_size_in_bytes / 1e9,
  }


HEADS = {"heads": 8, "width": 32}
PARTS = {
  "check": peers.Part(
    _check, {**HEADS, "tokens": 5000, "tolerance": 1e-4}, {"tokens": 300}, needs_peer=True
  ),
  "attention": peers.Part(
    _attention, {**HEADS, "tokens": 25_600, "repeats": 2}, {"tokens": 300, "repeats": 1}
  ),
  "entropies": peers.Part(
    _entropies, {"tokens": 7168, "bits": 18, "repeats": 10}, {"tokens": 64, "bits": 4}, {}
  ),
  "nearest": peers.Part(
    _nearest,
    {"vectors": 25_600, "codes": 262_144, "width": 256, "repeats": 1},
    {"vectors": 64, "codes": 100, "width": 8},
    {},
  ),
  "step": peers.Part(
    _step,
    {
      "frames": 25,
      "side": 128,
      "transformer": {"width": 256, "num_heads": 8, "num_layers": 12, "hidden": 1024},
      "repeats": 1,
      "warm": 0,
    },
    {
      "frames": 3,
      "side": 16,
      "transformer": {"width": 16, "num_heads": 2, "num_layers": 1, "hidden": 16},
    },
    {},
  ),
}


def main(arguments=None):
  """Prints the tables; returns 0."""
  return peers.main("magvit", __doc__, PARTS, arguments)


if __name__ == "__main__":
  command_line.run(main)
