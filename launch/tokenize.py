"""Measures what a video tokenizer keeps of videos, and writes the codes of their windows.

examples:
  python -m launch.tokenize --data data/discs --tokenizer runs/tokenizer --past 25 --future 25
  python -m launch.tokenize --data data/discs --tokenizer tokenizer.safetensors \\
    --past 17 --future 17 --out codes/discs

First a report of --report_windows windows of the validation videos (or of the first of --split):
decoded codes against the videos, beside a black picture and the first frame repeated; how many bits
change when the encoder computes in bfloat16; how many codes are in use. It is written to
{out}/report.json, with code_usage.png and reconstructions.png (frames above what was decoded). A
tokenizer that is worse than the black picture is refused, unless --allow_worse_than_black is given.
Without --out that is all.

Then the codes of all windows, past and future encoded apart, in shards whose every record names the
tokenizer. The same command goes on where it was interrupted.
"""

import functools
import hashlib
import json
import math
import pathlib
import time

from launch import batches, command_line
from vistraj_jax.core import checks, files

_SHOWN = 4  # windows in the picture


def main(argv=None):
  """Runs the command line; returns 0."""
  args = _parser().parse_args(argv)
  command_line.require_folder(args.out)
  for name in ("windows", "batch_size", "shard_windows", "report_windows"):
    checks.require(getattr(args, name) >= 1, f"--{name}: {getattr(args, name)}; give 1 or more.")
  from launch import runtime

  runtime.configure()
  from vistraj_jax.models.magvit import frozen

  found = frozen.load(args.tokenizer, args.dtype)
  size = found.tokenizer.latent_shape(args.past, args.image_size, args.image_size)
  future = found.tokenizer.latent_shape(args.future, args.image_size, args.image_size)
  checks.require(
    size == future,
    f"--past, --future: {args.past} and {args.future} frames give {size[0]} and {future[0]} latent "
    "frames; codes are stored as two halves of one length: give the same number twice.",
  )
  shown = " x ".join(str(n) for n in size)
  print(
    f"{args.tokenizer}: {found.config['kind']}, {found.tokenizer.num_codes:,} codes, fingerprint "
    f"{found.fingerprint}; {args.past} frames of {args.image_size} px are {shown} = "
    f"{math.prod(size):,} tokens"
  )
  header = _header(args, found)
  if args.out:
    header["videos"] = _checked_videos(args, header)
  report, pictures = _report(args, found)
  if not args.out:
    return 0
  _save_report(pathlib.Path(args.out), report, *pictures)
  _write_codes(args, found, {**header, "scores": report["scores"]})
  print(f"written: {args.out}")
  return 0


def _parser():
  parser = command_line.parser(__doc__)
  add = parser.add_argument
  add("--data", help="folder of launch.prepare future_video", required=True)
  add(
    "--tokenizer",
    help="weights file of launch.convert magvit_tokenizer, or run of configs/magvit_tokenizer.py",
    required=True,
  )
  add("--out", default="", help="folder for report and codes; none: only print the report")
  add("--split", nargs="+", default=["train", "val"], help="splits to encode")
  add("--past", type=int, default=17, help="frames of the first window; 4k+1 for the public one")
  add("--future", type=int, default=17, help="frames of the second window")
  add("--image_size", type=int, default=128, help="px of the square crop from the centre")
  add("--windows", type=int, default=1, help="windows of each video")
  add("--batch_size", type=int, default=4, help="windows a call, over all devices")
  add("--shard_windows", type=int, default=512, help="windows a file")
  add("--report_windows", type=int, default=16, help="windows the report is of")
  add(
    "--dtype",
    default="float32",
    choices=("float32", "bfloat16"),
    help="of the computation; in bfloat16 bits near zero flip, see the report",
  )
  add("--allow_worse_than_black", action="store_true", help="go on with a tokenizer that is")
  return parser


def _windows(args, split):
  from vistraj_jax.data import future_video

  cfg = {
    "root": args.data,
    "past": args.past,
    "future": args.future,
    "image_size": args.image_size,
    "windows_per_video": args.windows,
    "eval_windows_per_video": args.windows,
  }
  return future_video.load(cfg, split, {})


def _encoder(tokenizer, params):
  """Returns a function uint8 [B, P + F, S, S, 3] -> codes int32 [B, 2, t, h, w]."""
  place, params = batches.placed(params)
  return lambda batch: _programs()[0](tokenizer, params, place(batch["video"]))


def _decoder(tokenizer, params):
  """Returns a function codes [B, 2, t, h, w] -> float32 [B, P + F, S, S, 3] in 0..1."""
  place, params = batches.placed(params)
  return lambda codes: _programs()[1](tokenizer, params, place(codes))


