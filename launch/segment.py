"""Segments the objects of a video from their masks in the first frame, with XMem.

example:
  python -m launch.segment --frames video/judo/images --masks video/judo/masks \\
    --weights xmem.safetensors --out runs/judo --truth video/judo/masks

Reads a folder of images or a video file, and masks: a PNG for the first frame, or a folder of PNG
files named as the frames, of which --use_masks says whether only the first counts or all of them,
as corrections and new objects. Writes {out}/masks/{frame}.png (palette PNG, object numbers),
{out}/overlay.mp4 and, with --truth, {out}/scores.json: region J and boundary F of every object as
DAVIS computes them, beside those of the first mask repeated.

Memory use does not grow with the video: its size is printed first. `--weights random` shows the
mechanics with a network that has learnt nothing.
"""

import json
import pathlib
import time

from launch import command_line, runtime
from vistraj_jax.core import checks, files


def main(argv=None):
  """Runs the command line; returns 0."""
  args = _parser().parse_args(argv)
  command_line.require_folder(args.out)
  checks.require(args.side >= 16, f"--side: {args.side} px is not allowed; choose 16 or more.")
  settings = _settings(args)
  runtime.configure()

  from vistraj_jax.data import frames

  with frames.open_video(args.frames) as video:
    masks = _masks(args, video)
    truth = _truth(args, video, masks)
    with files.atomic_folder(args.out) as folder:
      _segment(args, settings, video, masks, truth, folder)
  print(f"written: {args.out}")
  return 0


def _parser():
  parser = command_line.parser(__doc__)
  add = parser.add_argument
  add("--frames", required=True, help="folder of images or video file")
  add("--masks", required=True, help="PNG of the first frame, or folder of PNG files")
  add("--weights", required=True, help="weights file, run folder, or 'random'")
  add("--out", required=True, help="folder to write, replaced as a whole")
  add("--truth", help="folder of PNG masks to score against")
  add("--use_masks", choices=("first", "all"), default="first", help="masks the network gets")
  add("--resize_masks", action="store_true", help="bring masks of another size to the frames'")
  add("--side", type=int, default=480, help="shorter side the network works at, px")
  add("--frame_rate", type=float, default=10.0, help="of the overlay video of an image folder, Hz")
  add("--mem_every", type=int, default=5, help="frames between memory frames")
  add("--top_k", type=int, default=30, help="memory elements each place reads")
  add("--min_mid", type=int, default=5, help="working frames left after a consolidation")
  add("--max_mid", type=int, default=10, help="working frames at which it happens")
  add("--num_prototypes", type=int, default=128, help="elements each consolidation keeps")
  add("--max_long", type=int, default=10000, help="elements of long-term memory")
  return parser


def _settings(args):
  from vistraj_jax.models.xmem import settings

  names = ("mem_every", "top_k", "min_mid", "max_mid", "num_prototypes", "max_long")
  return settings.MemorySettings(**{name: getattr(args, name) for name in names})


def _masks(args, video):
  """{frame name: labels} that the network gets."""
  import numpy as np

  from vistraj_jax.data import frames

  path = pathlib.Path(args.masks)
  found = {video.names[0]: path} if path.is_file() else frames.label_files(path)
  checks.require(
    video.names[0] in found,
    f"{path}: there is no mask {video.names[0]}.png for the first frame of {args.frames}.",
  )
  chosen = found if args.use_masks == "all" else {video.names[0]: found[video.names[0]]}
  strange = sorted(set(chosen) - set(video.names))
  checks.require(not strange, f"{path}: mask {strange[:1]} belongs to no frame of {args.frames}.")
  masks = {name: _labels(file, video.size, args.resize_masks) for name, file in chosen.items()}
  checks.require(
    np.any(masks[video.names[0]]),
    f"{found[video.names[0]]}: the first mask shows no object; every pixel is 0.",
  )
  return masks


def _truth(args, video, masks):
  """{frame name: labels} to score against: those that the network does not get."""
  from vistraj_jax.data import frames

  found = frames.label_files(args.truth) if args.truth else {}
  strange = sorted(set(found) - set(video.names))
  checks.require(
    not strange, f"{args.truth}: mask {strange[:1]} belongs to no frame of {args.frames}."
  )
  return {
    name: _labels(path, video.size, args.resize_masks)
    for name, path in found.items()
    if name not in masks
  }


def _labels(path, size, resize):
  """Labels of a file, brought to (height, width) if allowed."""
  import cv2

  from vistraj_jax.data import frames

  labels = frames.read_labels(path)
  if resize:
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)
  checks.require(
    labels.shape == tuple(size),
    f"{path}: a mask of {labels.shape[1]} x {labels.shape[0]} px where the frames have {size[1]} x "
    f"{size[0]}; give masks of the frames' size, or --resize_masks.",
  )
  return labels


