"""Videos -> windows of past and future frames, with foreground masks and centres where known.

A record is a whole video with its frames as PNG bytes: nothing is lost, and a window reads and
decodes only its own frames. In training every window and crop is drawn by a generator of its own,
seeded by (seed, epoch, index): neither workers nor a resumed run change it. Evaluation windows
are a fixed list, cropped at the centre, the same for every run.
"""

import dataclasses
import json
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import example, images, records, threads

NAME = "video"
STATISTICS = "dataset_stats.json"
# Values of a mask.
TARGET, OTHER = 1, 2

# One record per video of T frames. Lists of T, or empty where nothing is known.
SPEC = {
  "frames": ("bytes", (None,)),  # PNG, uint8 [H, W, 3]
  "shape": ("int64", (4,)),  # T, H, W, 3
  "fps": ("float32", ()),
  "id": ("bytes", ()),
  "label": ("int64", ()),  # class, -1 unknown
  "masks": ("bytes", (None,)),  # PNG, uint8 [H, W]: TARGET, OTHER moving object, 0 background
  "centres": ("float32", (None, 2)),  # of the target: row, column, px of the stored frame
  "centre_valid": ("float32", (None,)),  # 0 where the target cannot be seen
  "colours": ("int64", (2, 3)),  # background, target; black and white where unknown
  "meta": ("bytes", ()),  # JSON: generator, seed, clutter, ...
}

# One example: what `Windows.gather` returns, with a leading batch size. T = past + future.
ELEMENT = {
  "video": ("uint8", ("frames", "image_size", "image_size", 3)),
  # TARGET, OTHER, 0; all 0 where unknown. Batches of `pipeline` have a "mask" of their own.
  "foreground": ("uint8", ("frames", "image_size", "image_size")),
  "foreground_valid": ("float32", ()),  # 1 if the video has masks
  "centre": ("float32", ("frames", 2)),  # row, column, px of the crop; 0 where not valid
  "centre_valid": ("float32", ("frames",)),
  "colours": ("uint8", (2, 3)),  # background, target
  "label": ("int32", ()),
  "row": ("int32", ()),  # of the window: `Windows.strings([row])` names it
}


class Videos:
  """Random access to the records of a split, whole or frame by frame; picklable.

  Attributes:
    shapes: int64 [R, 4], T, H, W, 3 of each video.
    ids: names of the videos.
  """

  def __init__(self, root, split):
    self.where = f"{root}: {NAME}-{split}"
    self._source = records.TFRecordSource(records.find_shards(root, NAME, split))
    self.shapes, self.ids = _index(root, split, len(self._source))
    self._offsets = {}

  def __len__(self):
    return len(self._source)

  def __getitem__(self, i):
    """Returns the record of video i as {field: value} by `SPEC`."""
    return example.decode(self._source[i], SPEC, f"{self.where} record {i}")

  def window(self, i, start, count):
    """Returns `count` frames of video i from `start` on, and what is known of them.

    Returns:
      {"video" uint8 [count, H, W, 3], "foreground" uint8 [count, H, W], "foreground_valid",
      "centre", "centre_valid", "colours", "label"}, as in `ELEMENT` but not cropped.
    """
    known, places = self._known(i)
    where = f"{self.where} record {i}"
    span = range(start, start + count)
    height, width = (int(v) for v in self.shapes[i, 1:3])

    def pictures(name, shape):
      found = []
      for k in span:
        place = (int(v) for v in places[name][k])
        picture = images.decode_png(self._source.read_at(i, *place), f"{where} {name} {k}")
        checks.shape(f"{where} {name} {k}", picture, shape)
        found.append(picture)
      return np.stack(found)

    masks, blank = len(places["masks"]) > 0, (count, height, width)
    centres = len(known["centres"]) > 0
    return {
      "video": pictures("frames", (height, width, 3)),
      "foreground": pictures("masks", (height, width)) if masks else np.zeros(blank, np.uint8),
      "foreground_valid": float(masks),
      "centre": known["centres"][start : start + count] if centres else np.zeros((count, 2)),
      "centre_valid": known["centre_valid"][start : start + count] if centres else np.zeros(count),
      "colours": known["colours"],
      "label": known["label"],
    }

  def _known(self, i):
    """Returns (fields but frames and masks, where frames and masks lie in the payload)."""
    found = self._offsets.get(i)
    if found is not None:
      return found
    payload, where = self._source[i], f"{self.where} record {i}"
    values = example.decode(payload, SPEC, where)
    length = int(self.shapes[i, 0])
    places = {}
    for name in ("frames", "masks"):
      rows = values.pop(name)
      checks.require(
        len(rows) == length or (name == "masks" and not rows),
        f"{where} has {len(rows)} {name}, {STATISTICS} says {length}; prepare it again.",
      )
      places[name] = example.places(payload, rows)
    checks.require(
      len(values["centres"]) == len(values["centre_valid"])
      and len(values["centres"]) in (0, length),
      f"{where} has {len(values['centres'])} centres for {length} frames; prepare it again.",
    )
    return self._offsets.setdefault(i, (values, places))


