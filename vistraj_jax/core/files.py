"""Outputs that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def errors_name(path):
  """Gives OSErrors that name no file, as those of a full disk, the name of `path`."""
  try:
    yield
  except OSError as error:
    if error.errno is not None and error.filename is None:
      error.filename = str(path)
    raise


@contextlib.contextmanager
def atomic_path(path):
  """Yields a temporary path beside `path`; it is renamed to `path` when the block succeeds.

  On any exception the temporary file is deleted and `path` is left as it was.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
  os.close(handle)
  temporary = pathlib.Path(name)
  try:
    with errors_name(path):
      yield temporary
    with open(temporary, "rb") as f:
      os.fsync(f.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write_text(path, text):
  """Writes `text` to `path` in UTF-8, atomically."""
  with atomic_path(path) as temporary:
    temporary.write_text(text, encoding="utf-8", newline="")


@contextlib.contextmanager
def atomic_folder(path):
  """Yields a temporary folder beside `path` that becomes `path` when the block succeeds.

  An existing folder at `path` is replaced as a whole; on any exception it stays as it was.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
  try:
    with errors_name(path):
      yield temporary
    os.chmod(temporary, 0o755)
    if path.exists():
      old = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
      os.rename(path, old / "folder")
      os.rename(temporary, path)
      shutil.rmtree(old)
    else:
      os.rename(temporary, path)
  finally:
    if temporary.exists():
      shutil.rmtree(temporary)
