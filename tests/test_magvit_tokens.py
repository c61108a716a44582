"""Distributions over codes, masked and frame-by-frame generation, rollouts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_golden_video_resnet import jit

from vistraj_jax.core import checks
from vistraj_jax.models.magvit import autoregressive, masked, rollout, tokens
from vistraj_jax.nn import initializers

BITS, SHAPE = 4, (2, 4, 2, 3)
TRANSFORMER = {
  "width": 16,
  "num_heads": 2,
  "num_layers": 2,
  "hidden": 32,
  "max_grid": (6, 2, 3),
  "remat": "none",
}


@functools.cache
def made(head, **changes):
  model = tokens.TokenModel(BITS, TRANSFORMER | changes, head, 2)
  codes = jax.random.randint(jax.random.PRNGKey(1), SHAPE, 0, 1 << BITS)
  hidden = jnp.zeros(SHAPE, bool)
  params = initializers.init(model, jax.random.PRNGKey(0), codes, hidden)["params"]
  # Far from the small start, where everything is equally probable.
  return model, jax.tree.map(lambda x: 3 * x, params), codes


@pytest.mark.parametrize("head", [pytest.param("bits", marks=pytest.mark.slow), "subtokens"])
def test_probabilities_of_all_codes_sum_to_one(head):
  model, params, codes = made(head)

  @jit
  def run(rng):
    variables = {"params": params}
    context = model.apply(variables, codes, method="context")
    every = jnp.broadcast_to(jnp.arange(1 << BITS)[:, None, None, None, None], (16, *SHAPE))
    nats = jax.vmap(lambda c: model.apply(variables, context, c, method="nats"))(every)
    drawn = model.apply(variables, context, rng, method="sample")
    likeliest = model.apply(variables, context, rng, 0, method="sample")
    return nats, drawn, likeliest

  nats, (codes_drawn, cost), (likeliest, least) = run(jax.random.PRNGKey(3))
  np.testing.assert_allclose(np.exp(-nats).sum(0), 1, rtol=1e-5)
  np.testing.assert_allclose(
    cost, np.take_along_axis(nats, codes_drawn[None], 0)[0], rtol=1e-5, atol=1e-6
  )
  if head == "bits":  # its decisions do not depend on each other
    np.testing.assert_array_equal(likeliest, nats.argmin(0))
  np.testing.assert_allclose(
    least, np.take_along_axis(nats, likeliest[None], 0)[0], rtol=1e-5, atol=1e-6
  )
  assert model.parts == {"bits": 4, "subtokens": 2}[head]


def test_hidden_codes_are_not_seen():
  model, params, codes = made("subtokens")
  hidden = jnp.zeros(SHAPE, bool).at[:, 2:].set(True)
  run = jit(lambda codes: model.apply({"params": params}, codes, hidden, method="context"))
  np.testing.assert_array_equal(run(codes), run(codes.at[:, 2:].set(5)))
  assert not np.allclose(run(codes), run(codes.at[0, 0, 0, 0].add(1) % 16))


def test_draws():
  logits = jnp.log(jnp.array([[0.1, 0.6, 0.3]]))
  run = lambda **kwargs: {  # noqa: E731
    int(tokens.draw(logits, jax.random.PRNGKey(i), **kwargs)[0]) for i in range(60)
  }
  assert run() == {0, 1, 2}
  assert run(temperature=0) == run(top_k=1) == run(top_p=0.5) == {1}
  assert run(top_k=2) == run(top_p=0.7) == {1, 2}


def test_settings_of_draws():
  for wrong in ({"temperature": -1}, {"top_k": -1}, {"top_p": 0}):
    with pytest.raises(checks.InputError, match="config.eval.temperature, top_k, top_p: .* above"):
      tokens.draw(jnp.zeros(4), jax.random.PRNGKey(0), **wrong)
  model, params, codes = made("subtokens")
  with pytest.raises(checks.InputError, match="config.eval.steps: 0 received"):
    masked.generate(model, params, codes, 2, jax.random.PRNGKey(0), steps=0)


def test_flipped_bits():
  codes = jnp.arange(16)
  flip = functools.partial(tokens.flip_bits, codes, jax.random.PRNGKey(0), bits=BITS)
  np.testing.assert_array_equal(flip(rate=0.0), codes)
  np.testing.assert_array_equal(flip(rate=1.0), 15 - codes)


def test_training_hides_a_share_of_the_future_only():
  keys = jax.random.split(jax.random.PRNGKey(0), 500)
  mask = np.asarray(jit(lambda keys: masked.training_mask(keys, 2, SHAPE[1:]))(keys))
  assert mask.shape == (500, 4, 2, 3) and not mask[:, :2].any()
  counts = mask.sum((1, 2, 3))
  assert counts.min() == 1 and counts.max() == 12
  # The mean of cos(pi/2 r) is 2/pi; rounding up adds half a place of 12.
  assert abs(counts.mean() / 12 - (2 / np.pi + 0.5 / 12)) < 0.05
  assert [int(masked.still_hidden(p, 100)) for p in (0, 1 / 3, 2 / 3, 1)] == [100, 86, 50, 0]


def test_masked_generation():
  model, params, codes = made("subtokens")
  run = jit(
    lambda past, rng: masked.generate(model, params, past, 2, rng, steps=3, temperature=1.0)
  )
  found = np.asarray(run(codes[:, :2], jax.random.PRNGKey(0)))
  assert found.shape == (2, 2, 2, 3) and found.min() >= 0 and found.max() < 16
  assert (found != np.asarray(run(codes[:, :2], jax.random.PRNGKey(1)))).any()


@pytest.mark.parametrize("attend", ["full", pytest.param("factorised", marks=pytest.mark.slow)])
def test_frames_see_no_later_frames_and_the_cache_changes_nothing(attend):
  model, params, codes = made("subtokens", causal=True, attend=attend)

  context = jit(lambda codes: model.apply({"params": params}, codes, method="context"))
  whole = context(codes)
  np.testing.assert_allclose(
    whole[:, :3], context(codes.at[:, 3].set(7))[:, :3], atol=1e-5, rtol=1e-5
  )
  grow = lambda past, rng: autoregressive.generate(model, params, past, 3, rng, {"temperature": 0})  # noqa: E731
  found = jit(grow)(codes[:, :2], jax.random.PRNGKey(0))

  @jit
  def grown_by_one(codes, last):
    seen = model.apply({"params": params}, codes, method="context")[:, last][:, None]
    drawn, _ = model.apply({"params": params}, seen, jax.random.PRNGKey(0), 0, method="sample")
    return jax.lax.dynamic_update_slice_in_dim(codes, drawn, last + 1, 1)

  grown = jnp.pad(codes[:, :2], ((0, 0), (0, 3), (0, 0), (0, 0)))
  for last in (1, 2, 3):  # without a cache
    grown = grown_by_one(grown, last)
  np.testing.assert_array_equal(found, grown[:, 2:])


_TABLE = {"positions": "table", "num_positions": 4 * 2 * 3}


@pytest.mark.parametrize(
  ("changes", "most"), [({}, 3), pytest.param(_TABLE, 1, marks=pytest.mark.slow)]
)
def test_no_frame_is_drawn_beyond_the_positions(changes, most):
  """The last position would stand for all frames that follow it."""
  model, params, codes = made("subtokens", causal=True, **changes)
  run = lambda frames: jax.eval_shape(  # noqa: E731
    lambda rng: autoregressive.generate(model, params, codes, frames, rng), jax.random.PRNGKey(0)
  )
  assert run(most).shape == (SHAPE[0], most, *SHAPE[2:])
  with pytest.raises(checks.InputError, match=f"latents: .*{most + SHAPE[1]} x 2 x 3.* tokens"):
    run(most + 1)


def test_next_frame_loss():
  model, params, codes = made("subtokens", causal=True)

  @jit
  def run(codes):
    context = model.apply({"params": params}, codes, method="context")
    one = model.apply({"params": params}, context[:, 1:2], codes[:, 2:3], method="nats")
    return autoregressive.next_frame_nats(model, params, codes), one

  nats, want = run(codes)
  assert nats.shape == (2, 3, 2, 3)
  np.testing.assert_allclose(nats[:, 1:2], want, rtol=1e-4)
  with pytest.raises(checks.InputError, match="one by one; train .autoregressive."):
    autoregressive.next_frame_nats(*made("subtokens"))


def test_rollouts():
  past = jnp.arange(4.0).reshape(1, 2, 2)
  next_window = lambda past, rng: past + 10  # noqa: E731
  found = rollout.roll_out(next_window, past, 3, jax.random.PRNGKey(0))
  np.testing.assert_array_equal(found[0, ::2, 0], [10, 20, 30])
  halved = rollout.through_pixels(lambda video: video - 1.0, lambda latents: latents / 510)
  found = rollout.roll_out(next_window, past, 3, jax.random.PRNGKey(0), halved)
  np.testing.assert_array_equal(found[0, ::2, 0], [10, 14, 16])
  with pytest.raises(checks.InputError, match="a past of 2 latent frames and predictions of 1"):
    rollout.roll_out(lambda past, rng: past[:, :1], past, 2, jax.random.PRNGKey(0))


def test_several_futures():
  draws = rollout.several(lambda key: jax.random.normal(key, (2, 5)), jax.random.PRNGKey(0), 3)
  assert draws.shape == (3, 2, 5) and len(np.unique(draws)) == 30
  pairs = [(draws[i] - draws[j]) ** 2 for i, j in ((0, 1), (0, 2), (1, 2))]
  np.testing.assert_allclose(rollout.diversity(draws), np.mean(pairs, (0, 2)), rtol=1e-5)
  np.testing.assert_array_equal(rollout.best_of(jnp.array([[3.0, 1], [2, 5]])), [2, 1])
