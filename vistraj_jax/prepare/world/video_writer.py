"""Generated videos as .npz arrays, in the layout that `launch.prepare future_video` reads.

Families: "discs" between walls, "curves" of a ball in space, "motions" with one of five turns, each
with or without clutter. Every clip is drawn by a generator seeded by (seed, split, number), so that
splits share nothing and a clip does not depend on how many others there are.
"""

import json
import pathlib
import zipfile

import numpy as np

from vistraj_jax.core import checks, files
from vistraj_jax.data import future_video
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.world import clutter, moving, shapes

VERSION = 2
SPLITS = ("train", "val", "test")
FAMILIES = {
  "discs": {"frames": 50, "size": 128, "radius": 5 / 128},
  "curves": {"frames": 16, "size": 64, "radius": 0.04},
  "motions": {"frames": 50, "size": 128, "radius": 0.04},
}
SETTINGS = {
  "family": "discs",
  "clips": {"train": 100, "val": 20, "test": 20},
  "frames": 0,  # 0: as usual for the family; also of size
  "size": 0,  # px
  "radius": 0.0,  # as a share of the size
  "seed": 0,
  "clutter": "none",
  "clutter_kinds": list(clutter.USUAL),
  # Of discs:
  "objects": 1,
  "colours": ["red"],  # the target has one of them
  "shapes": ["circle"],
  "walls": "slide",
  "subpixel": False,  # positions between pixels, anti-aliased
  # Of motions:
  "jitter": 0.005,  # of positions, as a share of the size
}
COLOURS = {
  "red": (255, 0, 0),
  "green": (0, 255, 0),
  "blue": (0, 0, 255),
  "yellow": (255, 255, 0),
  "cyan": (0, 255, 255),
  "magenta": (255, 0, 255),
  "white": (255, 255, 255),
}
WALLS = ("slide", "bounce")
_RATE = 10.0  # Hz
_TOGETHER = 20  # clips of one file
_BLACK, _WHITE, _TRAIL = (0, 0, 0), (255, 255, 255), (0, 0, 255)


def write(out, settings=None, processes=1, beam=None):
  """Writes {out}/{split}/{family}-{number}.npz; returns {"clips", "frames", "bytes"}.

  An interrupted run goes on with the files that are missing.

  Args:
    out: folder, the --source of `launch.prepare future_video`.
    settings: changes of `SETTINGS`.
    processes, beam: see `runner.run`.

  Raises:
    InputError: a setting that is not allowed.
  """
  out, settings = pathlib.Path(out), complete(settings)
  units = []
  for split, count in settings["clips"].items():
    for first in range(0, count, _TOGETHER):
      numbers = list(range(first, min(first + _TOGETHER, count)))
      name = f"{settings['family']}-{first // _TOGETHER:05d}"
      arguments = (out / split / f"{name}.npz", settings, split, numbers)
      units.append(runner.Unit(split, name, arguments))

  def finish(_, results):
    found = [part["result"] for _, part in results]
    return {name: sum(one[name] for one in found) for name in ("clips", "frames", "bytes")}

  return runner.resume(
    out,
    settings={"writer": "videos", "version": VERSION, **settings},
    units=units,
    work=write_file,
    finish=finish,
    processes=processes,
    beam=beam,
  )


def complete(settings):
  """Returns all settings for some changes of `SETTINGS`, checked."""
  settings = {**SETTINGS, **(settings or {})}
  checks.choice("--family", settings["family"], FAMILIES)
  checks.choice("--clutter", settings["clutter"], clutter.LEVELS)
  checks.choice("--walls", settings["walls"], WALLS)
  for name, allowed in (
    ("clutter_kinds", clutter.KINDS),
    ("colours", COLOURS),
    ("shapes", shapes.KINDS),
  ):
    checks.require(settings[name], f"--{name}: none given; choose of {list(allowed)}.")
    for value in settings[name]:
      checks.choice(f"--{name}", value, allowed)
  usual = FAMILIES[settings["family"]]
  settings |= {name: settings[name] or value for name, value in usual.items()}
  limits = {"frames": (2, 10_000), "size": (16, 1024), "radius": (0.01, 0.2)}
  limits |= {"jitter": (0, 0.1), "objects": (1, len(COLOURS))}
  for name, (least, most) in limits.items():
    checks.require(
      least <= settings[name] <= most,
      f"--{name}: {settings[name]:g} received, {least:g} to {most:g} allowed.",
    )
  return settings


