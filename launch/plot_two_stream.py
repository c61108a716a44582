"""The two-stream part of launch.plot: predicted frames, attention, ablation bars."""

from vistraj_jax.core import checks

PAIRS = """Draws, for pairs of frames each gap apart, frame t, what a run predicts for frame t + k,
the truth and the error, with the PSNR of the prediction and of frame t itself. Of a masked
autoencoder the prediction is the true frame with its masked patches replaced."""

ATTENTION = """Draws which patches the CLS tokens of a run's streams attend to, mean over heads, in
the last block of every stage (of a single stream: in up to four blocks)."""

ABLATION = """Draws bars of the runs of a report's JSON, a list of {"run": name, "metric": {name:
[one value a seed]}}: mean over seeds, standard deviation, and the seeds as dots."""


def add_commands(add):
  """Adds the sub-commands by `add(name, help=..., description=...)`, which returns a parser."""
  for name, text, description, gaps, count in (
    ("pairs", "predicted frames of a two-stream run", PAIRS, [1, 3, 10], 2),
    ("attention", "what the CLS tokens of a two-stream run look at", ATTENTION, [3], 3),
  ):
    parser = add(name, help=text, description=description)
    parser.add_argument("--run", required=True, help="run of configs/two_stream.py, or weights")
    parser.add_argument(
      "--data", help="folder of trajectory records, or embedded:LAYOUT; else what the run read"
    )
    parser.add_argument("--split", default="val", help="split to show")
    parser.add_argument("--gaps", nargs="+", type=int, default=gaps, help="frames")
    parser.add_argument("--count", type=int, default=count, help="pairs of each gap")
    parser.add_argument("--out", required=True, help="PNG file to write")

  parser = add("ablation", help="bars of a report's runs", description=ABLATION)
  parser.add_argument("--report", required=True, help="bars.json of launch.report two_stream")
  parser.add_argument("--metrics", nargs="+", help="names of metrics; else all")
  parser.add_argument("--out", required=True, help="PNG file to write")


def pairs(args):
  """Draws predicted frames; returns 0."""
  import jax
  import numpy as np

  from vistraj_jax.core import images
  from vistraj_jax.models.two_stream import settings
  from vistraj_jax.viz import frame_pairs

  network, variables, _ = settings.load(args.run)
  shown, rate = _read(args, network.image_size)
  frames = [np.stack([pair[name] for pair in shown]) for name in ("img_t", "img_tk")]
  predicted = np.asarray(jax.jit(_predictor(network))(variables, *frames))
  as_float = [frame.astype(np.float32) / 255 for frame in frames]
  psnr, copy = (images.psnr(x, as_float[1]) for x in (predicted, as_float[0]))
  rows = [
    {
      "img_t": pair["img_t"],
      "truth": pair["img_tk"],
      "prediction": predicted[k],
      "copy_text": f"k = {pair['gap']} ({pair['gap'] / rate:.2g} s), {copy[k]:.1f} dB",
      "text": f"{psnr[k]:.1f} dB",
    }
    for k, pair in enumerate(shown)
  ]
  frame_pairs.draw_sheet(rows, args.out)
  print(
    f"written: {args.out} ({len(rows)} pairs, PSNR {psnr.mean():.2f} dB, of frame t "
    f"{copy.mean():.2f} dB)"
  )
  return 0


def attention(args):
  """Draws maps of attention; returns 0."""
  import jax
  import numpy as np

  from vistraj_jax.models.two_stream import attention_maps, settings
  from vistraj_jax.viz import frame_pairs

  network, variables, model = settings.load(args.run)
  streams = attention_maps.stream_names(network)
  shown, rate = _read(args, network.image_size)
  frames = [np.stack([pair[name] for pair in shown]) for name in ("img_t", "img_tk")]
  find = jax.jit(lambda params, a, b: attention_maps.cls_attention(network, params, a, b).mean(3))
  weights = np.asarray(find(variables["params"], *frames))
  stages = model["num_stages"] if len(streams) == 2 else min(4, model["depth"])
  blocks = np.linspace(0, model["depth"], stages + 1)[1:].round().astype(int)
  rows = [
    {
      **pair,
      "attention": weights[:, blocks - 1, k],
      "text": f"k = {pair['gap']} ({pair['gap'] / rate:.2g} s)",
    }
    for k, pair in enumerate(shown)
  ]
  frame_pairs.draw_attention(rows, blocks.tolist(), streams, args.out)
  print(f"written: {args.out} ({len(rows)} pairs, {len(streams)} streams, blocks {blocks})")
  return 0


def ablation(args):
  """Draws bars of a report; returns 0."""
  from vistraj_jax.viz import ablation as bars

  rows = bars.read_rows(args.report)
  bars.draw(rows, args.out, args.metrics)
  print(f"written: {args.out} ({len(rows)} runs)")
  return 0


def _read(args, size):
  """Returns [{"img_t", "img_tk", "gap"}], evenly over the split's trajectories, and frames/s."""
  import numpy as np

  from launch import runtime, two_stream_features
  from vistraj_jax.core import trained
  from vistraj_jax.data import two_stream, two_stream_actions

  runtime.configure()
  checks.require(args.out.endswith(".png"), f"--out: {args.out} does not end in '.png'; rename it.")
  checks.require(args.count >= 1, f"--count: {args.count} received, 1 or more allowed.")
  if args.data:
    root = two_stream_features.data_root(args.data)
  else:
    root = trained.run_config(args.run)["data"]["root"]
  trajectories = two_stream.Trajectories(root, args.split)
  places = []
  for gap in args.gaps:
    long = np.flatnonzero(trajectories.lengths > gap)
    checks.require(
      gap >= 1 and len(long),
      f"--gaps: {gap} received; split {args.split!r} allows 1 to {trajectories.lengths.max() - 1}.",
    )
    chosen = long[np.linspace(0, len(long) - 1, args.count).astype(int)]
    starts = (trajectories.lengths[chosen] - gap) // 2
    places += [(row, start, start + gap) for row, start in zip(chosen, starts, strict=True)]
  found = two_stream_actions.FramePairs(trajectories, places, size).gather(np.arange(len(places)))
  shown = [
    {"img_t": found["img_prev"][k], "img_tk": found["img_curr"][k], "gap": int(end - start)}
    for k, (_, start, end) in enumerate(places)
  ]
  return shown, trajectories.fps


def _predictor(network):
  """Returns a function (variables, img_t, img_tk) -> float32 [B, S, S, 3] of a network."""
  import jax

  from vistraj_jax.models.two_stream import baselines

  def masked(variables, img_t, img_tk):
    noise = jax.random.uniform(jax.random.PRNGKey(0), (len(img_t), network.num_patches))
    pixels, _, at, _ = network.apply(variables, img_t, img_tk, noise)
    return baselines.composed(img_tk, pixels, at)

  def whole(variables, img_t, img_tk):
    images, _ = network.apply(variables, img_t, img_tk)
    return sum(images) / len(images)

  return masked if isinstance(network, baselines.VideoMAE) else whole
