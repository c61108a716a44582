"""Durations given in steps, epochs or examples -> steps."""

import math

from vistraj_jax.core import checks

UNITS = ("steps", "epochs", "examples")


def duration(settings, name, where, *, batch_size, num_examples, default=None):
  """Returns a duration in optimizer steps.

  Args:
    settings: a mapping with exactly one of `<name>_steps`, `<name>_epochs`, `<name>_examples`
      (or `steps`, `epochs`, `examples` if `name` is empty).
    name: "" or the prefix, such as "warmup".
    where: the setting's place, for the error sentence.
    batch_size: examples a step, over all devices.
    num_examples: examples an epoch.
    default: steps if none of the three is given; None makes that an error.

  Raises:
    InputError: none or several of the three, or a negative number.
  """
  keys = [f"{name}_{unit}" if name else unit for unit in UNITS]
  given = [key for key in keys if key in settings]
  if not given and default is not None:
    return default
  if len(given) != 1:
    raise checks.InputError(f"{where}: give exactly one of {keys}; received {given}.")
  value = settings[given[0]]
  if not isinstance(value, (int, float)) or value < 0:
    raise checks.InputError(f"{where}.{given[0]}: {value!r} received, a number >= 0 wanted.")
  unit = given[0].rsplit("_", 1)[-1]
  if unit == "steps":
    return int(value)
  if unit == "examples":
    return math.ceil(value / batch_size)
  return round(value * (num_examples // batch_size))
