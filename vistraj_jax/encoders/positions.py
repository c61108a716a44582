"""Position ids of patches: which entry of a square table belongs to which patch of an image.

Idefics3 spreads the table's side over the image's valid patches: row i of n gets floor(i * side /
n). `hf_4_57_bf16` is what transformers 4.55 to 4.57 computed instead for bfloat16 pixels (some
indices fall onto their left neighbour); it serves to reproduce features made with it.
"""

import ml_dtypes
import numpy as np

RULES = ("exact", "hf_4_57_bf16")


def ids(count, side, rule="exact"):
  """Returns int32 [count]: the table's row for each of `count` patches along an axis."""
  index = np.arange(count)
  if rule == "exact":
    return (index * side // count).astype(np.int32)
  half = ml_dtypes.bfloat16
  fraction = (index.astype(half) / half(count)).astype(half)
  fraction = (fraction * half(1 - 1e-6)).astype(half).astype(np.float32)
  edges = np.arange(1 / side, 1.0, 1 / side).astype(np.float32)
  return np.searchsorted(edges, fraction, side="right").astype(np.int32)


def table(most, side, rule="exact"):
  """Returns int32 [most + 1, most]: row n holds the ids of an axis with n patches, then zeros."""
  rows = np.zeros((most + 1, most), np.int32)
  for count in range(1, most + 1):
    rows[count, :count] = ids(count, side, rule)
  return rows
