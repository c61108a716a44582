"""Low-rank adaptation: the public formula, adapters in and out, what is trained and what is not."""

import json

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from vistraj_jax import encoders
from vistraj_jax.convert import adapters, pretrained
from vistraj_jax.core import checks, weights
from vistraj_jax.nn import dropout, lora

TINY = {"hidden_size": 96, "depth": 2, "num_heads": 4, "mlp_width": 192, "image_size": 56}
ENCODER = encoders.make("smolvlm_tower", **TINY)
WANT = ENCODER.shapes()


@pytest.fixture(scope="module")
def case():
  return golden_cases.load("vlm_waypoint", "lora_vision_tiny")


@pytest.fixture(scope="module")
def params(case):
  base = {n: t for n, t in case.checkpoint().items() if "lora_" not in n}
  return pretrained.from_tensors(base, "smolvlm_tower", WANT, "case")


@pytest.fixture
def folder(case, tmp_path):
  """The case's adapter as the public format has it."""
  tensors = {n: t for n, t in case.checkpoint().items() if "lora_" in n}
  return _write(tmp_path / "adapter", tensors, r=8, lora_alpha=16)


def _write(folder, tensors, **config):
  folder.mkdir(exist_ok=True)
  safetensors.numpy.save_file(tensors, folder / adapters.TENSORS)
  text = json.dumps({"peft_type": "LORA", "bias": "none", **config})
  (folder / adapters.CONFIG).write_text(text)
  return folder


def test_linear():
  case = golden_cases.load("vlm_waypoint", "lora_linear")
  tensors = case.checkpoint()
  x = case.input("x")
  params = {"kernel": tensors["base_layer.weight"].T, "bias": tensors["base_layer.bias"]}
  pair = {"a": tensors["lora_A.weight"].T, "b": tensors["lora_B.weight"].T}
  layer = lora.Dense(160)

  def run(pair, alpha):
    return layer.apply({"params": params, "lora": lora.scaled(pair, alpha)}, x)

  case.check("output_base", layer.apply({"params": params}, x))
  case.check("output", run(pair, 16))
  case.check("output_rslora", run(pair, 16 * 8**0.5))
  merged = lora.merge(params, pair, 16)
  case.check("merged_weight", merged["kernel"].T)
  case.check("output", layer.apply({"params": merged}, x))
  grads = jax.grad(lambda pair: (run(pair, 16) ** 2).mean() / 2)(pair)
  case.check("grad_A", grads["a"].T)
  case.check("grad_B", grads["b"].T)


def test_tower_with_an_adapter(case, params, folder):
  tree, settings = adapters.load_adapter(folder, "smolvlm_tower", WANT, rank=8)
  assert settings == {"rank": 8, "alpha": 16, "dropout": 0}
  pixels = np.moveaxis(case.input("pixel_values"), 1, -1)
  run = jax.jit(lambda p, x, **more: ENCODER.encode_pixels(p, x, **more))
  case.check("output_base", run(params, pixels).tokens)
  beside = run(params, pixels, lora=tree, alpha=16.0)
  case.check("output", beside.tokens)
  case.check("pooled_mean", beside.pooled[:, 0])
  case.check("output", run(lora.merge(params, tree, 16), pixels).tokens)


def test_adapter_out_and_in(case, tmp_path, folder):
  tree, _ = adapters.load_adapter(folder, "smolvlm_tower", WANT)
  adapters.save_adapter(tmp_path / "out", tree, 16, "smolvlm_tower", WANT)
  written = safetensors.numpy.load_file(tmp_path / "out" / adapters.TENSORS)
  wanted = safetensors.numpy.load_file(folder / adapters.TENSORS)
  assert written.keys() == wanted.keys()
  for name, tensor in wanted.items():
    np.testing.assert_array_equal(written[name], tensor, name)
  config = json.loads((tmp_path / "out" / adapters.CONFIG).read_text())
  assert (config["r"], config["lora_alpha"], config["layers_to_transform"]) == (8, 16, [0, 1])
  assert config["target_modules"] == ["k_proj", "out_proj", "q_proj", "v_proj"]


