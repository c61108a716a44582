"""The two-stream network, its variants and baselines against the public models."""

import functools

import golden_cases
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
import two_stream_cases as cases

from vistraj_jax.core import images
from vistraj_jax.data import gaps
from vistraj_jax.losses import video
from vistraj_jax.metrics import regression
from vistraj_jax.models.two_stream import baselines, network, policy, preprocess, probes
from vistraj_jax.train import optim, phases

pytestmark = pytest.mark.slow  # minutes on 2 cores; `make test-slow`

load = functools.partial(golden_cases.load, "two_stream")
IMAGE = {"rtol": 1e-5, "atol": 5e-6}


def _predictor(case, **changes):
  config = case.config
  names = ("embed_dim", "depth", "num_heads", "num_stages")
  fields = {"vit": {name: config[name] for name in names}, **changes}
  return network.TwoStreamPredictor(image_size=config["image_size"], **fields)


def test_preprocess():
  case = load("preprocess")
  before, after = (np.moveaxis(case.input(name), 1, -1) for name in ("img_t", "img_tk"))
  for name, value in (
    ("m4", preprocess.motion(before, after)),
    ("p5_current", preprocess.form(before)),
    ("p5_future", preprocess.form(after)),
    ("m3_late", preprocess.motion(before, after, "luma3")),
  ):
    case.check(name, cases.nchw(value))


def _check_predictor(case, prefix):
  """Tokens, taps, fusion, decoder maps, image, ablations and the future P of one case."""
  model = _predictor(case)
  pair = cases.images(case, prefix)
  variables, layout = cases.variables(case, model, *pair)

  @jax.jit
  def run(variables, *pair):
    (images, encoding), inside = model.apply(variables, *pair, mutable=["intermediates"])
    others = {}
    for name, decoding in (
      ("A", {"skip": False, "cls": "none"}),
      ("B", {"cls": "none"}),
      ("C_level1", {"cls": "final_first"}),
      ("C_all", {"cls": "final_all"}),
    ):
      ablation = _predictor(case, decoding=decoding)
      others[f"img_pred_{name}"] = ablation.apply(variables, encoding, pair[0], method="decode")[0]
    (image,), leaky = _predictor(case, p_source="future").apply(variables, *pair)
    others["img_pred_psource_future"] = image
    return images[0], encoding, inside["intermediates"]["decoder"], others, leaky.cls

  image, encoding, inside, others, leaky = run(variables, *pair)
  case.check("m_tokens", encoding.m_tokens)
  case.check("p_tokens", encoding.p_tokens)
  for tap, value in encoding.taps.items():
    case.check(f"p_cls_{tap}", value)
  case.check("cls_fused", encoding.cls)
  case.check("patches_fused", encoding.patches)
  case.check("cls_fused_psource_future", leaky)
  inside = {"skip_encoder": inside["skip1_out"], **inside}
  for name in ("skip_encoder", "up1", "up2", "skip_merge", "up3", "up4"):
    key = {"skip_encoder": "skip_encoder", "skip_merge": "merge_out"}.get(name, f"{name}_out")
    value = inside[key][0]
    case.check(f"dec_{name}", cases.nchw(value))
  case.check("img_pred", cases.nchw(image), **IMAGE)
  for name, value in others.items():
    case.check(name, cases.nchw(value), **IMAGE)
  return model, variables, layout, pair


def _loss(model, params, rest, pair, weight):
  (image,), _ = model.apply({"params": params, **rest}, *pair)
  per_sample = video.frame_mse(image, pair[1])
  return (per_sample * weight).mean(), per_sample


def test_predictor():
  case = load("predictor_small")
  model, variables, layout, pair = _check_predictor(case, "ts_small")
  gap = np.array(case.manifest["inputs"]["gap"]["values"])
  rest = {"batch_stats": variables["batch_stats"]}
  grad = jax.jit(jax.value_and_grad(functools.partial(_loss, model), has_aux=True))
  (loss, per_sample), grads = grad(variables["params"], rest, pair, np.ones(2))
  case.check("loss_mse", loss)
  case.check("loss_per_sample", per_sample)
  case.check("loss_weighted", (per_sample * np.exp(-0.7 * (gap - 1))).mean())
  named = cases.check_gradients(case, grads, layout)
  norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in named.values()))
  np.testing.assert_allclose(norm, case.arrays["grad_global_norm"], rtol=2e-3)


