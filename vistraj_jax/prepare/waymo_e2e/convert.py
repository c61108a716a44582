"""Public Waymo end-to-end driving TFRecords -> frames for training, and an index of the shards.

A shard is read once, from front to end, every checksum verified. Cameras are chosen by name, never
by their place in a record. Frames keep the order of the sorted shard names, so the result does not
depend on the machine. The shards themselves hold whole sequences of one split only: a sequence
found in two splits is an error.
"""

import collections
import hashlib
import json
import pathlib
import re
import shutil

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.data import example, images, records, waymo_e2e
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.waymo_e2e import messages

CLUSTERS = "val_sequence_name_to_scenario_cluster.json"
PREFIXES = {"train": "training_", "val": "val_", "test": "test_"}
_SHARD = re.compile(r".*\.tfrecord-(\d{5})-of-(\d{5})")
# Of the index, for every frame.
_COLUMNS = {
  "name": (str, ()),
  "cluster": (str, ()),
  "intent": (np.int8, ()),
  "place": (np.int64, (2,)),
  "jpeg": (np.int64, (len(waymo_e2e.CAMERAS), 2)),
  "past": (np.float32, (waymo_e2e.PAST, 6)),
  "future": (np.float32, (waymo_e2e.FUTURE, 3)),
}


def prepare(
  source, out, *, splits=(), cameras=("FRONT",), size=384, keep_going=False, processes=1, beam=None
):
  """Converts the shards in `source` into folder `out`; returns the statistics.

  Args:
    source: folder of `training_*`, `val_*` and `test_*` shards; some of a set will do. The cluster
      file of the validation sequences may lie beside them.
    out: output folder.
    splits: of "train", "val", "test"; those that are there by default.
    cameras: names of the cameras to keep.
    size: side in px of the square images that are stored; 0 keeps the original JPEG bytes.
    keep_going: damaged records, and frames that lack something, are left out and counted.
    processes, beam: as in `runner.run`.

  Raises:
    InputError: missing shards, an unknown split or camera, a damaged shard or record, a frame that
      lacks a camera, numbers that are not finite, a sequence in two splits.
  """
  source = pathlib.Path(source)
  shards = find_shards(source, splits)
  for camera in cameras:
    checks.choice("--cameras", camera, waymo_e2e.CAMERAS)
  checks.require(len(set(cameras)) == len(cameras), f"--cameras: {list(cameras)} has one twice.")
  checks.require(size >= 0, f"--size: {size}; give the side in px, or 0 for the original images.")
  clusters = _read_clusters(source / CLUSTERS)
  sizes = [(path.name, path.stat().st_size) for paths in shards.values() for path in paths]
  settings = {
    "source": str(source.resolve()),
    "splits": list(shards),
    "cameras": list(cameras),
    "size": size,
    "keep_going": keep_going,
    "inputs": hashlib.sha256(json.dumps([sizes, clusters]).encode()).hexdigest()[:16],
  }
  folder = pathlib.Path(out) / "index"
  units = [
    runner.Unit(
      split,
      path.name,
      (path, folder / f"{split}-{path.name}.npz", tuple(cameras), size, clusters, keep_going),
    )
    for split, paths in shards.items()
    for path in paths
  ]
  statistics = runner.run(
    out,
    name=waymo_e2e.NAME,
    spec=waymo_e2e.spec(cameras),
    description="Waymo Open end-to-end driving, one record per frame.",
    settings=settings,
    units=units,
    work=convert_shard,
    summarize=_summarize,
    processes=processes,
    beam=beam,
  )
  for split in shards:
    _join_index(folder, out, split, [unit.arguments[1] for unit in units if unit.split == split])
  shutil.rmtree(folder, ignore_errors=True)
  return statistics


def find_shards(source, splits=()):
  """Returns {split: sorted shard files} of a folder.

  Raises:
    InputError: no folder, an unknown split, a split without shards, or shards of two releases.
  """
  checks.require(source.is_dir(), f"--source: {source}: no such folder.")
  for split in splits:
    checks.choice("--split", split, PREFIXES)
  found = {}
  for split in splits or PREFIXES:
    paths = sorted(
      path for path in source.glob(f"{PREFIXES[split]}*") if _SHARD.fullmatch(path.name)
    )
    checks.require(
      paths or not splits,
      f"--source: {source}: no file {PREFIXES[split]}*.tfrecord-*; give the folder of the "
      f"{split} shards, or other --split.",
    )
    sets = sorted({path.name[:-14] + path.name[-9:] for path in paths})
    checks.require(
      len(sets) <= 1, f"--source: {source}: {split} shards of several releases: {sets}; keep one."
    )
    if paths:
      found[split] = paths
  checks.require(
    found,
    f"--source: {source}: no file training_*, val_* or test_*.tfrecord-*; give the folder of the "
    "end-to-end driving shards.",
  )
  return found


