"""Waymo end-to-end driving frames as examples: ego states, what lies ahead, and image or features.

A data set is a folder of one TFRecord per frame (`spec`) and, for every split, `index-<split>.npz`
with all that is small: names, states, futures, ratings. The index is held in memory; images are
decoded when a batch asks for them. Cached features (`data.features`) take the place of images.

Positions are in m in the ego frame at the moment of the frame (rear axle, x ahead, y left), 4 Hz.
Augmentation is not done here: a mirrored example has its image flipped left to right, all y, vy
and ay negated and intents left and right exchanged, which a task does on the device.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from vistraj_jax.core import checks, shares
from vistraj_jax.data import example, features, images, records, threads

NAME = "waymo_e2e"
CAMERAS = (  # index = number of the camera, less 1
  "FRONT",
  "FRONT_LEFT",
  "FRONT_RIGHT",
  "SIDE_LEFT",
  "SIDE_RIGHT",
  "REAR_LEFT",
  "REAR",
  "REAR_RIGHT",
)
INTENTS = ("unknown", "straight", "left", "right")  # index = number
PAST, FUTURE = 16, 20  # states

# One example: what `Frames.gather` returns, with a leading batch size; one of the last three, or
# none of them. Without a future, `future` is 0 and so is `has_future`. Rated trajectories are
# padded with 0; a score of -1 says that there is none.
ELEMENT = {
  "past": ("float32", (PAST, 6)),  # x, y, vx, vy, ax, ay, oldest first, the last at t = 0
  "future": ("float32", (FUTURE, 2)),  # x, y at 0.25, 0.5, .. 5 s
  "has_future": ("float32", ()),
  "intent": ("int32", ()),  # index in INTENTS
  "cluster": ("int32", ()),  # index in about()["clusters"]; -1 is unknown
  "sequence": ("int32", ()),  # index in `Frames.sequences`
  "rated/xy": ("float32", (3, 21, 2)),
  "rated/len": ("int32", (3,)),
  "rated/score": ("float32", (3,)),
  "image": ("uint8", (None, None, 3)),
  "features": ("float32 or bfloat16", (None,)),
  "tokens": ("float32 or bfloat16", (None, None)),
}
_STATES = tuple(ELEMENT)[:-3]


def spec(cameras):
  """Returns the record specification (`data.example`) of frames with these cameras.

  `image/<CAMERA>` is a JPEG of `image_hw` px; `calib/<CAMERA>` are f_u, f_v, c_u, c_v, k1, k2, p1,
  p2, k3 in px of the original image of `camera_hw`, then the 4 x 4 camera-to-ego matrix by rows.
  """
  fields = {
    "name": ("bytes", ()),
    "intent": ("int64", ()),
    "past": ("float32", (PAST, 6)),
    "future": ("float32", (None, 2)),
    "cluster": ("bytes", ()),
    "rated/xy": ("float32", (3, 21, 2)),
    "rated/len": ("int64", (3,)),
    "rated/score": ("float32", (3,)),
    "cameras": ("int64", (None,)),
    "image_hw": ("int64", (None, 2)),
    "camera_hw": ("int64", (None, 2)),
  }
  for camera in cameras:
    fields[f"image/{camera}"] = ("bytes", ())
    fields[f"calib/{camera}"] = ("float32", (25,))
  return fields


@dataclasses.dataclass(frozen=True)
class Frames:
  """All frames of a split.

  Attributes:
    names: str [R], "<sequence>-<index>".
    states: {field of `ELEMENT`: array [R, ...]}.
    sequences, clusters: names, in the order that the fields count.
    visual: {"features" | "tokens": array [R, ...]}, or empty.
    images: `Images`, or None.
    image_rows: int [R], where each frame stands in `images`.
    header: `features.Header` of `visual`, or None.
  """

  names: np.ndarray
  states: dict
  sequences: tuple
  clusters: tuple
  visual: dict
  images: Any = None
  image_rows: Any = None
  header: Any = None

  def __len__(self):
    return len(self.names)

  def take(self, rows):
    """Returns the `Frames` of some rows, int [R]."""
    return dataclasses.replace(
      self,
      names=self.names[rows],
      states={name: value[rows] for name, value in self.states.items()},
      visual={name: value[rows] for name, value in self.visual.items()},
      image_rows=None if self.images is None else self.image_rows[rows],
    )

  def gather(self, indices):
    """Returns the frames of `indices` int [B] as `ELEMENT` arrays with leading size B."""
    rows = {name: value[indices] for name, value in {**self.states, **self.visual}.items()}
    if self.images is None:
      return rows
    return {**rows, "image": self.images.gather(self.image_rows[indices])}

  def resident(self):
    """Returns all frames at once, as `gather` would: to lie on a device."""
    checks.require(
      self.images is None,
      "config.data.resident: images do not fit on a device; encode them, or set it to False.",
    )
    return {**self.states, **self.visual}

  def about(self):
    """Returns what a run records of its data: counts, names of clusters, mean and standard
    deviation of every past value (nested lists [16, 6]), and how features were made."""
    past, intent = self.states["past"].astype(np.float64), self.states["intent"]
    about = {
      "sequences": len(np.unique(self.states["sequence"])),
      "with_future": int(self.states["has_future"].sum()),
      "rated": int((self.states["rated/score"] >= 0).any(1).sum()),
      "intents": {name: int((intent == i).sum()) for i, name in enumerate(INTENTS)},
      "clusters": list(self.clusters),
      "past_mean": past.mean(0).tolist(),
      "past_std": past.std(0).tolist(),
    }
    if self.header is not None:
      about["features"] = dataclasses.asdict(self.header)
    return about


class Images:
  """JPEGs of one camera in the records of a split; picklable.

  Args:
    root, split: data set and split.
    camera: name.
    size: (height, width), or None to leave them as they are stored.
  """

  def __init__(self, root, split, camera, size=None):
    self.camera, self.size = camera, size
    self._where = f"{root}: {NAME}-{split}"
    self._source = records.TFRecordSource(records.find_shards(root, NAME, split))
    self._threads = threads.Threads()

  def __len__(self):
    return len(self._source)

  def gather(self, indices):
    """Returns the images of `indices` int [B]: uint8 [B, H, W, 3].

    Raises:
      InputError: a damaged record or JPEG, or images of different sizes.
    """
    found = self._threads.map(self._decode, indices)
    sizes = {image.shape[:2] for image in found}
    checks.require(
      len(sizes) == 1,
      f"{self._where}: images have different sizes {sorted(sizes)}; give config.data.image_size.",
    )
    return np.stack(found)

  def frame(self, index):
    """Returns {field: value} of one record: its images as JPEG bytes, its calibrations."""
    where = f"{self._where} record {index}"
    data = self._source[index]
    cameras = example.decode(data, {"cameras": spec(())["cameras"]}, where)["cameras"]
    return example.decode(data, spec([CAMERAS[k - 1] for k in cameras]), where)

  def _decode(self, index):
    where = f"{self._where} record {index}"
    fields = {"name": ("bytes", ()), f"image/{self.camera}": ("bytes", ())}
    frame = example.decode(self._source[index], fields, where)
    where = f"{where} ({frame['name'].decode()}, {self.camera})"
    return images.decode(frame[f"image/{self.camera}"], self.size, where)


def load(cfg, split, model):
  """Reads a split.

  Args:
    cfg: config.data:
      `root`: the folder that launch.prepare wrote (not needed with features).
      `visual`: "image", "features" or "none".
      `camera`: name of the camera of "image".
      `image_size`: side of the square images in px; 0 leaves them as they are stored.
      `features`: the folder that launch.encode wrote.
      `layer`: hidden state to read of it.
      `dev_share`: share of the sequences of "train" that make up "dev" and are left out of "train".
    split: "train", "dev", "val" or "test".
    model: config.model; `features` {attribute of `features.Header`: value} is what the cached
      features must have been made with; "" leaves it open.

  Returns:
    `Frames`.

  Raises:
    InputError: missing or damaged files, an unknown camera, features made otherwise, no sequence
      in "train" or "dev".
  """
  share = cfg.get("dev_share", 0)
  if split == "dev" or split == "train" and share:
    frames = _load(cfg, "train", model)
    is_dev = np.array([shares.is_in_share(name, share) for name in frames.sequences])
    checks.require(
      0 < is_dev.sum() < len(is_dev),
      f"config.data.dev_share: {share} of {len(is_dev)} training sequences leaves nothing for "
      "'train' or for 'dev'; choose another share, or 0 to choose the best evaluation on 'val'.",
    )
    return frames.take(np.flatnonzero(is_dev[frames.states["sequence"]] == (split == "dev")))
  return _load(cfg, split, model)


def sequence_of(name):
  """Returns the sequence of a frame called <sequence>-<index>; a name without index is its own."""
  return name.rpartition("-")[0] or name


def index_path(root, split):
  """Returns the file of a split's index."""
  return pathlib.Path(root) / f"index-{split}.npz"


