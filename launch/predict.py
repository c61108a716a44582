"""Predicts the futures of all agents of a split by a trained run.

  python -m launch.predict --run runs/xmem --split val
  python -m launch.predict --run runs/xmem --data DATA --split test --out forecasts --no_masks

Writes to --out:
  predictions.npz  one row a clip: futures [R, K, T_out, 2] m (ego frame of the last observed key
    frame), probabilities [R, K], the target's mask over time mask_probability uint8 [R, T_in, H, W]
    (255 = certain), and the truth and names that launch.evaluate forecasts and launch.plot read.
  challenge.json   the same futures in global coordinates, as the nuScenes prediction challenge and
    the devkit's metrics read them.
"""

import pathlib

from launch import command_line
from vistraj_jax.core import checks


def main(arguments=None):
  """Runs the command line; returns 0."""
  args = _parser().parse_args(arguments)
  if args.out:
    command_line.require_folder(args.out)
  checks.require(
    args.batch_size >= 1, f"--batch_size: {args.batch_size} received, 1 or more wanted."
  )
  from launch import runtime

  runtime.configure()
  import numpy as np

  from vistraj_jax.core import trained
  from vistraj_jax.data import forecasts, xmem
  from vistraj_jax.models.xmem import trajectory
  from vistraj_jax.prepare.nuscenes import challenge

  predictor, params = trajectory.load(args.run)
  settings = dict(trained.run_config(args.run)["data"])
  settings["root"] = args.data or settings["root"]
  clips = xmem.load(settings, args.split, None)
  predictor.check_reach(clips.layout.reach)
  found = _predict(predictor, params, clips, args.batch_size, not args.no_masks)
  found |= {name: np.array(x) for name, x in clips.strings(found["row"]).items()}
  out = pathlib.Path(args.out or pathlib.Path(args.run) / "forecasts")
  forecasts.save(out / forecasts.NAME, found)
  challenge.write(out / "challenge.json", found)
  count, modes, steps = found["futures"].shape[:3]
  print(f"{count:,} agents, {modes} futures of {steps / 2:g} s each")
  print(f"written: {out / forecasts.NAME}, {out / 'challenge.json'}")
  return 0


def _parser():
  parser = command_line.parser(__doc__)
  add = parser.add_argument
  add("--run", required=True, help="folder of launch.train, or of its phase of futures")
  add("--data", help="folder of launch.prepare nuscenes_clips; default: what the run trained on")
  add("--split", default="val", choices=("train", "val", "test"), help="whose agents")
  add("--batch_size", type=int, default=8, help="clips at once")
  add("--no_masks", action="store_true", help="leave the masks out: they need most of the space")
  add("--out", help="folder; default: forecasts/ in the run")
  return parser


def _predict(predictor, params, clips, batch_size, with_masks):
  """Returns {name: array} of `data.forecasts`, without the names."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  import tqdm

  from launch import batches
  from vistraj_jax.data import forecasts

  params = jax.device_put(params)

  @jax.jit
  def call(params, batch):
    futures, probabilities, masks = predictor.predict(params, batch)
    found = {"futures": futures, "probabilities": probabilities}
    if with_masks:
      found[forecasts.MASKS] = jnp.round(255 * masks).astype(jnp.uint8)
    # What describes the clip travels beside its answer.
    return found | {name: batch[name] for name in forecasts.ARRAYS if name not in found}

  rows = np.arange(len(clips))
  parts = []
  with tqdm.tqdm(total=len(clips), desc="predict", unit="clip") as bar:
    for _, part in batches.in_batches(
      rows, clips.gather, lambda batch: call(params, batch), batch_size, bar
    ):
      parts.append(part)
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


if __name__ == "__main__":
  command_line.run(main)
