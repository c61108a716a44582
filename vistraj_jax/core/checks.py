"""The one exception for bad input, and the checks that write its sentence.

A sentence names the setting, or the file and record; the value received; what is allowed; and
what to do. Commands print it and exit with status 1; library users catch `InputError`.
"""

import difflib


class InputError(ValueError):
  """Something the user gave is wrong; the message is the whole, final sentence."""


def require(condition, sentence):
  """Raises `InputError(sentence)` unless `condition` holds."""
  if not condition:
    raise InputError(sentence)


def nearest(name, known, count=3):
  """Returns up to `count` members of `known` that look like `name`, or all of a short list."""
  known = sorted(str(k) for k in known)
  close = difflib.get_close_matches(str(name), known, n=count, cutoff=0.5)
  return close or known[:10]


def choice(where, value, allowed):
  """Returns `value` if it is one of `allowed`; raises InputError naming `where` otherwise."""
  allowed = list(allowed)
  if value not in allowed:
    raise InputError(f"{where}: {value!r} is not allowed; choose one of {allowed}.")
  return value


def shape(where, array, wanted):
  """Checks `array.shape` against `wanted`, in which None stands for any size.

  Raises:
    InputError: naming `where`, the shape received and the shape wanted.
  """
  fits = len(array.shape) == len(wanted) and all(
    w is None or w == s for s, w in zip(array.shape, wanted, strict=True)
  )
  if not fits:
    shown = tuple("any" if w is None else w for w in wanted)
    raise InputError(f"{where}: shape {tuple(array.shape)} received, {shown} wanted.")
