"""Converts weights between PyTorch checkpoints and our weights files. PyTorch is not needed.

examples:
  python -m launch.convert trackssm --checkpoint mot17.pth --preset mot17 --out mot17.safetensors
  python -m launch.convert trackssm --to torch --checkpoint runs/trackssm --out tuned.pth
  python -m launch.convert vlm_waypoint --checkpoint epoch9.ckpt --out head.safetensors
  python -m launch.convert vlm_waypoint --to adapter --checkpoint runs/lora --out adapter
  python -m launch.convert two_stream --checkpoint best_model.pt --variant seed --out w.safetensors
  python -m launch.convert xmem --checkpoint XMem-s012.pth --out xmem.safetensors
  python -m launch.convert pointpillars --checkpoint detector.pth --out pillars.safetensors
  python -m launch.convert slowfast --checkpoint SLOWFAST_8x8_R50.pyth --out slowfast.safetensors
  python -m launch.convert magvit_tokenizer --checkpoint video_128_262144.ckpt --out w.safetensors
  python -m launch.convert lpips --checkpoint lpips_vgg.pth --out lpips.safetensors

trackssm
--to weights (default) reads .pt, .pth, .ckpt (torch 1.6 or later) or .safetensors: checkpoints of
the public TrackSSM model or of a fine-tuning of it. No code in the file is executed. Every tensor
must be there with its name and shape. Then the preset is tested: the network predicts the next
box of synthetic moving boxes, and weights whose centres never leave [0.5, 0.74] are refused, for
a sigmoid too many does just that.
--to torch reads a weights file, or the folder of a run or phase of launch.train (its best weights),
and writes the released layout: {"ddpm": state dict, "epoch": 0}.

preset      box head  published loss
mot17       linear    L1
dancetrack  sigmoid   L1
sportsmot   sigmoid   L1 + GIoU
nuscenes    sigmoid   L1 + GIoU

vlm_waypoint
--to weights reads the waypoint head of a Lightning checkpoint or a bare state dict; the encoder in
such a file is passed over. --to torch writes Lightning's layout. --to adapter writes the low-rank
update of a run as a folder in the public adapter format.

two_stream
--to weights reads checkpoints of the two-stream predictor, its single-stream and masked baselines,
its later version with a decoder a stream, and policies on it, which become files as launch.policy
writes them. --variant names the variant of configs/two_stream.py it was trained as: what tensors
cannot say, such as the source of P, is taken from there. --to torch writes the same layouts.

xmem
--to weights reads the public checkpoints, also those for a single object (their value encoder gets
a channel of zeros for the other objects' masks) and those without sensory memory. --to torch writes
the public state dict; with --single_object without that channel.

pointpillars
--to weights reads the voxel encoder, backbone and neck of a public LiDAR detector;
config.model.pillars.checkpoint of configs/xmem.py takes them.

i3d, slowfast, i3d_inception
--to weights reads PyTorchVideo's i3d_r50 and slowfast_r50 (config.model.motion.checkpoint of
configs/magvit.py takes them), and I3D on Inception-v1 as the public FVD port has it.

magvit_tokenizer
--to weights reads Open-MAGVIT2's video tokenizer, tensor by tensor, and the original project's
small one; --weights says which of the two kinds of weights in the public file. Every tensor must
be there. --to torch writes the same layouts, without a moving average.

lpips
--to weights reads the state dict of the public LPIPS module with its VGG-16, or a training file
that holds one; configs/magvit_tokenizer.py takes the result.
"""

import importlib
import sys

from launch import command_line
from vistraj_jax.core import checks

# Where a network is converted; trackssm is here.
_MODULES = {
  "i3d": "convert_video_network",
  "i3d_inception": "convert_video_network",
  "lpips": "convert_magvit",
  "magvit_tokenizer": "convert_magvit",
  "pointpillars": "convert_pointpillars",
  "slowfast": "convert_video_network",
  "two_stream": "convert_two_stream",
  "vlm_waypoint": "convert_waypoint",
  "xmem": "convert_xmem",
}
SQUASHED = (0.5, 0.74)  # sigmoid(0..1): all centres of a linear head's boxes behind a sigmoid


def main(argv=None):
  """Runs one conversion and prints what was found."""
  args = _parser().parse_args(argv)
  for option, given, owner in (
    ("--preset", args.preset is not None, "trackssm"),
    ("--single_object", args.single_object, "xmem"),
    ("--variant, --num_heads", args.variant or args.num_heads, "two_stream"),
  ):
    checks.require(
      args.system == owner or not given,
      f"{option}: given with {args.system}, but it is of {owner} alone; leave it out.",
    )
  if args.system in _MODULES:
    return importlib.import_module(f"launch.{_MODULES[args.system]}").run(args)
  checks.require(
    args.to != "adapter", "--to: 'adapter' is for vlm_waypoint; give weights or torch."
  )
  if args.to == "torch":
    checks.require(
      args.preset is None,
      "--preset: our weights say how their box head ends; leave the option out.",
    )
    return _to_torch(args)
  checks.require(
    args.preset is not None,
    "--preset: name the data set the checkpoint was trained for (mot17, dancetrack, sportsmot or "
    "nuscenes); the file does not say how its box head ends.",
  )
  return _to_weights(args)


