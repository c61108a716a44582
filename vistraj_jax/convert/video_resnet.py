"""Public checkpoints of video networks -> our parameter trees: I3D, SlowFast, I3D on Inception.

PyTorchVideo keeps its state dict under "model_state"; files for FVD are bare state dicts.
"""

from vistraj_jax.convert.apply import LINEAR, Layout, Row, to_tree
from vistraj_jax.convert.magvit import CONV
from vistraj_jax.convert.xmem import norm_rows, state_dict
from vistraj_jax.core import checks, weights

STATE_KEYS = ("model_state", "state_dict", "model_state_dict")


def _unit(source, target, conv="conv", norm="norm", ours=("conv/kernel", "norm")):
  kernel, batch_norm = (f"{target}/{name}" for name in ours)
  return Row(f"{source}.{conv}.weight", kernel, CONV), *norm_rows(f"{source}.{norm}", batch_norm)


def _stage(source, target):
  source, target = f"{source}.res_blocks.#", f"{target}_#"
  rows = []
  for part in "abc":
    names = f"conv_{part}", f"norm_{part}"
    rows += _unit(f"{source}.branch2", target, *names, (f"{names[0]}/kernel", names[1]))
  ours = ("shortcut/kernel", "shortcut_norm")
  return *rows, *_unit(source, target, "branch1_conv", "branch1_norm", ours)


_CLASSES = (
  Row("blocks.6.proj.weight", "classes/kernel", LINEAR),
  Row("blocks.6.proj.bias", "classes/bias"),
)


def _i3d():
  rows = [*_unit("blocks.0", "stem"), *_CLASSES]
  for stage, block in enumerate((1, 3, 4, 5)):
    rows += _stage(f"blocks.{block}", f"stage{stage}")
  return tuple(rows)


def _slowfast():
  rows = [*_CLASSES]
  for path, name in enumerate(("slow", "fast")):
    rows += _unit(f"blocks.0.multipathway_blocks.{path}", f"{name}_stem")
    for stage in range(4):
      rows += _stage(f"blocks.{stage + 1}.multipathway_blocks.{path}", f"{name}_stage{stage}")
  ours = ("fusion#/kernel", "fusion#_norm")
  for number in range(4):
    own = [name.replace("#", str(number)) for name in ours]
    source = f"blocks.{number}.multipathway_fusion"
    kernel = Row(f"{source}.conv_fast_to_slow.weight", own[0], CONV)
    rows += [kernel, *norm_rows(f"{source}.norm", own[1])]
  return tuple(rows)


def _inception():
  mixed = [f"Mixed_{name}" for name in ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")]
  branches = ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")
  units = ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
  units += [f"{name}.{branch}" for name in mixed for branch in branches]
  rows = [Row("logits.conv3d.weight", "logits/kernel", _POINT)]
  rows.append(Row("logits.conv3d.bias", "logits/bias"))
  for name in units:
    rows += _unit(name, name.replace(".", "/"), "conv3d", "bn", ("kernel", "norm"))
  return tuple(rows)


# (out, in, 1, 1, 1) <-> (in, out).
_POINT = Layout(lambda x: x[:, :, 0, 0, 0].T, lambda x: x.T[:, :, None, None, None])
TABLES = {"i3d": _i3d(), "slowfast": _slowfast(), "i3d_inception": _inception()}


def from_torch(checkpoint, network, want, where):
  """Returns the nested parameter tree of a network.

  Args:
    checkpoint: content of a file, as `read_torch.read_checkpoint` gives it.
    network: a key of `TABLES`.
    want: {"/"-joined name: shape} of the tree. Where it has no `classes`, those of the file are
      passed over.
    where: begins error sentences, for example the file's name.

  Raises:
    InputError: an unknown network, or listing every missing, extra and misshapen tensor.
  """
  table = TABLES[checks.choice("network", network, TABLES)]
  tensors = state_dict(checkpoint, STATE_KEYS, where)[1]
  if "classes/kernel" not in want:
    tensors = {name: x for name, x in tensors.items() if not name.startswith("blocks.6.proj.")}
  return weights.unflatten(to_tree(table, tensors, want, where))
