"""MOTChallenge folders -> MOT folders per split and track records.

Splits come from the folder names, from lists of sequences, or from the halves of each sequence: the
first half of the frames trains, the rest validates, with frames counted from 1 again.
"""

import dataclasses
import pathlib

from vistraj_jax.core import checks
from vistraj_jax.data import trackssm
from vistraj_jax.prepare import runner, tracks
from vistraj_jax.tracking import mot_files

SPLITS = ("train", "val", "test")


def prepare(
  source, out, *, split_by, classes, val=(), test=(), keyframe_interval=1, processes=1, beam=None
):
  """Converts the sequences under `source` into folder `out`; returns the statistics.

  Args:
    source: folder of sequences, or of split folders of sequences.
    out: output folder.
    split_by: "folders" (train, val, test), "sequences" (`val` and `test` name sequences, the
      others train) or "halves" (train and val).
    classes: class ids that become training tracks; the truth for scoring keeps all rows.
    val, test: names of sequences, for "sequences".
    keyframe_interval: frames between annotated frames.
    processes: worker processes.
    beam: pipeline arguments for Apache Beam; None runs locally.

  Raises:
    InputError: missing or misnamed folders or sequences, a sequence without boxes, a wrong row.
  """
  checks.choice("split_by", split_by, ("folders", "sequences", "halves"))
  folders = mot_files.find_sequences(source)
  parts = [(f, split, None) for f, split in _splits(source, folders, split_by, val, test)]
  if split_by == "halves":
    lengths = {f: mot_files.read_sequence_info(f).length for f in folders}
    parts = [(f, "train", (1, lengths[f] // 2)) for f in folders]
    parts += [(f, "val", (lengths[f] // 2 + 1, lengths[f])) for f in folders]
  units = [
    runner.Unit(split, f.name, (f, pathlib.Path(out) / split / f.name, span, classes, interval))
    for (f, split, span), interval in ((part, keyframe_interval) for part in parts)
  ]
  settings = {
    "source": str(pathlib.Path(source).resolve()),
    "inputs": runner.fingerprint(
      path for f in folders for path in (f / "seqinfo.ini", f / "gt/gt.txt", f / "det/det.txt")
    ),
    "split_by": split_by,
    "val": sorted(val),
    "test": sorted(test),
    "classes": sorted(classes),
    "keyframe_interval": keyframe_interval,
  }
  return runner.run(
    out,
    name=trackssm.NAME,
    spec=trackssm.SPEC,
    description="Tracks of boxes, one record per track.",
    settings=settings,
    units=units,
    work=convert_sequence,
    summarize=tracks.summarize,
    processes=processes,
    beam=beam,
  )


def convert_sequence(source, target, span, classes, keyframe_interval):
  """Writes the frames `span` (first, last; None: all) of a sequence folder to folder `target`.

  Returns:
    As `tracks.track_records`.
  """
  info = mot_files.read_sequence_info(source)
  truth = mot_files.read_table(source / "gt" / "gt.txt", "truth", info.length)
  checks.require(
    len(truth) > 0,
    f"{source / 'gt' / 'gt.txt'}: holds no box; remove this sequence or complete the file.",
  )
  detections = None
  if (source / "det" / "det.txt").exists():
    detections = mot_files.read_table(source / "det" / "det.txt", "detection", info.length)
  info = dataclasses.replace(info, name=source.name)
  if span is not None:
    info = dataclasses.replace(info, length=span[1] - span[0] + 1)
    truth = _cut(truth, span)
    detections = None if detections is None else _cut(detections, span)
  tracks.write_folder(target, info, truth, detections)
  return tracks.track_records(truth, info, classes, keyframe_interval)


def _cut(table, span):
  """Returns the rows of frames first..last, counted from 1 again."""
  first, last = span
  part = table.select((table.frame >= first) & (table.frame <= last))
  return dataclasses.replace(part, frame=part.frame - first + 1)


def _splits(source, folders, split_by, val, test):
  """Returns [(folder, split)] for splits by folder names or by lists of sequences."""
  if split_by == "folders":
    for folder in folders:
      checks.require(
        folder.parent.name in SPLITS and folder.parent != pathlib.Path(source),
        f"{folder}: splits by folders need {source}/<split>/<sequence> with a split of {SPLITS}; "
        "rename the folder, or split by sequences or halves.",
      )
    return [(folder, folder.parent.name) for folder in folders]
  names = [folder.name for folder in folders]
  for where, listed in (("val", val), ("test", test)):
    for name in listed:
      checks.require(
        name in names,
        f"{where} sequence {name!r} is not in {source}; nearest: {checks.nearest(name, names)}.",
      )
  both = sorted(set(val) & set(test))
  checks.require(not both, f"sequences {both} are named for val and for test; name each once.")
  split = {**dict.fromkeys(val, "val"), **dict.fromkeys(test, "test")}
  return [(folder, split.get(folder.name, "train")) for folder in folders]
