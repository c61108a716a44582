"""Tokenizer and predictor of future video, trained end to end in two phases; heads; refusals."""

import jax
import jax.numpy as jnp
import magvit_runs
import numpy as np
import pytest
from test_golden_video_resnet import jit

from configs import magvit as config_file
from launch import train
from vistraj_jax.core import checks, trained, weights
from vistraj_jax.models.magvit import frozen
from vistraj_jax.models.magvit.seed_tokenizer import SeedTokenizer
from vistraj_jax.nn import initializers
from vistraj_jax.tasks import magvit, magvit_settings


def config(**changes):
  """The smoke config; changes are a__b=value for config.model.a.b, a=value for config.model.a."""
  c = config_file.get_config("smoke")
  for name, value in changes.items():
    node, _, leaf = name.rpartition("__")
    (c.model[node] if node else c.model)[leaf] = value
  return c


def batch():
  """Two windows of a red block that stands still."""
  video = np.zeros((2, 10, 16, 16, 3), np.uint8)
  video[:, :, 3:9, 4:9, 0] = 255
  return {
    "video": video,
    "foreground": (video[..., 0] > 0).astype(np.uint8),
    "foreground_valid": np.ones(2, np.float32),
    "centre": np.broadcast_to(np.float32([5.5, 6]), (2, 10, 2)),
    "centre_valid": np.ones((2, 10), np.float32),
    "colours": np.array([[[0, 0, 0], [255, 0, 0]]] * 2, np.uint8),
    "row": np.arange(2, dtype=np.int32),
    "mask": np.array([1, 0], np.float32),
    "position": np.arange(2, dtype=np.int32),
  }


_TOKENIZER = ("channels", "multipliers", "num_blocks", "bits", "groups")


def total(task, variables, seen):
  terms, _ = task.losses(variables, seen, jax.random.PRNGKey(1), train=True)
  return sum(weight * term.value for weight, term in terms.values())


