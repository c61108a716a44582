"""The two-stream network's own promises: sizes, switches, masks, equal ways to compute."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_stream_cases as cases

from configs import two_stream as config_file
from vistraj_jax.core import checks, weights
from vistraj_jax.models.two_stream import baselines, decoders, network, policy, settings, streams
from vistraj_jax.nn import dropout, initializers
from vistraj_jax.tasks import two_stream as task_lib

pytestmark = pytest.mark.slow  # minutes on 2 cores; `make test-slow`

TINY = {"embed_dim": 16, "depth": 4, "num_heads": 2, "num_stages": 2}


def _model(**changes):
  """A tiny predictor of 32 px images; changes go to the vision transformer."""
  own = {k: changes.pop(k) for k in ("decoding", "m_channels", "fusion_layers") if k in changes}
  if own.get("decoding", {}).get("kind") == "per_stream_patch":
    own["patch_decoder"] = {"width": 16, "depth": 1, "num_heads": 2}
  return network.TwoStreamPredictor(image_size=32, vit={**TINY, **changes}, **own)


@functools.cache
def _pair(batch=2):
  rng = np.random.default_rng(0)
  return tuple(rng.random((batch, 32, 32, 3), np.float32) for _ in range(2))


def _encode(model, variables, **kwargs):
  run = jax.jit(functools.partial(model.apply, method="encode"))
  return run(variables, *_pair(), **kwargs)


@functools.cache
def _start():
  return initializers.init(_model(), jax.random.PRNGKey(0), *_pair())


def _count(shapes, prefix=""):
  is_weight = lambda n: not n.endswith(("/mean", "/var"))  # noqa: E731
  return sum(int(np.prod(s)) for n, s in shapes.items() if n.startswith(prefix) and is_weight(n))


def test_published_sizes():
  image = jnp.zeros((1, 224, 224, 3))
  shapes = cases.shapes(network.TwoStreamPredictor(), image, image)
  assert _count(shapes) == 192_307_427
  assert _count(shapes, "encoder/") == 186_362_880
  assert _count(shapes, "fusion/") == 2_360_832
  assert _count(shapes, "decoder/") == 3_583_715
  for inputs, count in (("rgb6", 89_627_683), ("mp9", 90_217_507)):
    assert _count(cases.shapes(baselines.SingleStreamPredictor(inputs), image, image)) == count
  shapes = cases.shapes(baselines.VideoMAE(), image, image, jnp.zeros((1, 196)))
  assert _count(shapes) == 94_801_536
  assert _count(cases.shapes(policy.ActionHead(), jnp.zeros((1, 768)))) == 662_023


@pytest.mark.parametrize("variant", config_file.VARIANTS)
def test_presets_build(variant):
  model = config_file.get_config(variant).model
  net = settings.make(model)
  image = jnp.zeros((1, model.image_size, model.image_size, 3))
  inputs = (image, image)
  if variant == "videomae":
    inputs = (*inputs, jnp.zeros((1, net.num_patches)))
  shapes = cases.shapes(net, *inputs)
  encode = lambda p: net.apply({"params": p}, image, image, method="encode")  # noqa: E731
  jax.eval_shape(encode, settings.encoder_params(settings.shapes(net)["params"]))
  has = lambda name: any(name in n for n in shapes)  # noqa: E731
  if variant in ("a", "b", "c", "d"):
    assert has("decoder/skip0") == (variant != "a")
    assert has("decoder/cls1") == (variant in ("c", "d"))
  if variant == "v6":
    assert shapes["decoder_m/mask_token"] == (512,)
    assert shapes["encoder/stage1/blocks/qkv/kernel"] == (2, 6, 768, 2304)


def test_streams_one_by_one_are_the_same():
  variables = _start()
  stacked, single = (_encode(_model(stack_streams=s), variables) for s in (True, False))
  for a, b in zip(jax.tree.leaves(stacked), jax.tree.leaves(single), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("remat", ["block", "dots"])
def test_recomputation_changes_no_gradient(remat):
  variables = _start()

  def grads(model):
    loss = lambda p: (model.apply(p, *_pair(), method="encode").patches ** 2).sum()  # noqa: E731
    return jax.jit(jax.grad(loss))({"params": variables["params"]})

  for a, b in zip(
    jax.tree.leaves(grads(_model())), jax.tree.leaves(grads(_model(remat=remat))), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_streams_meet_only_in_exchanges():
  """Without an exchange P knows nothing of M; with one, only its CLS does."""
  before, after = _pair()
  variables = _start()
  for changes, knows in (
    ({"num_exchanges": 0}, (False, False)),
    ({}, (True, True)),  # in the second stage the CLS tells the patches
    ({"exchange": "full"}, (True, True)),
  ):
    model = _model(**changes)
    run = jax.jit(functools.partial(model.apply, method="encode"))
    a, b = (run(variables, before, x).p_tokens for x in (after, before))
    moved = np.abs(np.asarray(a - b)).max((0, 2)) > 1e-6
    assert (moved[0], moved[1:].any()) == knows, changes


def test_taps_before_and_after_the_exchange():
  variables = _start()
  pre, post = (_encode(_model(cls_tap=tap), variables).taps for tap in ("pre", "post"))
  assert np.abs(np.asarray(pre["stage1"] - post["stage1"])).max() > 1e-3
  np.testing.assert_allclose(pre["stage2"], post["stage2"], atol=1e-6)  # none after the last stage
  np.testing.assert_allclose(pre["final"], post["final"], atol=1e-6)


def test_masks_hide_patches():
  """What is masked has no influence; both streams keep as many as they should."""
  model = _model(
    mask_ratio_m=0.25, mask_ratio_p=0.5, decoding={"kind": "per_stream_patch"}, m_channels="luma3"
  )
  before, after = _pair()
  variables = initializers.init(model, jax.random.PRNGKey(0), before, after)
  keys = dropout.row_keys(jax.random.PRNGKey(3), jnp.arange(2))
  run = jax.jit(lambda v, a, b: model.apply(v, a, b, keys=keys))
  (image_m, image_p), encoding = run(variables, before, after)
  assert image_m.shape == image_p.shape == (2, 32, 32, 3)
  kept, visible = np.asarray(encoding.kept), np.asarray(encoding.visible)
  assert visible.sum(-1).tolist() == [[3, 3], [2, 2]]  # of 4 patches
  # Moving only a patch that P does not see leaves P's stream before the exchange as it is.
  hidden = next(i for i in range(4) if i not in kept[1, 0][visible[1, 0]])
  changed = before.copy()
  top, left = divmod(hidden, 2)
  changed[0, 16 * top : 16 * top + 16, 16 * left : 16 * left + 16] = 0.5
  taps = [run(variables, x, x)[1].taps["stage1"][0] for x in (before, changed)]
  # The image's mean and largest edge change a little everywhere: far less than the patch itself.
  assert np.abs(np.asarray(taps[0] - taps[1])).max() < 0.2
  np.testing.assert_array_equal(
    run(variables, before, after)[0][0], run(variables, before, after)[0][0]
  )


def test_hidden_patches_stay_hidden():
  """Neither a full exchange nor a readout sees what the stream with fewer patches leaves out."""

  class Exchange(streams.TwoStreamViT):
    @nn.compact
    def __call__(self, x, key_mask):
      return self._exchange(0, x, key_mask)

  model = Exchange(**TINY, exchange="full")
  x = np.random.default_rng(0).normal(size=(2, 1, 5, 16)).astype(np.float32)
  key_mask = np.ones((2, 1, 5), bool)
  key_mask[1, 0, 3:] = False
  moved = np.where(key_mask[..., None], x, x + 1)
  params = model.init(jax.random.PRNGKey(0), x, key_mask)
  a, b = (np.asarray(model.apply(params, y, key_mask))[key_mask] for y in (x, moved))
  np.testing.assert_allclose(a, b, atol=1e-6)
  encoding = network.Encoding(x[0], x[1], {}, visible=key_mask[:, :, 1:])
  means = network.readout(encoding, "patch_mean_concat")[0]
  np.testing.assert_allclose(means[:16], x[0, 0, 1:].mean(0), atol=1e-6)
  np.testing.assert_allclose(means[16:], x[1, 0, 1:3].mean(0), atol=1e-6)


def test_fused_attention_on_gpus(monkeypatch):
  """ "auto" is cuDNN's kernel in half precision on a GPU, but not over two CLS or masked keys."""
  asked = []
  plain = jax.nn.dot_product_attention
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  monkeypatch.setattr(
    jax.nn,
    "dot_product_attention",
    lambda *x, implementation, **more: asked.append(implementation) or plain(*x, **more),
  )
  image = jnp.zeros((1, 32, 32, 3))
  for dtype, masked, wanted in (
    (jnp.bfloat16, 0.0, {"cudnn", "xla"}),
    (jnp.bfloat16, 0.25, {"xla"}),
    (jnp.float32, 0.0, {"xla"}),
  ):
    asked.clear()
    vit = {**TINY, "mask_ratio_p": masked}
    decoding = {"kind": "per_stream_patch"}
    model = network.TwoStreamPredictor(image_size=32, vit=vit, decoding=decoding, dtype=dtype)
    keys = dropout.row_keys(jax.random.PRNGKey(0), jnp.arange(1))
    encode = functools.partial(model.init, keys=keys, method="encode")
    jax.eval_shape(encode, jax.random.PRNGKey(0), image, image)
    assert set(asked) == wanted


