"""The TrackSSM network written plainly in torch.nn, timed: the peer of benchmarks/trackssm.py.

Run by `python -m benchmarks.trackssm --torch_python PYTHON`, prints JSON.
"""

import json
import math
import statistics
import sys

import measure
import torch
from torch import nn
from torch.nn import functional as F


def scan(u, delta, A, B, C, D, z, h):
  """The selective scan, one step at a time; u [B, T, D], h [B, D, N]."""
  out = []
  for t in range(u.shape[1]):
    decay = torch.exp(delta[:, t, :, None] * A)
    h = decay * h + (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
    out.append((h * C[:, t, None, :]).sum(-1))
  y = torch.stack(out, 1) + D * u
  return y * F.silu(z), h


class Mixer(nn.Module):
  def __init__(self, width=256, state=16):
    super().__init__()
    inner, rank = 2 * width, math.ceil(width / 16)
    self.sizes = (rank, state, state)
    self.in_proj = nn.Linear(width, 2 * inner, bias=False)
    self.conv = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
    self.x_proj = nn.Linear(inner, rank + 2 * state, bias=False)
    self.dt_proj = nn.Linear(rank, inner)
    self.A_log = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(inner, 1))
    self.D = nn.Parameter(torch.ones(inner))
    self.out_proj = nn.Linear(inner, width, bias=False)
    self.norm = nn.Parameter(torch.ones(width))

  def forward(self, x):
    length = x.shape[1]
    x, z = self.in_proj(x).chunk(2, -1)
    x = F.silu(self.conv(x.transpose(1, 2))[..., :length].transpose(1, 2))
    dt, B, C = self.x_proj(x).split(self.sizes, -1)
    h = x.new_zeros(x.shape[0], x.shape[2], self.sizes[1])
    delta = F.softplus(self.dt_proj(dt))
    y, _ = scan(x, delta, -torch.exp(self.A_log), B, C, self.D, z, h)
    return self.out_proj(y)


class Head(nn.Module):
  def __init__(self, width=256, state=16):
    super().__init__()
    rank = math.ceil(width / 16)
    self.sizes = (rank, state, state)
    self.in_proj = nn.Linear(width, 2 * width, bias=False)
    self.x_proj = nn.Linear(width, rank + 2 * state, bias=False)
    self.dt_proj = nn.Linear(rank, width)
    self.A_log = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(width, 1))
    self.D = nn.Parameter(torch.ones(width))
    self.linear1, self.linear2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
    self.norm, self.box = nn.LayerNorm(width), nn.Linear(width, 4)

  def forward(self, box, flow, h):
    j = torch.arange(64)
    angle = box[..., None] * (2 * math.pi / 10000 ** (2 * (j // 2) / 64))
    code = torch.where(j % 2 == 0, angle.sin(), angle.cos()).flatten(1)
    x, z = self.in_proj(code).chunk(2, -1)
    dt, B, C = self.x_proj(flow).split(self.sizes, -1)
    delta = F.softplus(self.dt_proj(dt))
    y, h = scan(F.silu(x)[:, None], delta, -torch.exp(self.A_log), B, C, self.D, z[:, None], h)
    y = y[:, 0]
    y = self.norm(y + self.linear2(F.relu(self.linear1(y))))
    return torch.sigmoid(self.box(y)), h


class TrackSSM(nn.Module):
  def __init__(self):
    super().__init__()
    self.embedding = nn.Parameter(0.02 * torch.randn(8, 256))
    self.layers = nn.ModuleList(Mixer() for _ in range(6))
    self.heads = nn.ModuleList(Head() for _ in range(6))
    self.norm = nn.Parameter(torch.ones(256))

  def forward(self, condition):
    h, residual = condition @ self.embedding, 0
    for layer in self.layers:
      residual = residual + h
      h = layer(F.rms_norm(residual, (256,), layer.norm, 1e-5))
    flow = F.rms_norm(residual + h, (256,), self.norm, 1e-5)[:, -1:]
    box, state = condition[:, -1, :4], condition.new_zeros(len(condition), 256, 16)
    boxes = []
    for head in self.heads:
      box, state = head(box, flow, state)
      boxes.append(box)
      box, state = box.detach(), state.detach()
    return torch.stack(boxes)


def loss_of(boxes, last, target):
  """Smooth L1 and GIoU of the six steps."""
  share = torch.arange(1, 7)[:, None, None] / 6
  wanted = last + share * (target - last)
  low, high = boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2
  low2, high2 = wanted[..., :2] - wanted[..., 2:] / 2, wanted[..., :2] + wanted[..., 2:] / 2
  inside = (torch.minimum(high, high2) - torch.maximum(low, low2)).clamp(min=0).prod(-1)
  outside = (torch.maximum(high, high2) - torch.minimum(low, low2)).prod(-1)
  union = boxes[..., 2:].prod(-1) + wanted[..., 2:].prod(-1) - inside
  giou = inside / union - (outside - union) / outside
  return (
    F.smooth_l1_loss(boxes, wanted, reduction="none").mean(-1).sum(0).mean()
    + (1 - giou).sum(0).mean()
  )


def median_ms(function, repeats):
  """Median wall time after two warm-up calls, ms."""
  return 1e3 * statistics.median(measure.times(function, repeats, warm=2))


def main(repeats, compiled):
  """Prints {"parameters", "forward_64", ...} in ms."""
  torch.set_num_threads(2)
  torch.manual_seed(0)
  model = TrackSSM()
  rows = torch.rand(512, 5, 8) * 0.1 + 0.2
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
  run = torch.compile(model) if compiled else model

  def step(size):
    optimizer.zero_grad()
    loss_of(run(rows[:size]), rows[:size, -1, :4], rows[:size, -1, :4] + 0.01).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

  def forward(size):
    with torch.no_grad():
      run(rows[:size])

  out = {"parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__}
  for size in (64, 256):
    out[f"forward_{size}_ms"] = median_ms(lambda size=size: forward(size), 3 * repeats)
  out["step_512_ms"] = median_ms(lambda: step(512), repeats)
  out["peak_gb"] = measure.peak_gb()
  print(json.dumps(out))


if __name__ == "__main__":
  main(int(sys.argv[1]), sys.argv[2] == "compile")
