"""Low-rank adaptation (LoRA, arXiv 2106.09685): y = x W + bias + (alpha / r) (x A) B.

The low-rank matrices live in a tree of their own, beside the frozen parameters and of the same
nesting: the kernel `layer3/attention/q/kernel` [in, out] is adapted by
{"layer3": {"attention": {"q": {"a": [in, r], "b": [r, out]}}}}. `Dense` finds them in the Linen
collection "lora"; without it, it is a plain dense layer. In training the branch is computed beside
the product, so that no gradient of a frozen matrix is ever formed; `merge` folds it in for use.
"""

import math
import re
import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.nn import dropout

COLLECTION = "lora"
TARGETS = ("q", "k", "v", "out")  # of the attention; the feed-forward matrices are fc1, fc2


class Dense(nn.Module):
  """Dense layer, with the low-rank branch where the collection "lora" has one for it.

  Attributes:
    features: output width.
    use_bias: whether a bias is added.
    dtype: compute dtype.
    branch_dropout: rate on the branch's input, where keys are given.
  """

  features: int
  use_bias: bool = True
  dtype: Any = jnp.float32
  branch_dropout: float = 0.05

  @nn.compact
  def __call__(self, x, keys=None):
    """x [B, ..., in], keys of `dropout.row_keys` [B] or None -> [B, ..., features]."""
    shape = (x.shape[-1], self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
    x = x.astype(self.dtype)
    y = x @ kernel.astype(self.dtype)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
      y = y + bias.astype(self.dtype)
    if not self.has_variable(COLLECTION, "a"):
      return y
    a, b = (self.get_variable(COLLECTION, name).astype(self.dtype) for name in ("a", "b"))
    layer = zlib.crc32("/".join(self.path).encode()) & 0x7FFFFFFF
    x = dropout.dropout(x, self.branch_dropout, keys, layer)
    return y + (x @ a) @ b


def init(rng, params, rank, targets=TARGETS, last_n=None):
  """Returns the low-rank tree of an encoder: A Kaiming-uniform, B zero, so nothing changes yet.

  Args:
    rng: JAX key.
    params: the encoder's parameters (arrays or shapes).
    rank: r.
    targets: names of the dense layers to adapt, for example ("q", "k", "v", "out", "fc1", "fc2").
    last_n: only the last n of the layers `layer#`; None for all.

  Raises:
    InputError: a rank below 1, a target no layer has, or more layers than there are.
  """
  checks.require(rank >= 1, f"lora.rank: {rank}; give 1 or more.")
  kernels = _kernels(params)
  depth = 1 + max((_layer(path) for path in kernels), default=-1)
  first = 0
  if last_n is not None:
    checks.require(
      1 <= last_n <= depth,
      f"lora.last_n: {last_n}; the encoder has {depth} layers, give 1 to {depth}.",
    )
    first = depth - last_n
  known = {path[-1] for path in kernels if _layer(path) >= 0}
  for target in targets:
    checks.choice("lora.targets", target, sorted(known))
  chosen = [p for p in kernels if p[-1] in targets and _layer(p) >= first]
  tree = {}
  for path, key in zip(chosen, jax.random.split(rng, len(chosen)), strict=True):
    width, features = kernels[path].shape
    bound = math.sqrt(1 / width)  # Kaiming-uniform with a = sqrt(5), as the adapter library does
    a = jax.random.uniform(key, (width, rank), minval=-bound, maxval=bound)
    _put(tree, path, {"a": a, "b": jnp.zeros((rank, features))})
  return tree


def merge(params, lora, alpha):
  """Returns the parameters with every adapted kernel replaced by W + (alpha / r) A B.

  Raises:
    InputError: the low-rank tree adapts a kernel that is not there or has another shape.
  """
  out = jax.tree.map(lambda x: x, params)
  for path, pair in pairs(lora).items():
    where = "/".join(path)
    node = out
    for name in path:
      checks.require(
        isinstance(node, dict) and name in node,
        f"LoRA weights adapt {where!r}, which the encoder does not have; use the encoder and "
        "prefix they were trained with.",
      )
      node = node[name]
    kernel, (a, b) = node["kernel"], (pair["a"], pair["b"])
    checks.require(
      kernel.shape == (a.shape[0], b.shape[1]) and a.shape[1] == b.shape[0],
      f"LoRA weights of {where!r}: a {tuple(a.shape)} and b {tuple(b.shape)} do not fit the kernel "
      f"{tuple(kernel.shape)}; use the encoder they were trained with.",
    )
    node["kernel"] = (kernel + (alpha / a.shape[1]) * (a @ b)).astype(kernel.dtype)
  return out


def scaled(lora, alpha):
  """Returns the tree with every B times alpha / r: what `Dense` expects in its collection."""
  if set(lora) == {"a", "b"} and not isinstance(lora["a"], dict):
    return {"a": lora["a"], "b": lora["b"] * (alpha / lora["a"].shape[1])}
  return {name: scaled(node, alpha) for name, node in lora.items()}


def pairs(lora):
  """Returns {path (tuple of names): {"a": ..., "b": ...}} of a low-rank tree."""
  if set(lora) == {"a", "b"} and not isinstance(lora["a"], dict):
    return {(): lora}
  return {(name, *path): pair for name, node in lora.items() for path, pair in pairs(node).items()}


def _kernels(params, path=()):
  """Returns {path of the dense layer: kernel} of all two-dimensional kernels."""
  found = {}
  for name, node in params.items():
    if isinstance(node, dict):
      found |= _kernels(node, (*path, name))
    elif name == "kernel" and len(node.shape) == 2:
      found[path] = node
  return found


def _layer(path):
  """Returns the number n of the first name `layer<n>` in a path, -1 where there is none."""
  numbers = [int(m[1]) for name in path if (m := re.fullmatch(r"layer(\d+)", name))]
  return numbers[0] if numbers else -1


def _put(tree, path, leaf):
  *parents, last = path
  for name in parents:
    tree = tree.setdefault(name, {})
  tree[last] = leaf
