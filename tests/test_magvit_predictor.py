"""Latent predictors: options, lengths, motion, memory, losses, what the decoder gets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_golden_video_resnet import jit

from vistraj_jax.core import checks
from vistraj_jax.losses import bits
from vistraj_jax.models.magvit import predictor
from vistraj_jax.models.magvit.transformer import Transformer
from vistraj_jax.nn import dropout, initializers

SMALL = {"width": 16, "num_heads": 2, "num_layers": 2, "hidden": 32, "max_grid": (4, 3, 3)}
PAST = np.sign(np.random.default_rng(0).normal(size=(2, 3, 2, 3, 6))).astype(np.float32)


def small(motion=None, tokens="all", **more):
  model = predictor.LatentPredictor(6, {**SMALL, **more}, tokens)
  return model, initializers.init(model, jax.random.PRNGKey(0), PAST, motion)["params"]


@functools.cache
def loss_and_gradients(remat):
  model, params = small(remat=remat, attention="chunked", dropout=0.1)
  keys = dropout.row_keys(jax.random.PRNGKey(2), jnp.arange(2))
  loss = lambda p: bits.latent_mse(model.apply({"params": p}, PAST, keys=keys), PAST).sum()  # noqa: E731
  return jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize("remat", ["block", "attention"])
def test_computing_again_changes_nothing(remat):
  for a, b in zip(*map(jax.tree.leaves, map(loss_and_gradients, ("none", remat))), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("attend", ["factorised", "axial"])
def test_attention_over_parts_of_the_axes_reaches_everything(attend):
  model, params = small(attend=attend)
  run = jit(lambda past: model.apply({"params": params}, past))
  other = PAST.copy()
  other[:, 2, 1, 2] *= -1
  moved = np.asarray(run(PAST) - run(other))
  assert moved.shape == PAST.shape and (np.abs(moved).max(-1) > 1e-6).all()


def test_dropout_belongs_to_the_row():
  model, params = small(dropout=0.5)
  run = jit(lambda past, keys: model.apply({"params": params}, past, keys=keys))
  keys = dropout.row_keys(jax.random.PRNGKey(0), jnp.arange(2))
  both = run(PAST, keys)
  np.testing.assert_allclose(both[1:], run(PAST[1:], keys[1:]), atol=1e-5)
  assert not np.allclose(both, run(PAST, keys[::-1]))


def test_motion_scales_and_shifts():
  motion = np.ones((2, 5), np.float32)
  model, params = small(motion)
  run = jit(lambda params, motion: model.apply({"params": params}, PAST, motion))
  start = run(params, motion)
  np.testing.assert_array_equal(start, run(params, 0 * motion))  # it starts without a say
  params["fusion"] = jax.tree.map(lambda x: x + 0.1, params["fusion"])
  assert not np.allclose(start, run(params, motion))


def test_pooled_predictions_are_alike_everywhere():
  model, params = small(tokens="pooled")
  found = np.asarray(jit(lambda past: model.apply({"params": params}, past))(PAST))
  assert found.shape == PAST.shape
  np.testing.assert_array_equal(found, np.broadcast_to(found[:, :, :1, :1], PAST.shape))


@pytest.mark.parametrize("layers, most", [(1, 1e9), pytest.param(12, 2e9, marks=pytest.mark.slow)])
def test_training_on_25600_tokens_fits_in_memory(layers, most):
  """Compiled, not run: the gradient of the layers on one clip of 25 x 32 x 32 tokens."""
  trunk = Transformer(num_layers=layers, attention="chunked", max_grid=(25, 32, 32))
  clip = jax.ShapeDtypeStruct((1, 25, 32, 32, 256), jnp.float32)
  params = jax.eval_shape(trunk.init, jax.random.PRNGKey(0), clip)
  gradient = jax.grad(lambda params, x: (trunk.apply(params, x) ** 2).sum())
  analysis = jit(gradient).lower(params, clip).compile().memory_analysis()
  assert analysis.temp_size_in_bytes < most


def test_losses():
  logits = jnp.array([[[0.0, 2.0]], [[-1.0, 0.0]]])
  target = jnp.array([[[1.0, 1.0]], [[1.0, -1.0]]])
  np.testing.assert_allclose(bits.latent_mse(logits, target), [1.0, 2.5])
  want = [(np.log(2) + np.log1p(np.exp(-2))) / 2, (np.log1p(np.exp(1)) + np.log(2)) / 2]
  np.testing.assert_allclose(bits.bit_cross_entropy(logits, target), want, rtol=1e-6)
  values, mask = jnp.array([[1.0, 5.0], [3.0, 4.0]]), jnp.array([[1, 0], [0, 0]])
  np.testing.assert_allclose(bits.masked_mean(values, mask), [1.0, 0.0])


def test_what_the_decoder_gets():
  found = jnp.array([0.5, -3.0, 0.0])
  np.testing.assert_array_equal(predictor.to_decode(found, "mse", "hard"), [1, -1, -1])
  np.testing.assert_array_equal(predictor.to_decode(found, "mse", "soft"), found)
  soft = 2 / (1 + np.exp(-np.asarray(found))) - 1  # the mean of a sign with these logits
  np.testing.assert_allclose(predictor.to_decode(found, "bits", "soft"), soft, rtol=1e-5)
  rounded = predictor.to_decode(found, "mse", "hard", lambda x: 2 * x)
  np.testing.assert_array_equal(rounded, 2 * found)


def test_errors():
  model, params = small()
  run = lambda past, model=model: model.apply({"params": params}, past)  # noqa: E731
  with pytest.raises(checks.InputError, match="5 x 2 x 3 tokens"):
    run(np.zeros((1, 5, 2, 3, 6)))
  with pytest.raises(checks.InputError, match="7 channels received"):
    run(np.zeros((1, 3, 2, 3, 7)))
  with pytest.raises(checks.InputError, match=r"config.model.transformer.attend.*'all'"):
    small(attend="all")
  with pytest.raises(checks.InputError, match="18 tokens for a table of 17"):
    small(positions="table", num_positions=17)
  with pytest.raises(
    checks.InputError, match="num_heads: 3 received, which does not divide .* 16;"
  ):
    small(num_heads=3)
