"""A nuScenes database -> clips of agents: index rows and TFRecords (`data.xmem`).

The tables are opened once and taken apart into one file per scene; every scene is a unit of work of
`prepare.runner`. Scenes are split by the official lists, never within.
"""

import dataclasses
import pathlib

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.data import clip_arrays, xmem
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.nuscenes import (
  clip_records,
  clip_rows,
  database,
  devkit_tables,
  extract,
  splits,
)

DEFAULTS = clip_rows.Choice(
  t_in=9,
  t_out=12,
  stride=2,
  objects=3,
  inputs=clip_rows.INPUTS,
  cameras=("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT"),
  image_size=(480, 864),
  reach=51.2,
  resolution=0.4,
  points=30_000,
  sweeps=12,
  max_sweep_age=0.6,
  min_pixels=30,
  max_hidden=2,
  min_speed=0.0,
  anchor="lidar",
  seed=0,
)
_LEAST = {
  **dict.fromkeys(("t_in", "t_out", "stride", "objects", "points", "sweeps", "min_pixels"), 1),
  **dict.fromkeys(("max_sweep_age", "max_hidden", "min_speed", "seed"), 0),
}


def prepare(
  dataroot,
  out,
  *,
  version,
  choice=DEFAULTS,
  split=None,
  split_policy="dev",
  keep_going=False,
  processes=1,
  beam=None,
):
  """Converts scenes of a nuScenes database into folder `out`; returns the statistics.

  Args:
    dataroot: folder that holds the version's folder, maps, samples and sweeps.
    out: output folder.
    version: "v1.0-trainval" or "v1.0-mini".
    choice: `clip_rows.Choice`.
    split: names of splits; None takes all of which the database holds scenes.
    split_policy: as `splits.scene_names`.
    keep_going: leave out scenes whose tables or files are bad, and name them in the statistics.
    processes: worker processes.
    beam: pipeline arguments for Apache Beam; None runs locally.

  Raises:
    InputError: a wrong setting; missing folders, tables, scenes or files; a bad record; no clip.
  """
  dataroot, out = pathlib.Path(dataroot).resolve(), pathlib.Path(out).resolve()
  _check(choice)
  wanted = {
    name: splits.scene_names(version, name, split_policy)
    for name in split or splits.split_names(version)
  }
  settings = {
    "dataroot": str(dataroot),
    "version": version,
    "inputs_of_tables": runner.fingerprint(devkit_tables.table_paths(dataroot, version)),
    "split": sorted(wanted) if split else None,
    "split_policy": split_policy,
    **dataclasses.asdict(choice),
    "keep_going": keep_going,
  }
  held = {}  # what `units` knows and `summarize` needs

  def units(parts):
    chosen, left_out = extract.extract(
      parts,
      dataroot,
      version,
      wanted,
      named=bool(split),
      require=_Requirements(choice, dataroot),
      keep_going=keep_going,
      lidar=True,
    )
    held.update(parts=parts, skipped=left_out)
    return [
      runner.Unit(
        name,
        scene,
        (extract.scene_file(parts, scene), _rows_part(parts, scene), name, choice, dataroot),
      )
      for name, names in chosen.items()
      for scene in names
      if scene not in left_out
    ]

  def summarize(results):
    for name in dict.fromkeys(unit.split for unit, _ in results):
      texts = [_rows_part(held["parts"], u.name).read_text() for u, _ in results if u.split == name]
      files.write_text(xmem.rows_path(out, name), "".join(texts))
    statistics = _summarize(results, held["skipped"])
    counts = [total["counts"] for total in statistics["splits"].values()]
    checks.require(
      sum(count["windows"] for count in counts) > 0,
      f"{dataroot}: no clip: scenes have no {choice.t_in + choice.t_out} key frames; lower --t_in "
      "or --t_out.",
    )
    checks.require(
      sum(count["clips"] for count in counts) > 0,
      f"{dataroot}: no clip, for these reasons:\n{report(statistics)}",
    )
    return statistics

  return runner.run(
    out,
    name=xmem.NAME,
    spec=xmem.SPEC,
    description="nuScenes clips of agents, one record per clip.",
    settings=settings,
    units=units,
    work=clip_records.convert,
    summarize=summarize,
    processes=processes,
    beam=beam,
  )


