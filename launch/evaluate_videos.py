"""Score predicted videos against what came, beside predictors that learn nothing.

  python -m launch.evaluate videos --run runs/future --out scores
  python -m launch.evaluate videos --run runs/future --data data/clean data/heavy:cluttered \\
    --split test --windows 2 --samples 8 --out scores

The past of every fixed window of the data is encoded, the next one predicted and decoded; ceiling
is the tokenizer's decoding of the true future. With --windows a prediction becomes the past of
another one: as it is (predicted), and decoded and encoded again (through_pixels). With --samples
several futures are drawn of each past, a window long, by heads that have a distribution over codes.
FVD and LPIPS need weights of launch.convert i3d_inception and lpips. FVD is of the predicted frames
alone, and stable from about 2,048 windows on: read it with its n.

Writes to --out, for each folder of --data by its label:
  LABEL.json  {"run", "data", "split", "windows": n, "scores": {predictor: {score: mean}},
    "horizon": {predictor: {score: [by frame]}}, "samples", "fvd"}; pixels in 0..1, PSNR in dB of
    the mean MSE, centres in px. For `launch.plot horizon`.
  LABEL.npz   the first --keep windows, for `launch.plot videos`
  scores.md   the same numbers as tables
"""

import functools
import json
import pathlib

from launch import command_line
from vistraj_jax.core import checks, files

MAIN, PIXELS, CEILING = "predicted", "through_pixels", "ceiling"


def main(arguments=None):
  """Runs the command line; returns 0."""
  args = _parser().parse_args(arguments)
  command_line.require_folder(args.out)
  least = {"batch_size": 1, "windows": 1, "samples": 1, "keep": 0}
  for name, smallest in least.items():
    value = getattr(args, name)
    checks.require(value >= smallest, f"--{name}: {value} received, {smallest} or more wanted.")
  from launch import runtime

  runtime.configure()
  task, params, config = _load(args.run)
  checks.require(
    args.samples == 1 or task.draws_codes,
    f"--samples: {args.samples} received, but {args.run} (config.model.head {task.head!r}) has one "
    "future for a past; leave the option out, or train a head over codes.",
  )
  from vistraj_jax.metrics import report as tables

  sources = command_line.labelled("--data", args.data or [f"{config.data.root}:{args.split}"])
  data = {label: _windows(root, config, args) for label, root in sources.items()}
  judges = _judges(args)
  out = pathlib.Path(args.out)
  texts = [f"# Predicted videos: {args.run}"]
  for label, windows in data.items():
    found, shown = _evaluate(task, params, windows, judges, args, label)
    about = {"run": str(args.run), "data": str(sources[label]), "split": args.split}
    head, rows = _sentences(found, config.data.future), _rows(found)
    texts += [f"## {label}", head, tables.as_markdown(rows)]
    print(f"{label}: {head}\n{tables.as_text(rows)}")
    if shown:
      _write_predictions(out / f"{label}.npz", windows, shown, config.data.past)
    files.write_text(out / f"{label}.json", json.dumps({**about, **found}, indent=1) + "\n")
  files.write_text(out / "scores.md", "\n\n".join(texts) + "\n")
  print(f"written: {out / 'scores.md'}, {', '.join(str(out / f'{n}.json') for n in data)}")
  return 0


def _parser():
  parser = command_line.parser(__doc__, prog="launch.evaluate videos")
  add = parser.add_argument
  add("--run", required=True, help="folder of launch.train --config=configs/magvit.py")
  add(
    "--data",
    nargs="+",
    metavar="FOLDER[:LABEL]",
    help="folders of launch.prepare future_video; default: what the run trained on, called by the "
    "split",
  )
  add("--split", default="val", choices=("train", "val", "test"), help="whose videos")
  add("--windows", type=int, default=1, help="windows to predict one after the other")
  add("--samples", type=int, default=1, help="futures of each past, for heads over codes")
  add("--fvd", metavar="FILE", help="weights of launch.convert i3d_inception")
  add("--lpips", metavar="FILE", help="weights of launch.convert lpips")
  add("--batch_size", type=int, default=4, help="windows at once, over all devices")
  add("--keep", type=int, default=16, help="windows to keep for pictures")
  add("--out", required=True, help="folder for scores and predictions")
  return parser