def test_rank_stabilised_scale(case, tmp_path):
  tensors = {n: t for n, t in case.checkpoint().items() if "lora_" in n}
  folder = _write(tmp_path / "adapter", tensors, r=8, lora_alpha=16, use_rslora=True)
  _, settings = adapters.load_adapter(folder, "smolvlm_tower", WANT)
  assert settings["alpha"] / 8 == pytest.approx(16 / 8**0.5)


def test_an_adapter_of_packed_matrices_is_cut(tmp_path):
  want = encoders.make("internvit_300m", **TINY).shapes()
  rng = np.random.default_rng(0)
  a, b = (rng.normal(size=s).astype(np.float32) for s in ((4, 96), (288, 4)))
  name = "base_model.model.vision_model.encoder.layers.1.attn.qkv.lora_{}.weight"
  folder = _write(tmp_path / "in", {name.format("A"): a, name.format("B"): b}, r=4, lora_alpha=8)
  tree, _ = adapters.load_adapter(folder, "internvit_300m", want)
  assert list(tree["layer1"]["attention"]) == ["q", "k", "v"]
  np.testing.assert_array_equal(tree["layer1"]["attention"]["k"]["b"], b[96:192].T)
  # Written with the library's names, which have single matrices.
  adapters.save_adapter(tmp_path / "out", tree, 8, "internvit_300m", want)
  again, _ = adapters.load_adapter(tmp_path / "out", "internvit_300m", want)
  jax.tree.map(np.testing.assert_array_equal, again, tree)
  sam = encoders.make("sam_vit_b", hidden_size=64, depth=1, num_heads=4, image_size=32)
  shapes = {n: np.zeros(s, np.float32) for n, s in sam.shapes().items()}
  tree = lora.init(jax.random.key(0), weights.unflatten(shapes), 2)
  with pytest.raises(checks.InputError, match="pack queries, keys and values"):
    adapters.save_adapter(tmp_path / "sam", tree, 4, "sam_vit_b", sam.shapes())


def _broken(case, tmp_path, change):
  tensors = {n: t for n, t in case.checkpoint().items() if "lora_" in n}
  config = {"r": 8, "lora_alpha": 16}
  change(tensors, config)
  return _write(tmp_path / "broken", tensors, **config)


