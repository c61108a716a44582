"""Parameter shapes of the video networks, and their weights from files of launch.convert."""

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, rules, weights
from vistraj_jax.encoders import i3d_inception, video_resnet

NETWORKS = {
  "i3d": video_resnet.I3D,
  "slowfast": video_resnet.SlowFast,
  "i3d_inception": i3d_inception.I3DInception,
}


def shapes(name, num_classes=400, **fields):
  """Returns {"/"-joined name: shape} of a network's parameters; nothing is computed.

  Args:
    name: a key of `NETWORKS`.
    num_classes: of the classification layer; 0: none.
    **fields: further fields of the network, such as `width`.
  """
  network = NETWORKS[name](num_classes, **fields)
  clip = jax.ShapeDtypeStruct((1, 32, 64, 64, 3), jnp.float32)
  tree = jax.eval_shape(network.init, jax.random.PRNGKey(0), clip)["params"]
  names = jax.tree.leaves(rules.names(tree))
  return dict(zip(names, (leaf.shape for leaf in jax.tree.leaves(tree)), strict=True))


def load(path, name, num_classes=0, **fields):
  """Reads a weights file of `launch.convert`; arguments as of `shapes`.

  Returns:
    nested dict of NumPy arrays; without `num_classes`, the file's classification layer is left out.

  Raises:
    InputError: no such file, weights of another network, or of other sizes.
  """
  tree, _, _ = weights.load_weights(path, name)
  if not num_classes:
    tree.pop("classes", None)
  want, found = shapes(name, num_classes, **fields), weights.flatten(tree)
  faults = sorted(set(want) ^ set(found))
  faults += [n for n in want if n in found and found[n].shape != tuple(want[n])]
  checks.require(
    not faults,
    f"{path}: {len(faults)} tensors of {name} are missing, extra or misshapen, first {faults[:3]}; "
    "convert the checkpoint again, or set the network's width to 64, which is published.",
  )
  return tree