def _load(run):
  """Returns (task, parameters, settings) of a trained predictor.

  Raises:
    InputError: nothing there, another system, or no predictor yet.
  """
  import ml_collections

  from vistraj_jax.core import trained
  from vistraj_jax.tasks import magvit

  run = pathlib.Path(run)
  config = trained.run_config(run)
  checks.require(
    config["task"] == "magvit",
    f"--run: {run} is a run of {config['task']!r}; give one of configs/magvit.py.",
  )
  phases = [run]
  if (run / "config.json").is_file():
    phases = [run / name for name in config["phases"] if name != magvit.TOKENIZER_PHASE]
    phases = [phase for phase in phases if trained.best_folder(phase) is not None]
  checks.require(
    phases and phases[-1].name != magvit.TOKENIZER_PHASE,
    f"--run: the predictor of {run} is not trained yet; run launch.train to the end.",
  )
  params = trained.load_best(phases[-1])
  # Nothing trains here: neither the tokenizer's losses are wanted nor where parameters came from.
  config["phases"].pop(magvit.TOKENIZER_PHASE, None)
  config["init"]["checkpoint"] = str(run)
  config["data"]["pipeline"] = "future_video"
  config = ml_collections.ConfigDict(config)
  return magvit.FutureVideoTask(config), params, config


def _windows(root, config, args):
  """Returns the windows of a folder, as long as past and everything that is predicted."""
  from vistraj_jax.data import future_video

  settings = config.data.to_dict() | {"root": str(root)}
  settings["future"] *= args.windows
  return future_video.load(settings, args.split, None)


def _evaluate(task, params, windows, judges, args, label):
  """Returns (report, JSON-able; {"video" and every prediction: uint8} of the kept windows)."""
  import numpy as np
  import tqdm

  from launch import batches
  from vistraj_jax.metrics import future_video as metrics

  place, params = batches.placed(params)
  past = windows.past
  program = _program(task, args.windows, args.samples)
  comparison = metrics.Comparison(functools.partial(_scores, judges["lpips"]))
  clips, drawn, kept = {}, [], []

  def call(batch):
    return program(params, place(batch["video"]), batch["row"]), batch

  rows = np.arange(len(windows))
  with tqdm.tqdm(total=len(rows), desc=label, unit="window") as bar:
    for chosen, ((pictures, several), batch) in batches.in_batches(
      rows, windows.gather, call, batches.whole(args.batch_size), bar
    ):
      comparison.add(batch, past, pictures)
      if several:
        drawn.append(several)
      video = batch["video"]
      inside = max(0, args.keep - int(chosen[0]))
      if inside:
        kept.append(
          {"video": video[:inside], **{n: _uint8(x[:inside]) for n, x in pictures.items()}}
        )
      if judges["fvd"]:
        seen = np.repeat(video[:, past - 1 : past], video.shape[1] - past, 1)
        every = {"truth": video[:, past:], "copy_last": seen}
        every |= {name: _uint8(picture) for name, picture in pictures.items()}
        for name, clip in every.items():
          clips.setdefault(name, []).append(np.asarray(judges["fvd"](clip)))
  found = comparison.report()
  if drawn:
    found["samples"] = _summary(drawn, args.samples)
  if clips:
    found["fvd"] = _frechet({name: np.concatenate(parts) for name, parts in clips.items()})
  shown = {name: np.concatenate([part[name] for part in kept]) for name in kept[0]} if kept else {}
  return found, shown


def _program(task, count, samples):
  """Returns the compiled (params, video, rows) -> ({predictor: video 0..1}, scores of samples)."""
  import jax
  import jax.numpy as jnp

  from vistraj_jax.models.magvit import rollout

  def run(params, video, rows):
    length = task.frames
    seen = video[:, :length].astype(jnp.float32) / 255
    past = task.encode(params, video[:, :length])
    rng = jax.random.fold_in(jax.random.PRNGKey(0), rows[0])
    generate = lambda key: task.forecast(params, past, key, seen)  # noqa: E731
    first = generate(rng)
    shown = task.decode(params, first)
    of_params = lambda function: functools.partial(function, params)  # noqa: E731
    ways = {MAIN: of_params(task.as_past)}
    if count > 1:
      ways[PIXELS] = rollout.through_pixels(of_params(task.encode), of_params(task.decode))
    pictures = {}
    for name, renew in ways.items():
      parts = [shown]
      if count > 1:
        predict = lambda window, key: task.forecast(params, window, key)  # noqa: E731
        later = rollout.roll_out(predict, renew(first), count - 1, rng, renew)
        parts += [task.decode(params, x) for x in jnp.split(later, count - 1, 1)]
      pictures[name] = jnp.concatenate(parts, 1)
    true = jnp.split(video[:, length:], count, 1)
    pictures[CEILING] = jnp.concatenate(
      [task.decode(params, task.encode(params, window)) for window in true], 1
    )
    several = {}
    if samples > 1:
      many = rollout.several(lambda key: task.decode(params, generate(key)), rng, samples)
      errors = jnp.mean((many - true[0] / 255) ** 2, (2, 3, 4, 5))
      several = {
        "best": rollout.best_of(errors),
        "mean": errors.mean(0),
        "diversity": rollout.diversity(many),
      }
    return pictures, several

  return jax.jit(run)


