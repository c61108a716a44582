"""Clips of an agent: camera frames or LiDAR points, masks of objects, and where the agent goes.

A clip is `t_in` observed key frames (2 Hz) and `t_out` future positions of one agent, the target;
other agents in view are further objects. Positions are in m in the ego frame (x ahead, y left) of
the anchor, the last observed key frame. Bird's-eye masks have forward up and left to the left; a
point x, y lies in row (reach - x) / resolution, column (reach - y) / resolution.
A data set is a folder of one TFRecord per clip, `rows-<split>.jsonl` with the index row of each,
and `dataset_stats.json`, whose settings say how long clips are and how large pictures.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import clip_arrays, example, images, records, threads
from vistraj_jax.data import depth as depth_images

NAME = "xmem"
STATISTICS = "dataset_stats.json"
SCHEMA_VERSION = 1
MODES = ("bev", "camera", "camera_fused")
STRINGS = ("sample_id", "scene", "instance_token", "sample_token", "category")

# One record per clip: T observed key frames, F future ones, K objects, the target first. What of
# "frames" or "points" was not prepared is an empty list.
SPEC = {
  **{name: ("bytes", ()) for name in STRINGS},
  "schema_version": ("int64", ()),
  "object_valid": ("float32", (None,)),  # [K]
  "mask_valid": ("float32", (None,)),  # [T * K], frame by frame
  "future_xy": ("float32", (None, 2)),  # [F]
  "future_valid": ("float32", (None,)),
  "past_xy": ("float32", (None, 2)),  # [T]; the last is the position at the anchor
  "past_valid": ("float32", (None,)),
  "ego_delta": ("float32", (None, 3)),  # [T]; pose of each key frame in the anchor's ego frame
  "anchor_pose": ("float32", (7,)),  # ego in global: x, y, z, quaternion w, x, y, z
  "points": ("bytes", (None,)),  # [T] of `clip_arrays.pack_points`, ego frame of the key frame
  "bev_masks": ("bytes", (None,)),  # [T] of `clip_arrays.pack_masks`
  "bev_hw": ("int64", (2,)),
  "frames": ("bytes", (None,)),  # [T] JPEG
  "depth": ("bytes", (None,)),  # [T] of `clip_arrays.pack_depth`
  "camera_masks": ("bytes", (None,)),  # [T] of `clip_arrays.pack_masks`
  "camera_hw": ("int64", (2,)),  # of frames, depth and masks, px
  "camera": ("bytes", ()),  # name
  "intrinsics": ("float32", (None, 9)),  # [T], for images of camera_hw, by rows
  "cam_from_ego": ("float32", (None, 16)),  # [T], by rows; from the ego frame of the key frame
}

# One example: what `Clips.gather` returns, with a leading batch size. Sizes are config.data's.
_MOTION = {
  "object_valid": ("float32", ("objects",)),
  "mask_valid": ("float32", ("t_in", "objects")),  # 0 where the object is not annotated
  "last_xy": ("float32", (2,)),
  "future_xy": ("float32", ("t_out", 2)),
  "future_valid": ("float32", ("t_out",)),
  "past_xy": ("float32", ("t_in", 2)),
  "past_valid": ("float32", ("t_in",)),
  "ego_delta": ("float32", ("t_in", 3)),  # dx, dy (m), dyaw (rad) of each key frame's ego pose
  "anchor_pose": ("float32", (7,)),
  "masks": ("uint8", ("t_in", "objects", "height", "width")),  # 0 or 1
  "row": ("int32", ()),  # number of the record in the split
}
_CAMERA = {
  "frames": ("uint8", ("t_in", "height", "width", 3)),
  "depth": ("float32", ("t_in", "height", "width", 2)),  # inverse depth in 0..1; 1 where hit
  "intrinsics": ("float32", ("t_in", 3, 3)),  # for images of height x width
  "cam_from_ego": ("float32", ("t_in", 4, 4)),
}
_BEV = {
  "points": ("float32", ("t_in", "points", 5)),  # x, y, z (m), intensity 0..1, dt (s, <= 0)
  "num_points": ("int32", ("t_in",)),  # the others are 0
}
ELEMENT = {
  "bev": {**_MOTION, **_BEV},
  "camera": {**_MOTION, **_CAMERA},
  "camera_fused": {**_MOTION, **_CAMERA},
}


@dataclasses.dataclass(frozen=True)
class Layout:
  """What is equal in all clips of a data set; fields of the settings in dataset_stats.json.

  Attributes:
    t_in, t_out: key frames.
    objects: K, the target and others.
    inputs: of "bev" and "camera", what was prepared.
    points: most points of a key frame.
    reach: m from the ego to each side of the bird's-eye masks.
    resolution: m, their cells.
    image_size: (height, width) of camera frames, px.
  """

  t_in: int
  t_out: int
  objects: int
  inputs: tuple
  points: int
  reach: float
  resolution: float
  image_size: tuple

  def __post_init__(self):
    object.__setattr__(self, "inputs", tuple(self.inputs))
    object.__setattr__(self, "image_size", tuple(self.image_size))

  @property
  def bev_size(self):
    """(height, width) of the bird's-eye masks."""
    return (round(2 * self.reach / self.resolution),) * 2


