"""Motion guides the predictor: the original joint model's numbers, and the repaired backbones."""

import functools

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_golden_magvit_predictor import first, last, original, shapes
from test_golden_video_resnet import jit

from vistraj_jax.convert import magvit
from vistraj_jax.convert import magvit_predictor as converter
from vistraj_jax.core import checks
from vistraj_jax.models.magvit import frozen, motion
from vistraj_jax.nn import initializers


@pytest.mark.slow
def test_joint_model():
  case = golden_cases.load("magvit", "joint_motion")
  tensors = case.checkpoint()
  make = lambda kind: golden_cases.fill.tensor(  # noqa: E731
    f"input:magvit_jm_{kind}", case.manifest["inputs"][kind]["shape"]
  )
  sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
  past, future = (sigmoid(last(make(kind))) for kind in ("past", "future"))
  vector = make("motion")
  plan = magvit.plan(tensors, "raw", "joint")
  tokenizer = frozen.make(plan.config)
  model = original(case.config, tokens="pooled", fusion="concat")
  want = shapes(model, np.zeros((2, 4, 4, 4, 32), np.float32), vector)
  params = {"tokenizer": plan.tree(), "predictor": converter.from_torch(tensors, want, "joint")}

  def run(params):
    latents = tokenizer.encode(params["tokenizer"], past)
    latents, indices = tokenizer.quantize(latents, params["tokenizer"])
    predicted, seen = model.apply(
      {"params": params["predictor"]}, latents, vector, mutable=["intermediates"]
    )
    frames = tokenizer.decode(params["tokenizer"], predicted)
    fused = seen["intermediates"]["fused"][0]
    return jnp.square(frames - future).mean(), (fused, predicted, frames, indices)

  found, gradients = jit(jax.value_and_grad(run, has_aux=True))(params)
  loss, (fused, predicted, frames, indices) = found
  sure = case.arrays["margin"] > 1e-3
  np.testing.assert_array_equal(np.asarray(indices)[sure], case.arrays["indices"][sure])
  case.check("fused", fused[:, :, 0, 0])
  case.check("pred_latents", predicted[:, :, 0, 0])
  case.check("pred_frames", first(frames))
  case.check("loss", loss)
  gradients = jax.tree.map(np.asarray, gradients)
  assert not gradients["tokenizer"]["code_book"].any()
  found = magvit.to_torch(gradients["tokenizer"], plan.config, "joint")["model_state_dict"]
  found |= converter.to_torch(gradients["predictor"], "joint")
  norms = [
    -1 if "quantizer" in name else np.linalg.norm(found[name].ravel())
    for name in case.config["grad_names"]
  ]
  case.check("grad_norms", norms, **case.manifest["tolerance"]["grad_norms"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", motion.BACKBONES)
def test_motion_networks_see_motion(kind):
  network = motion.MotionNetwork(kind, 6, width=8, frames=8)
  video = np.random.default_rng(0).uniform(size=(1, 5, 32, 32, 3)).astype(np.float32)
  params = initializers.init(network, jax.random.PRNGKey(0), video)
  run = jit(functools.partial(network.apply, params))
  assert run(video).shape == (1, 6)
  assert not np.allclose(run(video), run(video[:, ::-1]), atol=1e-6)


def test_errors():
  with pytest.raises(checks.InputError, match=r"config.model.motion.kind.*'x3d'"):
    motion.MotionNetwork("x3d", 4).init(jax.random.PRNGKey(0), np.zeros((1, 4, 8, 8, 3)))
  with pytest.raises(checks.InputError, match="a clip of 6 frames received, a multiple of 4"):
    motion.MotionNetwork("slowfast", 4, frames=6).init(
      jax.random.PRNGKey(0), np.zeros((1, 4, 8, 8, 3))
    )