def test_dropout_follows_the_row():
  """Rows draw by their place in the global batch, so halves of a batch give the same."""
  model = _model(block={"dropout": 0.5, "attn_dropout": 0.2})
  variables = _start()
  keys = dropout.row_keys(jax.random.PRNGKey(3), jnp.arange(2))
  run = jax.jit(lambda a, b, k: model.apply(variables, a, b, keys=k, method="encode").patches)
  before, after = _pair()
  whole = run(before, after, keys)
  for i in range(2):
    row = slice(i, i + 1)
    part = run(before[row], after[row], keys[row])
    np.testing.assert_allclose(part, whole[row], atol=1e-5)
  plain = model.apply(variables, before, after, method="encode").patches
  assert np.abs(np.asarray(whole - plain)).max() > 1e-2


def test_upsample_is_a_transposed_convolution():
  """One lit input place shows the kernel itself, shifted by the padding."""
  layer = decoders.Upsample(3)
  x = np.zeros((1, 4, 4, 2), np.float32)
  x[0, 1, 2, 0] = 1
  kernel = np.random.default_rng(0).normal(size=(4, 4, 2, 3)).astype(np.float32)
  y = layer.apply({"params": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}, x)
  want = np.zeros((8, 8, 3), np.float32)
  want[1:5, 3:7] = kernel[:, :, 0]  # from 2 i - 1 on
  np.testing.assert_allclose(y[0], want, atol=1e-6)


