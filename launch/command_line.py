"""What all commands share: bad input ends in one sentence on stderr and exit status 1."""

import argparse
import pathlib
import sys

from vistraj_jax.core import checks


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
  """Shows defaults that say something, and the module docstring as it is written."""

  def _get_help_string(self, action):
    default = action.default
    if default is None or default is False or default in (argparse.SUPPRESS, "", [], ()):
      return action.help
    values = default if isinstance(default, list | tuple) else [default]
    return f"{action.help or ''} (default: {' '.join(map(str, values))})".lstrip()


def parser(description, **kwargs):
  """Returns an ArgumentParser whose help shows defaults and keeps the line breaks."""
  file = pathlib.Path(sys.argv[0])
  kwargs = {"prog": f"{file.parent.name}.{file.stem}", **kwargs}  # as python -m knows it
  return argparse.ArgumentParser(description=description, formatter_class=HelpFormatter, **kwargs)


def labelled(option, runs):
  """Returns {label: path} of the arguments RUN[:LABEL] of an option; labels default to names.

  Raises:
    InputError: an empty label, or two of the same name.
  """
  sources = {}
  for run in runs:
    path, colon, label = run.rpartition(":")
    if not colon or pathlib.Path(run).exists():
      path, label = run, pathlib.Path(run).resolve().name
    checks.require(label, f"{option}: {run!r} has an empty label; write RUN or RUN:LABEL.")
    checks.require(
      label not in sources,
      f"{option}: two runs are called {label!r}; give one another name with RUN:LABEL.",
    )
    sources[label] = pathlib.Path(path)
  return sources


def require_folder(path):
  """Refuses an --out that cannot become a folder, before any work is done for it.

  Raises:
    InputError: `path`, or a folder that it should lie in, is a file.
  """
  for place in (pathlib.Path(path), *pathlib.Path(path).parents):
    checks.require(
      not place.exists() or place.is_dir(), f"--out: {place} is a file; give a folder for results."
    )


def run(main):
  """Calls `main()` and exits: 0, or 1 with one sentence for bad input, a full disk or Ctrl-C."""
  try:
    sys.exit(main())
  except checks.InputError as error:
    sys.exit(f"error: {error}")
  except OSError as error:
    # A rename that fails names the temporary file first, then the wanted one.
    name = error.filename2 or error.filename or "input/output"
    sys.exit(f"error: {name}: {error.strerror or error}.")
  except KeyboardInterrupt:
    sys.exit("interrupted")
