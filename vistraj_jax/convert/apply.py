"""Renames and re-lays tensors between a foreign checkpoint and our parameter tree, both ways.

A table is a sequence of `Row`s. In both names of a row "#" stands for one number, which passes
through; the first row whose name fits wins. A row without a target drops what fits its source.
Every tensor must be used and every wanted tensor must be there with its shape, or nothing is
returned: a network with a few random weights looks like a working one.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vistraj_jax.core import checks


class Layout(NamedTuple):
  """A change of axes: `to_tree` and its inverse `to_source`, array -> array."""

  to_tree: Callable
  to_source: Callable


KEEP = Layout(lambda x: x, lambda x: x)
# Matrices: (out, in) <-> kernel (in, out).
LINEAR = Layout(np.transpose, np.transpose)
# Kernels of depthwise convolutions over time: (channels, 1, width) <-> (width, channels).
DEPTHWISE = Layout(lambda x: x[:, 0].T, lambda x: x.T[:, None])


class Row(NamedTuple):
  """One line of a table: source name, tree name ("/"-joined; None = drop), change of layout."""

  source: str
  target: str | None
  layout: Layout = KEEP


def to_tree(table, tensors, want, where):
  """Returns {tree name: array} from a checkpoint's {source name: array}.

  Args:
    table: sequence of `Row`.
    tensors: the checkpoint's tensors.
    want: {tree name: shape} of the whole tree.
    where: begins the error sentence, for example the file's name.

  Raises:
    InputError: listing, with names and shapes of the checkpoint, every missing, extra and misshapen
      tensor.
  """
  expected = {}  # source name -> (tree name, layout, source shape)
  for target, shape in want.items():
    source, layout = _renamed(table, target, where)
    expected[source] = target, layout, _shape(layout.to_source, shape)
  dropped = [_pattern(row.source) for row in table if row.target is None]
  kept = {n: t for n, t in tensors.items() if not any(p.fullmatch(n) for p in dropped)}
  check_shapes(kept, {name: shape for name, (_, _, shape) in expected.items()}, where)
  return {target: layout.to_tree(kept[source]) for source, (target, layout, _) in expected.items()}


def to_source(table, flat_tree, want, where):
  """Returns {source name: array} from {tree name: array}; the inverse of `to_tree`.

  Args:
    table: sequence of `Row`.
    flat_tree: {"/"-joined name: array}.
    want: {tree name: shape} of the whole tree; the result has its order.
    where: begins the error sentence.

  Raises:
    InputError: listing, with names and shapes of the tree, what is missing, extra or misshapen.
  """
  check_shapes(flat_tree, want, where)
  tensors = {}
  for name in want:
    source, layout = _renamed(table, name, where)
    tensors[source] = layout.to_source(flat_tree[name])
  return tensors


def check_shapes(tensors, want, where):
  """Raises InputError unless `tensors` has exactly the names and shapes of `want`."""
  missing = [f"{name} {tuple(want[name])}" for name in want if name not in tensors]
  extra = [f"{name} {np.shape(tensors[name])}" for name in tensors if name not in want]
  misshapen = [
    f"{name} {np.shape(tensors[name])} where {tuple(shape)} is wanted"
    for name, shape in want.items()
    if name in tensors and np.shape(tensors[name]) != tuple(shape)
  ]
  faults = [
    f"{len(names)} {kind}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    for kind, names in (("missing", missing), ("extra", extra), ("misshapen", misshapen))
    if names
  ]
  checks.require(not faults, f"{where}: the tensors do not fit the network; {'; '.join(faults)}.")


def _renamed(table, name, where):
  """Returns (source name, layout) of the first row whose target fits the tree name."""
  for row in table:
    if row.target is not None and (found := _pattern(row.target).fullmatch(name)):
      numbers = iter(found.groups())
      return re.sub("#", lambda _, n=numbers: next(n), row.source), row.layout
  raise checks.InputError(f"{where}: no row of the conversion table names {name!r}.")


def _pattern(template):
  return re.compile(re.escape(template).replace(r"\#", r"(\d+)"))


def _shape(function, shape):
  return function(np.broadcast_to(np.float32(0), shape)).shape