@dataclasses.dataclass
class Clips:
  """The clips of a split; picklable.

  Attributes:
    root, split: data set and split.
    layout: `Layout` of the stored clips.
    mode: of `MODES`.
    size: (height, width) of what is returned.
    objects, points: how many are returned; the first of what is stored.
  """

  root: str
  split: str
  layout: Layout
  mode: str
  size: tuple
  objects: int
  points: int
  _source: Any = None
  _threads: threads.Threads = dataclasses.field(default_factory=threads.Threads)
  _rows: Any = None

  def __post_init__(self):
    self._source = records.TFRecordSource(records.find_shards(self.root, NAME, self.split))

  def __len__(self):
    return len(self._source)

  def __getstate__(self):
    return {**self.__dict__, "_rows": None}

  def about(self):
    """Returns what a run records of its data: clips, scenes, categories and the stored layout."""
    rows = self.index()
    count = {}
    for row in rows:
      count[row["category"]] = count.get(row["category"], 0) + 1
    return {
      "clips": len(rows),
      "scenes": len({row["scene"] for row in rows}),
      "categories": dict(sorted(count.items())),
      "layout": dataclasses.asdict(self.layout),
    }

  def gather(self, indices):
    """Returns the clips of `indices` int [B] as `ELEMENT[mode]` with leading size B.

    Raises:
      InputError: a damaged record; one of another length, size or number of objects; no object.
    """
    found = self._threads.map(self.clip, indices)
    return {name: np.stack([clip[name] for clip in found]) for name in ELEMENT[self.mode]}

  def clip(self, index):
    """Returns one clip, {name: array} as `ELEMENT[mode]`."""
    record, where = self.record(index)
    layout = self.layout
    K = self.objects
    object_valid = record["object_valid"][:K]
    checks.require(
      len(object_valid) == K and object_valid[0] > 0,
      f"{where}: {int(record['object_valid'].sum())} objects of {len(record['object_valid'])}; the "
      f"target and room for {K} are wanted; prepare the data again.",
    )
    clip = {
      name: record[name]
      for name in ("future_xy", "future_valid", "past_xy", "past_valid", "ego_delta")
    }
    clip |= {
      "anchor_pose": record["anchor_pose"],
      "last_xy": record["past_xy"][-1],
      "object_valid": object_valid,
      "mask_valid": record["mask_valid"].reshape(layout.t_in, -1)[:, :K],
      "row": np.int32(index),
    }
    seen = self._from_above if self.mode == "bev" else self._from_camera
    return {**clip, **seen(record, where)}

  def record(self, index):
    """Returns ({field: value} of one record by `SPEC`, words that name it).

    Raises:
      InputError: damaged, of another schema, or of another length than the data set.
    """
    where = f"{self.root}: {NAME}-{self.split} record {index}"
    record = example.decode(self._source[index], SPEC, where)
    where = f"{where} ({record['sample_id'].decode()})"
    checks.require(
      record["schema_version"] == SCHEMA_VERSION,
      f"{where}: schema {record['schema_version']} received, {SCHEMA_VERSION} wanted; prepare the "
      "data again.",
    )
    lengths = {
      "t_in": (self.layout.t_in, ("past_xy", "past_valid", "ego_delta")),
      "t_out": (self.layout.t_out, ("future_xy", "future_valid")),
    }
    for name, (wanted, fields) in lengths.items():
      for field in fields:
        checks.require(
          len(record[field]) == wanted,
          f"{where}: {len(record[field])} key frames in {field!r}, {name} = {wanted} wanted; "
          "prepare the data again.",
        )
    return record, where

  def index(self):
    """Returns the index rows of all clips, a list of dictionaries in the order of the records."""
    if self._rows is None:
      path = rows_path(self.root, self.split)
      checks.require(path.is_file(), f"{path}: no such file; prepare the data again.")
      rows = [json.loads(line) for line in path.read_text().splitlines()]
      checks.require(
        len(rows) == len(self),
        f"{path}: {len(rows)} rows for {len(self)} records; prepare the data again.",
      )
      self._rows = rows
    return self._rows

  def strings(self, rows):
    """Returns {name of `STRINGS`: list of str} of the clips `rows` int [B]."""
    index = self.index()
    return {name: [index[i][name] for i in np.asarray(rows).tolist()] for name in STRINGS}

  def _from_above(self, record, where):
    self._check_frames(record, where, "points", "bev_masks")
    points = np.zeros((self.layout.t_in, self.points, 5), np.float32)
    counts = np.zeros(self.layout.t_in, np.int32)
    for t, data in enumerate(record["points"]):
      found = clip_arrays.unpack_points(data, f"{where} key frame {t}")[: self.points]
      points[t, : len(found)], counts[t] = found, len(found)
    masks = self._masks(record, where, "bev", self.layout.bev_size)
    return {"points": points, "num_points": counts, "masks": masks}

  def _from_camera(self, record, where):
    self._check_frames(record, where, "frames", "camera_masks", "depth", "intrinsics")
    size = self.layout.image_size
    frames = np.stack(
      [
        images.decode(data, self.size, f"{where} frame {t}")
        for t, data in enumerate(record["frames"])
      ]
    )
    depth = []
    for t, data in enumerate(record["depth"]):
      meters = clip_arrays.unpack_depth(data, size, f"{where} frame {t}")
      inverse = depth_images.inverse_depth(depth_images.resized(meters, self.size))
      depth.append(np.stack(inverse, -1))
    intrinsics = record["intrinsics"].reshape(-1, 3, 3)
    return {
      "frames": frames,
      "depth": np.stack(depth),
      "intrinsics": depth_images.scaled_intrinsic(intrinsics, size, self.size).astype(np.float32),
      "cam_from_ego": record["cam_from_ego"].reshape(-1, 4, 4),
      "masks": self._masks(record, where, "camera", size),
    }

  def _check_frames(self, record, where, *fields):
    for field in fields:
      checks.require(
        len(record[field]) == self.layout.t_in,
        f"{where}: {len(record[field])} of {self.layout.t_in} key frames have {field!r}; prepare "
        "the data again.",
      )

  def _masks(self, record, where, kind, size):
    stored = tuple(record[f"{kind}_hw"].tolist())
    checks.require(
      stored == size,
      f"{where}: {kind} masks of {stored[0]} x {stored[1]} px received, {size[0]} x {size[1]} "
      "wanted, as the data set says; prepare the data again.",
    )
    shape = (self.layout.objects, *size)
    masks = [
      clip_arrays.unpack_masks(data, shape, f"{where} key frame {t}")[: self.objects]
      for t, data in enumerate(record[f"{kind}_masks"])
    ]
    return clip_arrays.resized_masks(np.stack(masks), self.size)


