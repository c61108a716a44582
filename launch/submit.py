"""Writes or checks an archive for the Waymo end-to-end driving challenge.

  python -m launch.submit --run runs/vlm_waypoint --data data/waymo \\
    --frames test_sequence_frames_for_submission.json --account_name me@example.org \\
    --unique_method_name frozen-siglip --pretrained yes --public_model_names SmolVLM-Base \\
    --num_model_parameters 414M --out submission.tar.gz
  python -m launch.submit --check submission.tar.gz --frames FILE

Predicts exactly the listed frames of the test split. A run on cached features needs --features,
those of the test split made by the same encoder. Instead of --run, --predictions takes an .npz with
`name` [N] and `xy` [N, 20, 2] in m. The archive is read again and checked before it appears.
"""

import pathlib

from launch import command_line
from vistraj_jax.core import checks


def main(argv=None):
  """Writes or checks one archive and prints what it holds."""
  args = _parser().parse_args(argv)
  from vistraj_jax.prepare.waymo_e2e import submission

  listed = submission.read_listed(args.frames)
  if args.check:
    _print(args.check, submission.check_archive(args.check, listed))
    return
  given = [name for name in ("run", "predictions") if getattr(args, name)]
  checks.require(
    len(given) == 1, f"launch.submit: give either --run or --predictions, {given} received."
  )
  for name in ("out", "account_name", "unique_method_name", "pretrained", "num_model_parameters"):
    checks.require(getattr(args, name), f"--{name}: not given; the challenge asks for it.")
  found = _read(args.predictions) if args.predictions else _predict(args, listed)
  made = submission.Submission(
    predictions=found,
    account_name=args.account_name,
    unique_method_name=args.unique_method_name,
    authors=tuple(args.authors),
    affiliation=args.affiliation,
    description=args.description,
    method_link=args.method_link,
    uses_public_model_pretraining=args.pretrained == "yes",
    num_model_parameters=args.num_model_parameters,
    public_model_names=tuple(args.public_model_names),
  )
  _print(args.out, submission.write_archive(args.out, made, listed))


def _parser():
  parser = command_line.parser(__doc__)
  add = parser.add_argument
  add("--frames", required=True, help="JSON {sequence: index}, or text with one frame name a line")
  add("--check", help="an archive to check; nothing is written")
  add("--run", help="folder of launch.train, or of one of its phases")
  add("--predictions", help=".npz with name [N] and xy [N, 20, 2], instead of --run")
  add("--data", help="folder of launch.prepare waymo_e2e with the test split")
  add("--features", help="folder of launch.encode with the test split")
  add("--split", default="test", help="where the listed frames are")
  add("--batch_size", type=int, default=64, help="frames at once")
  add("--out", help="archive to write, .tar.gz")
  add("--account_name", help="e-mail address of the challenge account")
  add("--unique_method_name", help="name of the method on the leaderboard")
  add("--pretrained", choices=("yes", "no"), help="whether public pretrained models were used")
  add("--public_model_names", nargs="+", default=[], help="names of those models")
  add("--num_model_parameters", help="for example 414M")
  add("--authors", nargs="+", default=[])
  for name in ("affiliation", "description", "method_link"):
    add(f"--{name}", default="")
  return parser


def _read(path):
  """Returns {frame name: xy} of an .npz file."""
  import numpy as np

  path = pathlib.Path(path)
  checks.require(path.is_file(), f"--predictions: {path}: no such file.")
  with np.load(path) as file:
    fields = set(file.files)
    checks.require({"name", "xy"} <= fields, f"{path}: wants name and xy, has {sorted(fields)}.")
    names, xy = file["name"], file["xy"]
  checks.shape(f"{path}: xy", xy, (len(names), None, 2))
  return dict(zip(names.tolist(), xy, strict=True))


def _predict(args, listed):
  """Returns {frame name: xy [20, 2]} of the listed frames by a trained network."""
  import numpy as np
  import tqdm

  from launch import runtime
  from vistraj_jax.data import waymo_e2e

  runtime.configure()
  from vistraj_jax.core import trained
  from vistraj_jax.models.vlm_waypoint import network

  run = pathlib.Path(args.run)
  config = trained.run_config(run)
  cfg = dict(config["data"])
  for option, setting in (("data", "root"), ("features", "features")):
    if getattr(args, option):
      cfg[setting] = getattr(args, option)
  if cfg["visual"] == "features":
    checks.require(args.features, f"--features: {run} was trained on features; give those of test.")
  else:
    checks.require(args.data, "--data: not given; it holds the frames that are listed.")
  frames = waymo_e2e.load(cfg, args.split, config["model"])
  row = {name: i for i, name in enumerate(frames.names.tolist())}
  unknown = [name for name in listed if name not in row]
  checks.require(
    not unknown,
    f"--frames: {len(unknown)} of {len(listed)} listed frames are not in the {args.split} split, "
    f"{', '.join(unknown[:3])} among them; prepare all its shards.",
  )
  predict = network.make_predict(*network.load(run))
  wanted = ("past", "intent", "image", "features", "tokens")
  found = {}
  for first in tqdm.trange(0, len(listed), args.batch_size, desc="predict"):
    names = listed[first : first + args.batch_size]
    rows = np.resize([row[name] for name in names], args.batch_size)  # one size: one program
    batch = {k: v for k, v in frames.gather(rows).items() if k in wanted}
    selected = np.asarray(predict(batch).selected)[: len(names)]
    found.update(zip(names, selected, strict=True))
  return found


def _print(path, report):
  print(f"{path}: {report['frames']:,} frames in {report['files']} files, valid")
  print(f"median distance of the last points: {report['median_end']:.1f} m")
  print(f"method: {report['unique_method_name']} of {report['account_name']}")


if __name__ == "__main__":
  command_line.run(main)
