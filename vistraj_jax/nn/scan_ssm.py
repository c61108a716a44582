"""Selective state-space scan (Mamba, arXiv 2312.00752), with a backward pass made for caches.

For every batch row, channel d and state n:

  h_t[d, n] = exp(delta_t[d] A[d, n]) h_(t-1)[d, n] + delta_t[d] u_t[d] B_t[n]
  y_t[d]    = sum_n h_t[d, n] C_t[n] + D[d] u_t[d],   times silu(z_t[d]) where z is given.

Three methods compute the same numbers. `unrolled`, the default, writes the steps out (16 at a
time), recomputes states in its own backward pass and on a CPU works through the batch in blocks
whose states stay in the cache. `scan` is a `lax.scan` with rematerialisation: a small program,
derived automatically. `associative` is a parallel scan, for accelerators and very long sequences
only (on a CPU it is several times slower).
"""

import functools

import jax
import jax.numpy as jnp

METHODS = ("unrolled", "scan", "associative")
UNROLLED_STEPS = 16  # more written-out steps compile slowly; longer sequences go in chunks
SCAN_STEPS = 64  # steps between two stored states of `scan`
CPU_BLOCK = 32  # batch rows: 32 x 512 x 16 floats are 1 MB


def selective_scan(u, delta, A, B, C, D, z=None, h0=None, method="unrolled", return_state=True):
  """Runs the scan over axis 1 in float32.

  Args:
    u: input [batch, length, channels].
    delta: positive step sizes, after softplus [batch, length, channels].
    A: negative decay rates [channels, states].
    B: input projections [batch, length, states].
    C: output projections [batch, length, states].
    D: skip weights [channels].
    z: gate [batch, length, channels], or None.
    h0: first state [batch, channels, states], or None for zero.
    method: one of METHODS.
    return_state: whether the last state is wanted; False saves writing it.

  Returns:
    y [batch, length, channels] float32, and the last state [batch, channels, states] or None.

  Raises:
    ValueError: for an unknown method.
  """
  if method not in METHODS:
    raise ValueError(f"selective_scan: method {method!r}; known: {METHODS}")
  u, delta, A, B, C = (jnp.asarray(x, jnp.float32) for x in (u, delta, A, B, C))
  # States are kept as [batch, states, channels]: 16 states would waste a 128-lane register.
  h0 = None if h0 is None else jnp.swapaxes(jnp.asarray(h0, jnp.float32), 1, 2)
  run = {"unrolled": _unrolled, "scan": _scan, "associative": _associative}[method]
  y, state = run(u, delta, A.T, B, C, h0, return_state)
  y = y + D * u
  if z is not None:
    y = y * jax.nn.silu(jnp.asarray(z, jnp.float32))
  return y, (jnp.swapaxes(state, 1, 2) if return_state else None)


def one_step(u, delta, A, B, C, D, z, state=None):
  """One step of the scan, for a state that is carried on: no transposes.

  Args:
    u, delta, z: [batch, channels]; A [channels, states]; B, C [batch, states]; D [channels].
    state: [batch, states, channels] (not the order of `selective_scan`), or None for zero.

  Returns:
    y [batch, channels] and the new state [batch, states, channels].
  """
  u, delta, B, C, z = (jnp.asarray(x, jnp.float32) for x in (u, delta, B, C, z))
  rows = [x[:, None] for x in (u, delta)]
  y, state = _written_out(*rows, A.T, B[:, None], C[:, None], state, True)
  return (y[:, 0] + D * u) * jax.nn.silu(z), state


# --- unrolled, with its own backward pass -------------------------------------------------------


