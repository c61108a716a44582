"""Video tokenizers and their parts against the public models, through the converter."""

import functools

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xmem_cases import jit

from vistraj_jax.convert import magvit as converter
from vistraj_jax.core import checks, weights
from vistraj_jax.losses import latent
from vistraj_jax.models.magvit import discriminator, frozen, seed_tokenizer, tokenizer
from vistraj_jax.nn import video_layers

fill = golden_cases.fill


def _last(x):
  return np.moveaxis(np.asarray(x), 1, -1)


def _first(x):
  return np.moveaxis(np.asarray(x), -1, 1)


def _input(name, case, transform):
  shape = case.manifest["inputs"][name]["shape"]
  note = case.manifest["inputs"][name]["note"]
  made = note.split("fill name ")[1].split(";")[0]
  return _last(transform(fill.tensor(made, shape)))


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _bound(tensors, name, module):
  """A part of the network with its tensors, by the rows of the converter's table."""
  rows = [
    converter.Row(f"{name}.{end}", ours, layout)
    for end, ours, layout in (
      ("norm#.weight", "norm#/scale", converter.apply.KEEP),
      ("norm#.bias", "norm#/bias", converter.apply.KEEP),
      ("conv#.conv_1.weight", "conv#/kernel", converter.CONV),
      ("nin_shortcut.conv_1.weight", "shortcut/kernel", converter.CONV),
      ("gamma.weight", "gamma/kernel", converter.LINEAR),
      ("gamma.bias", "gamma/bias", converter.apply.KEEP),
      ("beta.weight", "beta/kernel", converter.LINEAR),
      ("beta.bias", "beta/bias", converter.apply.KEEP),
    )
  ]
  if name.startswith("up"):
    rows = converter._conv_rows(f"{name}.conv1.conv_1", "conv")
  if name.startswith("conv"):
    rows = converter._conv_rows(f"{name}.conv_1", "")
    rows = [row._replace(target=row.target.lstrip("/")) for row in rows]
  own = {n: t for n, t in tensors.items() if n.startswith(f"{name}.")}

  def call(*inputs):
    like = jax.eval_shape(module.init, jax.random.PRNGKey(0), *inputs)["params"]
    want = {
      n: tuple(s)
      for n, s in weights.flatten(jax.tree.map(lambda x: np.array(x.shape), like)).items()
    }
    tree = weights.unflatten(converter.apply.to_tree(rows, own, want, name))
    return jit(module.apply)({"params": tree}, *inputs)

  return call


def test_causal_convolutions():
  case = golden_cases.load("magvit", "causal_conv3d")
  x, tensors = _last(case.arrays["x"]), case.checkpoint()
  for name, settings in case.config["convs"].items():
    module = video_layers.Conv(
      settings["out"],
      size=tuple(settings["kernel"][:2]),
      stride=tuple(settings["stride"][:2]),
      causal=True,
      use_bias=settings["bias"],
    )
    case.check(name, _first(_bound(tensors, name, module)(x)))


def test_convolution_by_images_equals_the_one_over_three_axes():
  """What CPUs do and what other devices do, values and gradients."""
  x = jnp.asarray(fill.tensor("frames", (2, 5, 4, 6, 3)))
  kernel = jnp.asarray(fill.tensor("kernel", (3, 3, 3, 3, 2)))

  @functools.partial(jit, static_argnums=(2, 3, 4))
  def both(x, kernel, convolve, stride, around):
    return jax.value_and_grad(lambda *a: jnp.sum(jnp.sin(convolve(*a, stride, around))), (0, 1))(
      x, kernel
    )

  def reference(x, kernel, stride, around):
    strides = (stride[0], stride[1], stride[1])
    return jax.lax.conv_general_dilated(
      x, kernel, strides, (around, (1, 1), (1, 1)), dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )

  for stride, around in (((2, 1), (2, 0)), ((2, 2), (1, 1))):
    found = both(x, kernel, video_layers.convolve, stride, around)
    wanted = both(x, kernel, reference, stride, around)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, wanted)


def test_blocks():
  case = golden_cases.load("magvit", "tokenizer_blocks")
  x, z, tensors = _last(case.arrays["x"]), _last(case.arrays["z"]), case.checkpoint()
  for name, width in (("res_same", 32), ("res_nin", 64)):
    case.check(name, _first(_bound(tensors, name, tokenizer.ResidualBlock(width))(x)))
  case.check("adaptive", _first(_bound(tensors, "adaptive", tokenizer.AdaptiveGroupNorm())(x, z)))
  case.check("up_s", _first(_bound(tensors, "up_s", tokenizer.Upsample(1))(x)))
  for frames in (1, 2, 3):
    found = _bound(tensors, "up_t", tokenizer.Upsample(2))(x[:, :frames])
    case.check(f"up_t_T{frames}", _first(found))


def _check_tokenizer(case, prefix, which):
  plan = converter.plan({"state_dict": case.checkpoint()}, which, case.folder.name)
  assert plan.weights == which
  network = frozen.make(plan.config)
  params = jax.device_put(plan.tree())
  latents = jit(network.encode)(params, _input("video", case, np.tanh))
  case.check(f"{prefix}latent", _first(latents))
  quantized, index = network.quantize(latents)
  wanted, wanted_index = _last(case.arrays[f"{prefix}quant"]), case.arrays[f"{prefix}indices"]
  sure = np.abs(_last(case.arrays[f"{prefix}latent"])) > 1e-3
  np.testing.assert_allclose(np.asarray(quantized)[sure], wanted[sure], atol=1e-6)
  whole = sure.all(-1)
  np.testing.assert_array_equal(np.asarray(index)[whole], wanted_index[whole])
  codes = network.from_indices(wanted_index)
  np.testing.assert_array_equal(codes, wanted)
  found = jit(network.decode_unclipped)(params, codes)
  case.check(f"{prefix}recon", _first(found))


