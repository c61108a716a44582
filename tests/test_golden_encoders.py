"""Image encoders against the public networks: every hidden state, masks, positions, pooling."""

import dataclasses

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax import encoders
from vistraj_jax.convert import pretrained
from vistraj_jax.encoders import positions, preprocess, siglip, smolvlm

TINY = {"hidden_size": 96, "depth": 2, "num_heads": 4, "mlp_width": 192, "image_size": 56}


def _load(case, name, **fields):
  """Returns case, encoder and parameters, read through the converter."""
  case = golden_cases.load("vlm_waypoint", case)
  encoder = encoders.make(name, **fields)
  params = pretrained.from_tensors(case.checkpoint(), name, encoder.shapes(), case.folder.name)
  return case, encoder, params


def _pixels(case, name="pixel_values"):
  return np.moveaxis(case.input(name), -3, -1)


def _states(encoder, params, pixels, *rest):
  """All states [B, N, C], of the network alone."""
  run = jax.jit(lambda p, x: encoder.network(jnp.float32).apply({"params": p}, x, *rest))
  hidden = run(params, pixels)
  return [x.reshape(len(x), -1, x.shape[-1]) for x in hidden.states], hidden


def test_idefics3_tower():
  case, encoder, params = _load("idefics3_vision_tiny", "smolvlm_tower", **TINY)
  states, _ = _states(encoder, params, _pixels(case))
  case.check("embeddings", states[0])
  case.check("layer_0", states[1])
  case.check("last_hidden_state", states[2])
  out = jax.jit(encoder.encode_pixels)(params, _pixels(case))
  case.check("pooled_mean", out.pooled[:, 0])
  assert out.grid == (4, 4)
  normed = encoders.make("smolvlm_tower", **TINY, norm_all=True)
  raw, normal = case.arrays["layer_0"], _states(normed, params, _pixels(case))[0][1]
  scale, bias = params["final_norm"]["scale"], params["final_norm"]["bias"]
  centred = raw - raw.mean(-1, keepdims=True)
  wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * scale + bias
  np.testing.assert_allclose(normal, wanted, rtol=1e-4, atol=1e-5)


def test_idefics3_tower_with_padded_images():
  case, encoder, params = _load("idefics3_vision_mask", "smolvlm_tower", **TINY)
  mask = case.input("pixel_attention_mask")
  states, hidden = _states(encoder, params, _pixels(case), mask)
  np.testing.assert_array_equal(hidden.patch_mask, case.arrays["patch_mask"])
  ids = siglip.masked_ids(hidden.patch_mask, 4, "exact")
  np.testing.assert_array_equal(ids, case.arrays["position_ids"])
  case.check("embeddings", states[0])
  case.check("layer_0", states[1])
  case.check("last_hidden_state", states[2])
  for pool, name in (("mean", "plain_mean"), ("masked_mean", "masked_mean")):
    pooling = encoders.make("smolvlm_tower", **TINY, pool=pool)
    case.check(name, jax.jit(pooling.encode_pixels)(params, _pixels(case), mask).pooled[:, 0])


def test_full_tower():
  """412,987,248 parameters on one image of 384 x 384."""
  case, encoder, params = _load("idefics3_vision_so400m", "smolvlm_tower")
  assert sum(x.size for x in jax.tree.leaves(params)) == 412_987_248
  states, _ = _states(encoder, params, _pixels(case))
  case.check("pooled_mean", states[-1].mean(1))
  case.check("last_hidden_state", states[-1])
  case.check("embeddings", states[0])
  for i in (0, 1, 6, 13, 20):
    case.check(f"layer_{i}", states[i + 1])
  norms = {"embeddings": states[0], "layer_20": states[21], "last_hidden_state": states[-1]}
  for name, state in norms.items():
    wanted = case.manifest["outputs"][name]["l2"]
    np.testing.assert_allclose(np.linalg.norm(np.asarray(state)), wanted, rtol=1e-4)


def test_position_ids():
  case = golden_cases.load("vlm_waypoint", "idefics3_position_ids")
  for name, wanted in case.arrays.items():
    rule, _, numbers = name.partition("_")
    if rule == "exact":
      side, count = map(int, numbers.split("_"))
      np.testing.assert_array_equal(positions.ids(count, side), wanted, name)
  for side in (27, 32):
    found = positions.ids(side, side, "hf_4_57_bf16")
    np.testing.assert_array_equal(found, case.arrays[f"hf_4_57_bf16_{side}"])
  collapsed = positions.ids(27, 27, "hf_4_57_bf16") != np.arange(27)
  assert np.flatnonzero(collapsed).tolist() == [15, 17, 19, 21, 23, 25]


def test_siglip_with_pooling_head_and_resized_positions():
  case, encoder, params = _load("siglip_vision_tiny", "siglip_so400m", **TINY, pool="siglip_head")
  states, _ = _states(encoder, params, _pixels(case))
  case.check("embeddings", states[0])
  out = jax.jit(encoder.encode_pixels)(params, _pixels(case))
  case.check("last_hidden_state", out.tokens)
  case.check("pooler_output", out.pooled[:, 0])
  big = _pixels(case, "pixel_values_big")
  out = jax.jit(encoder.encode_pixels)(params, big)
  assert out.grid == (6, 5)
  case.check("interp_last_hidden_state", out.tokens)
  case.check("interp_pooler_output", out.pooled[:, 0])
  empty = jax.tree.map(jnp.zeros_like, params["patch_embedding"])
  states, _ = _states(encoder, {**params, "patch_embedding": empty}, big)
  case.check("interp_position_embedding", states[0])


