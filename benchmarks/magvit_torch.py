"""The PyTorch side of `benchmarks.magvit`: fused attention; called with a part and its sizes."""

import json
import statistics
import sys

import measure
import numpy as np
import torch
from torch.nn import functional as F


def attention(sizes):
  """Times attention [1, heads, N, D], forward, and forward and backward."""
  torch.manual_seed(0)
  shape = (1, sizes["heads"], sizes["tokens"], sizes["width"])
  q, k, v = (torch.randn(shape, requires_grad=True) for _ in "qkv")

  def forward():
    with torch.inference_mode():
      F.scaled_dot_product_attention(q, k, v)

  def both():
    out = F.scaled_dot_product_attention(q, k, v)
    torch.autograd.grad(out.square().sum(), (q, k, v))

  return {
    "forward_ms": 1e3 * statistics.median(measure.times(forward, sizes["repeats"])),
    "both_ms": 1e3 * statistics.median(measure.times(both, sizes["repeats"])),
    "peak_gb": measure.peak_gb(),
  }


def check(sizes):
  """Compares with what our side has written; exits with a sentence where they differ."""
  stored = np.load(f"{sizes['folder']}/magvit.npz")
  tensor = lambda name: torch.tensor(stored[name]).transpose(1, 2)  # noqa: E731
  inputs = [tensor(name).requires_grad_() for name in "qkv"]
  out = F.scaled_dot_product_attention(*inputs)
  gradients = torch.autograd.grad(out.square().sum(), inputs)
  found = {"out": (out - tensor("out")).abs().max().item()}
  for name, gradient in zip("qkv", gradients, strict=True):
    found[name] = (gradient - tensor(f"{name}_gradient")).abs().max().item()
  measure.exit_if_different(found, sizes["tolerance"])
  return {f"{name}_differs_by": value for name, value in found.items()}


if __name__ == "__main__":
  torch.set_num_threads(measure.threads())
  part = {"attention": attention, "check": check}[sys.argv[1]]
  print(json.dumps({**part(json.loads(sys.argv[2])), "torch": torch.__version__}))