def _segment(args, settings, video, masks, truth, folder):
  import numpy as np
  import tqdm

  from vistraj_jax.data import frames
  from vistraj_jax.models.xmem import stream
  from vistraj_jax.viz import masks as drawing
  from vistraj_jax.viz import video as videos

  model, params = _network(args.weights)
  size = _working_size(video.size, args.side)
  numbers = sorted({int(n) for labels in masks.values() for n in np.unique(labels)} - {0})
  live = stream.Stream(model, settings, params, size, len(numbers))
  print(
    f"{args.frames}: {len(video.names)} frames of {video.size[1]} x {video.size[0]} px, worked on "
    f"at {size[1]} x {size[0]}; objects {numbers}; memory {live.memory_bytes / 2**20:.0f} MiB"
  )
  (folder / "masks").mkdir()
  palette = frames.palette()
  scores, times = _Scores(numbers, masks[video.names[0]]), []

  def pictures():
    named = zip(video.names, video.images, strict=True)
    for name, image in tqdm.tqdm(named, total=len(video.names), desc="segmenting", unit="frame"):
      start = time.perf_counter()
      given = masks.get(name)
      shown = {} if given is None else {int(n): given == n for n in np.unique(given) if n}
      frame = live.step(_resized(image, size), {n: _resized(m, size) for n, m in shown.items()})
      labels = live.labels(frame, video.size)
      times.append(time.perf_counter() - start)
      frames.write_labels(folder / "masks" / f"{name}.png", labels)
      if name in truth:
        scores.add(name, labels, truth[name])
      yield drawing.overlay(image, labels, palette)[..., ::-1]

  rate = video.frame_rate or args.frame_rate
  videos.write_video(folder / "overlay.mp4", pictures(), rate)
  steady = np.array(times[1:] or times)
  print(
    f"{len(times)} frames; after the first {np.median(steady) * 1e3:.0f} ms a frame (median), "
    f"{1 / steady.mean():.2f} frames/s"
  )
  if args.truth:
    scores.report(folder / "scores.json")


def _network(path):
  import jax

  from vistraj_jax.models.xmem import network

  if path == "random":
    print("--weights random: the network has learnt nothing; its masks mean nothing.")
    model = network.XMem()
    return model, network.init(model, jax.random.key(0))
  return network.load(path)


def _working_size(size, side):
  """(height, width) with the shorter side at most `side`, in even numbers."""
  scale = min(1.0, side / min(size))
  return tuple(max(16, round(x * scale / 2) * 2) if scale < 1 else x for x in size)


def _resized(image, size):
  """An image, or a mask (nearest neighbour), at (height, width)."""
  import cv2
  import numpy as np

  if image.shape[:2] == tuple(size):
    return image
  if image.dtype == bool:
    small = cv2.resize(image.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return small.astype(bool)
  return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


class _Scores:
  """J and F of each object over the scored frames, for the network and the first mask repeated."""

  def __init__(self, numbers, first):
    self._numbers, self._first = numbers, first
    self._frames = []
    self._values = {who: {n: {"J": [], "F": []} for n in numbers} for who in ("xmem", "repeated")}

  def add(self, name, labels, truth):
    """Scores one frame."""
    from vistraj_jax.metrics import segmentation

    self._frames.append(name)
    for who, seen in (("xmem", labels), ("repeated", self._first)):
      for number, values in self._values[who].items():
        pair = seen == number, truth == number
        values["J"].append(segmentation.region(*pair))
        values["F"].append(segmentation.boundary(*pair))

  def report(self, path):
    """Writes everything and prints the means."""
    from vistraj_jax.metrics import segmentation

    if not self._frames:
      print("--truth: every mask there is was given to the network; nothing is left to score.")
      return
    found = {"frames": self._frames, "per_frame": self._values, "objects": {}, "mean": {}}
    for who, objects in self._values.items():
      found["objects"][who] = {
        number: {name: segmentation.summary(series) for name, series in values.items()}
        for number, values in objects.items()
      }
      mean = {
        name: sum(one[name]["mean"] for one in found["objects"][who].values()) / len(objects)
        for name in ("J", "F")
      }
      found["mean"][who] = {**mean, "J&F": (mean["J"] + mean["F"]) / 2}
    files.write_text(path, json.dumps(found, indent=1))
    print(
      f"scores on {len(self._frames)} frames with truth, mean over {len(self._numbers)} objects"
    )
    for who, title in (("xmem", "XMem"), ("repeated", "first mask repeated")):
      print(f"  {title:20} " + "  ".join(f"{k} {v:.3f}" for k, v in found["mean"][who].items()))


if __name__ == "__main__":
  command_line.run(main)