def test_connector():
  case = golden_cases.load("vlm_waypoint", "connector_tiny")
  tokens = jnp.asarray(case.input("image_hidden_states")).reshape(2, 6, 6, 96)
  shuffled = smolvlm.shuffled(tokens, 3)
  case.check("shuffled", shuffled)
  (weight,) = case.checkpoint().values()
  case.check("output", shuffled @ weight.T)


def test_whole_smolvlm():
  text = golden_cases.load("vlm_waypoint", "idefics3_full_tiny").config["text"]
  case, encoder, params = _load(
    "idefics3_full_tiny",
    "smolvlm",
    **{**TINY, "image_size": 42},
    text_width=text["hidden_size"],
    text_depth=text["num_hidden_layers"],
    text_heads=text["num_attention_heads"],
    text_kv_heads=text["num_key_value_heads"],
    text_mlp_width=text["intermediate_size"],
    vocabulary=text["vocab_size"],
    rope_theta=text["rope_theta"],
    image_token=99,
  )
  ids, mask = case.input("input_ids"), case.input("attention_mask")
  states, hidden = _states(encoder, params, _pixels(case)[:, 0], None, None, ids, mask)
  # The stored embeddings hold something else in channel 0 of the image token; they do not lead to
  # the stored output, ours do.
  wanted = case.arrays["merged_embeddings"] * mask[..., None]
  sound = np.ones(wanted.shape, bool)
  sound[..., 0] = ids != 99
  np.testing.assert_allclose(states[0][sound], wanted[sound], rtol=2e-4, atol=2e-5)
  case.check("last_hidden_state", states[-1])
  case.check("last_token", hidden.heads[-1])
  case.check("seed_last", np.where(mask[:, -1:], states[-1][:, -1], case.arrays["seed_last"]))
  # As an encoder, with the text of the first example for every image.
  prompted = dataclasses.replace(encoder, prompt=tuple(ids[0].tolist()))
  out = jax.jit(prompted.encode_pixels)(params, _pixels(case)[:, 0])
  np.testing.assert_allclose(out.pooled[0, 0], case.arrays["last_token"][0], rtol=2e-4, atol=2e-5)


def test_internvit():
  case, encoder, params = _load("internvit_tiny", "internvit_300m", **TINY)
  states, _ = _states(encoder, params, _pixels(case))
  for name, state in zip(("embeddings", "layer_0", "layer_1"), states, strict=True):
    np.testing.assert_allclose(state, case.arrays[name][:, 1:], rtol=1e-4, atol=1e-5, err_msg=name)
  case.check("pooled_patches", jax.jit(encoder.encode_pixels)(params, _pixels(case)).pooled[:, 0])


def test_sam_vit():
  fields = {"hidden_size": 64, "depth": 3, "num_heads": 4, "mlp_width": 256, "image_size": 128}
  fields |= {"window": 3, "global_layers": (1,), "neck_width": 32}
  case, encoder, params = _load("sam_vit_tiny", "sam_vit_b", **fields)
  _, hidden = _states(encoder, params, _pixels(case))
  for i in range(3):
    case.check(f"layer_{i}", hidden.states[i + 1])
  case.check("neck", np.moveaxis(hidden.states[-1], -1, 1))


def test_sam2_hiera():
  config = golden_cases.load("vlm_waypoint", "sam2_hiera_tiny").config
  case, encoder, params = _load(
    "sam2_hiera_tiny",
    "sam2_hiera_tiny",
    image_size=config["image_size"],
    embed_dim=config["embed_dim"],
    stages=config["stages"],
    global_blocks=config["global_att_blocks"],
  )
  _, hidden = _states(encoder, params, _pixels(case))
  case.check("pos_added", hidden.states[0])
  for stage, last in enumerate(np.cumsum(config["stages"])):
    case.check(f"stage_{stage}", np.moveaxis(hidden.states[last], -1, 1))


@pytest.mark.parametrize(
  ("name", "kernel", "edge"),
  [
    ("one_step_uint8", "lanczos", None),
    ("bicubic_uint8", "bicubic", None),
    ("bilinear_uint8", "bilinear", None),
    ("two_step_uint8", "lanczos", 112),
  ],
)
def test_preprocess_as_pillow(name, kernel, edge):
  case = golden_cases.load("vlm_waypoint", "preprocess_pil")
  spec = preprocess.Preprocess((56, 56), kernel, longest_edge=edge)
  found = np.asarray(preprocess.resized(spec, case.input("image")[None]))[0]
  away = np.abs(found - case.arrays[name])
  assert away.max() <= 1  # Pillow's sums are in fixed point: a tie may fall to the other side
  assert (away > 0).mean() < (0.3 if edge else 1e-3)


def test_preprocess_normalised():
  case = golden_cases.load("vlm_waypoint", "preprocess_pil")
  half = preprocess.HALF
  spec = preprocess.Preprocess((56, 56), "lanczos", mean=half, std=half)
  found = np.asarray(preprocess.apply(spec, case.input("image")[None]))[0]
  away = np.abs(found - case.arrays["one_step_normalised"])
  assert away.max() < 1.001 / 127.5 and (away > 1e-6).mean() < 1e-3


def test_preprocess_of_the_seed():
  case = golden_cases.load("vlm_waypoint", "vlm_waypoint_tiny")
  encoder = encoders.make("smolvlm_tower", **TINY, preprocess="seed")
  found = preprocess.resized(encoder.preprocess, case.input("images")) / 255
  case.check("resized", np.moveaxis(np.asarray(found), -1, 1))
