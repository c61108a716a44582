"""Attention over many tokens: backends agree, chunks do not matter, memory stays small."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging as absl_logging

from launch import runtime
from vistraj_jax.core import checks
from vistraj_jax.nn import attention, chunked_attention

N, BLOCK = 37, 6  # 37 is no multiple of a chunk or a block


@functools.cache
def _inputs():
  rng = np.random.default_rng(0)
  return [jnp.asarray(3 * rng.normal(size=(2, N, 2, 8)), jnp.float32) for _ in range(4)]


def _explicit(q, k, v, visible):
  scores = np.einsum("bnhd,bmhd->bhnm", q, k) / np.sqrt(q.shape[-1])
  scores = jnp.where(visible, scores, -jnp.inf)
  return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), v)


def _value_and_gradients(function):
  q, k, v, weight = _inputs()

  @jax.jit
  def run(q, k, v):
    out, pull = jax.vjp(function, q, k, v)
    return out, *pull(weight)

  return run(q, k, v)


@functools.cache
def _wanted(block):
  def plain(q, k, v):
    frame = jnp.arange(N) // (block or N)
    scores = jnp.einsum("bnhd,bmhd->bhnm", q, k) / 8**0.5
    scores = jnp.where(frame <= frame[:, None], scores, -jnp.inf)
    return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), v)

  return _value_and_gradients(plain)


@pytest.mark.parametrize("block", [0, BLOCK])
@pytest.mark.parametrize("chunk", [16, 64])
def test_chunks_change_nothing(block, chunk):
  run = functools.partial(chunked_attention.chunked, block=block, chunk=chunk)
  for got, want in zip(_value_and_gradients(run), _wanted(block), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("block", [0, BLOCK])
def test_plain_backend(block):
  run = functools.partial(attention.attention, backend="xla", block=block)
  for got, want in zip(_value_and_gradients(run), _wanted(block), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["xla", "chunked"])
def test_a_cache_that_is_not_full(backend):
  q, k, v, _ = _inputs()
  run = jax.jit(lambda seen: attention.attention(q[:, :5], k, v, backend, seen=seen))
  for seen in (1, 20):
    want = _explicit(q[:, :5], k, v, np.arange(N) < seen)
    np.testing.assert_allclose(run(seen), want, atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_sums_in_float32():
  q, k, v, _ = (x.astype(jnp.bfloat16) for x in _inputs())
  got = attention.attention(q, k, v, "chunked")
  assert got.dtype == jnp.bfloat16
  exact = _explicit(*(np.asarray(x, np.float32) for x in (q, k, v)), True)
  np.testing.assert_allclose(got.astype(jnp.float32), exact, atol=0.05, rtol=0.02)


def test_25600_tokens_need_no_square_of_memory():
  """Compiled, not run: one clip, width 256, 8 heads; its scores would be 21 GB."""
  clip = [jax.ShapeDtypeStruct((1, 25600, 8, 32), jnp.float32)] * 3

  def loss(q, k, v):
    return (attention.attention(q, k, v) ** 2).sum()

  program = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*clip).compile()
  assert program.memory_analysis().temp_size_in_bytes < 0.3e9


def test_choice_of_backend(caplog):
  attention.choose.cache_clear()
  with caplog.at_level(logging.INFO):
    assert attention.choose("gpu", "bfloat16", 25600, 25600, 32) == "cudnn"
    assert attention.choose("gpu", "float32", 25600, 25600, 32) == "chunked"
    assert attention.choose("gpu", "float32", 1792, 1792, 32) == "xla"
    assert attention.choose("tpu", "float32", 25600, 25600, 32) == "flash"
    assert attention.choose("cpu", "float32", 25600, 25600, 32) == "chunked"
    assert attention.choose("cpu", "float32", 256, 256, 32) == "xla"
    assert attention.choose("cpu", "float32", 256, 256, 32) == "xla"
  assert len(caplog.messages) == 6  # once for arrays of one kind
  assert "25600 queries" in caplog.messages[0] and "on gpu: cudnn" in caplog.messages[0]


def test_commands_tell_the_choice_once(monkeypatch, capsys):
  """With and without absl's handler, which app.run sets."""
  before = logging.root.level
  for number, handlers in enumerate(([], [absl_logging.get_absl_handler()])):
    monkeypatch.setattr(logging.root, "handlers", handlers)
    try:
      for _ in range(2):
        runtime.configure()
        attention.choose("cpu", "float32", 99, 99 + number, 8)
      absl_logging.info("a save")
      absl_logging.error("a fault")
    finally:
      logging.root.setLevel(before)
    told = capsys.readouterr().err
    assert told.count("attention of 99 queries") == told.count("a fault") == 1
    assert "a save" not in told


def test_errors():
  q, k, v, _ = _inputs()
  with pytest.raises(checks.InputError, match=r"config.model.attention.*'fast'"):
    attention.attention(q, k, v, "fast")
  with pytest.raises(checks.InputError, match="received float32 and 8"):
    attention.attention(q, k, v, "cudnn")
  with pytest.raises(checks.InputError, match="reads whole caches only"):
    attention.attention(q, k, v, "flash", seen=3)


@pytest.mark.slow
@pytest.mark.parametrize("block", [0, 20])
def test_tpu_kernel_interpreted(block):
  from jax.experimental.pallas import tpu

  q, k, v = (jnp.asarray(x[:, :20]) for x in _inputs()[:3])
  q, k, v = (jnp.concatenate([x] * 8, 1) for x in (q, k, v))  # 160 tokens: a whole tile and a part
  with tpu.force_tpu_interpret_mode():
    got = attention.attention(q, k, v, "flash", block)
  np.testing.assert_allclose(got, attention.attention(q, k, v, "xla", block), atol=1e-4)
