"""The embedded data sets: made once from the simulated world, through the readers of user data."""

import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib

from vistraj_jax.core import checks
from vistraj_jax.prepare.frame_pairs import bridge, libero, videos
from vistraj_jax.prepare.future_video import convert as convert_videos
from vistraj_jax.prepare.nuscenes import clips, database, dataset
from vistraj_jax.prepare.waymo_e2e import convert
from vistraj_jax.prepare.world import (
  manipulation_writer,
  nuscenes_writer,
  video_writer,
  waymo_writer,
)

# Raise a version whenever what makes a data set changes: cached copies are then made again.
_TRACKSSM_VERSION = 2
_WAYMO_VERSION = 1
_XMEM_VERSION = 1
_TWO_STREAM_VERSION = 1
_MAGVIT_VERSION = 1
# Two halves of 17 frames each, which is 4 k + 1 as video tokenizers want it.
_MAGVIT_VIDEOS = {
  "clips": {"train": 500, "val": 64, "test": 64},
  "frames": 34,
  "size": 32,
  "radius": 4 / 64,
}


def cache_folder():
  """Returns the folder of embedded data sets: $VISTRAJ_JAX_CACHE or ~/.cache/vistraj_jax."""
  return pathlib.Path(os.environ.get("VISTRAJ_JAX_CACHE", "~/.cache/vistraj_jax")).expanduser()


def root(task, world=None):
  """Returns the folder of the embedded data set of a task, made on first use.

  Args:
    task: name of the task.
    world: changes of the generated videos of "magvit" and of its tokenizer, see `magvit_root`;
      other tasks have none.

  Raises:
    InputError: the task has none, or none that can be changed.
  """
  if task in ("magvit", "magvit_tokenizer"):
    return magvit_root(**(world or {}))
  checks.require(
    not world, f"config.data.world: the embedded data of {task} cannot be changed; leave it empty."
  )
  roots = {
    "trackssm": trackssm_root,
    "vlm_waypoint": waymo_root,
    "two_stream": two_stream_root,
    "xmem": xmem_root,
  }
  return roots[checks.choice("config.task", task, [*roots, "magvit", "magvit_tokenizer"])]()


def made_once(name, settings, make):
  """Returns a folder of the cache, filled by `make(folder)`, which leaves a full one as it is.

  Several processes of one training run ask at the same time: one makes it, the others wait.

  Args:
    name: first part of the folder's name.
    settings: JSON-able, all that decides the content: others get another folder.
    make: function of the folder, called at every time.
  """
  key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
  out = cache_folder() / f"{name}-{key}"
  out.parent.mkdir(parents=True, exist_ok=True)
  with open(out.with_name(f"{out.name}.lock"), "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    make(out)
  return out


def nuscenes_root():
  """Returns the data root of the simulated nuScenes database, made on first use."""
  settings = nuscenes_writer.SETTINGS

  def make(out):
    nuscenes_writer.write(out, settings, processes=os.cpu_count() or 1)

  return made_once("nuscenes", settings, make)


def trackssm_root():
  """Returns the folder of the embedded tracks (`data.trackssm`), made on first use."""

  def make(out):
    dataset.prepare(
      nuscenes_root(),
      out,
      version=nuscenes_writer.VERSION,
      detections=True,
      processes=os.cpu_count() or 1,
    )

  settings = {"version": _TRACKSSM_VERSION, "database": nuscenes_writer.SETTINGS}
  return made_once("trackssm", settings, make)


def waymo_shards():
  """Returns the folder of simulated end-to-end driving shards, made on first use."""
  settings = waymo_writer.SETTINGS

  def make(out):
    waymo_writer.write(out, settings, processes=os.cpu_count() or 1)

  return made_once("waymo-shards", settings, make)


def waymo_root():
  """Returns the folder of the embedded driving frames (`data.waymo_e2e`), made on first use."""

  def make(out):
    convert.prepare(waymo_shards(), out, size=0, processes=os.cpu_count() or 1)

  settings = {"version": _WAYMO_VERSION, "shards": waymo_writer.SETTINGS}
  return made_once("waymo", settings, make)


def demonstrations(layout="bridge", **settings):
  """Returns a folder of demonstrations in the manipulation world, made on first use.

  Args:
    layout: of `manipulation_writer.LAYOUTS`.
    settings: what differs from the layout's usual settings, see `manipulation_writer.SETTINGS`.
  """
  settings = manipulation_writer.usual(layout, settings)

  def make(out):
    manipulation_writer.write(out, settings, processes=os.cpu_count() or 1)

  versioned = {"version": manipulation_writer.VERSION, **settings}
  return made_once(f"manipulation-{layout}", versioned, make)


def two_stream_root(layout="bridge"):
  """Returns the folder of embedded camera trajectories (`data.two_stream`), made once.

  Args:
    layout: of `manipulation_writer.LAYOUTS`; what is made of "libero" is for probes and policies,
      of "egodex" for probes.
  """
  readers = {"bridge": bridge.prepare, "egodex": videos.prepare_egodex, "libero": libero.prepare}
  read = readers[checks.choice("embedded layout", layout, readers)]

  def make(out):
    read(demonstrations(layout), out, processes=os.cpu_count() or 1)

  settings = {
    "version": _TWO_STREAM_VERSION,
    "world": manipulation_writer.VERSION,
    "demonstrations": manipulation_writer.usual(layout),
  }
  return made_once("two_stream", settings, make)


def xmem_root():
  """Returns the folder of the embedded clips of moving agents (`data.xmem`), made on first use."""
  choice = dataclasses.replace(
    clips.DEFAULTS,
    stride=1,
    cameras=database.CAMERAS,
    image_size=(128, 224),
    points=4096,
    sweeps=1,  # between key frames there are files of few scenes only
    min_pixels=8,
    min_speed=0.5,
  )

  def make(out):
    clips.prepare(
      nuscenes_root(),
      out,
      version=nuscenes_writer.VERSION,
      choice=choice,
      processes=os.cpu_count() or 1,
    )

  settings = {
    "version": _XMEM_VERSION,
    "database": nuscenes_writer.SETTINGS,
    **dataclasses.asdict(choice),
  }
  return made_once("xmem", settings, make)


def generated_videos(**changes):
  """Returns a folder of generated videos (.npz), made on first use.

  Args:
    changes: of `video_writer.SETTINGS`, beyond those of the embedded default.
  """
  settings = _video_settings(changes)

  def make(out):
    video_writer.write(out, settings, processes=os.cpu_count() or 1)

  return made_once("videos", {"version": video_writer.VERSION, **settings}, make)


def magvit_root(**changes):
  """Returns the folder of the embedded videos (`data.future_video`), made on first use.

  Args:
    changes: as of `generated_videos`: size=64 gives larger ones, clutter="light" cluttered ones.
  """
  settings = _video_settings(changes)
  options = convert_videos.Options(size=0, frames=settings["frames"], chunk=2 * settings["frames"])

  def make(out):
    source = generated_videos(**changes)
    convert_videos.prepare(source, out, options=options, processes=os.cpu_count() or 1)

  versions = {"version": _MAGVIT_VERSION, "videos": video_writer.VERSION}
  return made_once("magvit", {**versions, **settings}, make)


def _video_settings(changes):
  """Returns all settings of the generated videos for some changes of the embedded default."""
  unknown = sorted(set(changes) - set(video_writer.SETTINGS))
  checks.require(
    not unknown,
    f"config.data.world: {unknown} is unknown; known are {sorted(video_writer.SETTINGS)}.",
  )
  return video_writer.complete({**_MAGVIT_VIDEOS, **changes})
