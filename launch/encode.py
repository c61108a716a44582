"""Runs an image encoder once over prepared frames and writes their features.

examples:
  python -m launch.encode --data data/waymo --encoder smolvlm_tower \\
    --checkpoint weights/SmolVLM-Base --out features/smolvlm
  python -m launch.encode --data data/waymo --encoder internvit_300m --checkpoint OWNER/NAME \\
    --layers all --out features/internvit
  python -m launch.encode --data data/waymo --encoder smolvlm_tower --checkpoint random:0 \\
    --set depth=2 hidden_size=96 num_heads=4 mlp_width=192 --out features/tiny

Every frame gets one vector for each hidden state in --layers (the patches' mean, or --set pool=...)
or, with --tokens, the patches of one state. A header pins encoder, weights, preprocessing, layers
and data type; training refuses features made otherwise. The same command goes on where it was
interrupted, shard by shard. All devices share each batch; several machines take turns by shard
with --worker and --workers. Then:
  python -m launch.train --config=configs/vlm_waypoint.py --config.data.features=features/smolvlm
"""

import json
import pathlib
import time

from launch import batches, command_line
from vistraj_jax.core import checks


def main(argv=None):
  """Encodes the splits and prints what it made."""
  args = _parser().parse_args(argv)
  command_line.require_folder(args.out)
  for name in ("batch_size", "shard_frames", "workers"):
    checks.require(getattr(args, name) >= 1, f"--{name}: {getattr(args, name)}; give 1 or more.")
  checks.require(
    0 <= args.worker < args.workers,
    f"--worker: {args.worker}; with --workers {args.workers} give 0 to {args.workers - 1}.",
  )
  from launch import runtime

  runtime.configure()
  from vistraj_jax import encoders
  from vistraj_jax.data import waymo_e2e
  from vistraj_jax.encoders import weights

  fields = _fields(args.set)
  encoder = encoders.make(args.encoder, **fields)
  layers = _layers(args, encoder)
  params, identity = weights.load(encoder, args.encoder, args.checkpoint, args.sha256, args.adapter)
  call, batch_size = _compiled(encoder, params, layers, args)
  for split in args.split:
    cfg = {"root": args.data, "visual": "image", "camera": args.camera, "image_size": 0}
    frames = waymo_e2e.load(cfg, split, {})
    states = waymo_e2e.states_of(waymo_e2e.read_index(args.data, split))
    header = _header(args, encoder, fields, layers, identity, frames)
    _encode_split(args, split, header, frames, states, call, batch_size)
  print(f"written: {args.out}")
  return 0


def _parser():
  parser = command_line.parser(__doc__)
  add = parser.add_argument
  add("--data", help="folder of launch.prepare waymo_e2e", required=True)
  add("--out", help="folder for the features", required=True)
  add("--encoder", help="name in the table of encoders, for example smolvlm_tower", required=True)
  add(
    "--checkpoint",
    help="its weights: folder, file or hub repository; a run of launch.train that trained or "
    "adapted it; random:SEED for random ones",
    required=True,
  )
  add("--sha256", help="what the weights file must have")
  add("--adapter", help="folder of a LoRA adapter to merge into the weights")
  add(
    "--set",
    nargs="+",
    default=[],
    metavar="FIELD=VALUE",
    help="fields of the encoder, for example preprocess=seed position_rule=hf_4_57_bf16",
  )
  add("--split", nargs="+", default=["train", "val"], help="splits to encode")
  add("--camera", default="FRONT", help="whose images")
  add("--layers", nargs="+", default=["-1"], help="hidden states: numbers, -1 is the last; or all")
  add("--tokens", action="store_true", help="keep the patches of one state instead of vectors")
  add("--dtype", default="bfloat16", choices=("bfloat16", "float32"), help="of the computation")
  add("--stored", default="bfloat16", choices=("bfloat16", "float32"), help="of the features")
  add("--batch_size", type=int, default=64, help="images a call, over all devices")
  add("--shard_frames", type=int, default=8192, help="frames a file")
  add("--worker", type=int, default=0, help="number of this process among --workers")
  add("--workers", type=int, default=1, help="processes that share the shards of one folder")
  return parser


def _fields(settings):
  """Returns {field: value} of FIELD=VALUE texts; values are JSON, or plain text."""
  fields = {}
  for text in settings:
    name, equals, value = text.partition("=")
    checks.require(equals, f"--set: {text!r}; give FIELD=VALUE.")
    try:
      fields[name] = json.loads(value)
    except ValueError:
      fields[name] = value
  return fields