def test_predictor_at_its_real_size():
  """All 192 million weights at 224 px, forward only: gradients take 5 GB."""
  _check_predictor(load("predictor_base224"), "ts_base")


def test_training_step():
  """Batch statistics, their running means, the weighted loss, and one clipped AdamW step."""
  case = load("predictor_small_train")
  model = _predictor(case)
  pair = cases.images(case, "ts_train")
  variables, layout = cases.variables(case, model, *pair)
  params, old = variables["params"], variables["batch_stats"]
  weight = np.exp(-0.7 * (np.array(case.manifest["inputs"]["gap"]["values"]) - 1))
  settings = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "clip_norm": 1.0}
  groups = (("fusion/fc_cls/.*", "frozen"), (".*", "all"))
  phase = phases.Phase(
    name="golden",
    groups=groups,
    learning_rates={"all": 1e-4},
    num_steps=1,
    warmup_steps=0,
    final_fraction=1.0,
    patience=0,
    start_from="init",
    batch_size=4,
    steps_per_epoch=1,
    call_steps=1,
    eval_steps=1,
  )
  tx = optim.build(phase, ml_collections.ConfigDict({**settings, "decay": ((".*", True),)}), params)

  @jax.jit
  def step(params):
    def loss(params):
      (images, encoding), new = model.apply(
        {"params": params, "batch_stats": old}, *pair, train=True, mutable=["batch_stats"]
      )
      per_sample = video.frame_mse(images[0], pair[1])
      return (per_sample * weight).mean(), (images[0], encoding.cls, per_sample, new)

    (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params)
    updates, _ = tx.update(grads, tx.init(params), params)
    return value, rest, grads, updates, optax.tree.norm(grads)

  loss, (image, cls, per_sample, new), grads, updates, norm = step(params)
  case.check("img_pred", cases.nchw(image), **IMAGE)
  case.check("cls_fused", cls)
  case.check("loss_weighted", loss)
  case.check("loss_mse", per_sample.mean())
  case.check("loss_per_sample", per_sample)
  cases.check_gradients(case, grads, layout)
  np.testing.assert_allclose(norm, case.arrays["grad_global_norm"], rtol=2e-3)
  np.testing.assert_allclose(min(1, 1 / norm), case.arrays["grad_clip_scale"], rtol=2e-3)
  convert = lambda tree: cases.converter.to_torch(tree, layout, "step")["model_state_dict"]  # noqa: E731
  change = convert({"params": jax.tree.map(np.asarray, updates)})
  norms = [np.linalg.norm(change[name]) for name in case.manifest["step_names"]]
  case.check("step_delta_l2", norms, rtol=2e-3)
  before, after = (
    convert({"params": params, "batch_stats": jax.tree.map(np.asarray, x)})
    for x in (old, new["batch_stats"])
  )
  pixels = {"skip_encoder.1": 32, "skip_encoder.4": 16, "skip_merge.1": 16}
  pixels |= {f"up{i}.1": 4 * 2**i for i in (1, 2, 3, 4)}
  for key in case.arrays:
    if key.startswith("new:"):
      name = key.removeprefix("new:")
      value = after[name]
      if name.endswith("var"):  # torch keeps the unbiased variance
        n = 4 * pixels[name.split(".", 1)[1].rsplit(".", 1)[0]] ** 2
        value = 0.9 * before[name] + (value - 0.9 * before[name]) * n / (n - 1)
      case.check(key, value)


