"""XMem's networks one by one against the public model."""

import jax
import jax.numpy as jnp
import numpy as np
import xmem_cases
from xmem_cases import check, jit, last, unit

from vistraj_jax.models.xmem import aggregate, clip, network
from vistraj_jax.nn import image_layers


def _first(x, axis=-1):
  return np.moveaxis(np.asarray(x), axis, -3)


def test_key_encoder():
  case = xmem_cases.load("key_encoder")
  model, params = xmem_cases.published()

  @jit
  def run(params, image):
    maps = model.apply({"params": params}, image, method="trunk")
    return maps, model.apply({"params": params}, maps[-1], method="project")

  maps, (key, shrinkage, selection) = run(params, last(unit("image", 2, 3, 96, 128)))
  for name, map_ in zip(("f4", "f8", "f16"), maps, strict=True):
    check(case, name, _first(map_))
  check(case, "key", _first(key))
  check(case, "shrinkage", np.asarray(shrinkage)[:, None])
  check(case, "selection", _first(selection))


def test_value_encoder():
  case = xmem_cases.load("value_encoder")
  model, params = xmem_cases.published()

  @jit
  def run(params, *inputs):
    return model.apply(
      {"params": params}, *inputs, method="encode_value", mutable=["intermediates"]
    )

  inputs = [last(unit("image", 1, 3, 96, 128)), last(np.abs(unit("f16", 1, 1024, 6, 8)))]
  masks, hidden = last(case.arrays["in/masks"]), last(0.5 * unit("hidden", 1, 2, 64, 6, 8))
  (value, deep), seen = run(params, *inputs, masks, hidden)
  seen = seen["intermediates"]["value_encoder"]
  check(case, "layer3", _first(seen["masked_image"][0]))
  check(case, "fuser_block1", _first(seen["fuser"]["joined"][0])[None])
  check(case, "fuser_attention", _first(seen["fuser"]["gated"][0]))
  check(case, "value", _first(value))
  check(case, "hidden", _first(deep))
  (value, deep), _ = run(params, *inputs, masks[..., :1], hidden[:, :1])
  check(case, "value_single_object", _first(value))
  check(case, "hidden_single_object", _first(deep))


def test_segment():
  case = xmem_cases.load("segment")
  model, params = xmem_cases.published()

  @jit
  def run(params, f16, f8, f4, readout, hidden):
    halves = model.apply({"params": params}, f16, f8, f4, method="image_half")
    features = network.ImageFeatures(None, None, None, f16, *halves)
    (quarter, hidden), seen = model.apply(
      {"params": params}, features, readout, hidden, method="segment", mutable=["intermediates"]
    )
    own = jax.nn.sigmoid(image_layers.enlarge(jnp.moveaxis(quarter, 1, -1), 4))
    return quarter, hidden, seen["intermediates"]["decoder"], own

  maps = [
    last(np.abs(unit(f"f{s}", 1, c, 96 // s, 128 // s)))
    for s, c in ((16, 1024), (8, 512), (4, 256))
  ]
  readout = last(unit("memory_readout", 1, 2, 512, 6, 8))
  hidden = last(0.5 * unit("hidden", 1, 2, 64, 6, 8))
  quarter, hidden, seen, own = run(params, *maps, readout, hidden)
  for name in ("g16", "g8", "g4"):
    check(case, name, _first(seen[name][0])[None])
  check(case, "logits_quarter", np.asarray(quarter)[0][:, None])
  check(case, "hidden", _first(hidden))
  logits = aggregate.aggregate(own)
  check(case, "logits_with_bg", _first(logits))
  check(case, "prob_with_bg", _first(jax.nn.softmax(logits, -1)))
  off = aggregate.aggregate(own * np.array([1, 0]))
  check(case, "prob_with_bg_last_object_off", _first(jax.nn.softmax(off, -1)))


def test_padding_is_split_with_the_odd_pixel_after():
  x = np.arange(1.0, 1 + 15 * 33).reshape(1, 15, 33, 1)
  padded = np.asarray(clip.pad(x))
  assert padded.shape == (1, 16, 48, 1)
  np.testing.assert_array_equal(padded[0, :15, 7:40], x[0])
  assert padded.sum() == x.sum()
