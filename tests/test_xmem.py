"""XMem over time with a tiny network: streams, objects that come and go, batches, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xmem_cases import jit

from vistraj_jax.core import checks
from vistraj_jax.models.xmem import clip, network, schedule, stream
from vistraj_jax.models.xmem import memory as memories
from vistraj_jax.models.xmem.settings import MemorySettings

pytestmark = pytest.mark.slow  # minutes on 2 cores; `make test-slow`

SIZE = (30, 44)  # no multiples of 16: padded to 32 x 48
RULES = MemorySettings(top_k=4, mem_every=1, min_mid=2, max_mid=4, num_prototypes=3, max_long=9)

PLAIN = MemorySettings(top_k=4, mem_every=1, long_term=False)


@functools.cache
def _tiny():
  sizes = {"width": 4, "key_depths": (1, 1, 1), "value_depths": (1, 1, 1)}
  model = network.XMem(8, 32, 8, **sizes, dtype=jnp.dtype("float32"))
  return model, _random_params(model)


def _random_params(model):
  """Parameters drawn by NumPy: compiling the network's own start takes longer than the tests."""
  image, hidden = jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 1, 1, 1, model.hidden_dim))
  shapes = jax.eval_shape(model.init, jax.random.key(0), image, image[..., :1], hidden)["params"]
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    name = path[-1].key
    if name in ("scale", "var"):
      return jnp.ones(leaf.shape)
    scale = np.prod(leaf.shape[:-1]) ** -0.5 if name == "kernel" else 0.1
    return jnp.asarray(rng.normal(size=leaf.shape) * scale, jnp.float32)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def _images(T, batch=1):
  rng = np.random.default_rng(3)
  base = rng.integers(0, 256, (batch, 1, *SIZE, 3))
  noise = rng.integers(-40, 40, (batch, T, *SIZE, 3))
  return np.clip(base + noise, 0, 255).astype(np.uint8)


def _mask(left):
  mask = np.zeros(SIZE, np.float32)
  mask[8:20, left : left + 9] = 1
  return mask


def _two_objects(batch=1):
  """Masks [B, 1, H, W, 2] and given [B, 1, 2] of the first frame."""
  masks = np.stack([_mask(3), _mask(25)], -1)[None, None].repeat(batch, 0)
  return masks, np.ones((batch, 1, 2), bool)


def _one_object():
  return tuple(x[..., :1] for x in _two_objects())


@functools.cache
def _runner(rules, T, remat=False):
  model, _ = _tiny()
  planned = schedule.plan_clip(rules, T)
  return jit(functools.partial(clip.run_clip, model, rules, clip=planned, remat=remat))


def test_stream_equals_clip_and_compiles_once():
  model, params = _tiny()
  images = _images(7)
  whole = _runner(RULES, 7)(params, clip.normalise(images), *_two_objects())
  live = stream.Stream(model, RULES, params, SIZE, 2)
  size = live.memory_bytes
  step = stream._compiled(model, RULES)
  before = step._cache_size()
  for t in range(7):
    frame = live.step(images[0, t], {1: _mask(3), 7: _mask(25)} if not t else None)
    np.testing.assert_allclose(frame.probability, whole.probability[:, t], atol=2e-4)
    np.testing.assert_allclose(frame.hidden, whole.hidden[:, t], atol=2e-4)
  assert step._cache_size() - before == 1
  assert live.memory_bytes == size
  assert set(np.unique(live.labels(frame))) <= {0, 1, 7}


def test_batch_equals_single_runs():
  _, params = _tiny()
  images = clip.normalise(_images(7, batch=3))
  masks, given = _two_objects(3)
  masks[1] = np.roll(masks[1], 4, axis=1)
  given[2, 0, 1] = False  # the third clip has one object
  run = _runner(RULES, 7)
  together = run(params, images, masks, given)
  for b in range(3):
    alone = run(params, *(x[b : b + 1] for x in (images, masks, given)))
    for name in ("probability", "hidden"):
      got, want = getattr(together, name)[b], getattr(alone, name)[0]
      if b == 2 and name == "hidden":
        got, want = got[:, :1], want[:, :1]
      np.testing.assert_allclose(got, want, atol=2e-4)
  assert together.probability[2, ..., 2].max() < 1e-5