def test_decoder_options():
  """Group norm has no statistics; scale-and-shift doubles the projections; all give images."""
  patches = jnp.ones((2, 4, 16))
  taps = {name: jnp.ones((2, 16)) for name in ("stage1", "stage2", "final")}
  image = _pair()[0]
  decoder = decoders.ConvDecoder(norm="group", cls_film="scale_shift")
  shapes = cases.shapes(decoder, patches, taps, image)
  assert shapes["cls1/kernel"] == (16, 512) and "up1_norm/mean" not in shapes


def test_readouts():
  encoding = _encode(_model(), _start())
  for kind in network.READOUTS:
    width = 32 if kind.endswith("concat") else 16
    assert network.readout(encoding, kind).shape == (2, width)
  mean = network.readout(encoding, "patch_mean_concat")
  np.testing.assert_allclose(mean[:, :16], encoding.m_tokens[:, 1:].mean(1), atol=1e-6)
  with pytest.raises(checks.InputError, match="'fused_cls': this network has no fusion"):
    network.readout(encoding._replace(cls=None, patches=None), "fused_cls")


def test_first_values_are_torch_like():
  flat = weights.flatten(_start()["params"])
  assert flat["encoder/stage0/blocks/qkv/bias"].any() == np.False_
  fc1 = flat["encoder/stage0/blocks/fc1/kernel"]
  assert 0.2 < np.abs(fc1).max() <= 0.25  # 1 / sqrt(16)
  assert not np.array_equal(fc1[0], fc1[1])
  assert 0.01 < flat["encoder/cls_token"].std() < 0.03


@pytest.mark.parametrize(
  "changes, sentence",
  [
    ({"depth": 5}, "config.model.depth: 5 received, with 2 stages it must be a multiple of 2"),
    ({"num_exchanges": 2}, r"num_exchanges: 2 received, -1 \(all\) to 1 allowed with 2 stages"),
    ({"num_heads": 3}, "embed_dim: 16 received, it must be a multiple of num_heads 3"),
    ({"mask_ratio_m": 0.5}, "the decoder 'conv' needs all patches"),
    ({"exchange": "none"}, r"config.model.exchange: 'none' is not allowed; .*\['cls', 'full'\]"),
    ({"pos": "sine"}, "config.model.pos: 'sine' is not allowed"),
    ({"remat": "all"}, "config.model.remat: 'all' is not allowed"),
    ({"decoding": {"cls": "all"}}, "config.model.decoder.cls: 'all' is not allowed"),
    ({"m_channels": "rgb"}, "config.model.m_channels: 'rgb' is not allowed"),
  ],
)
def test_wrong_settings(changes, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    jax.eval_shape(_model(**changes).init, jax.random.PRNGKey(0), *_pair())


@pytest.mark.parametrize(
  "variant, changes, sentence",
  [
    ("videomae", {"videomae.mask_ratio": 0.0}, r"mask_ratio: 0.0 received; of 16 patches"),
    ("videomae", {"videomae.mask_ratio": 1.0}, r"1.0 received; .* give 0.0625 to below 1"),
    ("single_stream", {"m_channels": "luma3"}, "m_channels: 'luma3' received, but only stre"),
    ("videomae", {"p_source": "future"}, "p_source: 'future' .* leave it at 'current'"),
    ("base", {"fusion": "shared"}, r"pattern 'fusion/fc_cls/.\*', a layer that only streams='two'"),
    ("base", {"decoder.kind": "per_stream_patch"}, r'groups=.\(\("\.\*", "all"\),\)'),
  ],
)
def test_settings_that_do_not_fit(variant, changes, sentence):
  config = config_file.get_config(f"{variant},small")
  config.model.update_from_flattened_dict(changes)
  with pytest.raises(checks.InputError, match=sentence):
    jax.eval_shape(task_lib.TwoStreamTask(config).init, jax.random.PRNGKey(0))


def test_wrong_sizes():
  model = network.TwoStreamPredictor(image_size=40, vit=TINY)
  image = jnp.zeros((1, 40, 40, 3))
  with pytest.raises(checks.InputError, match="40 received, .* multiple of patch_size 16; try 32"):
    jax.eval_shape(model.init, jax.random.PRNGKey(0), image, image)
  with pytest.raises(checks.InputError, match=r"image_size: images: shape \(1, 40, 40, 4\)"):
    jax.eval_shape(_model().init, jax.random.PRNGKey(0), image, image)