@pytest.mark.parametrize("which", ["raw", "ema"])
def test_tiny_tokenizer(which):
  _check_tokenizer(golden_cases.load("magvit", "video_tokenizer_tiny"), f"{which}_", which)


@pytest.mark.slow  # 1.5 GB of weights, minutes on 2 cores
def test_published_tokenizer():
  _check_tokenizer(golden_cases.load("magvit", "video_tokenizer_128_262144"), "", "raw")


def test_published_size():
  """370,547,349 parameters under the public names, counted without memory for them."""
  network = tokenizer.VideoTokenizer()
  found = {n: tuple(s) for n, s in weights.flatten(frozen.shapes(network)).items()}
  count = {
    part: sum(np.prod(s) for n, s in found.items() if n.startswith(part))
    for part in ("encoder", "decoder")
  }
  assert count == {"encoder": 144_865_298, "decoder": 225_682_051}
  assert sum(count.values()) == 370_547_349
  case = golden_cases.load("magvit", "video_tokenizer_128_262144")
  tensors = {
    n: np.broadcast_to(np.float32(0), t["shape"]) for n, t in case.manifest["tensors"].items()
  }
  plan = converter.plan(tensors, "ema", "published")
  assert plan.weights == "raw" and plan.shapes == found
  assert network.latent_shape(17, 128, 128) == (5, 16, 16)
  assert network.latent_shape(25, 128, 128) == (7, 16, 16) and network.num_codes == 262_144


@pytest.mark.parametrize(
  "shape, sentence",
  [
    (
      (16, 128, 128),
      r"a window of 16 frames received, 4k\+1 frames wanted .*cut it to 13 or take 17",
    ),
    ((17, 100, 128), "frames of 100 x 128 px received, multiples of 8 wanted"),
    ((1, 8, 8), "give one latent, two or more are wanted"),
  ],
)
def test_windows_that_do_not_fit(shape, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    tokenizer.VideoTokenizer().encode({}, jnp.zeros((1, *shape, 3)))


@pytest.mark.parametrize(
  "video, sentence",
  [
    (np.zeros((1, 5, 8, 8, 3), np.uint8), "uint8 received, float in -1..1 wanted"),
    (np.full((1, 5, 8, 8, 3), 255.0), "values from 255 to 255 received, -1 to 1 wanted"),
  ],
)
def test_wrong_values(video, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    tokenizer.VideoTokenizer().encode({}, video)


def test_groups_must_divide_the_channels():
  with pytest.raises(checks.InputError, match="groups: 32 received, which does not divide .16."):
    tokenizer.VideoTokenizer(channels=16)


def test_seed_tokenizer():
  case = golden_cases.load("magvit", "seed_tokenizer")
  named = {f"magvit.{name}": tensor for name, tensor in case.checkpoint().items()}
  plan = converter.plan(
    {"model_state_dict": {**named, "transformer.x": np.zeros(2)}}, "ema", "seed"
  )
  network, params = frozen.make(plan.config), plan.tree()
  assert network.num_codes == 1024
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 6_884_611
  latents = jit(network.encode)(params, _input("video", case, _sigmoid))
  case.check("z", _first(latents))
  quantized, index = jit(network.quantize)(latents, params)
  sure = case.arrays["margin"] > 1e-3
  np.testing.assert_array_equal(np.asarray(index)[sure], case.arrays["indices"][sure])
  codes = network.from_indices(jnp.asarray(case.arrays["indices"]), params)
  np.testing.assert_allclose(np.asarray(quantized)[sure], np.asarray(codes)[sure], atol=1e-6)
  case.check("recon", _first(jit(network.decode)(params, codes)))
  with pytest.raises(checks.InputError, match="5 frames of 30 x 32 px received"):
    seed_tokenizer.SeedTokenizer().latent_shape(5, 30, 32)


def test_discriminator():
  """Evaluation, then training mode on real and on fake videos, which moves the statistics twice."""
  case = golden_cases.load("magvit", "discriminator3d")
  params, statistics = converter.discriminator(case.checkpoint(), "case")
  network = discriminator.PatchDiscriminator(case.config["ndf"])
  real, fake = (_input(name, case, np.tanh) for name in ("real", "fake"))

  @functools.partial(jit, static_argnums=(2,))
  def run(statistics, video, train):
    variables = {"params": params, "batch_stats": statistics}
    return network.apply(variables, video, train, mutable=["batch_stats"])

  for name, video in (("real", real), ("fake", fake)):
    case.check(f"logits_{name}_eval", _first(run(statistics, video, False)[0]))
  of_real, new = run(statistics, real, True)
  of_fake, new = run(new["batch_stats"], fake, True)
  case.check("logits_real_train", _first(of_real))
  case.check("logits_fake_train", _first(of_fake))
  case.check("bn_running_mean_after", new["batch_stats"]["norm_1"]["mean"])
  case.check("bn_running_var_after", new["batch_stats"]["norm_1"]["var"])
  case.check("hinge", latent.hinge(of_real, of_fake).mean())
  case.check("gen_non_saturating", latent.non_saturating(of_fake).mean())
  averages = latent.moved_averages({"real": 0.0, "fake": 0.0}, of_real, of_fake, 0.999)
  case.check("lecam", latent.lecam(of_real, of_fake, averages))