_Q0 = "base_model.model.vision_model.encoder.layers.0.self_attn.q_proj.lora_{}.weight"


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    (lambda t, c: c.update(r=4), r"_proj has A \(8, 96\) and B .* says rank 4"),
    (lambda t, c: t.pop(_Q0.format("B")), "self_attn.q_proj has only lora_A"),
    (lambda t, c: c.pop("lora_alpha"), "is no JSON with 'r' and 'lora_alpha'"),
    (lambda t, c: c.update(use_dora=True), "use_dora is True; only plain LoRA"),
    (lambda t, c: c.update(rank_pattern={"q": 4}), "rank_pattern is set"),
    (lambda t, c: t.update(x=np.zeros(1, np.float32)), "'x' is no LoRA tensor"),
    (
      lambda t, c: t.update(
        {n.replace("layers.1", "layers.7"): t.pop(n) for n in list(t) if "layers.1" in n}
      ),
      "adapts 4 modules that encoder 'smolvlm_tower' does not have: .*layers.7",
    ),
    (
      lambda t, c: t.update({_Q0.format("B"): np.zeros((95, 8), np.float32)}),
      r"is for a matrix of \(96, 95\), the encoder's is \(96, 96\)",
    ),
  ],
)
def test_bad_adapters(case, tmp_path, change, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    adapters.load_adapter(_broken(case, tmp_path, change), "smolvlm_tower", WANT)


def test_adapter_of_another_rank_and_no_adapter(folder, tmp_path):
  with pytest.raises(checks.InputError, match="an adapter of rank 8, wanted is rank 16; set"):
    adapters.load_adapter(folder, "smolvlm_tower", WANT, rank=16)
  with pytest.raises(checks.InputError, match="no adapter folder, it lacks adapter_config.json"):
    adapters.load_adapter(tmp_path, "smolvlm_tower", WANT)


@pytest.mark.parametrize("rank", [8, 16, 32])
def test_sizes_of_the_full_tower(rank):
  encoder = encoders.make("smolvlm_tower")
  shapes = {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in encoder.shapes().items()}
  tree = weights.unflatten(shapes)
  count = lambda **more: sum(  # noqa: E731
    x.size
    for x in jax.tree.leaves(
      jax.eval_shape(lambda key: lora.init(key, tree, rank, **more), jax.random.key(0))
    )
  )
  assert count() == 248_832 * rank
  assert count(targets=(*lora.TARGETS, "fc1", "fc2")) == (248_832 + 294_624) * rank
  assert count(last_n=8) == 248_832 * rank * 8 // 27


def test_init_changes_nothing_and_trains_only_the_branch(params, case):
  tree = lora.init(jax.random.key(0), params, 4, targets=("q", "fc2"), last_n=1)
  assert list(tree) == ["layer1"]
  pixels = np.moveaxis(case.input("pixel_values"), 1, -1)
  run = jax.jit(lambda tree: ENCODER.encode_pixels(params, pixels, lora=tree, alpha=8.0).tokens)
  case.check("output_base", run(tree))
  gradient = jax.jit(jax.grad(lambda tree: (run(tree) ** 2).sum()))
  text, grads = gradient.lower(tree).as_text(), gradient(tree)
  assert np.abs(grads["layer1"]["mlp"]["fc2"]["b"]).max() > 0
  assert np.abs(grads["layer1"]["mlp"]["fc2"]["a"]).max() == 0  # B is zero
  assert "tensor<96x96xf32>" not in _results_of_products(text)  # no gradient of a frozen matrix


def _results_of_products(text):
  """Types of the results of all matrix products in a StableHLO text."""
  return {line.split("->")[-1].strip() for line in text.splitlines() if "dot_general" in line}


def test_dropout_belongs_to_rows(params, case):
  tree = jax.tree.map(lambda x: x + 0.1, lora.init(jax.random.key(0), params, 4, targets=("q",)))
  pixels = np.moveaxis(case.input("pixel_values"), 1, -1)
  run = jax.jit(
    lambda x, keys: ENCODER.encode_pixels(params, x, lora=tree, alpha=8.0, keys=keys).tokens
  )
  keys = dropout.row_keys(jax.random.key(1), jnp.arange(2))
  both = run(pixels, keys)
  assert np.abs(both - run(pixels, None)).max() > 1e-4
  for i in (0, 1):
    np.testing.assert_allclose(run(pixels[i : i + 1], keys[i : i + 1])[0], both[i], atol=1e-5)


def test_bad_settings(params):
  key = jax.random.key(0)
  with pytest.raises(checks.InputError, match="lora.targets: 'qkv' is not allowed"):
    lora.init(key, params, 4, targets=("qkv",))
  with pytest.raises(checks.InputError, match="lora.last_n: 3; the encoder has 2 layers"):
    lora.init(key, params, 4, last_n=3)
  with pytest.raises(checks.InputError, match="lora.rank: 0"):
    lora.init(key, params, 0)
  tree = lora.init(key, params, 4)
  with pytest.raises(checks.InputError, match="adapt 'layer1/attention/.', which the"):
    lora.merge({"layer0": params["layer0"]}, tree, 8)
  wide = encoders.make("smolvlm_tower", **{**TINY, "hidden_size": 48})
  with pytest.raises(checks.InputError, match=r"do not fit the kernel \(48, 48\)"):
    lora.merge(wide.init(key), tree, 8)