def load(cfg, split, model):
  """Reads a split.

  Args:
    cfg: config.data:
      `root`: the folder that launch.prepare nuscenes_clips wrote.
      `mode`: "bev", "camera" or "camera_fused"; the last two have the same data.
      `image_size`: (height, width) of frames, depth and masks; camera pictures are resized, and
        so are bird's-eye masks, which keep their reach.
      `t_in`, `t_out`: key frames, those of the data set.
      `objects`: K; at most those of the data set.
      `points`: most LiDAR points of a key frame ("bev"); fewer than stored are a random part.
    split: "train", "val" or "test".
    model: config.model, not read.

  Returns:
    `Clips`.

  Raises:
    InputError: missing or damaged files; settings that the data set does not fit.
  """
  del model
  mode = checks.choice("config.data.mode", cfg["mode"], MODES)
  layout = read_layout(cfg["root"])
  for name in ("t_in", "t_out"):
    checks.require(
      cfg[name] == getattr(layout, name),
      f"config.data.{name}: {cfg[name]} received, but the clips of {cfg['root']} have "
      f"{getattr(layout, name)} such key frames; set it to that, or prepare with --{name} "
      f"{cfg[name]}.",
    )
  limits = {"objects": layout.objects}
  if mode == "bev":
    limits["points"] = layout.points
  for name, most in limits.items():
    checks.require(
      1 <= cfg[name] <= most,
      f"config.data.{name}: {cfg[name]} received, 1 to {most} allowed, which is what "
      f"{cfg['root']} holds; prepare with a larger --{name} for more.",
    )
  wanted = "bev" if mode == "bev" else "camera"
  checks.require(
    wanted in layout.inputs,
    f"config.data.mode: {mode!r} received, but {cfg['root']} was prepared with --inputs "
    f"{' '.join(layout.inputs)}; prepare it with {wanted}.",
  )
  size = tuple(int(side) for side in cfg["image_size"])
  checks.require(
    len(size) == 2 and min(size) >= 16,
    f"config.data.image_size: {size} received; (height, width) of 16 px or more wanted.",
  )
  return Clips(str(cfg["root"]), split, layout, mode, size, cfg["objects"], cfg["points"])


def read_layout(root):
  """Returns the `Layout` of a data set.

  Raises:
    InputError: no such data set, or one of another command.
  """
  path = pathlib.Path(root) / STATISTICS
  checks.require(
    path.is_file(),
    f"{path}: no such file; give the folder that launch.prepare nuscenes_clips wrote.",
  )
  settings = json.loads(path.read_text()).get("settings", {})
  names = [field.name for field in dataclasses.fields(Layout)]
  checks.require(
    all(name in settings for name in names),
    f"{path}: its settings lack some of {names}; give a folder that launch.prepare nuscenes_clips "
    "wrote.",
  )
  return Layout(**{name: settings[name] for name in names})


def rows_path(root, split):
  """Returns the file of a split's index rows."""
  return pathlib.Path(root) / f"rows-{split}.jsonl"