@functools.cache
def _programs():
  """The compiled (encode, decode), functions of tokenizer, parameters and rows."""
  import jax

  from vistraj_jax.models.magvit import frozen

  def encode(tokenizer, params, video):
    halves = video.reshape(-1, video.shape[1] // 2, *video.shape[2:])
    # A GPU rounds float32 to TF32 unless told otherwise: bits near zero would flip, as in bfloat16.
    with jax.default_matmul_precision("highest"):
      latents = tokenizer.encode(params, frozen.as_input(tokenizer, halves))
    codes = tokenizer.quantize(latents, params)[1]
    return codes.reshape(len(video), 2, *codes.shape[1:])

  def decode(tokenizer, params, codes):
    halves = codes.reshape(-1, *codes.shape[2:])
    video = tokenizer.decode(params, tokenizer.from_indices(halves, params))
    return video.reshape(len(codes), -1, *video.shape[2:])

  return jax.jit(encode, static_argnums=0), jax.jit(decode, static_argnums=0)


def _report(args, found):
  """Prints reconstruction, bit flips and use of codes; refuses a useless tokenizer.

  Returns:
    The report, JSON-able; and a few windows with what was decoded of them.
  """
  import numpy as np
  import tqdm

  from vistraj_jax.metrics import future_video as metrics
  from vistraj_jax.models.magvit import frozen

  split = "val" if "val" in args.split else args.split[0]
  windows = _windows(args, split)
  rows = np.arange(min(len(windows), args.report_windows))
  encode = _encoder(found.tokenizer, found.params)
  decode = _decoder(found.tokenizer, found.params)
  other = "float32" if args.dtype == "bfloat16" else "bfloat16"
  encode_other = _encoder(frozen.make(found.config, other), found.params)
  totals = {name: metrics.Totals() for name in ("tokenizer", "black", "copy_first")}
  every, changes, shown = [], [], None
  size = batches.whole(args.batch_size)

  def call(batch):
    codes = encode(batch)
    return codes, encode_other(batch), decode(codes), batch

  with tqdm.tqdm(total=len(rows), unit="window", desc=f"report of {split}") as bar:
    for chosen, (codes, others, video, batch) in batches.in_batches(
      rows, windows.gather, call, size, bar
    ):
      truth = batch["video"].astype(np.float32) / 255
      first = np.concatenate([np.repeat(x[:, :1], x.shape[1], 1) for x in np.split(truth, 2, 1)], 1)
      shown = shown or (truth[:_SHOWN], video[:_SHOWN])
      pictures = {"tokenizer": video, "black": np.zeros_like(truth), "copy_first": first}
      for name, picture in pictures.items():
        totals[name].add(metrics.scores(picture, truth, batch), np.ones(len(chosen)))
      every.append(codes.reshape(-1))
      changes.append((codes ^ others).reshape(-1))
  scores = {name: total.summary() for name, total in totals.items()}
  changed, bits = np.concatenate(changes), range(_bits(found.tokenizer))
  usage = code_usage(np.concatenate(every), found.tokenizer.num_codes)
  report = {
    "tokenizer": found.fingerprint,
    "data": str(args.data),
    "split": split,
    "windows": len(rows),
    "scores": scores,
    "bfloat16": {
      "bits_flipped": float(np.mean([changed >> d & 1 for d in bits])),
      "tokens_changed": float(np.mean(changed != 0)),
    },
    "code_usage": usage,
  }
  _print(report)
  ours, black = scores["tokenizer"]["psnr"], scores["black"]["psnr"]
  checks.require(
    ours >= black or args.allow_worse_than_black,
    f"{args.tokenizer}: its reconstructions have {ours:.2f} dB where a black picture has "
    f"{black:.2f} dB, so nothing predicted in its codes can be seen; train it on such videos "
    "(configs/magvit_tokenizer.py), or give --allow_worse_than_black.",
  )
  return report, shown


def _save_report(folder, report, truth, decoded):
  from vistraj_jax.viz import codes, reconstructions

  files.write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
  usage = {"windows": codes.read_counts(folder / "report.json")}
  codes.draw_code_usage(usage, folder / "code_usage.png")
  reconstructions.draw(folder / "reconstructions.png", truth, decoded)


def code_usage(codes, num_codes):
  """Returns how often codes occur: {"tokens", "distinct", "of", "perplexity", "counts"}.

  Args:
    codes: int [N].
    num_codes: number of different codes there are.

  "counts" are those of the 1,000 most frequent codes, [code, times], falling.
  """
  import numpy as np

  names, counts = np.unique(codes, return_counts=True)
  share = counts / counts.sum()
  order = np.argsort(-counts, kind="stable")[:1000]
  return {
    "tokens": int(counts.sum()),
    "distinct": len(names),
    "of": int(num_codes),
    "perplexity": float(np.exp(-(share * np.log(share)).sum())),
    "counts": [[int(names[i]), int(counts[i])] for i in order],
  }


def _print(report):
  print(f"reconstruction of {report['windows']} windows, split {report['split']!r}:")
  for name, title in (
    ("tokenizer", "decoded codes"),
    ("black", "black picture"),
    ("copy_first", "first frame repeated"),
  ):
    found = report["scores"][name]
    print(
      f"  {title:21} PSNR {found['psnr']:6.2f} dB   MAE {found['mae']:.4f}   SSIM "
      f"{found['ssim']:.3f}   foreground IoU {found['iou']:.3f}"
    )
  change, usage = report["bfloat16"], report["code_usage"]
  print(
    f"encoded in bfloat16: {100 * change['bits_flipped']:.2f} % of the bits flip, "
    f"{100 * change['tokens_changed']:.2f} % of the tokens change"
  )
  top = usage["counts"][0][1] / usage["tokens"]
  print(
    f"codes: {usage['distinct']:,} of {usage['of']:,} in {usage['tokens']:,} tokens, perplexity "
    f"{usage['perplexity']:.1f}; the most frequent one is {100 * top:.1f} % of the tokens"
  )


def _header(args, found):
  """What every shard and the folder say of their codes."""
  return {
    "tokenizer": found.fingerprint,
    "tokenizer_config": found.config,
    "num_codes": found.tokenizer.num_codes,
    "bits": _bits(found.tokenizer),
    "dtype": args.dtype,
    "past": args.past,
    "future": args.future,
    "image_size": args.image_size,
    "windows_per_video": args.windows,
  }


def _checked_videos(args, header):
  """Returns {split: fingerprint of its windows} of the splits to encode and of those in --out.

  Raises:
    InputError: codes lie there that were made otherwise, or of other videos.
  """
  from vistraj_jax.data import video_codes

  folder = args.out
  videos = {split: _fingerprint(_windows(args, split)) for split in args.split}
  if not (pathlib.Path(folder) / video_codes.STATISTICS).is_file():
    return videos
  old = video_codes.read_header(folder)
  for name, value in header.items():
    checks.require(
      old.get(name) == value,
      f"{folder}: holds codes with {name} {old.get(name)!r}, now it is {value!r}; give another "
      "--out.",
    )
  for split, value in videos.items():
    checks.require(
      "videos" in old and old["videos"].get(split, value) == value,
      f"{folder}: holds codes of other videos, or of unknown ones, than split {split!r} of "
      f"{args.data}; give another --out, or the --data that they were made of.",
    )
  return old["videos"] | videos


def _fingerprint(windows):
  """Returns 16 hexadecimal digits: names, places and sizes of all windows, pixels of the first."""
  digest = hashlib.sha256(json.dumps(windows.strings(range(len(windows)))).encode())
  digest.update(windows.videos.shapes[windows.rows].tobytes())
  digest.update(windows.gather([0])["video"].tobytes())
  return digest.hexdigest()[:16]


def _write_codes(args, found, header):
  """Writes the shards that are not there yet."""
  import numpy as np
  import tqdm

  from vistraj_jax.data import video_codes

  video_codes.save_header(args.out, header)
  encode = _encoder(found.tokenizer, found.params)
  for split in args.split:
    windows = _windows(args, split)
    count = -(-len(windows) // args.shard_windows)
    edges = [len(windows) * i // count for i in range(count + 1)]
    shards = {"count": count}
    todo = [
      i
      for i in range(count)
      if not video_codes.finished(args.out, split, header, index=i, **shards)
    ]
    total = sum(edges[i + 1] - edges[i] for i in todo)
    start = time.perf_counter()
    with tqdm.tqdm(total=total, unit="window", desc=split) as bar:
      for i in todo:
        rows = np.arange(edges[i], edges[i + 1])
        parts = batches.in_batches(
          rows, windows.gather, encode, batches.whole(args.batch_size), bar
        )
        named = (
          {"past_codes": codes[:, 0], "future_codes": codes[:, 1], **windows.strings(chosen)}
          for chosen, codes in parts
        )
        video_codes.write(args.out, split, header, named, index=i, **shards)
    seconds = time.perf_counter() - start
    if todo:
      print(f"{split}: {total:,} windows in {seconds:.1f} s, {2 * total / seconds:.2f} halves/s")
    else:
      print(f"{split}: all {count} shards are there")


def _bits(tokenizer):
  """Bits that number the codes."""
  return math.ceil(math.log2(tokenizer.num_codes))


if __name__ == "__main__":
  command_line.run(main)