@dataclasses.dataclass
class Windows:
  """The windows of a split: window i belongs to video i mod their number.

  Attributes:
    videos: `Videos`; only those with `frames` frames or more give windows.
    rows: int64 [R], the videos that do.
    per_video: windows an epoch of each.
    frames: past + future.
    image_size: px of the square crops.
  """

  videos: Videos
  rows: np.ndarray
  per_video: int
  past: int
  future: int
  image_size: int
  _threads: threads.Threads = dataclasses.field(default_factory=threads.Threads)

  def __len__(self):
    return len(self.rows) * self.per_video

  @property
  def frames(self):
    """Frames of a window."""
    return self.past + self.future

  def about(self):
    """Returns what a run records of its data: videos, frames, windows, too short videos."""
    return {
      "videos": len(self.videos),
      "frames": int(self.videos.shapes[:, 0].sum()),
      "windows": len(self),
      "too_short": len(self.videos) - len(self.rows),
    }

  def gather(self, indices):
    """Returns the fixed windows of `indices` int [B], cropped at the centre; see `ELEMENT`."""
    return self._collect(self._fixed, indices)

  def draw(self, indices, seed, epoch):
    """Returns windows of `indices` int [B], drawn by (seed, epoch, index) and cropped at random."""
    return self._collect(lambda i: self._drawn(i, seed, epoch), indices)

  def place(self, index):
    """Returns (video, first frame) of a fixed window: they lie evenly over each video."""
    repeat, which = divmod(int(index), len(self.rows))
    row = self.rows[which]
    slack = int(self.videos.shapes[row, 0]) - self.frames
    return row, round(slack * (repeat + 0.5) / self.per_video) if slack else 0

  def strings(self, indices):
    """Returns {"id": names of the videos, "start": first frames} of fixed windows."""
    places = [self.place(i) for i in indices]
    return {"id": [self.videos.ids[row] for row, _ in places], "start": [s for _, s in places]}

  def _collect(self, one, indices):
    found = self._threads.map(one, indices)
    return {
      name: np.stack([np.asarray(row[name], dtype) for row in found])
      for name, (dtype, _) in ELEMENT.items()
    }

  def _fixed(self, index):
    return self._cropped(index, *self.place(index), (0.5, 0.5))

  def _drawn(self, index, seed, epoch):
    rng = np.random.default_rng((seed, epoch, index))
    row = self.rows[index % len(self.rows)]
    start = int(rng.integers(int(self.videos.shapes[row, 0]) - self.frames + 1))
    return self._cropped(index, row, start, rng.random(2))

  def _cropped(self, index, row, start, place):
    """Returns the element at crop position `place` (down, right, each 0..1)."""
    found = self.videos.window(row, start, self.frames)
    size = self.image_size
    height, width = found["video"].shape[1:3]
    top, left = (round(p * (side - size)) for p, side in zip(place, (height, width), strict=True))
    cut = (slice(None), slice(top, top + size), slice(left, left + size))
    centre = np.asarray(found["centre"], np.float32) - (top, left)
    inside = ((centre > -0.5) & (centre < size - 0.5)).all(-1)
    valid = np.asarray(found["centre_valid"], np.float32) * inside
    return {
      **found,
      "video": found["video"][cut],
      "foreground": found["foreground"][cut],
      "centre": np.where(valid[:, None] > 0, centre, 0),
      "centre_valid": valid,
      "row": index,
    }


def load(cfg, split, model):
  """Reads the index of a split.

  Args:
    cfg: config.data: `root`, the folder that launch.prepare wrote; `past` and `future`, frames;
      `image_size`, px of the square crops; `windows_per_video` and `eval_windows_per_video`.
    split: "train", "val" or "test"; "train" has `windows_per_video`.
    model: config.model; not read.

  Returns:
    `Windows`.

  Raises:
    InputError: missing or damaged files, no video as long as a window, or one smaller than the
      crop.
  """
  del model
  counts = ("past", "future", "image_size", "windows_per_video", "eval_windows_per_video")
  for name in counts:
    checks.require(cfg[name] >= 1, f"config.data.{name}: {cfg[name]} received, give 1 or more.")
  videos = Videos(cfg["root"], split)
  frames, size = cfg["past"] + cfg["future"], cfg["image_size"]
  lengths, sides = videos.shapes[:, 0], videos.shapes[:, 1:3].min(1)
  longest = int(lengths.max(initial=0))
  checks.require(
    longest >= frames,
    f"config.data.past, config.data.future: {cfg['past']} + {cfg['future']} frames received, but "
    f"the longest video of {cfg['root']}, split {split!r}, has {longest}; give fewer, or longer "
    "videos.",
  )
  smallest = int(sides.argmin())
  checks.require(
    sides[smallest] >= size,
    f"config.data.image_size: {size} px received, but {videos.ids[smallest]} of {cfg['root']} is "
    f"stored with {sides[smallest]} px; give that or less, or prepare with --size {size}.",
  )
  return Windows(
    videos=videos,
    rows=np.flatnonzero(lengths >= frames),
    per_video=cfg["windows_per_video" if split == "train" else "eval_windows_per_video"],
    past=cfg["past"],
    future=cfg["future"],
    image_size=size,
  )


def _index(root, split, count):
  """Returns (T, H, W, 3 of every video int64 [R, 4], names) from the statistics file."""
  path = pathlib.Path(root) / STATISTICS
  checks.require(path.is_file(), f"{path}: no such file; prepare the data again.")
  found = json.loads(path.read_text()).get("splits", {}).get(split, {})
  shapes = np.array(found.get("shapes", ()), np.int64).reshape(-1, 4)
  checks.require(
    len(shapes) == count,
    f"{path}: lists {len(shapes)} videos of split {split!r}, the files hold {count}; prepare the "
    "data again.",
  )
  return shapes, found["ids"]
