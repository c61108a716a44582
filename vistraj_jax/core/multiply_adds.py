"""Multiply-adds of a program: its matrix products and convolutions, counted before they run."""

import math

import jax


def count(function, *args):
  """Returns the multiply-adds of function(*args) as int; nothing is computed.

  Loops count as often as they run, branches as the dearest of them. What a transposed convolution
  multiplies by the zeros between its inputs is left out. Loops without a known length raise
  ValueError.

  Args:
    function: of arrays.
    args: arrays, or `jax.ShapeDtypeStruct` trees in their place.
  """
  return _of(jax.make_jaxpr(function)(*args).jaxpr)


def _of(jaxpr):
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation):
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)
  if name == "conv_general_dilated":
    kernel = equation.invars[1].aval
    outputs = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    products = equation.outvars[0].aval.size * (kernel.size // outputs)
    return products // math.prod(params["lhs_dilation"])
  if name == "cond":
    return max(_of(branch.jaxpr) for branch in params["branches"])
  inner = sum(_of(part) for value in params.values() for part in _programs(value))
  if name == "while" and inner:
    raise ValueError("multiply_adds: a loop of unknown length does products; count it by hand.")
  return params["length"] * inner if name == "scan" else inner


def _programs(value):
  """Yields the programs that are among the parameters of an equation."""
  for one in value if isinstance(value, tuple | list) else (value,):
    one = getattr(one, "jaxpr", one)
    if hasattr(one, "eqns"):
      yield one
