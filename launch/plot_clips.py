"""`launch.plot masks`, `futures` and `clip`: what a trained run of xmem predicts for agents."""

MASKS = """Draws clips below one another, their observed frames in order of time: the predicted mask
of the target as a tint, the true one as an outline, and their overlap (IoU)."""

FUTURES = """Draws the predicted futures of agents with their probabilities, the truth (yellow) and
the past (white): from above over LiDAR points, and projected into the camera's image."""

CLIP = """Writes a video of one clip: the observed frames with the predicted and the true mask, then
the futures as they unfold, beside a view from above."""


def add_commands(add):
  """Adds the three commands; `add` is that of the subparsers."""
  for name, text, description, ending in (
    ("masks", "predicted masks of agents over time", MASKS, "PNG"),
    ("futures", "predicted futures of agents", FUTURES, "PNG"),
    ("clip", "video of one agent's clip", CLIP, "MP4"),
  ):
    command = add(name, help=text, description=description)
    command.add_argument(
      "--run", required=True, help="folder of a run of xmem, with what launch.predict wrote"
    )
    command.add_argument("--predictions", help="file or folder; default: forecasts/ in the run")
    command.add_argument("--data", help="folder of clips; default: what the run trained on")
    command.add_argument("--split", default="val", help="split that was predicted")
    command.add_argument("--names", nargs="+", help="sample ids of the clips to show")
    if name != "clip":
      command.add_argument("--count", type=int, default=5, help="clips to show where none is named")
    command.add_argument("--out", required=True, help=f"{ending} file to write")


def masks(args):
  """Draws predicted and true masks over time."""
  from vistraj_jax.viz import clips, video

  shown = _Shown(args, masks=True)
  rows = shown.choose(args.count)
  video.write_png(args.out, clips.mask_sheet([shown.clip(i) for i in rows]))
  print(f"written: {args.out} ({len(rows)} clips)")
  return 0


def futures(args):
  """Draws predicted futures."""
  from vistraj_jax.viz import futures as pictures

  shown = _Shown(args, masks=False)
  rows = shown.choose(args.count)
  pictures.draw_futures([shown.agent(i) for i in rows], args.out)
  print(f"written: {args.out} ({len(rows)} agents)")
  return 0


def clip(args):
  """Writes the video of one clip."""
  from vistraj_jax.viz import clips, video

  shown = _Shown(args, masks=True)
  (row,) = shown.choose(1)
  pictures = clips.video_pictures(shown.clip(row), shown.agent(row))
  count = video.write_video(args.out, pictures, 6 * clips.FRAME_RATE)
  print(f"written: {args.out} ({count} pictures of {shown.found['sample_id'][row]})")
  return 0


class _Shown:
  """The predictions of a run with their clips."""

  def __init__(self, args, masks):
    from vistraj_jax.core import checks, trained
    from vistraj_jax.data import forecasts, xmem

    path = args.predictions or args.run
    self.found = forecasts.load(path, masks)
    self._names = args.names
    settings = dict(trained.run_config(args.run)["data"])
    settings["root"] = args.data or settings["root"]
    self.clips = xmem.load(settings, args.split, None)
    layout = self.clips.layout
    self.is_camera = settings["mode"] != "bev"
    # The other view of the same clips, where the data holds it.
    self._other = None
    if set(layout.inputs) == {"bev", "camera"}:
      mode, size = ("bev", layout.bev_size) if self.is_camera else ("camera", layout.image_size)
      changes = {"mode": mode, "image_size": size, "points": layout.points}
      self._other = xmem.load({**settings, **changes}, args.split, None)
    rows = self.found["row"]
    same = len(rows) == 0 or rows.max() < len(self.clips)
    same = same and self.clips.strings(rows)["sample_id"] == self.found["sample_id"].tolist()
    checks.require(
      same, f"{path}: predictions of other clips than split {args.split!r} of {settings['root']}."
    )

  def choose(self, count):
    """Returns the numbers of the predictions to show."""
    import numpy as np

    from vistraj_jax.core import checks

    ids = self.found["sample_id"].tolist()
    if self._names:
      unknown = [name for name in self._names if name not in ids]
      checks.require(not unknown, f"--names: {unknown[:3]} were not predicted; {ids[0]} was.")
      return [ids.index(name) for name in self._names]
    checks.require(count >= 1, f"--count: {count} received; give 1 or more.")
    return np.unique(np.linspace(0, len(ids) - 1, count).astype(int)).tolist()

  def clip(self, i):
    """Returns the `viz.clips.Clip` of prediction i."""
    import numpy as np

    from vistraj_jax.data import forecasts
    from vistraj_jax.viz import clips

    found = self.clips.clip(int(self.found["row"][i]))
    if self.is_camera:
      frames = [np.ascontiguousarray(frame[..., ::-1]) for frame in found["frames"]]
    else:
      reach, size = self.clips.layout.reach, self.clips.size[0]
      frames = [
        clips.points_picture(points[:count], reach, size)
        for points, count in zip(found["points"], found["num_points"], strict=True)
      ]
    return clips.Clip(
      name=f"{self.found['category'][i]}, {self.found['sample_id'][i]}",
      frames=frames,
      truth=found["masks"][:, 0] > 0,
      known=found["mask_valid"][:, 0] > 0,
      probability=self.found[forecasts.MASKS][i] / 255.0,
      is_camera=self.is_camera,
    )

  def agent(self, i):
    """Returns the `viz.futures.Agent` of prediction i."""
    import numpy as np

    from vistraj_jax.viz import futures as pictures

    row = int(self.found["row"][i])
    found = self.clips.clip(row)
    other = self._other.clip(row) if self._other is not None else {}
    seen = {**other, **found}
    points = view = None
    if "points" in seen:
      points = seen["points"][-1, : seen["num_points"][-1], :2]
    if "frames" in seen:
      view = pictures.View(seen["frames"][-1], seen["intrinsics"][-1], seen["cam_from_ego"][-1])
    known = found["future_valid"] > 0
    return pictures.Agent(
      name=f"{self.found['category'][i]}, {self.found['scene'][i]}",
      past=np.where(found["past_valid"][:, None] > 0, found["past_xy"], np.nan),
      truth=np.where(known[:, None], found["future_xy"], np.nan),
      futures=self.found["futures"][i],
      probabilities=self.found["probabilities"][i],
      points=points,
      view=view,
    )
