"""Training of a tiny video tokenizer with a discriminator, end to end, and what its losses mean."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xmem_cases import jit

from configs import magvit_tokenizer as config_file
from launch import train
from vistraj_jax.core import checks, trained
from vistraj_jax.losses import latent
from vistraj_jax.models.magvit import frozen
from vistraj_jax.prepare.future_video import convert
from vistraj_jax.prepare.world import video_writer
from vistraj_jax.tasks import magvit_tokenizer


def test_losses_by_hand():
  """One wrong pixel, a mask, an empty mask; logits of two videos."""
  target = np.zeros((2, 1, 2, 2, 3), np.float32)
  found = target.copy()
  found[0, 0, 0, 1] = (0.3, 0.6, 0.0)
  np.testing.assert_allclose(latent.video_l1(found, target), [0.9 / 12, 0])
  np.testing.assert_allclose(latent.video_l2(found, target), [0.45 / 12, 0], rtol=1e-6)
  mask = np.zeros((2, 1, 2, 2), np.float32)
  mask[0, 0, 0] = 1
  np.testing.assert_allclose(latent.masked_l1(found, target, mask), [0.15, 0], rtol=1e-6)
  z = jnp.asarray([[0.5, -2.0], [1.0, -1.0]]).reshape(2, 1, 1, 1, 2)
  np.testing.assert_allclose(latent.commitment(z, jnp.sign(z)), [(0.25 + 1) / 2, 0])
  real, fake = (
    jnp.asarray(x).reshape(2, 1, 1, 2, 1) for x in ([[2.0, 0], [0, 0]], [[-2.0, 0], [1, 1]])
  )
  np.testing.assert_allclose(latent.hinge(real, fake), [0.5 * (0.5 + 0.5), 0.5 * (1 + 2)])
  np.testing.assert_allclose(latent.non_saturating(fake), np.log1p(np.exp([1, -1])), rtol=1e-6)
  averages = latent.moved_averages({"real": 1.0, "fake": 0.0}, real, fake, 0.5)
  assert (float(averages["real"]), float(averages["fake"])) == (0.75, 0.0)
  # Real logits above 0: 2. Fake ones below 0.75: -2 and 0.
  wanted = 2**2 / 4 + (2.75**2 + 0.75**2) / 4
  np.testing.assert_allclose(latent.lecam(real, fake, averages), wanted)


def _config(**changes):
  c = config_file.get_config("smoke")
  for name, value in changes.items():
    setattr(c.data, name, value)
  return c


def test_published_variant_is_the_public_network():
  task = magvit_tokenizer.VideoTokenizerTask(config_file.get_config("published"))
  wanted = {"channels": 128, "multipliers": (1, 2, 2, 4), "num_blocks": 4, "bits": 18, "groups": 32}
  assert {name: getattr(task.tokenizer, name) for name in wanted} == wanted
  assert task.tokenizer.strides == (4, 8) and task.discriminator.channels == 64
  config = config_file.get_config("published")
  config.model.dtype = "bfloat16"
  assert magvit_tokenizer.VideoTokenizerTask(config).discriminator.dtype == jnp.bfloat16


def test_refusals(tmp_path):
  natural = config_file.get_config("natural")
  with pytest.raises(checks.InputError, match="config.data.root: '' received; give a folder that"):
    train.train(natural, tmp_path)
  with pytest.raises(checks.InputError, match="5 and 9 received; windows of one length"):
    magvit_tokenizer.VideoTokenizerTask(_config(future=9))
  with pytest.raises(checks.InputError, match="frames of 15 x 15 px received, multiples of 2"):
    magvit_tokenizer.VideoTokenizerTask(_config(image_size=15))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp("videos")
  clips = {"train": 4, "val": 2}
  settings = {"clips": clips, "size": 16, "frames": 10, "radius": 0.15}
  video_writer.write(folder / "source", settings)
  options = convert.Options(size=16, frames=10)
  convert.prepare(folder / "source", folder / "videos", options=options)
  return str(folder / "videos")


@pytest.mark.slow  # a discriminator doubles what there is to compile
def test_gradients_of_two_players():
  """The discriminator's loss moves nothing of the tokenizer, the generator's nothing of it."""
  task = magvit_tokenizer.VideoTokenizerTask(_config())
  variables = task.init(jax.random.PRNGKey(0))
  video = jax.random.randint(jax.random.PRNGKey(1), (2, 10, 16, 16, 3), 0, 255)
  colours = jnp.asarray([[[0, 0, 0], [255, 0, 0]]] * 2)
  batch = {"video": video.astype(jnp.uint8), "colours": colours, "mask": jnp.ones(2)}

  def of(name):
    def loss(params):
      terms = task.losses({**variables, "params": params}, batch, None, train=True)[0]
      return terms[name][1].value

    grads = jit(jax.grad(loss))(variables["params"])
    return {part: max(float(abs(x).max()) for x in jax.tree.leaves(t)) for part, t in grads.items()}

  hinge, adversarial = of("hinge"), of("adversarial")
  assert hinge["tokenizer"] == 0 < hinge["discriminator"]
  assert adversarial["discriminator"] == 0 < adversarial["tokenizer"]


@pytest.mark.slow  # a discriminator doubles what there is to compile
def test_training(videos, tmp_path):
  """All terms are logged, statistics move, the best weights are a tokenizer to load."""
  config = _config(root=videos)
  config.phases.tokenizer.steps = 6
  config.ema_decay = 0.5
  config.lock()
  summary = train.train(config, tmp_path / "run")["tokenizer"]
  log = (tmp_path / "run" / "log.jsonl").read_text()
  for term in (
    "l1",
    "l2",
    "foreground",
    "commitment",
    "entropy",
    "adversarial",
    "hinge",
    "lecam",
  ):
    assert f"loss/{term}/train" in log
  assert np.isfinite(summary["loss/val"]) and summary["psnr/black"] > 5
  variables, model = trained.load_variables(tmp_path / "run")
  assert model["bits"] == 6
  moved = variables["batch_stats"]["norm_1"]["mean"]
  assert np.any(moved != 0)
  found = frozen.load(tmp_path / "run")
  assert found.tokenizer.num_codes == 64
  assert set(found.params) == {"encoder", "decoder"}


@pytest.mark.slow  # a discriminator doubles what there is to compile
def test_every_setting_is_read(videos, tmp_path):
  from test_configs import _leaves, _Watched

  config, read = _config(root=videos), set()
  del config.data.world  # of the embedded videos alone
  config.phases.tokenizer.steps = 2
  train.train(_Watched(config, "", read), tmp_path / "run")
  assert set(_leaves(config)) - read == set()