def read_index(root, split):
  """Returns the index of a split, {column: array}; rows are in the order of the records.

  Columns: name, intent, cluster, past [R, 16, 6], future [R, 20, 3] (nan where not told); place
  [R, 3], the number in `shards` of the public shard, offset and length of the payload there; jpeg
  [R, 8, 2], offset and length of each camera's JPEG in that shard, -1 where absent; `rated_row`
  [K], the rows of `rated/xy`, `rated/len` and `rated/score` [K, ...]; `cameras`, `shards`.

  Raises:
    InputError: the split is not there.
  """
  path = index_path(root, split)
  checks.require(
    path.is_file(),
    f"{path}: no such file; give the folder that launch.prepare waymo_e2e wrote, or another split.",
  )
  with np.load(path) as file:
    return {name: file[name] for name in file.files}


def states_of(columns):
  """Returns the columns of an index that feature files repeat for every frame: {name: [R, ...]}."""
  count = len(columns["name"])
  rated = {
    "rated/xy": np.zeros((count, 3, 21, 2), np.float32),
    "rated/len": np.zeros((count, 3), np.int32),
    "rated/score": np.full((count, 3), -1, np.float32),
  }
  for name, value in rated.items():
    value[columns["rated_row"]] = columns[name]
  has_future = np.isfinite(columns["future"]).all((1, 2))
  return {
    "name": columns["name"],
    "cluster": columns["cluster"],
    "past": columns["past"],
    "future": np.where(has_future[:, None, None], columns["future"][..., :2], 0),
    "has_future": has_future.astype(np.float32),
    "intent": columns["intent"].astype(np.int32),
    **rated,
  }


