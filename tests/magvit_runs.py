"""Finished runs of future video without training: random weights where launch.train leaves them."""

import jax
import orbax.checkpoint as ocp

from vistraj_jax.prepare.future_video import convert
from vistraj_jax.prepare.world import video_writer
from vistraj_jax.tasks import magvit


def videos(folder, frames=10, **changes):
  """Writes eight training and three validation videos of 16 px; returns their folder."""
  settings = {"clips": {"train": 8, "val": 3}, "size": 16, "frames": frames, "radius": 0.15}
  video_writer.write(folder / "source", settings | changes)
  convert.prepare(folder / "source", folder / "videos", options=convert.Options(16, frames))
  return folder / "videos"


def save(config, workdir, phase="predictor"):
  """Writes the run of a config with fresh parameters; returns its folder."""
  params = magvit.FutureVideoTask(config).init(jax.random.PRNGKey(0))["params"]
  workdir.mkdir(parents=True)
  (workdir / "config.json").write_text(config.to_json_best_effort())
  with ocp.PyTreeCheckpointer() as writer:
    folder = workdir / phase / "best" / "1" / "default"
    writer.save(folder.absolute(), {"params": jax.device_get(params)})
  return workdir