def report(statistics):
  """Returns the closing report: clips of every split and category, and why others are none."""
  lines = []
  for split, total in statistics["splits"].items():
    counts = total["counts"]
    pairs = sum(counts.values()) - counts["windows"]
    lines += [
      f"{split}: {counts['clips']:,} clips of {total['scenes']} scenes, {counts['windows']:,} "
      f"windows, {pairs:,} annotated agents in them",
      f"  {'clips':<18}{counts['clips']:>9,}{counts['clips'] / max(pairs, 1):>8.1%}",
    ]
    lines += [
      f"  {reason:<18}{counts[reason]:>9,}{counts[reason] / max(pairs, 1):>8.1%}"
      for reason in clip_rows.REASONS
    ]
    categories = ", ".join(f"{name} {count:,}" for name, count in total["categories"].items())
    lines.append(f"  categories: {categories or 'none'}")
    if total["sweeps"]:
      lines.append(
        f"  LiDAR: {total['points']:,.0f} points in reach of a key frame, {total['kept']:,.0f} "
        f"kept; {total['empty_sweeps']:,} of {total['sweeps']:,} key frames have no point"
      )
  if statistics["skipped"]:
    lines += [f"skipped: {len(statistics['skipped'])}"]
    lines += [f"  {name}: {sentence}" for name, sentence in statistics["skipped"].items()]
  return "\n".join(lines)


def _check(choice):
  checks.choice("--anchor", choice.anchor, clip_rows.ANCHORS)
  for name, least in _LEAST.items():
    value = getattr(choice, name)
    checks.require(value >= least, f"--{name}: {value} received; give {least} or more.")
  for option, allowed in (("inputs", clip_rows.INPUTS), ("cameras", database.CAMERAS)):
    values = getattr(choice, option)
    for value in values:
      checks.choice(f"--{option}", value, allowed)
    checks.require(
      values and len(set(values)) == len(values),
      f"--{option}: {list(values)} received; name one or more, each once.",
    )
  checks.require(
    min(choice.image_size) >= 16,
    f"--image_size: {choice.image_size} received; give a height and a width of 16 px or more.",
  )
  checks.require(
    choice.max_sweep_age <= clip_arrays.POINT_AGE,
    f"--max_sweep_age: {choice.max_sweep_age} s received; give at most {clip_arrays.POINT_AGE}.",
  )
  checks.require(
    choice.grid.size >= 16 and choice.reach <= clip_arrays.POINT_REACH,
    f"--reach, --resolution: {choice.reach} and {choice.resolution} m received; give 16 cells or "
    f"more, and a reach of at most {clip_arrays.POINT_REACH} m.",
  )


def _summarize(results, skipped):
  totals = {}
  for split in dict.fromkeys(unit.split for unit, _ in results):
    own = [result for unit, result in results if unit.split == split]
    sweeps = np.array([result["sweeps"] for result in own])
    categories = sorted({name for result in own for name in result["categories"]})
    totals[split] = {
      "scenes": len(own),
      "counts": {name: sum(r["counts"][name] for r in own) for name in own[0]["counts"]},
      "categories": {name: sum(r["categories"].get(name, 0) for r in own) for name in categories},
      "sweeps": int(sweeps.sum()),
      "empty_sweeps": sum(result["empty_sweeps"] for result in own),
      **{
        name: float(sweeps @ [result[name] for result in own] / max(sweeps.sum(), 1))
        for name in ("points", "kept")
      },
    }
  return {"splits": totals, "skipped": skipped}


class _Requirements:
  """What a scene needs beside sound tables: the cameras, and the files of its key frames."""

  def __init__(self, choice, dataroot):
    self._choice, self._dataroot = choice, dataroot
    self._cameras = choice.cameras if "camera" in choice.inputs else ()
    if choice.anchor == "published":
      self._cameras = self._cameras or choice.cameras[:1]
    self._listing = extract.Listing()

  def __call__(self, scene):
    keyframes = np.flatnonzero(scene.lidar.is_keyframe)
    sweeps = keyframes  # for the depth of camera frames
    if "bev" in self._choice.inputs:
      joined = [clip_rows.joined_sweeps(scene.lidar, k, self._choice) for k in keyframes]
      sweeps = np.unique(np.concatenate(joined))
    self._require(scene, database.LIDAR, scene.lidar.file[sweeps])
    for name in self._cameras:
      checks.require(
        name in scene.cameras,
        f"{scene.name}: holds no image of {name}, only of {sorted(scene.cameras)}; set --cameras.",
      )
      camera = scene.cameras[name]
      self._require(scene, name, camera.file[camera.is_keyframe])

  def _require(self, scene, name, wanted):
    missing = self._listing.missing([self._dataroot / file for file in wanted.tolist()])
    checks.require(
      not missing,
      f"{scene.name}: {len(missing)} of {len(wanted)} files of {name} are missing, the first is "
      f"{(missing or [''])[0]}; complete the folder, lower --sweeps where those between key frames "
      "are missing, or leave the scene out with --keep_going.",
    )


def _rows_part(parts, scene):
  return parts / f"rows-{scene}.jsonl"
