"""Quantisers against the public ones, against enumeration, and whatever the chunks are."""

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.nn import quantize

fill = golden_cases.fill


def _last(x):
  return np.moveaxis(np.asarray(x), 1, -1)


def test_lookup_free():
  case = golden_cases.load("magvit", "lfq")
  z = _last(case.arrays["x"])
  q = quantize.signs(jnp.asarray(z))
  np.testing.assert_array_equal(q, _last(case.arrays["quant"]))
  index = quantize.bits_to_index(z).reshape(-1)
  np.testing.assert_array_equal(index, case.arrays["indices"])
  first, rest = quantize.split_index(index, 9)
  np.testing.assert_array_equal(first, case.arrays["indices_pre"])
  np.testing.assert_array_equal(rest, case.arrays["indices_post"])
  np.testing.assert_array_equal(quantize.join_index(first, rest, 9), index)
  np.testing.assert_array_equal(quantize.index_to_bits(index, 18), q.reshape(-1, 18))
  assert quantize.signs(jnp.zeros(())) == -1
  with pytest.raises(checks.InputError, match="latents: 31 channels, an index has at most 30 bits"):
    quantize.bits_to_index(np.zeros((2, 31)))


@pytest.mark.parametrize("size", ["small", "full"])
def test_entropy_and_commitment(size):
  case = golden_cases.load("magvit", "lfq")

  def terms(z):
    token, mean = quantize.code_entropies(z)
    commitment = jnp.mean((z - jax.lax.stop_gradient(quantize.signs(z))) ** 2)
    return 0.1 * (token - mean) + 0.25 * commitment, (token, mean, token - mean, commitment)

  z = _last(case.arrays[f"loss_{size}_x"])[0]
  (_, found), gradient = jax.jit(jax.value_and_grad(terms, has_aux=True))(z)
  names = ("per_sample_entropy", "codebook_entropy", "aux", "commit")
  for name, value in zip(names, found, strict=True):
    case.check(f"loss_{size}_{name}", value)
  case.check(f"loss_{size}_grad", np.asarray(gradient).T[None])


def test_entropies_equal_the_enumeration_of_all_codes():
  """2^10 codes, one of eight tokens without weight, the others of different weight."""
  z = 0.01 * fill.tensor("entropy", (8, 10)).astype(np.float64)
  weights = np.array([1, 2, 0.5, 0, 1, 1, 3, 1])
  codes = 2.0 * ((np.arange(1024)[:, None] >> np.arange(10)) & 1) - 1
  logits = 2 * z @ codes.T / 0.01
  p = np.exp(logits - logits.max(-1, keepdims=True))
  p /= p.sum(-1, keepdims=True)
  share = weights / weights.sum()
  token = share @ -(p * np.log(np.maximum(p, 1e-300))).sum(-1)
  mean = share @ p
  found = quantize.code_entropies(jnp.asarray(z, jnp.float32), weights=weights)
  np.testing.assert_allclose(found, (token, -(mean * np.log(mean + 1e-5)).sum()), rtol=2e-5)
  padded = jnp.asarray(z, jnp.float32).at[3].set(7.0)
  np.testing.assert_array_equal(quantize.code_entropies(padded, weights=weights), found)


def test_entropies_of_a_long_clip_stay_small():
  """7,168 tokens of 18 bits, compiled but not run: under 100 MB."""
  z = jax.ShapeDtypeStruct((7168, 18), jnp.float32)
  program = jax.jit(lambda z: quantize.code_entropies(z)).lower(z).compile()
  assert program.memory_analysis().temp_size_in_bytes < 100e6


def test_nearest():
  case = golden_cases.load("magvit", "vq_nearest")
  z, book = _last(case.arrays["z"]), case.checkpoint()["quantizer.embedding.weight"]
  index = np.asarray(quantize.nearest(z, book))
  sure = case.arrays["margin"].reshape(index.shape) > 1e-3
  np.testing.assert_array_equal(index[sure], case.arrays["indices"][sure])
  distance = np.sum((z - book[index]) ** 2, -1).reshape(-1)
  case.check("distance_min", distance)
  cotangent = _last(fill.tensor("input:magvit_vq_cot", case.arrays["z"].shape))

  def output(z, book):
    return quantize.straight_through(z, book[quantize.nearest(z, book)])

  quantized, pull = jax.vjp(output, jnp.asarray(z), jnp.asarray(book))
  case.check("quantized", np.moveaxis(np.asarray(quantized), -1, 1))
  of_z, of_book = pull(jnp.asarray(cotangent))
  case.check("ste_grad", np.moveaxis(np.asarray(of_z), -1, 1))
  assert not np.any(of_book)


def test_nearest_whatever_the_chunks():
  """Code vectors that occur twice give the first, across any border of chunks."""
  book = fill.tensor("book", (40, 6))
  book[25], book[39] = book[3], book[8]
  z = np.concatenate([fill.tensor("z", (45, 6)), book[[3, 25, 8, 39]]])
  every = np.argmin(((z[:, None].astype(np.float64) - book) ** 2).sum(-1), -1)
  assert every[-4:].tolist() == [3, 3, 8, 8]
  find = jax.jit(quantize.nearest, static_argnames=("vectors_at_once", "codes_at_once"))
  for sizes in ((1024, 8192), (49, 40), (16, 7), (1, 40), (7, 1), (50, 13)):
    found = find(z, book, vectors_at_once=sizes[0], codes_at_once=sizes[1])
    np.testing.assert_array_equal(found, every, err_msg=str(sizes))


def test_nearest_of_a_large_code_book_stays_small():
  """25,600 latents, 262,144 codes of 256 numbers, compiled but not run: under 1 GB in all."""
  shapes = ((25600, 256), (262144, 256))
  inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  memory = jax.jit(quantize.nearest).lower(*inputs).compile().memory_analysis()
  assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 1e9
