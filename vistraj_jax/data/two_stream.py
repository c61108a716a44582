"""Trajectories of camera frames -> pairs of frames a random gap apart.

A record is a whole trajectory with its frames as JPEG bytes; what else is known of it (joints,
actions, an instruction) is there for probes and policies. A pair reads and decodes two frames only:
where they lie in the file is remembered after the first, verified, reading of a trajectory.
Every pair is drawn by a generator of its own, seeded by (seed, epoch, index): neither workers nor
a resumed run change it. Evaluation pairs are a fixed list, the same for every run.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data import example, gaps, images, records, threads

NAME = "two_stream"
STATISTICS = "dataset_stats.json"

# One record per trajectory of T frames, all of one square size. J joints in T * J rows, frame by
# frame; action rows are `action_size` numbers, one a frame. What is unknown is empty.
SPEC = {
  "frames": ("bytes", (None,)),
  "num_frames": ("int64", ()),
  "fps": ("float32", ()),
  "size": ("int64", ()),  # px
  "source": ("bytes", ()),
  "trajectory_id": ("bytes", ()),
  "instruction": ("bytes", ()),
  "joints": ("bytes", (None,)),  # names
  "pose": ("float32", (None, 3)),  # m, in the frame of the source
  "orientation": ("float32", (None, 3)),  # axis times angle, rad
  "confidence": ("float32", (None,)),  # of joints, 0..1
  "action": ("float32", (None,)),
  "action_size": ("int64", ()),
}

# One example: what `Pairs.gather` returns, with a leading batch size.
ELEMENT = {
  "img_t": ("uint8", ("image_size", "image_size", 3)),
  "img_tk": ("uint8", ("image_size", "image_size", 3)),
  "gap": ("int32", ()),  # frames from t to t + k
  "weight": ("float32", ()),  # of the loss, 1 at gap 1
  "valid": ("float32", ()),  # 0 where a frame is damaged; the images are then black
}

CROPS = ("shared", "independent")
_TRIES = 5  # other pairs in place of a damaged one


class Trajectories:
  """Random access to the records of a split, whole or frame by frame; picklable.

  Attributes:
    lengths: int64 [R], frames of each trajectory.
    fps: frames a second.
    camera: which camera of the source they are of, as launch.prepare was told; None if unknown.
    damaged: frames that could not be decoded so far, in this process.
  """

  def __init__(self, root, split):
    self.where = f"{root}: {NAME}-{split}"
    self._source = records.TFRecordSource(records.find_shards(root, NAME, split))
    self.lengths, self.fps, self.camera = _index(root, split, len(self._source))
    self.damaged = 0
    self._offsets = {}

  def __len__(self):
    return len(self._source)

  def __getitem__(self, i):
    """Returns the record of trajectory i as {field: value} by `SPEC`."""
    return example.decode(self._source[i], SPEC, f"{self.where} record {i}")

  def jpeg(self, i, frame):
    """Returns the JPEG bytes of one frame of trajectory i."""
    offsets = self._offsets.get(i)
    if offsets is None:
      offsets = self._offsets.setdefault(i, self._find_frames(i))
    return self._source.read_at(i, *(int(v) for v in offsets[frame]))

  def _find_frames(self, i):
    """Returns int64 [T, 2]: where the frames lie in the payload of record i, and their lengths."""
    payload, where = self._source[i], f"{self.where} record {i}"
    frames = example.decode(payload, {"frames": SPEC["frames"]}, where)["frames"]
    checks.require(
      len(frames) == self.lengths[i],
      f"{where} has {len(frames)} frames, {STATISTICS} says {self.lengths[i]}; prepare it again.",
    )
    return example.places(payload, frames)


@dataclasses.dataclass
class Pairs:
  """The pairs of a split: pair i belongs to trajectory i mod their number.

  Attributes:
    trajectories: `Trajectories`; only those with two frames or more give pairs.
    rows: int64 [R], the trajectories that do.
    per_trajectory: pairs an epoch of each.
    image_size: px of the square images.
    crop_ratio: side of the random crop / side of the frame; 1 keeps the whole frame.
    crop: "shared": the same crop of both frames; "independent": one each.
    probabilities: float64 [max gap], of gaps 1, 2, ...
    loss_decay: see `gaps.loss_weights`.
  """

  trajectories: Trajectories
  rows: np.ndarray
  per_trajectory: int
  image_size: int
  crop_ratio: float
  crop: str
  probabilities: np.ndarray
  loss_decay: float
  _threads: threads.Threads = dataclasses.field(default_factory=threads.Threads)

  def __len__(self):
    return len(self.rows) * self.per_trajectory

  def about(self):
    """Returns what a run records of its data: trajectories, frames, rate, share of short ones."""
    lengths = self.trajectories.lengths
    return {
      "trajectories": len(lengths),
      "frames": int(lengths.sum()),
      "frame_rate": self.trajectories.fps,
      "shorter_than_max_gap": float((lengths <= len(self.probabilities)).mean()),
    }

  def gather(self, indices):
    """Returns the fixed pairs of `indices` int [B], cropped at the centre; see `ELEMENT`."""
    return self._collect(self._fixed, indices)

  def draw(self, indices, seed, epoch):
    """Returns pairs of `indices` int [B], drawn by (seed, epoch, index) and cropped at random."""
    return self._collect(lambda i: self._drawn(i, seed, epoch), indices)

  def pair(self, index, rng):
    """Draws (trajectory, start, gap) of one pair."""
    row = self.rows[index % len(self.rows)]
    length = int(self.trajectories.lengths[row])
    gap = 1 + int(rng.choice(len(self.probabilities), p=self.probabilities))
    if length - gap < 2:  # fewer than two places to start from
      return row, int(rng.integers(max(length - 1, 1))), 1
    return row, int(rng.integers(length - gap)), gap

  def _collect(self, one, indices):
    found = self._threads.map(one, indices)
    return {
      name: np.stack([np.asarray(row[name], dtype) for row in found])
      for name, (dtype, _) in ELEMENT.items()
    }

  def _fixed(self, index):
    row, start, gap = self.pair(index, np.random.default_rng((0, index)))
    try:
      frames = [self._cropped(row, start + k, (0.5, 0.5)) for k in (0, gap)]
    except checks.InputError as error:
      self._report(error)
      black = np.zeros((self.image_size, self.image_size, 3), np.uint8)
      return self._element([black, black], gap, valid=0)
    return self._element(frames, gap)

  def _drawn(self, index, seed, epoch):
    rng = np.random.default_rng((seed, epoch, index))
    for _ in range(_TRIES):
      row, start, gap = self.pair(index, rng)
      at = rng.random(4)
      places = (at[:2], at[:2] if self.crop == "shared" else at[2:])
      try:
        frames = [
          self._cropped(row, start + k, place) for k, place in zip((0, gap), places, strict=True)
        ]
        return self._element(frames, gap)
      except checks.InputError as error:
        self._report(error)
        index = int(rng.integers(len(self)))
    raise checks.InputError(
      f"{self.trajectories.where}: {_TRIES} pairs in a row have damaged frames; prepare the data "
      "again."
    )

  def _element(self, frames, gap, valid=1):
    weight = gaps.loss_weights(gap, self.loss_decay)
    return {"img_t": frames[0], "img_tk": frames[1], "gap": gap, "weight": weight, "valid": valid}

  def _cropped(self, row, frame, place):
    """Returns one frame at crop position `place` (down, right, each 0..1), uint8 [S, S, 3]."""
    where = f"{self.trajectories.where} record {row} frame {frame}"
    side = round(self.image_size / self.crop_ratio)
    image = images.decode(self.trajectories.jpeg(row, frame), (side, side), where)
    top, left = (int(round(p * (side - self.image_size))) for p in place)
    return image[top : top + self.image_size, left : left + self.image_size]

  def _report(self, error):
    self.trajectories.damaged += 1
    count = self.trajectories.damaged
    if count & (count - 1) == 0:  # 1, 2, 4, 8, ...
      print(f"warning: damaged frame left out ({count} so far): {error}", file=sys.stderr)


def load(cfg, split, model):
  """Reads the index of a split.

  Args:
    cfg: config.data: `root`, the folder that launch.prepare wrote; `pairs_per_trajectory` and
      `eval_pairs_per_trajectory`; `crop`, `crop_ratio`; `gap` with dist, max, decay and center;
      `loss_decay`.
    split: "train", "val" or "test"; "train" has `pairs_per_trajectory`.
    model: config.model; `image_size` is read.

  Returns:
    `Pairs`.

  Raises:
    InputError: missing or damaged files, mixed frame rates, or a gap longer than all trajectories.
  """
  gap = cfg["gap"]
  probabilities = gaps.probabilities(gap["dist"], gap["max"], gap["decay"], gap["center"])
  checks.choice("config.data.crop", cfg["crop"], CROPS)
  ratio = cfg["crop_ratio"]
  checks.require(0 < ratio <= 1, f"config.data.crop_ratio: {ratio} received, above 0 to 1 allowed.")
  trajectories = Trajectories(cfg["root"], split)
  longest = int(trajectories.lengths.max(initial=0))
  most = max(longest - 1, 1)
  center = ""
  if gap["dist"] == "triangular" and gap["center"] > most:
    center = f" and config.data.gap.center (now {gap['center']}) no more than that"
  checks.require(
    longest > gap["max"],
    f"config.data.gap.max: {gap['max']} received, but the longest trajectory of {cfg['root']}, "
    f"split {split!r}, has {longest} frames; give {most} or less{center}, or longer trajectories.",
  )
  per_trajectory = "pairs_per_trajectory" if split == "train" else "eval_pairs_per_trajectory"
  return Pairs(
    trajectories=trajectories,
    rows=np.flatnonzero(trajectories.lengths >= 2),
    per_trajectory=cfg[per_trajectory],
    image_size=model["image_size"],
    crop_ratio=ratio,
    crop=cfg["crop"],
    probabilities=probabilities,
    loss_decay=cfg["loss_decay"],
  )


def _index(root, split, count):
  """Returns (frames of every trajectory int64 [R], frames a second, camera) of the statistics."""
  path = pathlib.Path(root) / STATISTICS
  checks.require(path.is_file(), f"{path}: no such file; prepare the data again.")
  statistics = json.loads(path.read_text())
  found = statistics.get("splits", {}).get(split, {})
  lengths = np.array(found.get("lengths", ()), np.int64)
  checks.require(
    len(lengths) == count,
    f"{path}: lists {len(lengths)} trajectories of split {split!r}, the files hold {count}; "
    "prepare the data again.",
  )
  rates = sorted({round(rate, 2) for rate in found["fps"]})
  checks.require(
    len(rates) == 1,
    f"{root}: split {split!r} mixes frame rates {rates[:4]} Hz, so that a gap would be different "
    "times; prepare each source into a folder of its own.",
  )
  return lengths, rates[0], statistics.get("settings", {}).get("camera")
