"""Golden two-stream cases: networks by the manifest, weights through the converter, images."""

import functools

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.convert import two_stream as converter


def image(prefix, name, shape):
  """Returns an input image of the cases: NCHW shape -> float32 [B, H, W, C] in 0..1."""
  x = golden_cases.fill.tensor(f"input:{prefix}_{name}", shape, "unit").astype(np.float64)
  return np.moveaxis((1 / (1 + np.exp(-x))).astype(np.float32), 1, -1)


def images(case, prefix, names=("img_t", "img_tk")):
  return [image(prefix, name, case.manifest["inputs"][name]["shape"]) for name in names]


def shapes(model, *inputs):
  """Returns {merged name: shape} of the network's variables, without computing anything."""
  tree = jax.eval_shape(functools.partial(model.init, jax.random.PRNGKey(0)), *inputs)
  flat = jax.tree_util.tree_flatten_with_path({c: tree[c] for c in tree if c != "intermediates"})[0]
  names = ["/".join(key.key for key in path[1:]) for path, _ in flat]
  return {name: leaf.shape for name, (_, leaf) in zip(names, flat, strict=True)}


def variables(case, model, *inputs):
  """Returns the network's variables with the case's weights, and the layout of the file."""
  tensors, layout, _ = converter.state_of(case.checkpoint(), case.folder.name)
  want = shapes(model, *[jnp.asarray(x) for x in inputs])
  tree, dropped = converter.from_torch(tensors, layout, want, case.folder.name)
  assert not dropped
  return tree, layout


def nchw(x):
  return np.moveaxis(np.asarray(x), -1, 1)


def check_gradients(case, grads, layout):
  """Compares norms (and sums, where they say something) of all stored gradients."""
  named = converter.to_torch({"params": jax.tree.map(np.asarray, grads)}, layout, "gradients")
  named = named["model_state_dict"]
  tolerance = case.manifest["grad_tolerance"]
  norms, sums = case.arrays["grad_l2"], case.arrays["grad_sum"]
  compare = functools.partial(np.testing.assert_allclose, rtol=tolerance["rtol"])
  for name, norm, total in zip(case.manifest["grad_names"], norms, sums, strict=True):
    gradient = named[name].astype(np.float64)
    compare(np.linalg.norm(gradient), norm, atol=tolerance["atol"], err_msg=name)
    if abs(total) > 1e-3 * norm * gradient.size**0.5:
      compare(gradient.sum(), total, atol=1e-6 + 2e-3 * norm, err_msg=name)
  for name in case.manifest["grad_none"]:
    assert not named[name].any(), name
  return named
