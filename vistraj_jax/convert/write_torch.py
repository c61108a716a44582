"""Writes dicts of numpy arrays as a checkpoint that `torch.load(weights_only=True)` reads.

The pickle is written opcode by opcode (protocol 2), since Python's pickler would have to import
torch to name its functions. Each array becomes one storage record, aligned as torch aligns it.
"""

import collections
import struct
import zipfile

import numpy as np

from vistraj_jax.convert import read_torch
from vistraj_jax.core import checks, files

_STORAGES = {dtype: name for name, dtype in read_torch.STORAGE_DTYPES.items()}
_ROOT = "archive"
_ALIGNMENT = 64  # bytes; lets torch map the file into memory


def write_checkpoint(path, value):
  """Writes `value` to `path` in torch's zip format, atomically.

  Args:
    path: where to write, by custom `.pt` or `.pth`.
    value: dicts (also OrderedDict), lists, tuples, strings, numbers, None, and numpy arrays, which
      torch will read as tensors of the same dtype and values.

  Raises:
    InputError: naming the path and the place in `value`, for anything else.
  """
  pickled, records = bytearray(b"\x80\x02"), []
  _write(value, pickled, records, str(path))
  pickled += b"."
  with files.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
    _add(archive, "data.pkl", bytes(pickled))
    _add(archive, "byteorder", b"little")
    for key, array in enumerate(records):
      _add(archive, f"data/{key}", array.tobytes())
    _add(archive, "version", b"3\n")


def _add(archive, name, data):
  """Appends an uncompressed record whose bytes start at a multiple of the alignment."""
  info = zipfile.ZipInfo(f"{_ROOT}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
  # Local header: 30 bytes, the name, then an extra field of 4 bytes and any padding.
  start = archive.fp.tell() + 30 + len(info.filename) + 4
  padding = -start % _ALIGNMENT
  info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
  archive.writestr(info, data)


def _write(value, out, records, where):
  """Appends the opcodes that push `value`; arrays are collected in `records`."""
  if value is None:
    out += b"N"
  elif isinstance(value, bool):
    out += b"\x88" if value else b"\x89"
  elif isinstance(value, int):
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    out += b"J" + struct.pack("<i", value) if len(raw) <= 4 else b"\x8a" + bytes([len(raw)]) + raw
  elif isinstance(value, float):
    out += b"G" + struct.pack(">d", value)
  elif isinstance(value, str):
    raw = value.encode()
    out += b"X" + struct.pack("<I", len(raw)) + raw
  elif isinstance(value, np.ndarray):
    _write_tensor(value, out, records, where)
  elif isinstance(value, dict):
    ordered = isinstance(value, collections.OrderedDict)
    out += b"ccollections\nOrderedDict\n)R(" if ordered else b"}("
    for key, item in value.items():
      _write(key, out, records, where)
      _write(item, out, records, f"{where}[{key!r}]")
    out += b"u"
  elif isinstance(value, (list, tuple)):
    out += b"](" if isinstance(value, list) else b"("
    for index, item in enumerate(value):
      _write(item, out, records, f"{where}[{index}]")
    out += b"e" if isinstance(value, list) else b"t"
  else:
    raise checks.InputError(f"{where}: a torch checkpoint cannot hold a {type(value).__name__}.")


def _write_tensor(array, out, records, where):
  storage = _STORAGES.get(array.dtype)
  if storage is None:
    known = sorted(str(dtype) for dtype in _STORAGES)
    raise checks.InputError(f"{where}: torch has no tensors of {array.dtype}; choose from {known}.")
  out += b"ctorch._utils\n_rebuild_tensor_v2\n("
  out += b"("
  _write("storage", out, records, where)
  out += f"ctorch\n{storage}\n".encode()
  for item in (str(len(records)), "cpu", array.size):
    _write(item, out, records, where)
  out += b"tQ"  # the tuple is the storage's persistent id
  strides = tuple(int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim))
  for item in (0, array.shape, strides, False, collections.OrderedDict()):
    _write(item, out, records, where)
  out += b"tR"
  records.append(array)