def write_file(path, settings, split, numbers):
  """Writes the clips `numbers` of a split as one .npz file; returns ([], counts)."""
  clips = [clip(settings, split, number) for number in numbers]
  arrays = {name: np.stack([one[name] for one in clips]) for name in clips[0]}
  with files.atomic_path(path) as temporary:
    # numpy.savez_compressed knows one level only, which takes five times as long.
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
      for name, array in {**arrays, "fps": np.array(_RATE)}.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
          np.lib.format.write_array(member, array, allow_pickle=False)
  frames = int(np.prod(arrays["videos"].shape[:2]))
  return [], {"clips": len(clips), "frames": frames, "bytes": path.stat().st_size}


def clip(settings, split, number):
  """Draws one clip.

  Args:
    settings: as `complete` returns them.
    split: of SPLITS.
    number: of the clip in its split; classes take turns.

  Returns:
    {"videos" uint8 [T, H, W, 3], "masks" uint8 [T, H, W], "centres" float32 [T, 2] row, column in
    px, "centre_valid" float32 [T], "colours" uint8 [2, 3], "labels" int64, "meta" JSON text}.
  """
  rng = np.random.default_rng((settings["seed"], SPLITS.index(split), number))
  family = {"discs": _discs, "curves": _curve, "motions": _motion}[settings["family"]]
  things, background, label, told = family(settings, number, rng)
  level, kinds = settings["clutter"], settings["clutter_kinds"]
  extra, told_extra = clutter.objects(level, kinds, rng, settings["frames"], settings["size"])
  target = things[-1]
  video, masks = render([*things, *extra], settings["frames"], settings["size"], background)
  sigma = clutter.noise(level, kinds)
  video = shapes.add_noise(video, sigma, rng) if sigma else video
  meta = {
    **told,
    "family": settings["family"],
    "seed": [settings["seed"], split, number],
    "clutter": level,
    "objects": told_extra,
    "noise": sigma,
  }
  return {
    "videos": video,
    "masks": masks,
    "centres": np.asarray(target.centres, np.float32),
    "centre_valid": (masks == future_video.TARGET).any((1, 2)).astype(np.float32),
    "colours": np.array([background, target.colour], np.uint8),
    "labels": np.int64(label),
    "meta": np.array(json.dumps(meta, sort_keys=True)),
  }


def render(things, frames, size, background=_BLACK):
  """Draws shapes one over the other: uint8 [T, size, size, 3] and their masks [T, size, size]."""
  video = np.empty((frames, size, size, 3), np.uint8)
  video[:] = background
  masks = np.zeros((frames, size, size), np.uint8)
  for thing in things:
    shapes.draw(video, masks, thing)
  return video, masks


def _discs(settings, number, rng):
  """Label: the colour of the target among the settings'. The target is drawn over the others."""
  del number
  size, radius = settings["size"], settings["radius"] * settings["size"]
  colour = str(rng.choice(settings["colours"]))
  others = [name for name in COLOURS if name != colour]
  names = [*rng.permutation(others)[: settings["objects"] - 1].tolist(), colour]
  subpixel, things, kinds = settings["subpixel"], [], []
  for place, name in enumerate(names, 1):
    parameters = moving.disc_parameters(rng, size)
    kinds.append(str(rng.choice(settings["shapes"])))
    things.append(
      shapes.Shape(
        moving.disc_centres(
          parameters, settings["frames"], size, radius, settings["walls"], subpixel
        ),
        radius,
        COLOURS[name],
        kinds[-1],
        mask=future_video.TARGET if place == len(names) else future_video.OTHER,
        smooth=subpixel,
      )
    )
  told = {"colours": names, "shapes": kinds}
  return things, _BLACK, settings["colours"].index(colour), told


def _curve(settings, number, rng):
  """Label: the kind of curve. A red ball on white, smaller where it is farther."""
  label = number % len(moving.CURVES)
  centres, radii, points = moving.curve(
    moving.CURVES[label],
    rng,
    settings["frames"],
    settings["size"],
    settings["radius"] * settings["size"],
    _RATE,
  )
  ball = shapes.Shape(centres, radii, COLOURS["red"], mask=future_video.TARGET, smooth=True)
  told = {"class": moving.CURVES[label], "points": np.round(points, 4).tolist()}
  return [ball], _WHITE, label, told


def _motion(settings, number, rng):
  """Label: the motion. A red point with a blue trail of where it was, on black."""
  label = number % len(moving.MOTIONS)
  frames, size = settings["frames"], settings["size"]
  path = moving.motion(moving.MOTIONS[label], rng, frames, size, settings["jitter"])
  radius = settings["radius"] * size
  trail = [
    shapes.Shape(centre, max(radius / 4, 0.75), _TRAIL, first=t + 1, smooth=True)
    for t, centre in enumerate(path[:-1])
  ]
  point = shapes.Shape(path, radius, COLOURS["red"], mask=future_video.TARGET, smooth=True)
  return [*trail, point], _BLACK, label, {"class": moving.MOTIONS[label]}