def _parser():
  parser = command_line.parser(__doc__)
  systems = sorted((*_MODULES, "trackssm"))
  parser.add_argument("system", choices=systems, help="network")
  parser.add_argument("--checkpoint", required=True, help="file or folder to read")
  parser.add_argument("--out", required=True, help="file to write, replaced as a whole")
  parser.add_argument(
    "--to", choices=("weights", "torch", "adapter"), default="weights", help="kind of file to write"
  )
  parser.add_argument(
    "--preset",
    choices=("mot17", "dancetrack", "sportsmot", "nuscenes"),
    help="--to weights: what the checkpoint was trained for, see above",
  )
  parser.add_argument(
    "--variant", default="", help="two_stream --to weights: of configs/two_stream.py"
  )
  parser.add_argument(
    "--num_heads", type=int, default=0, help="two_stream --to weights: 0: one for every 64 channels"
  )
  parser.add_argument(
    "--single_object", action="store_true", help="xmem --to torch: the layout for one object"
  )
  parser.add_argument(
    "--weights",
    choices=("ema", "raw"),
    default="ema",
    help="magvit_tokenizer --to weights: the moving average, or the last ones",
  )
  return parser


def _to_weights(args):
  from vistraj_jax.convert import read_torch, trackssm
  from vistraj_jax.core import weights

  checkpoint = read_torch.read_checkpoint(args.checkpoint)
  tree, config, key = trackssm.from_torch(checkpoint, args.preset, args.checkpoint)
  place = f"under {key!r}" if key else "bare"
  print(f"{args.checkpoint}: state dict {place}; {_summary(trackssm, tree, config)}")
  print(_preset_check(tree, config, args))
  weights.save_weights(args.out, tree, args.system, config)
  print(f"written: {args.out}")
  return 0


def _to_torch(args):
  from vistraj_jax.convert import trackssm, write_torch
  from vistraj_jax.core import trained

  tree, config = trained.load(args.checkpoint)
  checkpoint = trackssm.to_torch(tree, config, args.checkpoint)
  print(f"{args.checkpoint}: {_summary(trackssm, tree, config)}")
  write_torch.write_checkpoint(args.out, checkpoint)
  print(f"written: {args.out} ({len(checkpoint['ddpm'])} tensors under 'ddpm')")
  return 0


def _summary(trackssm, tree, config):
  counts = trackssm.parameter_counts(tree)
  return (
    f"encoder {config['num_layers']} layers, {counts['encoder']:,} parameters; decoder "
    f"{config['num_heads']} heads, {counts['decoder']:,} parameters; width {config['width']}, "
    f"state {config['state_size']}, {'sigmoid' if config['box_sigmoid'] else 'linear'} box head"
  )


def _preset_check(tree, config, args):
  """Predicts the next box of synthetic moving boxes; refuses the footprint of a wrong sigmoid."""
  import jax
  import numpy as np

  from vistraj_jax.losses import boxes as box_losses
  from vistraj_jax.models.trackssm import network, windows

  boxes = _moving_boxes(config["history"])
  condition, truth = windows.condition_and_target(boxes)
  fields = {name: value for name, value in config.items() if name != "history"}
  model = network.TrackSSM(**fields)
  predicted = np.asarray(jax.jit(model.apply)({"params": tree}, condition)[-1])
  low, high = predicted[:, :2].min(), predicted[:, :2].max()
  checks.require(
    low < SQUASHED[0] or high > SQUASHED[1],
    f"{args.checkpoint}: with preset {args.preset!r} all predicted centres of boxes across the "
    f"image lie within [{low:.3f}, {high:.3f}] of its size, as if a linear box head had got a "
    "sigmoid; try --preset mot17.",
  )
  overlap = box_losses.iou(predicted, truth)
  repeated = box_losses.iou(boxes[:, -2], truth)
  if overlap.mean() < 0.5 * repeated.mean():
    print(
      f"warning: {args.checkpoint}: predicts far worse than repeating the last box; is it another "
      "preset, or are these weights trained for something else?",
      file=sys.stderr,
    )
  return (
    f"preset {args.preset}: next boxes of {len(boxes)} synthetic moving boxes, mean IoU "
    f"{overlap.mean():.3f} (repeating the last box: {repeated.mean():.3f}); centres in "
    f"[{low:.2f}, {high:.2f}] of the image."
  )


def _moving_boxes(history):
  """Boxes at constant speed on a grid over the image: [36, history + 2, 4], cxcywh / image size."""
  import numpy as np

  centres = np.stack(np.meshgrid(*2 * [np.linspace(0.1, 0.9, 6)]), -1).reshape(-1, 1, 2)
  time = np.arange(history + 2)[:, None]
  # Towards the middle, so that no box leaves the image.
  moving = centres + 0.02 * (0.5 - centres) * time
  size = np.broadcast_to([0.04, 0.12], moving.shape)
  return np.concatenate([moving, size], -1).astype(np.float32)


if __name__ == "__main__":
  command_line.run(main)
