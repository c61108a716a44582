"""TFRecord files: atomic shards, and random access by an index with both checksums verified.

One record is `u64 length, u32 masked crc32c(length), payload, u32 masked crc32c(payload)`, little
endian, uncompressed: what TensorFlow, tf.data and TensorFlow Datasets read and write. The mask is
`rotate_right(crc, 15) + 0xa282ead8`.
"""

import os
import pathlib
import re
import struct

import google_crc32c
import numpy as np

from vistraj_jax.core import checks, files

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_SHARD = re.compile(
  r"(?P<name>[^.].*)-(?P<split>[^-]+)\.tfrecord-(?P<index>\d{5})-of-(?P<count>\d{5})"
)


def shard_path(root, name, split, index, count):
  """Returns `{root}/{name}-{split}.tfrecord-{index}-of-{count}`, the naming of TFDS."""
  return pathlib.Path(root) / f"{name}-{split}.tfrecord-{index:05d}-of-{count:05d}"


def find_shards(root, name, split):
  """Returns the sorted shard files of one split.

  Raises:
    InputError: the folder is missing, holds no shard of this split, or lacks some shards.
  """
  root = pathlib.Path(root)
  checks.require(
    root.is_dir(), f"{root}: no such folder; give the folder that launch.prepare wrote."
  )
  found = [m for m in (_SHARD.fullmatch(p.name) for p in sorted(root.iterdir())) if m]
  mine = [m for m in found if m["name"] == name and m["split"] == split]
  if not mine:
    known = sorted({f"{m['name']}-{m['split']}" for m in found})
    raise checks.InputError(
      f"{root}: no file {name}-{split}.tfrecord-*; record sets found there: {known or 'none'}; "
      "run launch.prepare, or name another folder or split."
    )
  counts = {m["count"] for m in mine}
  checks.require(
    len(counts) == 1,
    f"{root}: {name}-{split} has shards of several sets (of {sorted(counts)}); delete the old one.",
  )
  count = int(counts.pop())
  missing = sorted(set(range(count)) - {int(m["index"]) for m in mine})
  checks.require(
    not missing,
    f"{root}: {name}-{split} lacks shards {missing} of {count}; prepare the data again.",
  )
  return [root / m.string for m in mine]


def write_records(path, payloads):
  """Writes an iterable of bytes as one TFRecord file, atomically; returns the number of records."""
  count = 0
  with files.atomic_path(path) as temporary, open(temporary, "wb") as f:
    for payload in payloads:
      length = struct.pack("<Q", len(payload))
      f.write(length + _FOOTER.pack(_masked_crc(length)))
      f.write(payload)
      f.write(_FOOTER.pack(_masked_crc(payload)))
      count += 1
    f.flush()
  return count


class TFRecordSource:
  """Random access to the records of several TFRecord files, in file order.

  `len(source)` records; `source[i]` is the payload (bytes) of record i. The files are scanned once
  for their record lengths; payload checksums are verified at every read. Safe to read from
  threads, and picklable (file handles stay behind), so grain's worker processes can hold it.

  Args:
    paths: files.
    partial: a file with a damaged end gives the records before it; `problems` tells of it.

  Raises:
    InputError: a file is missing, truncated, no TFRecord file or has a flipped bit; names the
      file, the record number in it and the byte offset.
  """

  def __init__(self, paths, partial=False):
    self._paths = [str(p) for p in paths]
    self._handles = {}
    self.problems = []
    tables = []
    for path in self._paths:
      table, problem = _scan(path)
      checks.require(partial or not problem, problem)
      tables.append(table)
      self.problems += [problem] if problem else []
    counts = [len(t) for t in tables]
    self._starts = np.cumsum([0, *counts])
    self._table = np.concatenate([np.zeros((0, 2), np.int64), *tables])

  def __len__(self):
    return len(self._table)

  def place(self, i):
    """Returns (file number, byte offset of the payload, its length) of record i."""
    shard = int(np.searchsorted(self._starts, i, side="right")) - 1
    return shard, *(int(v) for v in self._table[i])

  def __getitem__(self, i):
    i = range(len(self))[i]
    shard, offset, length = self.place(i)
    data = os.pread(self._handle(shard), length + _FOOTER.size, offset)
    where = f"{self._paths[shard]}: record {i - int(self._starts[shard])} at byte {offset}"
    if len(data) < length + _FOOTER.size:
      raise checks.InputError(
        f"{where} ends early ({len(data)} of {length + _FOOTER.size} bytes); copy the file again."
      )
    payload = data[:length]
    if _masked_crc(payload) != _FOOTER.unpack_from(data, length)[0]:
      raise checks.InputError(
        f"{where} fails its checksum (the file is damaged); copy or prepare it again."
      )
    return payload

  def read_at(self, i, start, length):
    """Returns `length` bytes of the payload of record i from byte `start` on, not verified.

    Raises:
      InputError: the file has become shorter.
    """
    shard, offset, _ = self.place(i)
    data = os.pread(self._handle(shard), length, offset + start)
    checks.require(
      len(data) == length,
      f"{self._paths[shard]}: ends early at byte {offset + start}; copy the file again.",
    )
    return data

  def __getstate__(self):
    return {**self.__dict__, "_handles": {}}

  def __del__(self, close=os.close):  # `os` may be gone at exit
    for handle in getattr(self, "_handles", {}).values():
      close(handle)

  def __repr__(self):
    # Grain compares this text when it restores an iterator, so it names the data, not the object.
    return f"TFRecordSource({len(self)} records in {len(self._paths)} files)"

  def _handle(self, shard):
    handle = self._handles.get(shard)
    if handle is None:
      opened = os.open(self._paths[shard], os.O_RDONLY)
      handle = self._handles.setdefault(shard, opened)
      if handle != opened:  # another thread was faster
        os.close(opened)
    return handle


def _masked_crc(data):
  crc = google_crc32c.value(data)
  return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _scan(path):
  """Returns int64 [N, 2], byte offset and length of every payload of one file; and what is wrong
  behind them, or ""."""
  checks.require(os.path.isfile(path), f"{path}: no such file.")
  size = os.path.getsize(path)
  table, problem = [], ""
  position = 0
  with open(path, "rb") as f:
    while position < size and not problem:
      header = f.read(_HEADER.size)
      where = f"{path}: record {len(table)} at byte {position}"
      if len(header) < _HEADER.size:
        problem = f"{where} has a cut header (the file is truncated); copy it again."
        break
      length, crc = _HEADER.unpack(header)
      end = position + _HEADER.size + length + _FOOTER.size
      if _masked_crc(header[:8]) != crc:
        problem = (
          f"{where} has a damaged length field, or this is no uncompressed TFRecord file; "
          "copy or prepare it again."
        )
      elif end > size:
        problem = (
          f"{where} should end at byte {end} but the file has {size} (truncated); copy it again."
        )
      else:
        table.append((position + _HEADER.size, length))
        f.seek(length + _FOOTER.size, os.SEEK_CUR)
        position = end
  return np.array(table, np.int64).reshape(-1, 2), problem
