"""One training pass of XMem and its losses against the public training code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xmem_cases
from xmem_cases import check, jit, last, unit

from vistraj_jax.convert import xmem as converter
from vistraj_jax.losses import masks as losses
from vistraj_jax.models.xmem import aggregate, clip, schedule, settings

pytestmark = pytest.mark.slow  # minutes on 2 cores; `make test-slow`


def test_losses():
  case = xmem_cases.load("vos_losses")
  config = case.config
  labels = jnp.asarray(case.arrays["in/labels"])
  present = np.arange(3) < np.array(config["objects_per_sample"])[:, None]
  own = jax.nn.sigmoid(last(2 * unit("mask_logits", 2, 3, 20, 24))) * present[:, None, None]
  logits = aggregate.aggregate(own)
  probability = jax.nn.softmax(logits, -1)
  check(case, "logits_with_bg", np.moveaxis(logits, -1, 1))
  check(case, "prob_with_bg", np.moveaxis(probability, -1, 1))
  check(case, "dice", losses.dice(probability[..., 1:], labels).mean())
  rule = (config["start_warm"], config["end_warm"], config["top_p"])
  for name, iteration in config["iterations"].items():
    share = losses.kept_share(iteration, *rule)
    check(case, f"top_p_{name}", share)
    loss = jit(losses.bootstrapped_cross_entropy)(logits, labels, present, share)
    check(case, f"ce_{name}", loss.mean())


def test_training_pass():
  """Remat is on: the numbers are those of the public pass without it."""
  case = xmem_cases.load("train_pass")
  config = case.config
  model, params = xmem_cases.published()
  images = last(unit("base", 2, 1, 3, 64, 64) + 0.5 * unit("frames", 2, 4, 3, 64, 64))
  labels = jnp.asarray(case.arrays["in/labels"])
  given = np.arange(2) < np.array(config["objects_per_sample"])[:, None]
  masks = (labels[:, :1, ..., None] == np.array([1, 2])).astype(np.float32)
  rules = settings.MemorySettings(top_k=None, mem_every=1, long_term=False)
  planned = schedule.plan_clip(
    rules, 4, last_is_end=True, deep=[True, *config["deep_update"], False]
  )
  warm = (config["start_warm"], config["end_warm"], config["top_p"])
  share = losses.kept_share(config["iteration"], *warm)

  def loss(params):
    frames = clip.run_clip(model, rules, params, images, masks, given[:, None], planned, remat=True)
    terms = {}
    for t in (1, 2, 3):
      ce = losses.bootstrapped_cross_entropy(frames.logits[:, t], labels[:, t], given, share)
      dice = losses.dice(frames.probability[:, t, ..., 1:], labels[:, t])
      terms[f"ce_loss_{t}"], terms[f"dice_loss_{t}"] = ce.mean(), dice.mean()
    return sum(terms.values()), (terms, frames.logits)

  (total, (terms, logits)), grads = jit(jax.value_and_grad(loss, has_aux=True))(params)
  check(case, "total_loss", total)
  for name, value in terms.items():
    check(case, name, value)
  for t in (1, 2, 3):
    check(case, f"logits_{t}", np.moveaxis(logits[:, t], -1, 1))
  sizes = {"key_dim": 64, "value_dim": 512, "hidden_dim": 64}
  grads = converter.to_torch(jax.tree.map(np.asarray, grads), sizes, "gradients")
  norm = functools.partial(np.linalg.norm, axis=None)
  check(case, "grad_norms", np.array([norm(grads[n]) for n in config["grad_norm_names"]]))
  fixed = ("running_mean", "running_var", "num_batches_tracked")
  for name, grad in grads.items():
    assert not name.endswith(fixed) or not grad.any(), name
  check(case, "grad_global_norm", norm(np.array([norm(g) for g in grads.values()])))
  for name in ("key_encoder.conv1", "decoder.pred", "value_encoder.conv1"):
    check(case, f"grad/{name}.weight", grads[f"{name}.weight"])
  check(case, "grad/key_proj.e_proj.bias", grads["key_proj.e_proj.bias"])