def _unrolled(u, delta, A, B, C, h0, return_state):
  if u.shape[1] <= UNROLLED_STEPS:
    return _written_out(u, delta, A, B, C, h0, return_state)

  def chunk(h, rows):
    y, h = _written_out(*rows[:2], A, *rows[2:], h, True)
    return h, y

  return _over_chunks(chunk, UNROLLED_STEPS, (u, delta, B, C), _first_state(u, A, h0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _written_out(u, delta, A, B, C, h0, return_state):
  block = lambda rows: _forward_block(*rows[:2], A, *rows[2:], return_state)  # noqa: E731
  return _over_blocks(block, (u, delta, B, C, h0))


def _written_out_forward(u, delta, A, B, C, h0, return_state):
  return _written_out(u, delta, A, B, C, h0, return_state), (u, delta, A, B, C, h0)


def _written_out_backward(return_state, saved, cotangents):
  u, delta, A, B, C, h0 = saved
  dy, dstate = cotangents
  block = lambda rows: _backward_block(*rows[:2], A, *rows[2:])  # noqa: E731
  du, ddelta, dA, dB, dC, dh0 = _over_blocks(block, (u, delta, B, C, h0, dy, dstate), summed=2)
  return du, ddelta, dA, dB, dC, dh0


_written_out.defvjp(_written_out_forward, _written_out_backward)


def _states(u, delta, A, B, h0):
  """Returns the decays a_t and states h_t as lists over time, each [batch, states, channels]."""
  decays, states, h = [], [], h0
  for t in range(u.shape[1]):
    entering = (delta[:, t] * u[:, t])[:, None, :] * B[:, t, :, None]
    a = None if h is None else jnp.exp(delta[:, t, None, :] * A)
    h = entering if h is None else a * h + entering
    decays.append(a)
    states.append(h)
  return decays, states


def _forward_block(u, delta, A, B, C, h0, return_state):
  _, states = _states(u, delta, A, B, h0)
  y = [jnp.einsum("bnd,bn->bd", h, C[:, t]) for t, h in enumerate(states)]
  return jnp.stack(y, 1), (states[-1] if return_state else None)


def _backward_block(u, delta, A, B, C, h0, dy, dstate):
  """Adjoint recursion: lambda_t = dy_t C_t + a_(t+1) lambda_(t+1)."""
  decays, states = _states(u, delta, A, B, h0)
  adjoint, dA, du, ddelta, dB, dC = dstate, jnp.zeros_like(A), [], [], [], []
  for t in reversed(range(u.shape[1])):
    leaving = dy[:, t, None, :] * C[:, t, :, None]
    adjoint = leaving if adjoint is None else leaving + adjoint
    dC.append(jnp.einsum("bd,bnd->bn", dy[:, t], states[t]))
    dB.append(jnp.einsum("bd,bnd->bn", delta[:, t] * u[:, t], adjoint))
    dentering = jnp.einsum("bnd,bn->bd", adjoint, B[:, t])
    du.append(dentering * delta[:, t])
    step = dentering * u[:, t]
    if decays[t] is None:
      adjoint = None
    else:
      before = h0 if t == 0 else states[t - 1]
      adjoint = decays[t] * adjoint
      exponent = adjoint * before
      step = step + (exponent * A).sum(1)
      dA = dA + (exponent * delta[:, t, None, :]).sum(0)
    ddelta.append(step)
  in_time = lambda x: jnp.stack(x[::-1], 1)  # noqa: E731
  return in_time(du), in_time(ddelta), dA, in_time(dB), in_time(dC), adjoint


def _over_blocks(block, rows, summed=None):
  """Applies `block` to a tuple of arrays with a batch axis, in cache-sized blocks on a CPU.

  Rows i * count + j form block j, so that a batch axis sharded over devices stays sharded.
  Output number `summed` has no batch axis; it is added up over the blocks.
  """
  batch = rows[0].shape[0]
  if jax.default_backend() != "cpu" or batch <= CPU_BLOCK:
    return block(rows)
  count = -(-batch // CPU_BLOCK)
  padded = count * CPU_BLOCK

  def split(x):
    x = jnp.pad(x, ((0, padded - batch),) + ((0, 0),) * (x.ndim - 1))
    return jnp.moveaxis(x.reshape(CPU_BLOCK, count, *x.shape[1:]), 1, 0)

  def join(x):
    return jnp.moveaxis(x, 0, 1).reshape(padded, *x.shape[2:])[:batch]

  def body(total, rows):
    out = list(block(rows))
    if summed is not None:
      total, out[summed] = total + out[summed], None
    return total, tuple(out)

  first = tuple(None if x is None else split(x) for x in rows)
  total = 0.0
  if summed is not None:
    shapes = jax.eval_shape(block, tuple(None if x is None else x[0] for x in first))
    total = jnp.zeros(shapes[summed].shape, jnp.float32)
  total, out = jax.lax.scan(body, total, first)
  out = [None if x is None else join(x) for x in out]
  if summed is not None:
    out[summed] = total
  return tuple(out)


# --- by JAX's own scans -------------------------------------------------------------------------


def _scan(u, delta, A, B, C, h0, return_state):
  """`lax.scan` over time; one state in `SCAN_STEPS` is stored for the backward pass."""
  del return_state

  def step(h, row):
    u, delta, B, C = row
    h = jnp.exp(delta[:, None, :] * A) * h + (delta * u)[:, None, :] * B[:, :, None]
    return h, jnp.einsum("bnd,bn->bd", h, C)

  @jax.checkpoint
  def chunk(h, rows):
    h, y = jax.lax.scan(step, h, tuple(jnp.moveaxis(x, 1, 0) for x in rows), unroll=8)
    return h, jnp.moveaxis(y, 0, 1)

  return _over_chunks(chunk, SCAN_STEPS, (u, delta, B, C), _first_state(u, A, h0))


def _associative(u, delta, A, B, C, h0, return_state):
  """Parallel prefix over pairs (decay, entering)."""
  del return_state
  decay = jnp.exp(delta[:, :, None, :] * A)
  entering = (delta * u)[:, :, None, :] * B[..., None]
  entering = entering.at[:, 0].add(decay[:, 0] * _first_state(u, A, h0))
  join = lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1])  # noqa: E731
  _, states = jax.lax.associative_scan(join, (decay, entering), axis=1)
  return jnp.einsum("btnd,btn->btd", states, C), states[:, -1]


def _first_state(u, A, h0):
  return jnp.zeros((u.shape[0], *A.shape), jnp.float32) if h0 is None else h0


def _over_chunks(chunk, steps, rows, state):
  """Scans `chunk(state, rows) -> state, y` over time in chunks of `steps`; returns y, state."""
  batch, length = rows[0].shape[:2]
  steps = min(steps, length)
  count = -(-length // steps)

  def split(x):
    # Padded steps have delta = 0, which holds the state.
    x = jnp.pad(x, ((0, 0), (0, count * steps - length), (0, 0)))
    return jnp.moveaxis(x.reshape(batch, count, steps, -1), 1, 0)

  state, y = jax.lax.scan(chunk, state, tuple(split(x) for x in rows))
  return jnp.moveaxis(y, 0, 1).reshape(batch, count * steps, -1)[:, :length], state
