"""First-match tables over parameter names: groups, weight decay, sharding, skipped loads.

A table is an ordered list of (regular expression, value); a name takes the value of the first
expression that matches it whole. Every name must be covered and every expression must be used.
"""

import re

import jax

from vistraj_jax.core import checks


def names(tree):
  """Returns a tree of the same form whose leaves are their "/"-joined names."""
  return jax.tree_util.tree_map_with_path(lambda path, _: _name(path), tree)


def match(table, tree, where):
  """Returns a tree of the same form as `tree` that holds every leaf's value in `table`.

  Args:
    table: ordered (pattern, value) pairs; the whole name must match.
    tree: parameters, or anything of their form.
    where: the setting the table came from, for the error sentence.

  Raises:
    InputError: a name without a rule, or a pattern that no name matches first.
  """
  table = [tuple(row) for row in table]
  named = names(tree)
  used = set()

  def value(name):
    for i, (pattern, result) in enumerate(table):
      if re.fullmatch(pattern, name):
        used.add(i)
        return _Box(result)
    raise checks.InputError(
      f"{where}: no rule covers parameter {name!r}; end the table with a ('.*', ...) rule."
    )

  out = jax.tree.map(value, named)
  leaves = jax.tree.leaves(named)
  for i, (pattern, _) in enumerate(table):
    if i not in used:
      tops = sorted({name.split("/")[0] for name in leaves})
      raise checks.InputError(
        f"{where}: pattern {pattern!r} is the first match of none of {len(leaves)} parameters; "
        f"top-level names are {tops}."
      )
  return jax.tree.map(lambda box: box.value, out)


class _Box:
  """Makes any value, also None or a tuple, a single leaf."""

  def __init__(self, value):
    self.value = value


def _name(path):
  return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