def _layers(args, encoder):
  """Returns the numbers of the hidden states, the last one as -1: so is it asked for."""
  count = len(encoder.state_widths)
  if args.layers == ["all"]:
    layers = encoder.all_layers
  else:
    for text in args.layers:
      number = text.removeprefix("-").isdigit() and int(text)
      checks.require(
        number is not False and -count <= number < count,
        f"--layers: {text!r}; {args.encoder} has states 0 to {count - 1}: give numbers, or all.",
      )
    layers = [int(text) % count for text in args.layers]
  layers = tuple(-1 if layer == count - 1 else layer for layer in layers)
  checks.require(
    len(layers) == 1 or not args.tokens, f"--tokens: one layer only, {len(layers)} received."
  )
  return layers


def _compiled(encoder, params, layers, args):
  """Returns (function uint8 [B, H, W, 3] -> vectors or patches on the devices, B)."""
  import jax
  import jax.numpy as jnp
  from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

  from vistraj_jax.encoders import weights

  devices = jax.local_devices()
  batch_size = -(-args.batch_size // len(devices)) * len(devices)
  mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
  rows = NamedSharding(mesh, PartitionSpec("data"))
  dtype = jnp.dtype(args.dtype)
  params = jax.device_put(weights.kernels_as(params, dtype), NamedSharding(mesh, PartitionSpec()))

  def encode(params, images):
    encoded = encoder.encode(params, images, layers=layers, dtype=dtype)
    return encoded.tokens if args.tokens else encoded.pooled

  compiled = jax.jit(encode, out_shardings=rows)
  return lambda images: compiled(params, jax.device_put(images, rows)), batch_size


def _header(args, encoder, fields, layers, identity, frames):
  from vistraj_jax.data import features

  stored = frames.images.frame(0)
  size, original = (tuple(int(n) for n in stored[k][0]) for k in ("image_hw", "camera_hw"))
  described = (f"{name}={value}" for name, value in sorted(fields.items()))
  return features.Header(
    encoder=" ".join([args.encoder, *described]),
    checkpoint=identity,
    preprocess=encoder.preprocess.text(),
    position_rule=getattr(encoder, "position_rule", ""),
    pooling="tokens" if args.tokens else encoder.pool,
    layers=layers,
    dtype=args.stored,
    camera=args.camera,
    images="original" if size == original else f"{size[0]}x{size[1]}",
  )


def _encode_split(args, split, header, frames, states, call, batch_size):
  """Writes the shards of one split that are not there yet."""
  import numpy as np
  from tqdm import tqdm

  from vistraj_jax.data import features

  count = -(-len(frames) // args.shard_frames)
  edges = [len(frames) * i // count for i in range(count + 1)]
  done = [_finished(args.out, split, i, count, header) for i in range(count)]
  mine = [i for i in range(args.worker, count, args.workers) if not done[i]]
  total = sum(edges[i + 1] - edges[i] for i in mine)
  if not mine:
    print(f"{split}: all {count} shards are there")
    return
  start, gather = time.perf_counter(), frames.images.gather
  name = "tokens" if args.tokens else "features"
  with tqdm(total=total, unit="frame", desc=split) as bar:
    for i in mine:
      rows = np.arange(edges[i], edges[i + 1])
      encoded = (
        {name: vectors, **{key: value[chosen] for key, value in states.items()}}
        for chosen, vectors in batches.in_batches(rows, gather, call, batch_size, bar)
      )
      features.write_features(args.out, split, header, encoded, index=i, count=count)
  seconds = time.perf_counter() - start
  print(f"{split}: {total:,} frames in {seconds:.1f} s, {total / seconds:.1f} frames/s")


def _finished(out, split, index, count, header):
  """Returns whether a shard is there; one of another making is refused."""
  from vistraj_jax.data import features

  path = features.shard_path(out, split, index, count)
  if not path.is_file():
    stale = list(pathlib.Path(out).glob(f"{features.NAME}-{split}.tfrecord-*"))
    strange = [p.name for p in stale if not p.name.endswith(f"-of-{count:05d}")]
    checks.require(
      not strange,
      f"{out}: holds {strange[:2]} of another number of shards; give the --shard_frames it was "
      "begun with, or another folder.",
    )
    return False
  found = features.header_of(path)
  checks.require(
    found == header,
    f"{path}: was made otherwise ({found}), wanted is {header}; encode into another folder.",
  )
  return True


if __name__ == "__main__":
  command_line.run(main)
