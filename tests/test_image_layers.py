"""Convolution layers: shapes as torch has them, gradients, pooling, enlarging."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax.nn import image_layers, winograd


def _normal(*shape):
  return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_strided_convolution_pads_both_sides():
  x = np.zeros((1, 4, 4, 1), np.float32)
  x[0, 0, 0] = 1
  kernel = np.arange(1.0, 10).reshape(3, 3, 1, 1)
  y = image_layers.convolve(x, kernel, 2)
  # The first window is centred on the first pixel, so it meets the kernel's middle.
  np.testing.assert_array_equal(y[0, ..., 0], [[5, 0], [0, 0]])


@pytest.mark.parametrize(("size", "stride"), [(1, 2), (3, 1), (3, 2), (7, 2)])
def test_gradients(size, stride):
  x, kernel = _normal(2, 9, 12, 3), _normal(size, size, 3, 4)
  around = ((size // 2,) * 2,) * 2

  def plain(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), around, dimension_numbers=layout
    )

  want, backward = jax.vjp(plain, x, kernel)
  got, own_backward = jax.vjp(lambda x, k: image_layers.convolve(x, k, stride), x, kernel)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
  cotangent = _normal(*want.shape)
  for got, want in zip(own_backward(cotangent), backward(cotangent), strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_frozen_batch_norm():
  layer = image_layers.FrozenBatchNorm()
  params = {
    "scale": jnp.array([2.0]),
    "bias": jnp.array([0.5]),
    "mean": jnp.array([3.0]),
    "var": jnp.array([4.0]),
  }

  def run(params):
    return layer.apply({"params": params}, jnp.array([[[[7.0]]]]))[0, 0, 0, 0]

  value, grads = jax.value_and_grad(run)(params)
  assert value == pytest.approx(4.5, abs=1e-4)  # (7 - 3) / 2 * 2 + 0.5
  assert grads["mean"] == grads["var"] == 0
  assert grads["scale"] == pytest.approx(2, abs=1e-4) and grads["bias"] == 1


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarge(factor):
  x = _normal(2, 3, 5, 2)
  shape = (2, 3 * factor, 5 * factor, 2)
  want = jax.image.resize(x, shape, "bilinear", antialias=False)
  np.testing.assert_allclose(image_layers.enlarge(x, factor), want, rtol=1e-5, atol=1e-6)


def test_pooling():
  x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4, 1)
  np.testing.assert_array_equal(
    image_layers.average_pool(x, 2)[0, ..., 0], [[2.5, 4.5], [10.5, 12.5]]
  )
  np.testing.assert_array_equal(image_layers.max_pool(x - 20)[0, ..., 0], [[-15, -13], [-7, -5]])


@pytest.mark.parametrize("size", [(80, 80), (61, 109)])
def test_tiled_convolution_of_large_images(size):
  x, kernel = _normal(1, *size, 64), _normal(3, 3, 64, 64) / 24
  assert winograd.pays(x.shape, kernel.shape, x.dtype)
  got = jax.jit(winograd.convolve)(x, kernel)
  want = jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  assert np.abs(got - want).max() < 4e-5 * np.abs(want).max()
  np.testing.assert_array_equal(image_layers.convolve(x, kernel).shape, want.shape)
