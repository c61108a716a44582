"""LPIPS weights <-> our parameter tree.

Reads the state dict of the public LPIPS module with its VGG-16 (`net.slice1.0.weight`,
`lin0.model.1.weight`), bare or inside a tokenizer's training file (`loss.perceptual_loss.`).
"""

import numpy as np

from vistraj_jax.convert import apply
from vistraj_jax.convert.apply import Layout, Row
from vistraj_jax.core import checks, weights

_PREFIX = "loss.perceptual_loss."
# Places of the convolutions in VGG-16's list of layers.
_PLACES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_CONV = Layout(lambda x: np.transpose(x, (2, 3, 1, 0)), lambda x: np.transpose(x, (3, 2, 0, 1)))
_SHARE = Layout(lambda x: x[0, :, 0, 0], lambda x: x[None, :, None, None])

TABLE = (
  *(
    Row(f"net.slice{i + 1}.{place}.{theirs}", f"conv_{i}_{j}/{ours}", layout)
    for i, places in enumerate(_PLACES)
    for j, place in enumerate(places)
    for theirs, ours, layout in (("weight", "kernel", _CONV), ("bias", "bias", apply.KEEP))
  ),
  Row("lin#.model.1.weight", "share_#", _SHARE),
  # The same again under another name, and constants.
  Row("lins.#.model.1.weight", None),
  Row("scaling_layer.shift", None),
  Row("scaling_layer.scale", None),
)


def from_torch(checkpoint, want, where):
  """Returns the parameters, nested dict of float32 arrays.

  Args:
    checkpoint: content of the file, as `read_torch.read_checkpoint(path, lazy=True)` gives it;
      tensors may be arrays as well.
    want: {"/"-joined name: shape} of the parameters.
    where: begins error sentences, for example the file's name.

  Raises:
    InputError: no LPIPS, or any missing, extra or misshapen tensor of it.
  """
  checks.require(
    isinstance(checkpoint, dict), f"{where}: holds no dict of tensors; save LPIPS's state dict."
  )
  state = checkpoint.get("state_dict", checkpoint)
  own = {n.removeprefix(_PREFIX): t for n, t in state.items() if n.startswith(_PREFIX)} or state
  arrays = {
    name: tensor.read() if hasattr(tensor, "read") else np.asarray(tensor)
    for name, tensor in own.items()
    if hasattr(tensor, "shape")
  }
  flat = apply.to_tree(TABLE, arrays, want, where)
  return weights.unflatten({n: np.ascontiguousarray(x, np.float32) for n, x in flat.items()})