def _judges(args):
  """Returns {"fvd": function uint8 clips -> features, or None, "lpips": function, or None}."""
  import jax

  judges = {"fvd": None, "lpips": None}
  if args.fvd:
    from vistraj_jax.encoders import i3d_inception, video_shapes

    network = i3d_inception.I3DInception()
    weights = {"params": jax.device_put(video_shapes.load(args.fvd, "i3d_inception", 400))}
    features = jax.jit(lambda w, clip: network.apply(w, i3d_inception.preprocess(clip))[1])
    judges["fvd"] = functools.partial(features, weights)
  if args.lpips:
    from vistraj_jax.encoders import lpips

    params = {"params": jax.device_put(lpips.load(args.lpips))}
    distance = jax.jit(lambda w, a, b: lpips.LPIPS().apply(w, 2 * a - 1, 2 * b - 1))
    judges["lpips"] = functools.partial(distance, params)
  return judges


def _scores(lpips, predicted, target, known):
  """`metrics.future_video.scores`, with LPIPS where there is a network for it."""
  import numpy as np

  from vistraj_jax.metrics import future_video as metrics

  found = metrics.scores(predicted, target, known)
  if lpips:
    frames = [x.reshape(-1, *x.shape[2:]) for x in (predicted, target)]
    value = np.asarray(lpips(*frames)).reshape(predicted.shape[:2])
    found["lpips"] = (value, np.ones_like(value))
  return found


def _summary(drawn, count):
  """Returns what several samples are worth: PSNR of the best and of all, and how they differ."""
  import numpy as np

  found = {name: np.concatenate([one[name] for one in drawn]) for name in drawn[0]}
  decibels = lambda errors: float(-10 * np.log10(errors.mean() + 1e-10))  # noqa: E731
  return {
    "count": count,
    "psnr_best": decibels(found["best"]),
    "psnr_mean": decibels(found["mean"]),
    "diversity": float(found["diversity"].mean()),
  }


def _frechet(clips):
  """Returns {predictor: `frechet.summary`} from {"truth" and predictors: features [N, 400]}."""
  from vistraj_jax.metrics import frechet

  truth = clips.pop("truth")
  return {name: frechet.summary(truth, features) for name, features in clips.items()}


def _rows(found):
  """Returns the rows of the table, with FVD as the last column where it was measured."""
  from vistraj_jax.metrics import future_video as metrics

  rows = metrics.as_rows(found)
  if "fvd" in found:
    rows[0].append("FVD")
    for row, name in zip(rows[1:], found["scores"], strict=True):
      one = found["fvd"].get(name)
      row.append(f"{one['frechet_distance']:.1f}" if one else "-")
  return rows


def _sentences(found, future):
  """Returns what is to be known of a table."""
  frames = len(found["horizon"][MAIN]["mse"])
  first = f" of the first {future} frames" if frames > future else ""
  texts = [f"{found['windows']:,} windows, {frames} frames ahead (trained for {future})."]
  if "samples" in found:
    one = found["samples"]
    texts.append(
      f"Of {one['count']} samples{first} the best has {one['psnr_best']:.2f} dB, all of them "
      f"{one['psnr_mean']:.2f} dB; two of them differ by an MSE of {one['diversity']:.6f}."
    )
  if "fvd" in found:
    one = next(iter(found["fvd"].values()))
    note = "" if one["stable"] else ", too few to compare with other reports"
    texts.append(f"FVD of n = {one['n']:,} clips of {frames} frames{note}.")
  return " ".join(texts)


def _write_predictions(path, windows, shown, past):
  from vistraj_jax.viz import future_video

  video = shown.pop("video")
  ids = windows.strings(range(len(video)))["id"]
  fps = float(windows.videos[int(windows.place(0)[0])]["fps"])
  future_video.write_predictions(path, video[:, :past], video[:, past:], shown, fps, ids)


def _uint8(video):
  import numpy as np

  return np.round(255 * np.clip(video, 0, 1)).astype(np.uint8)
