"""The selective scan against golden values and against itself, for every method."""

import golden_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vistraj_jax.nn import scan_ssm

CASES = ("selective_scan_short", "selective_scan_long")


def _inputs(case):
  config = case.config
  x = {n: case.input(n) for n in ("u", "delta", "B", "C", "D", "dt_bias", "z")}
  x["A"] = -np.exp(case.input("A_log"))
  return x, case.input("cot"), config["delta_shift"]


@pytest.mark.parametrize("method", scan_ssm.METHODS)
@pytest.mark.parametrize("name", CASES)
def test_equals_public_scan(name, method):
  case = golden_cases.load("trackssm", name)
  inputs, cotangent, shift = _inputs(case)

  def run(x):
    delta = jax.nn.softplus(x["delta"] + shift + x["dt_bias"])
    y, state = scan_ssm.selective_scan(
      x["u"], delta, x["A"], x["B"], x["C"], x["D"], x["z"], method=method
    )
    return (y * cotangent).sum(), (y, state)

  grads, (y, state) = jax.jit(jax.grad(run, has_aux=True))(inputs)
  case.check("y", y)
  case.check("last_state", state)
  norms = [np.linalg.norm(grads[n]) for n in case.config["grad_names"]]
  case.check("grad_l2", norms)
  case.check("grad_u_t0", grads["u"][:, 0])
  case.check("grad_A", grads["A"], atol=1e-4)
  case.check("grad_D", grads["D"], atol=1e-4)


@pytest.mark.parametrize("batch", [3, 32, 70])
@pytest.mark.parametrize("first_state", [False, True])
def test_backward_equals_autodiff(batch, first_state):
  """The hand-written backward pass, in blocks and with ragged last block, against lax.scan's."""
  keys = jax.random.split(jax.random.key(0), 8)
  T, D, N = 4, 6, 3
  x = {
    "u": jax.random.normal(keys[0], (batch, T, D)),
    "delta": jax.nn.softplus(jax.random.normal(keys[1], (batch, T, D))),
    "A": -jnp.exp(jax.random.normal(keys[2], (D, N))),
    "B": jax.random.normal(keys[3], (batch, T, N)),
    "C": jax.random.normal(keys[4], (batch, T, N)),
    "D": jax.random.normal(keys[5], (D,)),
  }
  if first_state:
    x["h0"] = jax.random.normal(keys[6], (batch, D, N))
  weights = jax.random.normal(keys[7], (batch, D, N))

  def loss(x, method):
    y, state = scan_ssm.selective_scan(**x, method=method)
    return jnp.sum(jnp.sin(y)) + jnp.sum(weights * state)

  got = jax.jit(jax.value_and_grad(loss), static_argnums=1)(x, "unrolled")
  want = jax.jit(jax.value_and_grad(loss), static_argnums=1)(x, "scan")
  jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=2e-4, atol=2e-5), got, want)


def test_state_can_be_left_out_and_continued():
  keys = jax.random.split(jax.random.key(1), 4)
  u = jax.random.normal(keys[0], (2, 6, 4))
  delta = jax.nn.softplus(jax.random.normal(keys[1], (2, 6, 4)))
  A, D = -jnp.ones((4, 3)), jnp.ones(4)
  B, C = jax.random.normal(keys[2], (2, 6, 3)), jax.random.normal(keys[3], (2, 6, 3))
  whole, none = scan_ssm.selective_scan(u, delta, A, B, C, D, return_state=False)
  assert none is None
  head, state = scan_ssm.selective_scan(u[:, :2], delta[:, :2], A, B[:, :2], C[:, :2], D)
  tail, _ = scan_ssm.selective_scan(u[:, 2:], delta[:, 2:], A, B[:, 2:], C[:, 2:], D, h0=state)
  np.testing.assert_allclose(np.concatenate([head, tail], 1), whole, rtol=1e-5, atol=1e-6)


def test_unknown_method():
  x = jnp.zeros((1, 1, 1))
  with pytest.raises(ValueError, match="method 'fast'; known"):
    scan_ssm.selective_scan(x, x, x[0], x, x, x[0, 0], method="fast")
