"""Protobuf bytes, field by field: a small walker and the matching writers, without generated code.

A message is a sequence of (tag, content); the tag holds the field number and the wire type. Numbers
of a repeated field may stand one by one or packed into one field. What a reader does not know, it
steps over.
"""

import struct

import numpy as np

from vistraj_jax.core import checks

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class WrongBytes(Exception):
  """The bytes are no protobuf message, or not the one that was expected."""


def fields(data, position, end):
  """Yields (number, wire type, first, last) of the fields of the message in data[position:end].

  The content is data[first:last], which is not looked at; of a varint `first` is the value instead.

  Raises:
    WrongBytes: a field reaches beyond `end`, or has an unknown wire type.
  """
  while position < end:
    tag = data[position]
    position += 1
    if tag >= 0x80:
      tag, position = _varint(data, position - 1)
    kind = tag & 7
    if kind == BYTES:
      length = data[position] if position < end else 0x80
      position += 1
      if length >= 0x80:
        length, position = _varint(data, position - 1)
      first, position = position, position + length
    elif kind == VARINT:
      first, position = _varint(data, position)
    elif kind == FIXED32:
      first, position = position, position + 4
    elif kind == FIXED64:
      first, position = position, position + 8
    else:
      raise WrongBytes
    if position > end or tag < 8:
      raise WrongBytes
    yield tag >> 3, kind, first, position


def text(data, first, last):
  """Returns data[first:last] as text.

  Raises:
    WrongBytes: it is no UTF-8.
  """
  try:
    return data[first:last].decode()
  except UnicodeDecodeError:
    raise WrongBytes from None


def doubles(data, first, last):
  """Returns one double, or a packed list of them, as a tuple."""
  if (last - first) % 8:
    raise WrongBytes
  return struct.unpack(f"<{(last - first) // 8}d", data[first:last])


def float_columns(data, first, last, columns):
  """Appends the floats of the message in data[first:last] to `columns` {number: list}."""
  for number, kind, begin, end in fields(data, first, last):
    if kind in (BYTES, FIXED32):
      if (end - begin) % 4:
        raise WrongBytes
      values = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
      columns.setdefault(number, []).extend(values)
  return columns


def table(columns, numbers, where):
  """Returns `columns` {number: list} as float32 [L, len(numbers)]; an absent column is 0.

  Raises:
    InputError: columns differ in length.
  """
  lengths = [len(columns.get(number, ())) for number in numbers]
  length = max(lengths)
  checks.require(
    set(lengths) <= {0, length},
    f"{where} has columns of different lengths ({lengths}); the record is damaged.",
  )
  rows = np.zeros((length, len(numbers)), np.float32)
  for i, number in enumerate(numbers):
    if lengths[i]:
      rows[:, i] = columns[number]
  return rows


def message(number, content):
  """Returns a field whose content is text, bytes or a message."""
  content = content.encode() if isinstance(content, str) else content
  return _write_varint(number << 3 | BYTES) + _write_varint(len(content)) + content


def integer(number, value):
  """Returns a field with one whole number, 0 or more."""
  return _write_varint(number << 3 | VARINT) + _write_varint(value)


def float_(number, value):
  """Returns a field with one float."""
  return _write_varint(number << 3 | FIXED32) + struct.pack("<f", value)


def unpacked_doubles(number, values):
  """Returns one field for every double of `values`."""
  tag = _write_varint(number << 3 | FIXED64)
  return b"".join(tag + struct.pack("<d", value) for value in values)


def packed_floats(rows, numbers):
  """Returns the columns of `rows` [L, len(numbers)], each as one field of packed floats."""
  rows = np.asarray(rows, "<f4")
  return b"".join(message(number, rows[:, i].tobytes()) for i, number in enumerate(numbers))


def _varint(data, position):
  """Returns the number that starts at `position`, and where it ends."""
  value = shift = 0
  while shift < 64:
    if position >= len(data):
      raise WrongBytes
    byte = data[position]
    position += 1
    value |= (byte & 0x7F) << shift
    if byte < 0x80:
      return value, position
    shift += 7
  raise WrongBytes


def _write_varint(value):
  out = bytearray()
  while value >= 0x80:
    out.append(value & 0x7F | 0x80)
    value >>= 7
  out.append(value)
  return bytes(out)