@pytest.mark.parametrize("channels", [6, 9])
def test_single_stream(channels):
  case = load(f"single_stream_{channels}ch")
  sizes = {name: case.config[name] for name in ("image_size", "embed_dim", "depth", "num_heads")}
  model = baselines.SingleStreamPredictor({6: "rgb6", 9: "mp9"}[channels], **sizes)
  pair = cases.images(case, f"ts_single{channels}")
  variables, layout = cases.variables(case, model, *pair)
  (image,), encoding = jax.jit(model.apply)(variables, *pair)
  case.check("tokens", encoding.m_tokens)
  case.check("cls_emb", encoding.cls)
  case.check("img_pred", cases.nchw(image), **IMAGE)
  rest = {"batch_stats": variables["batch_stats"]}
  grad = jax.jit(jax.value_and_grad(functools.partial(_loss, model), has_aux=True))
  (loss, _), grads = grad(variables["params"], rest, pair, np.ones(len(pair[0])))
  case.check("loss_mse", loss)
  cases.check_gradients(case, grads, layout)


def test_videomae():
  case = load("videomae_small")
  config = case.config
  model = baselines.VideoMAE(
    image_size=96,
    embed_dim=config["enc_dim"],
    depth=config["enc_depth"],
    num_heads=config["enc_heads"],
    decoder_dim=config["dec_dim"],
    decoder_depth=config["dec_depth"],
    decoder_heads=config["dec_heads"],
  )
  pair = cases.images(case, "ts_mae")
  noise = case.input("noise")
  variables, layout = cases.variables(case, model, *pair, noise)

  @jax.jit
  def run(params):
    def loss(params):
      out = model.apply({"params": params}, *pair, noise)
      return video.masked_patch_mse(*out[:2]).mean(), out

    (value, out), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return value, out, grads, model.apply({"params": params}, *pair, method="encode").patches

  loss, (pixels, _, masked, encoding), grads, everything = run(variables["params"])
  rows = np.zeros(case.arrays["mask"].shape, bool)
  np.put_along_axis(rows, np.asarray(masked), True, 1)
  np.testing.assert_array_equal(rows, case.arrays["mask"])
  case.check("visible_tokens", encoding.patches)
  case.check("pred_masked", pixels)
  image = baselines.composed(pair[1], pixels, masked)
  case.check("img_pred", cases.nchw(image))
  case.check("cls_emb", encoding.cls)
  case.check("encode_all", everything)
  case.check("loss_masked", loss)
  case.check("loss_full_image_tk", video.frame_mse(image, jnp.asarray(pair[1])).mean())
  cases.check_gradients(case, grads, layout)


def test_late_version():
  """Three M channels, an exchange after every stage, a patch decoder a stream, 2-D rotation."""
  case = load("late_two_stream_v6")
  config = case.config
  vit = {name: config[name] for name in ("embed_dim", "depth", "num_heads", "num_stages")}
  vit |= {"exchange_after_last": True, "exchange_heads": config["exchange_heads"]}
  make = lambda **more: network.TwoStreamPredictor(  # noqa: E731
    image_size=64, m_channels="luma3", decoding={"kind": "per_stream_patch"}, vit={**vit, **more}
  )
  model = make()
  pair = cases.images(case, "ts_late")
  variables, layout = cases.variables(case, model, *pair)

  @jax.jit
  def run(params):
    def loss(params):
      images, encoding = model.apply({"params": params}, *pair)
      return sum(video.frame_mse(x, pair[1]).mean() for x in images), (images, encoding)

    (value, out), grads = jax.value_and_grad(loss, has_aux=True)(params)
    turned = make(pos="rope2d").apply({"params": params}, *pair, method="encode")
    return value, out, grads, turned

  loss, (images, encoding), grads, turned = run(variables["params"])
  case.check("m_tokens", encoding.m_tokens)
  case.check("p_tokens", encoding.p_tokens)
  case.check("pred_m", cases.nchw(images[0]))
  case.check("pred_p", cases.nchw(images[1]))
  case.check("cls_avg", network.readout(encoding, "cls_mean"))
  case.check("m_tokens_rope", turned.m_tokens)
  case.check("p_tokens_rope", turned.p_tokens)
  case.check("loss_sum", loss)
  cases.check_gradients(case, grads, layout)


