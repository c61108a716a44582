"""Tensors of safetensors files, read one by one by their byte ranges.

A file is `u64 length`, a JSON header {name: {dtype, shape, data_offsets}} and the data. Reading the
header first tells where each tensor lies, so a network that is a fifth of a file costs a fifth of
the reading.
"""

import json
import os
import pathlib
import struct
from typing import NamedTuple

import ml_dtypes
import numpy as np

from vistraj_jax.core import checks

DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype(np.int64),
  "I32": np.dtype(np.int32),
  "I16": np.dtype(np.int16),
  "I8": np.dtype(np.int8),
  "U8": np.dtype(np.uint8),
  "BOOL": np.dtype(np.bool_),
}
_LONGEST_HEADER = 100 << 20  # as the format says


class Entry(NamedTuple):
  """Where one tensor lies: file, data type by the format's name, shape, first byte, bytes."""

  path: pathlib.Path
  dtype: str
  shape: tuple
  offset: int
  size: int

  def read(self):
    """Returns the tensor as an array of its own data type.

    Raises:
      InputError: a data type NumPy has no name for, or a file that changed since.
    """
    checks.require(
      self.dtype in DTYPES,
      f"{self.path}: a tensor of data type {self.dtype}; known are {sorted(DTYPES)}.",
    )
    with open(self.path, "rb", buffering=0) as f:
      data = bytearray(self.size)
      f.seek(self.offset)
      view = memoryview(data)
      while view:
        count = f.readinto(view)
        checks.require(count, f"{self.path}: ends while it is read; copy or download it again.")
        view = view[count:]
    return np.frombuffer(data, DTYPES[self.dtype]).reshape(self.shape)


def entries(path):
  """Returns {tensor name: Entry} of one file, from its header alone.

  Raises:
    InputError: naming the file, if it is missing, cut or no safetensors file.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"{path}: there is no such weights file.")
  size = os.path.getsize(path)
  with open(path, "rb") as f:
    start = f.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    damaged = f"{path}: not a whole safetensors file; copy or download it again."
    checks.require(0 < length <= min(_LONGEST_HEADER, size - 8), damaged)
    try:
      header = json.loads(f.read(length))
    except ValueError as error:
      raise checks.InputError(damaged) from error
  checks.require(isinstance(header, dict), damaged)
  header.pop("__metadata__", None)
  found = {}
  for name, row in header.items():
    first, last = row["data_offsets"]
    shape = tuple(row["shape"])
    wanted = last - first
    if row["dtype"] in DTYPES:
      wanted = int(np.prod(shape, dtype=np.int64)) * DTYPES[row["dtype"]].itemsize
    checks.require(0 <= first and last - first == wanted and 8 + length + last <= size, damaged)
    found[name] = Entry(path, row["dtype"], shape, 8 + length + first, last - first)
  return found