def convert_shard(path, index, cameras, size, clusters, keep_going):
  """Converts one shard and writes its part of the index.

  Returns:
    (generator of record bytes, result): the result is complete when the generator has ended.
  """
  result = {
    "sequences": [],
    "frames": 0,
    "with_future": 0,
    "rated": 0,
    "intents": [0] * len(waymo_e2e.INTENTS),
    "clusters": {},
    "skipped": [],
  }

  def convert():
    rows = []
    for number, frame, row, payload in _frames(path, result["skipped"], keep_going):
      where = f"{path}: record {number} ({frame.name})"
      try:
        stored = _images(frame, payload, cameras, size, where)
      except checks.InputError as error:
        _skip(error, result["skipped"], keep_going)
        continue
      row["cluster"] = clusters.get(waymo_e2e.sequence_of(frame.name), "")
      rows.append(row)
      _count(row, result)
      yield example.encode(_values(frame, row, stored), waymo_e2e.spec(cameras))
    result["sequences"] = sorted({waymo_e2e.sequence_of(row["name"]) for row in rows})
    _write_index(index, rows)

  return convert(), result


def report(statistics):
  """Returns the closing table of a conversion."""
  intents = waymo_e2e.INTENTS
  lines = [
    f"{'split':<7}{'shards':>7}{'sequences':>11}{'frames':>9}{'with future':>13}{'rated':>7}"
    + "".join(f"{name:>10}" for name in intents)
    + f"{'skipped':>9}"
  ]
  for split, total in statistics["splits"].items():
    lines.append(
      f"{split:<7}{total['shards']:>7}{total['sequences']:>11}{total['frames']:>9}"
      f"{total['with_future']:>13}{total['rated']:>7}"
      + "".join(f"{total['intents'][name]:>10}" for name in intents)
      + f"{total['skipped']:>9}"
    )
  for split, total in statistics["splits"].items():
    if total["clusters"]:
      named = ", ".join(f"{name} {count}" for name, count in total["clusters"].items())
      lines.append(f"{split}: frames of clusters: {named}")
    lines += [f"{split}: skipped: {sentence}" for sentence in total["skipped_first"]]
  lines.append("unknown, straight, left, right: frames by intent; an unknown intent is kept.")
  return "\n".join(lines)


def _frames(path, skipped, keep_going):
  """Yields (record number, `messages.Frame`, row of the index, payload) of the good records."""
  source = records.TFRecordSource([path], partial=True)
  for problem in source.problems:
    _skip(problem, skipped, keep_going)
  for number in range(len(source)):
    try:
      payload = source[number]
      frame = messages.read_frame(payload, f"{path}: record {number}")
      row = _row(frame, *source.place(number)[1:], f"{path}: record {number} ({frame.name})")
    except checks.InputError as error:
      _skip(error, skipped, keep_going)
      continue
    yield number, frame, row, payload


def _skip(problem, skipped, keep_going):
  checks.require(keep_going, f"{problem} Or leave such records out with --keep_going.")
  skipped.append(str(problem))


def _row(frame, offset, length, where):
  """Returns the row of the index of a frame whose payload lies there, checked."""
  checks.require(frame.name, f"{where}: the frame has no name.")
  checks.require(
    0 <= frame.intent < len(waymo_e2e.INTENTS),
    f"{where}: intent is {frame.intent}; known are 0 to {len(waymo_e2e.INTENTS) - 1}.",
  )
  checks.shape(f"{where}: past states", frame.past, (waymo_e2e.PAST, 6))
  if len(frame.future):
    checks.shape(f"{where}: future states", frame.future, (waymo_e2e.FUTURE, 3))
  rated = [r for r in frame.rated if r.score >= 0 and len(r.xy)][:3]
  for what, values in (
    ("past states", frame.past),
    ("future states", frame.future),
    *(("rated trajectories", r.xy) for r in rated),
  ):
    checks.require(np.isfinite(values).all(), f"{where}: {what} are not all finite numbers.")
  jpeg = np.full((len(waymo_e2e.CAMERAS), 2), -1, np.int64)
  for camera, (first, size) in frame.images.items():
    if camera in waymo_e2e.CAMERAS:
      jpeg[waymo_e2e.CAMERAS.index(camera)] = offset + first, size
  told = len(frame.future) > 0
  row = {
    "name": frame.name,
    "intent": frame.intent,
    "place": (offset, length),
    "jpeg": jpeg,
    "past": frame.past,
    "future": frame.future if told else np.full((waymo_e2e.FUTURE, 3), np.nan, np.float32),
    "rated/xy": np.zeros((3, 21, 2), np.float32),
    "rated/len": np.zeros(3, np.int32),
    "rated/score": np.full(3, -1, np.float32),
  }
  for k, r in enumerate(rated):
    count = min(len(r.xy), 21)
    row["rated/xy"][k, :count] = r.xy[:count]
    row["rated/len"][k], row["rated/score"][k] = count, r.score
  return row


def _images(frame, payload, cameras, size, where):
  """Returns {camera: (JPEG bytes, height, width)} as they are stored."""
  stored = {}
  for camera in cameras:
    checks.require(
      camera in frame.images and camera in frame.calibrations,
      f"{where}: has no {camera} camera, only {sorted(frame.images)}.",
    )
    first, length = frame.images[camera]
    jpeg, name = payload[first : first + length], f"{where}: {camera}"
    if size:
      jpeg = images.encode(images.decode(jpeg, (size, size), name))
    stored[camera] = (jpeg, *((size, size) if size else images.size_of(jpeg, name)))
  return stored


