"""Codes of videos: what a frozen tokenizer made of the past and of the future of each window.

Both were encoded by themselves, so that the past's codes know nothing of the future. A window has
a few kilobytes of codes where its pixels have megabytes. Codes of one tokenizer mean nothing to
another: every record and the statistics file name theirs, and mixtures are refused.
"""

import json
import pathlib

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.data import example, records

NAME = "latents"
STATISTICS = "tokenizer.json"

# One record per window, in the order of the fixed windows of `data.future_video`.
SPEC = {
  "past_codes": ("bytes", ()),  # int32 little-endian, time, row, column
  "future_codes": ("bytes", ()),
  "code_shape": ("int64", (3,)),  # of each half
  "bits": ("int64", ()),  # a code is below 2^bits
  "past_frames": ("int64", ()),
  "future_frames": ("int64", ()),
  "id": ("bytes", ()),  # of the video
  "start": ("int64", ()),  # its first frame in the window
  "tokenizer": ("bytes", ()),  # fingerprint
}

# One example: what `Codes.gather` returns, with a leading batch size.
ELEMENT = {
  "past_codes": ("int32", ("t", "h", "w")),
  "future_codes": ("int32", ("t", "h", "w")),
  "row": ("int32", ()),  # of the window in `data.future_video`
}


class Codes:
  """The codes of a split, in memory.

  Attributes:
    past, future: int32 [N, t, h, w].
    ids, starts: names of the videos and first frames of the windows, N each.
    header: what `write` was told of the tokenizer.
  """

  def __init__(self, past, future, ids, starts, header):
    self.past, self.future, self.ids, self.starts = past, future, ids, starts
    self.header = header

  def __len__(self):
    return len(self.past)

  def about(self):
    """Returns what a run records of its data: the tokenizer's fingerprint, the code's form, and
    "psnr", dB of its reconstructions and of a black picture."""
    names = ("tokenizer", "bits", "past", "future", "image_size")
    scores = self.header["scores"]
    psnr = [scores[name]["psnr"] for name in ("tokenizer", "black")]
    return {name: self.header[name] for name in names} | {
      "code_shape": self.past.shape[1:],
      "psnr": psnr,
    }

  def gather(self, indices):
    """Returns the codes of windows `indices` int [B]; see `ELEMENT`."""
    rows = np.asarray(indices, np.int32)
    return {"past_codes": self.past[rows], "future_codes": self.future[rows], "row": rows}

  def resident(self):
    """Returns all codes, to lie on the devices."""
    return self.gather(np.arange(len(self)))


def write(folder, split, header, batches, *, index=0, count=1):
  """Writes one shard, atomically; returns the number of windows.

  Args:
    folder: output folder.
    split: name of the split.
    header: {"tokenizer": fingerprint, "bits", "past", "future": frames, ...}.
    batches: iterable of {"past_codes", "future_codes" int [n, t, h, w], "id", "start" [n]}.
    index, count: number of this shard and of all shards.
  """

  def payloads():
    for batch in batches:
      for past, future, name, start in zip(
        *(batch[k] for k in ("past_codes", "future_codes", "id", "start")), strict=True
      ):
        yield example.encode(
          {
            "past_codes": np.ascontiguousarray(past, "<i4").tobytes(),
            "future_codes": np.ascontiguousarray(future, "<i4").tobytes(),
            "code_shape": past.shape,
            "bits": header["bits"],
            "past_frames": header["past"],
            "future_frames": header["future"],
            "id": name,
            "start": start,
            "tokenizer": header["tokenizer"],
          },
          SPEC,
        )

  return records.write_records(records.shard_path(folder, NAME, split, index, count), payloads())


def finished(folder, split, header, *, index=0, count=1):
  """Returns whether a shard is there.

  Raises:
    InputError: it holds codes of another tokenizer or of other windows.
  """
  path = records.shard_path(folder, NAME, split, index, count)
  if not path.is_file():
    return False
  source = records.TFRecordSource([path])
  if len(source):
    _checked(example.decode(source[0], SPEC, f"{path}: record 0"), header, f"{path}: record 0")
  return True


def save_header(folder, header):
  """Writes what is known of the tokenizer, JSON-able; replaces what an earlier call wrote."""
  files.write_text(pathlib.Path(folder) / STATISTICS, json.dumps(header, indent=2) + "\n")


def read_header(folder):
  """Returns what `save_header` wrote.

  Raises:
    InputError: no codes there.
  """
  path = pathlib.Path(folder) / STATISTICS
  checks.require(
    path.is_file(),
    f"{path}: no such file; make codes with `python -m launch.tokenize --data ... --out {folder}`.",
  )
  return json.loads(path.read_text())


def load(cfg, split, model):
  """Reads the codes of a split.

  Args:
    cfg: config.data: `root`, the folder that launch.tokenize wrote; `past` and `future`, frames.
    split: "train", "val" or "test".
    model: config.model; not read.

  Returns:
    `Codes`.

  Raises:
    InputError: missing or damaged files, codes of another tokenizer or of other windows.
  """
  del model
  root = cfg["root"]
  header = read_header(root)
  for name in ("past", "future"):
    checks.require(
      header[name] == cfg[name],
      f"{root}: codes with {name} {header[name]!r}, wanted {cfg[name]!r}; make codes of these "
      f"videos again with `python -m launch.tokenize`, or set config.data.{name}={header[name]}.",
    )
  paths = records.find_shards(root, NAME, split)
  source = records.TFRecordSource(paths)
  checks.require(len(source), f"{root}: split {split!r} has no window; make the codes again.")
  halves, ids, starts = {"past": [], "future": []}, [], []
  for i in range(len(source)):
    where = f"{root}: {NAME}-{split} record {i}"
    row = example.decode(source[i], SPEC, where)
    _checked(row, header, where)
    shape = tuple(int(n) for n in row["code_shape"])
    for name, found in halves.items():
      codes = np.frombuffer(row[f"{name}_codes"], "<i4")
      checks.require(
        codes.size == np.prod(shape)
        and codes.min(initial=0) >= 0
        and codes.max(initial=0) < header["num_codes"],
        f"{where}: {name}_codes do not fit shape {shape} and {header['num_codes']} codes; make the "
        "codes again.",
      )
      found.append(codes.reshape(shape))
    ids.append(row["id"].decode())
    starts.append(int(row["start"]))
  shapes = {codes.shape for found in halves.values() for codes in found}
  checks.require(
    len(shapes) == 1, f"{root}: codes of several shapes {sorted(shapes)[:3]}; make them again."
  )
  past, future = (np.stack(found).astype(np.int32) for found in halves.values())
  return Codes(past, future, ids, np.array(starts), header)


def _checked(row, header, where):
  """Raises InputError unless a record is of the tokenizer and the windows of `header`."""
  found = {
    "tokenizer": row["tokenizer"].decode(),
    "bits": int(row["bits"]),
    "past": int(row["past_frames"]),
    "future": int(row["future_frames"]),
  }
  for name, value in found.items():
    checks.require(
      header[name] == value,
      f"{where}: made with {name} {value!r}, wanted {header[name]!r}; codes of one tokenizer and "
      "one kind of window belong into one folder: give another one.",
    )