def test_padded_objects_change_nothing():
  _, params = _tiny()
  images = clip.normalise(_images(7))
  masks, given = _two_objects()
  run = _runner(RULES, 7)
  two = run(params, images, masks, given)
  wide = np.concatenate([masks, np.ones_like(masks[..., :1])], -1)
  three = run(params, images, wide, np.array([[[True, True, False]]]))
  np.testing.assert_allclose(three.probability[..., :3], two.probability, atol=1e-5)
  assert three.probability[..., 3].max() < 1e-5


def test_permuted_objects_give_permuted_masks():
  _, params = _tiny()
  images = clip.normalise(_images(7))
  masks, given = _two_objects()
  run = _runner(RULES, 7)
  one, other = run(params, images, masks, given), run(params, images, masks[..., ::-1], given)
  swapped = other.probability[..., np.array([0, 2, 1])]
  np.testing.assert_allclose(swapped, one.probability, atol=1e-4)


def test_long_term_memory_changes_nothing_before_it_is_used():
  _, params = _tiny()
  images = clip.normalise(_images(3))  # one memory frame below max_mid
  with_long, without = (_runner(r, 3)(params, images, *_two_objects()) for r in (RULES, PLAIN))
  np.testing.assert_array_equal(with_long.probability, without.probability)


def test_reads_agree():
  _, params = _tiny()
  images = clip.normalise(_images(7))
  rules = MemorySettings(**{**vars(RULES), "read": "dense"})
  dense, gathered = (_runner(r, 7)(params, images, *_two_objects()) for r in (rules, RULES))
  np.testing.assert_allclose(gathered.probability, dense.probability, atol=2e-4)


def test_objects_come_and_go():
  model, params = _tiny()
  images = _images(12)[0]
  live = stream.Stream(model, RULES, params, SIZE, 2)
  live.step(images[0], {3: _mask(3)})
  live.step(images[1])
  frame = live.step(images[2], {9: _mask(25)})
  labels = live.labels(frame)
  np.testing.assert_array_equal(labels == 9, _mask(25) > 0)  # given masks are kept as they are
  with pytest.raises(checks.InputError, match="object 4 is one too many for 2 slots"):
    live.step(images[3], {4: _mask(10)})
  for t in range(3, 8):
    frame = live.step(images[t])
  assert np.isfinite(frame.probability).all()
  live.remove(3)
  frame = live.step(images[8])
  assert 3 not in live.labels(frame) and frame.probability[0, ..., 1].max() < 1e-5
  frame = live.step(images[9], {4: _mask(10)})
  np.testing.assert_array_equal(live.labels(frame) == 4, _mask(10) > 0)
  assert live.objects == {9: 1, 4: 0}
  with pytest.raises(checks.InputError, match=r"remove: object: 3 is not allowed"):
    live.remove(3)


def test_frozen_memory_stays_as_it_is():
  model, params = _tiny()
  images = _images(6)[0]
  live = stream.Stream(model, RULES, params, SIZE, 2)
  live.step(images[0], {1: _mask(3)})
  before = jax.tree.map(np.asarray, live._state.memory)
  for t in range(1, 6):
    live.step(images[t], update_memory=False)
  after = live._state.memory
  for name in ("key", "shrinkage", "value", "time"):
    np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def _loss(params, images, remat=False):
  """Loss of the last frame's mask."""
  model, _ = _tiny()
  planned = schedule.plan_clip(PLAIN, images.shape[1])
  frames = clip.run_clip(model, PLAIN, params, images, *_one_object(), planned, remat=remat)
  return jnp.square(frames.probability[0, -1, ..., 1] - _mask(6)).mean() * 100


def test_gradients_through_memory():
  _, params = _tiny()
  images = clip.normalise(_images(3))
  value, (of_params, of_images) = jit(jax.value_and_grad(_loss, (0, 1)))(params, images)
  assert np.isfinite(of_images).all() and np.abs(of_images[0, 0]).max() > 1e-7
  # Equal with the insides computed again.
  again = jit(jax.grad(functools.partial(_loss, remat=True)))(params, images)
  for got, want in zip(jax.tree.leaves(again), jax.tree.leaves(of_params), strict=True):
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
  # Finite differences of a scalar of the value encoder.
  fuser = params["value_encoder"]["fuser"]["block2"]["conv2"]

  def at(bias):
    block = {**fuser, "bias": bias}
    fused = {**params["value_encoder"]["fuser"]}
    fused["block2"] = {**fused["block2"], "conv2": block}
    return {**params, "value_encoder": {**params["value_encoder"], "fuser": fused}}

  direction = of_params["value_encoder"]["fuser"]["block2"]["conv2"]["bias"]
  direction = direction / jnp.linalg.norm(direction)
  loss, step = jit(_loss), 3e-2
  slope = (
    loss(at(fuser["bias"] + step * direction), images)
    - loss(at(fuser["bias"] - step * direction), images)
  ) / (2 * step)
  want = (of_params["value_encoder"]["fuser"]["block2"]["conv2"]["bias"] * direction).sum()
  assert float(slope) == pytest.approx(float(want), rel=0.05) and value > 0