def _values(frame, row, stored):
  """Returns the fields of `waymo_e2e.spec`."""
  calibrations = [frame.calibrations[camera] for camera in stored]
  values = {name: row[name] for name in ("name", "intent", "past", "cluster")}
  values |= {name: row[name] for name in ("rated/xy", "rated/len", "rated/score")}
  values["future"] = frame.future[:, :2]
  values["cameras"] = [waymo_e2e.CAMERAS.index(camera) + 1 for camera in stored]
  values["image_hw"] = np.array([(h, w) for _, h, w in stored.values()])
  values["camera_hw"] = np.array([(c.height, c.width) for c in calibrations])
  for camera, calibration in zip(stored, calibrations, strict=True):
    values[f"image/{camera}"] = stored[camera][0]
    values[f"calib/{camera}"] = np.concatenate(
      [calibration.intrinsic, calibration.extrinsic.ravel()]
    )
  return values


def _count(row, result):
  result["frames"] += 1
  result["with_future"] += int(np.isfinite(row["future"]).all())
  result["rated"] += int((row["rated/len"] > 0).any())
  result["intents"][row["intent"]] += 1
  if row["cluster"]:
    result["clusters"][row["cluster"]] = result["clusters"].get(row["cluster"], 0) + 1


def _write_index(path, rows):
  """Writes the columns of one shard; ratings only where there are some."""
  rated = [i for i, row in enumerate(rows) if row["rated/len"].any()]
  columns = {
    name: np.array([row[name] for row in rows], dtype).reshape(-1, *shape)
    for name, (dtype, shape) in _COLUMNS.items()
  }
  columns["rated_row"] = np.array(rated, np.int64)
  for name in ("rated/xy", "rated/len", "rated/score"):
    dtype, shape = waymo_e2e.ELEMENT[name]
    columns[name] = np.array([rows[i][name] for i in rated], dtype).reshape(-1, *shape)
  with files.atomic_path(path) as temporary, open(temporary, "wb") as f:
    np.savez(f, **columns)


def _join_index(folder, out, split, parts):
  """Joins the parts of a split's index in the order of the shards."""
  path = waymo_e2e.index_path(out, split)
  if path.is_file():
    return
  columns = collections.defaultdict(list)
  start = 0
  for number, part in enumerate(parts):
    with np.load(part) as file:
      held = {name: file[name] for name in file.files}
    count = len(held["name"])
    held["place"] = np.concatenate([np.full((count, 1), number), held["place"]], 1)
    held["rated_row"] = held["rated_row"] + start
    start += count
    for name, value in held.items():
      columns[name].append(value)
  joined = {name: np.concatenate(values) for name, values in columns.items()}
  shards = [part.name.removeprefix(f"{split}-").removesuffix(".npz") for part in parts]
  statistics = json.loads((pathlib.Path(out) / runner.STATISTICS).read_text())
  cameras = statistics["settings"]["cameras"]
  with files.atomic_path(path) as temporary, open(temporary, "wb") as f:
    np.savez(f, **joined, shards=np.array(shards), cameras=np.array(cameras))


def _summarize(results):
  splits = {}
  sequences = collections.defaultdict(set)
  for unit, result in results:
    total = splits.setdefault(
      unit.split,
      {
        "shards": 0,
        "sequences": 0,
        "frames": 0,
        "with_future": 0,
        "rated": 0,
        "intents": dict.fromkeys(waymo_e2e.INTENTS, 0),
        "clusters": {},
        "skipped": 0,
        "skipped_first": [],
      },
    )
    total["shards"] += 1
    for name in ("frames", "with_future", "rated"):
      total[name] += result[name]
    for name, count in zip(waymo_e2e.INTENTS, result["intents"], strict=True):
      total["intents"][name] += count
    for name, count in result["clusters"].items():
      total["clusters"][name] = total["clusters"].get(name, 0) + count
    total["skipped"] += len(result["skipped"])
    total["skipped_first"] = (total["skipped_first"] + result["skipped"])[:20]
    sequences[unit.split] |= set(result["sequences"])
  for split, total in splits.items():
    total["sequences"] = len(sequences[split])
    for other in splits:
      both = sorted(sequences[split] & sequences[other]) if other != split else []
      checks.require(
        not both, f"--source: sequence {both[:1]} is in {split} and in {other} shards; remove one."
      )
  return {"splits": splits}


def _read_clusters(path):
  """Returns {sequence: cluster} of the optional file."""
  if not path.is_file():
    return {}
  try:
    clusters = json.loads(path.read_text())
  except ValueError as error:
    raise checks.InputError(f"{path}: no JSON ({error}); copy it again, or remove it.") from None
  good = isinstance(clusters, dict) and all(isinstance(v, str) for v in clusters.values())
  checks.require(good, f"{path}: wants {{sequence: cluster}}; copy it again, or remove it.")
  return clusters
