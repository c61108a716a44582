"""Parses tables of plain decimal numbers from bytes with array operations.

A number is read as whole digits times a power of ten, `integer / 10**decimals`. Both are exact in
float64 while the integer is below 2**53, so the quotient is the same double that `float()` gives;
longer numbers are handed to `float()`. On tracking files this is two to three times faster than
`numpy.loadtxt`.
"""

import numpy as np

_MOST_DIGITS = 16
_BLOCK_BYTES = 2**16  # small arrays stay in the cache and cost no fresh memory
_NEWLINE, _COMMA, _MINUS, _DOT, _ZERO = b"\n,-.0"


def parse_table(data):
  """Returns float64 [rows, columns] of the comma-separated text `data` (bytes), or None.

  None means that the text is anything but lines of the same number of plain decimals (no blanks,
  no exponents, no other signs): a general reader then has to accept or refuse it.
  """
  if b"\r" in data:
    data = data.replace(b"\r\n", b"\n")
  data = data.rstrip(b"\n") + b"\n"
  blocks, start = [], 0
  while start < len(data):
    stop = data.find(b"\n", min(start + _BLOCK_BYTES, len(data) - 1)) + 1
    block = _parse_block(data[start:stop])
    if block is None or (blocks and block.shape[1] != blocks[0].shape[1]):
      return None
    blocks.append(block)
    start = stop
  return np.concatenate(blocks)


def _parse_block(data):
  """Parses whole lines, each ended by a line feed; see `parse_table`."""
  text = np.frombuffer(data, np.uint8)
  digit = text - _ZERO  # wraps round below "0"
  marks = np.flatnonzero(digit > 9)
  kind = text[marks]
  dots = kind == _DOT
  minuses = np.count_nonzero(kind == _MINUS)
  ends_row = kind == _NEWLINE
  ends_cell = ends_row | (kind == _COMMA)
  if np.count_nonzero(ends_cell) + np.count_nonzero(dots) + minuses != len(marks):
    return None
  stop = marks[ends_cell]
  start = np.concatenate([[0], stop[:-1] + 1])
  negative = text[start] == _MINUS
  dotted = np.cumsum(ends_cell)[dots]  # the cells with a dot
  decimals = np.zeros(len(stop), np.int64)
  decimals[dotted] = stop[dotted] - marks[dots] - 1
  has_dot = np.zeros(len(stop), bool)
  has_dot[dotted] = True
  digits = stop - start - negative - has_dot
  row_ends = np.flatnonzero(ends_row[ends_cell])
  columns = row_ends[0] + 1
  regular = (
    np.array_equal(row_ends, np.arange(columns - 1, len(stop), columns))
    and np.count_nonzero(has_dot) == len(dotted)
    and np.count_nonzero(negative) == minuses
    and digits.min() > 0
  )
  if not regular:
    return None

  # Without dots a digit's weight is set by its distance from the end of the cell. Two at a time:
  # a mark counts as the digit 0, so the pair at a cell's first digit is that digit.
  digit = np.concatenate([np.zeros(1, np.uint8), np.where(digit > 9, 0, digit)[text != _DOT]])
  last = stop - np.cumsum(has_dot)
  before = last - digits
  pair = digit.copy()
  pair[1:] += 10 * digit[:-1]
  pair[before] = 0
  value = np.zeros(len(stop))
  for place in range(0, min(digits.max(), _MOST_DIGITS), 2):
    value += pair[last] * 10.0**place
    last = np.maximum(last - 2, before)
  long = (digits > _MOST_DIGITS) | (value >= 2**53)
  value /= 10.0 ** np.arange(_MOST_DIGITS + 1)[np.minimum(decimals, _MOST_DIGITS)]
  np.negative(value, where=negative, out=value)
  for cell in np.flatnonzero(long):
    value[cell] = float(data[start[cell] : stop[cell]])
  return value.reshape(len(row_ends), columns)