CASES = {
  "bits": {},
  "pooled": {"head": "mse", "tokens": "pooled", "transformer__positions": "table"},
  "masked": {"head": "masked"},
  "autoregressive": {"head": "autoregressive", "flip_rate": 0.1, "token_head": "bits"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_heads(name):
  task = magvit.FutureVideoTask(config(**CASES[name])).for_phase("predictor")
  variables = task.init(jax.random.PRNGKey(0))
  seen = batch()
  gradients = jit(jax.grad(lambda params: total(task, {**variables, "params": params}, seen)))(
    variables["params"]
  )
  size = {k: sum(float(abs(x).sum()) for x in jax.tree.leaves(g)) for k, g in gradients.items()}
  assert size["tokenizer"] == 0 < size["predictor"]
  run = jit(lambda seen: task.metrics(variables, seen))
  found = {k: float(m.value) for k, m in run(seen).items()}
  assert found["psnr/copy_last"] > 90 and found["iou/copy_last"] == 1
  np.testing.assert_allclose(found["mse/black"], 30 / 256 / 3, rtol=1e-5)
  assert ("bits_per_token/val" in found) == (name in ("masked", "autoregressive"))
  # A row that is masked does not count.
  seen["video"][1] = 255
  again = {k: float(m.value) for k, m in run(seen).items()}
  np.testing.assert_equal(again, found)


@pytest.mark.slow
def test_joint_training_reaches_tokenizer_and_motion():
  c = config(joint=True, motion__kind="i3d")
  c.loss.pixel = 1.0
  task = magvit.FutureVideoTask(c).for_phase("predictor")
  variables = task.init(jax.random.PRNGKey(0))
  params = variables["params"]
  # The motion's say starts at zero; with a say its network has a gradient too.
  params["predictor"]["fusion"] = jax.tree.map(lambda x: x + 0.1, params["predictor"]["fusion"])
  gradients = jit(jax.grad(lambda params: total(task, {"params": params}, batch())))(params)
  for name in ("tokenizer", "motion", "predictor"):
    assert sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(gradients[name])) > 0, name


@pytest.mark.slow
def test_two_phases_end_to_end(tmp_path):
  c = config()
  c.data.root = str(magvit_runs.videos(tmp_path))
  train.train(c, tmp_path / "run")
  log = (tmp_path / "run" / "log.jsonl").read_text()
  assert "psnr/ceiling" in log and "iou/copy_last" in log
  before, after = (
    weights.flatten(trained.load(tmp_path / "run" / phase)[0]["tokenizer"])
    for phase in ("tokenizer", "predictor")
  )
  for name, leaf in before.items():  # frozen in the second phase
    np.testing.assert_array_equal(leaf, after[name], err_msg=name)


def test_refusals():
  c = config()
  c.data.future = 9
  with pytest.raises(checks.InputError, match="5 and 9 received; the window that is predicted"):
    magvit.FutureVideoTask(c)
  with pytest.raises(checks.InputError, match=r"config.model.head.*'pixels'"):
    magvit.FutureVideoTask(config(head="pixels"))
  with pytest.raises(checks.InputError, match="motion.kind: 'i3d' received, but .*'masked' draws"):
    magvit.FutureVideoTask(config(head="masked", motion__kind="i3d"))
  with pytest.raises(checks.InputError, match="config.model.flip_rate: 5.0 received, 0 to 1"):
    magvit.FutureVideoTask(config(head="autoregressive", flip_rate=5.0))
  c = config()
  del c.phases.tokenizer
  with pytest.raises(checks.InputError, match="the tokenizer would stay random"):
    magvit.FutureVideoTask(c)
  with pytest.raises(checks.InputError, match=r"'seed' received without its .*'num_codes', 'l"):
    magvit.FutureVideoTask(config(tokenizer__kind="seed"))
  with pytest.raises(checks.InputError, match="'masked' received; .* has 1,000 codes, which is no"):
    magvit_settings.make_predictor(config(head="masked").model, SeedTokenizer(1000, 8), (5, 4, 4))
  assert (
    magvit_settings.make_predictor(
      config(head="masked").model, SeedTokenizer(64, 8), (5, 4, 4)
    ).bits
    == 6
  )


@pytest.mark.parametrize("run", ["all", "predictor"])
def test_no_predictor_learns_from_a_random_tokenizer(run):
  c = config()
  c.run = run
  magvit.FutureVideoTask(c)  # its tokenizer is the best of the phase before
  c.phases.predictor.start_from = "init"
  with pytest.raises(checks.InputError, match=r"predictor.start_from: 'init' .* stay random"):
    magvit.FutureVideoTask(c)
  c.init.checkpoint = "some/run"
  magvit.FutureVideoTask(c)
  c.run, c.init.checkpoint = "predictr", ""  # the loop names the phases there are
  magvit.FutureVideoTask(c)


def test_no_discriminator_stays_random():
  c = config()
  c.loss.tokenizer.adversarial = 0.1
  with pytest.raises(checks.InputError, match=r"adversarial: 0.1 received, but .*groups leaves"):
    magvit.FutureVideoTask(c)
  c.phases.tokenizer.groups = (("(tokenizer|discriminator)/.*", "all"), (".*", "frozen"))
  magvit.FutureVideoTask(c)


def test_heads_that_draw_codes_have_no_gradient_for_other_losses():
  with pytest.raises(checks.InputError, match="config.model.joint: True .*'masked' draws codes"):
    magvit.FutureVideoTask(config(head="masked", joint=True))
  c = config(head="autoregressive")
  c.loss.pixel = 1.0
  with pytest.raises(checks.InputError, match="config.loss.pixel: 1.0 .*'autoregressive' draws"):
    magvit.FutureVideoTask(c)


@pytest.fixture(scope="module")
def code_book(tmp_path_factory):
  """File of a tokenizer with a code book of 16 vectors, with random weights."""
  path = tmp_path_factory.mktemp("code_book") / "w.safetensors"
  settings = {"kind": "seed", "num_codes": 16, "latent_dim": 8}
  params = initializers.init(frozen.make(settings), jax.random.PRNGKey(0))
  weights.save_weights(path, jax.device_get(params), frozen.SYSTEM, settings)
  return path


def of_code_book(path, **changes):
  c = config(tokenizer__checkpoint=str(path), **changes)
  c.run, c.phases.predictor.start_from = "predictor", "init"
  return c


def test_code_vectors_have_no_signs(code_book):
  with pytest.raises(checks.InputError, match="'bits' received; .* vectors of a code book"):
    magvit.FutureVideoTask(of_code_book(code_book))


@pytest.mark.slow
def test_joint_training_reaches_the_code_book(code_book):
  """Each vector in use goes to the mean of the latents that became it."""
  c = of_code_book(code_book, head="mse", joint=True)
  task = magvit.FutureVideoTask(c).for_phase("predictor")
  params = task.init(jax.random.PRNGKey(0))["params"]
  seen = batch()

  @jit
  def run(book):
    with_book = lambda book: {**params, "tokenizer": {**params["tokenizer"], "code_book": book}}  # noqa: E731
    _, latents, _, codes = task._encoded(with_book(book), seen, with_gradient=False)
    gradient = jax.grad(lambda book: total(task, {"params": with_book(book)}, seen))(book)
    return gradient, latents[0][0], codes[0][0]

  book = params["tokenizer"]["code_book"]
  gradient, latents, codes = run(book)
  want = np.zeros(book.shape)
  for code in np.unique(codes):
    want[code] = 2 * (np.asarray(book[code]) - np.asarray(latents)[codes == code]).sum(0)
  np.testing.assert_allclose(gradient, want / latents.size, rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_codes_that_say_nothing_are_not_best():
  """All latents alike are predicted without error; the pictures are what chooses a tokenizer."""
  c = config(joint=True)
  task = magvit.FutureVideoTask(c).for_phase("predictor")
  params = task.init(jax.random.PRNGKey(0))["params"]
  out = params["tokenizer"]["encoder"]["conv_out"]
  out["kernel"], out["bias"] = jnp.zeros_like(out["kernel"]), -jnp.ones_like(out["bias"])
  out = params["predictor"]["output"]
  out["kernel"], out["bias"] = jnp.zeros_like(out["kernel"]), -20 * jnp.ones_like(out["bias"])
  found = jit(lambda params: task.metrics({"params": params}, batch()))(params)
  assert found["loss/latent/val"].value < 1e-6 < 0.1 < found["loss/val"].value


def test_a_finished_tokenizer_is_not_trained(tokenizer):
  c = config(tokenizer__checkpoint=str(tokenizer[0]))
  with pytest.raises(checks.InputError, match="add --config.run=predictor --config.phases.pred"):
    magvit.FutureVideoTask(c)
  c.run = "predictor"
  with pytest.raises(checks.InputError, match="takes the tokenizer of the phase 'tokenizer'; add"):
    magvit.FutureVideoTask(c)
  c.phases.predictor.start_from = "init"
  c.loss.tokenizer.adversarial = 0.1  # of that phase alone
  assert magvit.FutureVideoTask(c).tokenizing is None


@pytest.mark.parametrize("variant", config_file.VARIANTS)
def test_variants_have_the_same_settings(variant):
  names = lambda c: sorted(c.to_dict()) + sorted(c.model.to_dict()) + sorted(c.loss.to_dict())  # noqa: E731
  c = config_file.get_config(variant)
  assert names(c) == names(config_file.get_config())
  for name, phase in c.phases.items():
    assert set(phase.lr) == {group for _, group in phase.groups} - {"frozen"}, name


def test_unknown_variant():
  with pytest.raises(ValueError, match="variant 'huge', data 'videos'; known: "):
    config_file.get_config("huge")


def test_tokenizers_below_a_black_picture_are_refused():
  c = config(tokenizer__allow_worse_than_black=False)
  task = magvit.FutureVideoTask(c).for_phase("predictor")
  task.check_start({"mse/ceiling": 0.001, "mse/black": 0.0011})
  worse = {"mse/ceiling": 0.25, "mse/black": 0.001}
  with pytest.raises(checks.InputError, match=r"have 6.02 dB where a black picture has 30.00 dB"):
    task.check_start(worse)
  magvit.FutureVideoTask(config()).check_start(worse)


@pytest.mark.slow
def test_a_useless_tokenizer_ends_a_run_at_its_start(tokenizer, tmp_path):
  c = config(tokenizer__allow_worse_than_black=False, tokenizer__checkpoint=str(tokenizer[0]))
  c.data.root = str(magvit_runs.videos(tmp_path))
  c.run, c.phases.predictor.start_from = "predictor", "init"
  for _ in range(2):  # nothing is saved, so that the same command says the same
    with pytest.raises(checks.InputError, match="dB where a black picture has .*allow_worse_than"):
      train.train(c, tmp_path / "run")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  """(file, fingerprint) of the tokenizer of the smoke config with random weights."""
  path = tmp_path_factory.mktemp("tokenizer") / "w.safetensors"
  settings = dict(config().model.tokenizer)
  params = initializers.init(frozen.make(settings), jax.random.PRNGKey(3))
  settings = {name: settings[name] for name in _TOKENIZER}
  weights.save_weights(path, jax.device_get(params), frozen.SYSTEM, {"kind": "magvit2", **settings})
  return path, frozen.load(path).fingerprint


def from_codes(tokenizer, variant="smoke,codes"):
  """Returns (config, what is known of the data) of training from codes."""
  c = config_file.get_config(variant)
  c.model.tokenizer.checkpoint = str(tokenizer[0])
  about = {"tokenizer": tokenizer[1], "code_shape": (5, 8, 8), "image_size": 16}
  return c, {"train": about | {"psnr": [7.0, 27.0]}}


def test_codes_train_as_their_pixels_do(tokenizer):
  c, about = from_codes(tokenizer)
  task = magvit.FutureVideoTask(c, about).for_phase("predictor")
  variables = task.init(jax.random.PRNGKey(0))
  seen = batch()
  video = seen["video"].reshape(-1, 5, 16, 16, 3)
  found = task.tokenizer
  encode = jit(lambda video: found.quantize(found.encode(variables["params"]["tokenizer"], video)))
  codes = np.asarray(encode(frozen.as_input(found, video))[1]).reshape(2, 2, 5, 8, 8)
  stored = {name: seen[name] for name in ("row", "mask", "position")}
  stored |= {"past_codes": codes[:, 0], "future_codes": codes[:, 1]}
  loss = jit(lambda seen: total(task, variables, seen))
  np.testing.assert_allclose(loss(stored), loss(seen), rtol=1e-5)
  metrics = jit(lambda seen: task.metrics(variables, seen))(stored)
  assert {"loss/val", "codes_right/val"} <= set(metrics)
  assert not [name for name in metrics if name.startswith("psnr")]
  # Both halves look the same, so the codes of the past are those of the future.
  assert metrics["codes_right/copy"].value == 1 > metrics["codes_right/val"].value


def test_refusals_of_codes(tokenizer):
  c, about = from_codes(tokenizer)
  other = {"train": {**about["train"], "tokenizer": "abc"}}
  with pytest.raises(checks.InputError, match="holds codes of tokenizer 'abc', config.model"):
    magvit.FutureVideoTask(c, other)
  smaller = {"train": {**about["train"], "code_shape": (5, 4, 4), "image_size": 8}}
  with pytest.raises(checks.InputError, match=r"\(5, 8, 8\) codes, those .*\(5, 4, 4\).* 8 px"):
    magvit.FutureVideoTask(c, smaller)
  c.init.checkpoint = str(tokenizer[0].with_name("other.safetensors"))
  params = initializers.init(frozen.make(c.model.tokenizer), jax.random.PRNGKey(4))
  weights.save_weights(c.init.checkpoint, {"tokenizer": jax.device_get(params)}, "magvit", {})
  with pytest.raises(checks.InputError, match=r"other.safetensors holds tokenizer '\w+', config.m"):
    magvit.FutureVideoTask(c, about)
  c.init.checkpoint = ""
  c.model.tokenizer.allow_worse_than_black = False
  with pytest.raises(checks.InputError, match="have 7.00 dB where a black picture has 27.00 dB"):
    magvit.FutureVideoTask(c, about)
  c.model.joint = True
  with pytest.raises(checks.InputError, match="config.model.joint: True received, but that needs"):
    magvit.FutureVideoTask(c, about)
  c = config()
  c.data.pipeline = "video_codes"
  with pytest.raises(checks.InputError, match="the codes' tokenizer is not given; give"):
    magvit.FutureVideoTask(c, about)