def test_detached_memory_has_no_gradient_to_the_first_frame():
  _, params = _tiny()
  images = clip.normalise(_images(4))
  rules = MemorySettings(top_k=4, mem_every=1, long_term=False, read="dense", detach_memory=True)
  # The hidden state is the other way through time: without it only memory is left.
  model = network.XMem(8, 32, 0, width=4, key_depths=(1, 1, 1), value_depths=(1, 1, 1))
  params = _random_params(model)
  planned = schedule.plan_clip(rules, 4)

  def loss(images):
    frames = clip.run_clip(model, rules, params, images, *_one_object(), planned)
    return frames.probability[0, -1, ..., 1].sum()

  grad = np.asarray(jit(jax.grad(loss))(images))
  assert not grad[0, :3].any() and grad[0, 3].any()


def test_one_frame_is_exported():
  model, params = _tiny()
  state = clip.init_state(model, RULES, SIZE, 2)
  image, (masks, given) = _images(1), _two_objects()

  def step(params, memory, birth, hidden, image, mask, given, *plan):
    state = clip.State(memories.Memory(**memory), birth, hidden)
    image, plan = clip.normalise(image), schedule.Plan(*plan)
    return clip.step(model, RULES, params, state, image, mask, given, plan)[1].hidden

  inputs = (params, vars(state.memory), state.birth, state.hidden, image[:, 0], masks[:, 0])
  plan = schedule.Planner(RULES, 4).next(0, [1, 2])
  exported = jax.export.export(jax.jit(step))(*inputs, given[:, 0], *plan)
  got = jit(exported.call)(*inputs, given[:, 0], *plan)
  live = stream.Stream(model, RULES, params, SIZE, 2)
  want = live.step(image[0, 0], {1: _mask(3), 2: _mask(25)})
  np.testing.assert_allclose(got, want.hidden, atol=2e-4)


@pytest.mark.parametrize(
  ("change", "sentence"),
  [
    ({"min_mid": 1}, "memory.min_mid: 1 is not allowed; choose 2 or more"),
    ({"max_mid": 2}, "memory.max_mid: 2 is not allowed; choose more than memory.min_mid 2"),
    ({"top_k": 0}, "memory.top_k: 0 is not allowed; choose 1 or more"),
    ({"num_prototypes": 10}, "memory.num_prototypes: 10 is not allowed; choose at most"),
    ({"deep_update_every": 0}, "memory.deep_update_every: 0 is not allowed"),
    ({"read": "fast"}, "memory.read: 'fast' is not allowed"),
  ],
)
def test_wrong_settings(change, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    MemorySettings(**{**vars(RULES), **change})


def test_wrong_clips():
  model, params = _tiny()
  images = clip.normalise(_images(3))
  with pytest.raises(checks.InputError, match="3 frames received, planned are 2"):
    clip.run_clip(model, RULES, params, images, *_two_objects(), schedule.plan_clip(RULES, 2))
  masks, given = _two_objects()
  with pytest.raises(checks.InputError, match=r"run_clip: masks: shape \(1, 1, 30, 20, 2\)"):
    planned = schedule.plan_clip(RULES, 3)
    clip.run_clip(model, RULES, params, images, masks[..., :20, :], given, planned)
  with pytest.raises(checks.InputError, match="num_prototypes: 3 .* images of 1 cells"):
    clip.init_state(model, RULES, (16, 16), 1)
  with pytest.raises(checks.InputError, match="memory.long_term is off"):
    clip.init_state(model, MemorySettings(long_term=False), SIZE, 1)
  live = stream.Stream(model, RULES, params, SIZE, 1)
  with pytest.raises(checks.InputError, match="frame 0: there is no object yet"):
    live.step(_images(1)[0, 0])
  with pytest.raises(checks.InputError, match=r"mask of object 1: shape \(30, 20\)"):
    live.step(_images(1)[0, 0], {1: _mask(3)[:, :20]})