def test_policy():
  case = load("libero_policy")
  encoder = _predictor(case)
  head = policy.ActionHead()
  pair = cases.images(case, "ts_libero", ("img_prev", "img_curr"))
  whole = cases.shapes(encoder, *pair)
  want = {name: shape for name, shape in whole.items() if not name.startswith("decoder/")}
  width = case.config["embed_dim"]
  want |= {f"head/{k}": s for k, s in cases.shapes(head, np.zeros((1, width), np.float32)).items()}
  tensors, layout, _ = cases.converter.state_of(case.checkpoint(), "libero_policy")
  assert layout == "policy"
  variables, _ = cases.converter.from_torch(tensors, layout, want, "libero_policy")
  params = variables["params"]
  head_params = params.pop("head")
  encode = jax.jit(functools.partial(encoder.apply, method="encode"))
  encoding = encode(variables, *pair)
  case.check("patches_fused", encoding.patches)
  case.check("cls_fused", encoding.cls)
  pooled = jax.jit(functools.partial(policy.features, encoder))(variables, *pair)
  case.check("pooled", pooled)
  actions = case.input("action")

  def loss(head_params):
    predicted = head.apply({"params": head_params}, pooled)
    return ((predicted - actions) ** 2).mean(), predicted

  (value, predicted), grads = jax.value_and_grad(loss, has_aux=True)(head_params)
  case.check("action_pred", predicted)
  case.check("loss_mse", value)
  case.check("loss_l1", np.abs(predicted - actions).mean())
  zeros = jax.tree.map(np.zeros_like, params)
  cases.check_gradients(case, {**zeros, "head": grads}, layout)
  robot = policy.Policy(encoder, variables, head, head_params, "fused_patch_mean")
  np.testing.assert_allclose(robot.act(pair[0][0], pair[1][0]), predicted[0], atol=1e-5)
  robot.step(pair[0][0])  # first step: no previous frame yet
  np.testing.assert_allclose(robot.step(pair[1][0]), predicted[0], atol=1e-5)


def test_probes():
  case = load("probe_metrics")
  weights = case.checkpoint()
  x = case.input("x")
  tokens = case.input("tokens").reshape(5, 2, 9, 24)
  dense = lambda name: {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}  # noqa: E731
  trees = {
    "linear": {"out": dense("linear.linear")},
    "mlp": {"fc": dense("mlp.mlp.0"), "out": dense("mlp.mlp.2")},
    "attentive": {"query": weights["attentive.query"], "out": dense("attentive.head")},
  }
  for kind, params in trees.items():
    seen = tokens if kind == "attentive" else x
    case.check(kind, probes.make(kind, 18).apply({"params": params}, seen))
  joints = {joint: slice(3 * i, 3 * i + 3) for i, joint in enumerate(case.config["joints"])}
  got = regression.scores(case.arrays["predictions"], case.arrays["targets"], joints)
  want = case.manifest["metrics"]
  want = {
    **{name: want[name] for name in ("r2", "mse")},
    "cosine": want["cosine_sim"],
    **{f"r2/{joint}": value for joint, value in want["per_joint_r2"].items()},
  }
  assert got == pytest.approx(want, rel=1e-5)


def test_image_scores():
  case = load("probe_metrics")
  a, b = (np.moveaxis(case.input(name), 1, -1) for name in ("img_a", "img_b"))
  for arrays in ((a, b), (jnp.asarray(a), jnp.asarray(b))):
    case.check("ssim_loss", 1 - images.ssim(*arrays).mean())
    case.check("mse", images.mse(*arrays).mean())
  joined = [x.reshape(1, -1, *x.shape[2:]) for x in (a, b)]  # the reference: one mean for the batch
  case.check("psnr", images.psnr(*joined)[0])


def test_gap_sampling():
  case = load("gap_sampling")
  assert len(case.config) == 6
  for name, config in case.config.items():
    name = name.removeprefix("later:")
    decay = config.get("sample_decay", 0.0)
    dist = config.get("sample_dist", {0.0: "uniform", -1.0: "linear"}.get(decay, "exp"))
    center = config.get("sample_center", 0)
    p = gaps.probabilities(dist, config["max_gap"], decay=decay, center=center)
    case.check(f"{name}:probs", p)
    weights = gaps.loss_weights(np.arange(1, config["max_gap"] + 1), config.get("loss_decay", 0.0))
    case.check(f"{name}:loss_weights", weights)
