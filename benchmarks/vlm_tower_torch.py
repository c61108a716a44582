"""The SigLIP so400m tower written plainly in torch.nn, timed: the peer of benchmarks/vlm_tower.py.

Run by `python -m benchmarks.vlm_tower --torch_python PYTHON`, prints JSON.
"""

import json
import statistics
import sys

import measure
import torch
from torch import nn
from torch.nn import functional as F

WIDTH, DEPTH, HEADS, HIDDEN, PATCH, SIDE = 1152, 27, 16, 4304, 14, 27


class Block(nn.Module):
  def __init__(self):
    super().__init__()
    self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(2))
    self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
    self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

  def forward(self, x):
    y = self.norm1(x)
    heads = lambda z: z.unflatten(-1, (HEADS, -1)).transpose(1, 2)  # noqa: E731
    y = F.scaled_dot_product_attention(heads(self.q(y)), heads(self.k(y)), heads(self.v(y)))
    x = x + self.out(y.transpose(1, 2).flatten(2))
    return x + self.fc2(F.gelu(self.fc1(self.norm2(x)), approximate="tanh"))


class Tower(nn.Module):
  def __init__(self):
    super().__init__()
    self.patch = nn.Conv2d(3, WIDTH, PATCH, PATCH)
    self.positions = nn.Parameter(0.02 * torch.randn(SIDE * SIDE, WIDTH))
    self.layers = nn.ModuleList(Block() for _ in range(DEPTH))
    self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

  def forward(self, pixels):
    x = self.patch(pixels).flatten(2).transpose(1, 2) + self.positions
    for layer in self.layers:
      x = layer(x)
    return self.norm(x).mean(1)


def main(repeats, batch):
  """Prints {"parameters", "s_per_image", ...}."""
  torch.set_num_threads(2)
  torch.manual_seed(0)
  tower = Tower().eval()
  images = torch.randint(0, 256, (batch, 384, 384, 3), dtype=torch.uint8)

  @torch.inference_mode()
  def one():
    tower((images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)

  times = measure.times(one, repeats)
  out = {
    "parameters": sum(p.numel() for p in tower.parameters()),
    "s_per_image": statistics.median(times) / batch,
    "fastest_s_per_image": min(times) / batch,
    "peak_gb": measure.peak_gb(),
    "torch": torch.__version__,
  }
  print(json.dumps(out))


if __name__ == "__main__":
  main(int(sys.argv[1]), int(sys.argv[2]))
