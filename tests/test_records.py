"""TFRecord files: exact bytes, random access, damage, and writes that fail."""

import errno
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import time

import grain
import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.data import records

PAYLOADS = [b"a", b"", bytes(range(256)) * 5, b"last"]


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "x-train.tfrecord-00000-of-00001"
  assert records.write_records(path, PAYLOADS) == 4
  return path


def _start(number):
  """Byte at which record `number` of PAYLOADS starts."""
  return sum(len(p) + 16 for p in PAYLOADS[:number])


def test_bytes_of_one_record(tmp_path):
  records.write_records(tmp_path / "f", [b"123456789"])
  crc = 0xE3069283  # the check value of CRC-32C for these nine digits
  masked = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
  data = (tmp_path / "f").read_bytes()
  assert data[:8] == struct.pack("<Q", 9)
  assert data[12:] == b"123456789" + struct.pack("<I", masked)


def test_random_access_and_order(file, tmp_path):
  second = tmp_path / "second"
  records.write_records(second, [b"more"])
  source = records.TFRecordSource([file, second])
  assert len(source) == 5
  assert [source[i] for i in (4, 2, 0, 1, 3)] == [b"more", PAYLOADS[2], b"a", b"", b"last"]
  assert source[-1] == b"more"
  with pytest.raises(IndexError):
    source[5]
  copy = pickle.loads(pickle.dumps(source))
  assert list(copy) == [*PAYLOADS, b"more"]


def test_grain_reads_the_same(file):
  assert list(grain.experimental.TFRecordIterDataset(str(file))) == PAYLOADS


def test_empty_file_has_no_records(tmp_path):
  assert records.write_records(tmp_path / "f", []) == 0
  assert len(records.TFRecordSource([tmp_path / "f"])) == 0


@pytest.mark.parametrize("cut", [1, 5, 19, 21, 1000, 1290])
def test_truncated_file_names_record_and_place(file, cut):
  size = file.stat().st_size - cut
  os.truncate(file, size)
  number = max(n for n in range(4) if _start(n) < size)
  where = re.escape(f"{file}: record {number} at byte {_start(number)}")
  with pytest.raises(checks.InputError, match=f"{where} .*truncated.*copy it again"):
    records.TFRecordSource([file])


@pytest.mark.parametrize("number", [0, 2, 3])
@pytest.mark.parametrize("part", ["length", "length crc", "payload", "payload crc"])
def test_flipped_bit_names_record_and_place(file, number, part):
  begin, length = _start(number), len(PAYLOADS[number])
  byte = begin + {"length": 1, "length crc": 9, "payload": 12, "payload crc": 13 + length}[part]
  data = bytearray(file.read_bytes())
  data[byte] ^= 4
  file.write_bytes(data)
  offset = begin + (12 if part.startswith("payload") else 0)
  where = re.escape(f"{file}: record {number} at byte {offset}")
  with pytest.raises(checks.InputError, match=f"{where} .*(damaged).*prepare it again"):
    list(records.TFRecordSource([file]))


def test_file_cut_after_it_was_indexed(file):
  source = records.TFRecordSource([file])
  os.truncate(file, file.stat().st_size - 2)
  with pytest.raises(checks.InputError, match="record 3 at byte .* ends early"):
    source[3]


def test_other_formats_are_refused(tmp_path):
  path = tmp_path / "f"
  path.write_bytes(b"\x1f\x8b" + bytes(100))
  with pytest.raises(checks.InputError, match="no uncompressed TFRecord"):
    records.TFRecordSource([path])
  with pytest.raises(checks.InputError, match="missing: no such file"):
    records.TFRecordSource([tmp_path / "missing"])


def test_find_shards(tmp_path):
  with pytest.raises(checks.InputError, match="nowhere: no such folder.*launch.prepare"):
    records.find_shards(tmp_path / "nowhere", "x", "train")
  for index in (0, 2):
    records.write_records(records.shard_path(tmp_path, "x", "train", index, 3), [])
  with pytest.raises(checks.InputError, match=r"x-train lacks shards \[1\] of 3"):
    records.find_shards(tmp_path, "x", "train")
  with pytest.raises(checks.InputError, match=r"no file x-val.*found there: \['x-train'\]"):
    records.find_shards(tmp_path, "x", "val")
  records.write_records(records.shard_path(tmp_path, "x", "train", 1, 3), [])
  found = [p.name for p in records.find_shards(tmp_path, "x", "train")]
  assert found == [f"x-train.tfrecord-0000{i}-of-00003" for i in range(3)]
  records.write_records(records.shard_path(tmp_path, "x", "train", 0, 1), [])
  with pytest.raises(checks.InputError, match="shards of several sets"):
    records.find_shards(tmp_path, "x", "train")


def test_full_disk_leaves_the_old_file(file, monkeypatch):
  before = file.read_bytes()

  class FullDisk:
    """A file on a disk with 40 bytes left."""

    def __init__(self, path, mode):
      self.file, self.left = open(path, mode), 40

    def __enter__(self):
      return self

    def __exit__(self, *_):
      self.file.close()

    def write(self, data):
      self.left -= len(data)
      if self.left < 0:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      return self.file.write(data)

  monkeypatch.setattr(records, "open", FullDisk, raising=False)
  with pytest.raises(OSError, match="No space left"):
    records.write_records(file, PAYLOADS)
  assert file.read_bytes() == before
  assert os.listdir(file.parent) == [file.name]


def test_killed_while_writing_leaves_nothing(tmp_path):
  path = records.shard_path(tmp_path, "x", "train", 0, 1)
  code = (
    "import itertools, sys; from vistraj_jax.data import records;"
    "records.write_records(sys.argv[1], itertools.repeat(bytes(100_000)))"
  )
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=root)
  deadline = time.monotonic() + 60
  while not any(p.stat().st_size > 10**6 for p in tmp_path.iterdir()):
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  assert not path.exists()
  with pytest.raises(checks.InputError, match="no file x-train.*found there: none"):
    records.find_shards(tmp_path, "x", "train")


def test_index_is_fast(tmp_path):
  payload = np.random.default_rng(0).bytes(738)
  records.write_records(tmp_path / "f", [payload] * 20_000)
  start = time.perf_counter()
  source = records.TFRecordSource([tmp_path / "f"])
  seconds = time.perf_counter() - start
  assert len(source) == 20_000 and seconds < 1.0  # 0.05 s on an idle machine