def _load(cfg, split, model):
  """Returns the `Frames` of a split as it was prepared."""
  visual = checks.choice("config.data.visual", cfg["visual"], ("image", "features", "none"))
  if visual == "features":
    want = {name: value for name, value in dict(model.get("features", {})).items() if value}
    return _with_features(cfg, split, want)
  columns = read_index(cfg["root"], split)
  frames = _frames(columns)
  if visual == "none":
    return frames
  camera = checks.choice("config.data.camera", cfg["camera"], columns["cameras"].tolist())
  size = (cfg["image_size"],) * 2 if cfg["image_size"] else None
  pictures = Images(cfg["root"], split, camera, size)
  checks.require(
    len(pictures) == len(frames),
    f"{cfg['root']}: split {split!r} has {len(pictures)} records and an index of {len(frames)}; "
    "prepare the data again.",
  )
  return dataclasses.replace(frames, images=pictures, image_rows=np.arange(len(frames)))


def _frames(columns, visual=None, header=None):
  """Returns `Frames` of an index, or of the columns of a feature file."""
  states = states_of(columns) if "rated_row" in columns else columns
  names = states["name"]
  sequences, sequence = np.unique(list(map(sequence_of, names.tolist())), return_inverse=True)
  clusters = sorted({*states["cluster"].tolist()} - {""})
  cluster = [clusters.index(name) if name else -1 for name in states["cluster"].tolist()]
  states = {
    **{name: states[name] for name in _STATES if name not in ("cluster", "sequence")},
    "cluster": np.array(cluster, np.int32),
    "sequence": sequence.astype(np.int32),
  }
  return Frames(
    names, states, tuple(sequences.tolist()), tuple(clusters), visual or {}, header=header
  )


def _with_features(cfg, split, want):
  pooling = features.read_header(cfg["features"], split).pooling
  layer = None if pooling == "tokens" else cfg["layer"]
  header, columns = features.read_features(cfg["features"], split, want, layer)
  missing = sorted({*_STATES, "name"} - {*columns, "sequence"})
  checks.require(
    not missing, f"{cfg['features']}: frames lack {missing}; encode this data set again."
  )
  visual = {name: columns.pop(name) for name in ("features", "tokens") if name in columns}
  return _frames(columns, visual, header)
