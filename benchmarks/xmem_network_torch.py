"""XMem's networks in plain torch.nn, by the names of the public checkpoints; for xmem_torch.py.

One clip at a time: images [1, 3, H, W], masks [K, H, W], objects in the batch axis of all others.
"""

import torch
from torch import nn
from torch.nn import functional as F


def conv(width, features, size=3, stride=1, bias=True):
  return nn.Conv2d(width, features, size, stride, size // 2, bias=bias)


class Block(nn.Module):
  """ResNet-18's (sizes 3, 3) or ResNet-50's (sizes 1, 3, 1) block."""

  def __init__(self, width, inner, stride, bottleneck):
    super().__init__()
    outer = 4 * inner if bottleneck else inner
    sizes, strides = ((1, 3, 1), (1, stride, 1)) if bottleneck else ((3, 3), (stride, 1))
    widths = [width, *[inner] * (len(sizes) - 1), outer]
    for i, size in enumerate(sizes):
      layer = conv(widths[i], widths[i + 1], size, strides[i], bias=False)
      self.add_module(f"conv{i + 1}", layer)
      self.add_module(f"bn{i + 1}", nn.BatchNorm2d(widths[i + 1]))
    self.layers = len(sizes)
    self.downsample = None
    if stride != 1 or width != outer:
      shortcut = conv(width, outer, 1, stride, bias=False)
      self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outer))

  def forward(self, x):
    y = x
    for i in range(1, self.layers + 1):
      y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
      y = F.relu(y) if i < self.layers else y
    return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def stage(width, inner, depth, stride, bottleneck):
  outer = 4 * inner if bottleneck else inner
  first = Block(width, inner, stride, bottleneck)
  return nn.Sequential(first, *(Block(outer, inner, 1, bottleneck) for _ in range(depth - 1)))


class KeyEncoder(nn.Module):
  def __init__(self):
    super().__init__()
    self.conv1, self.bn1 = conv(3, 64, 7, 2, bias=False), nn.BatchNorm2d(64)
    self.res2 = stage(64, 64, 3, 1, True)
    self.layer2 = stage(256, 128, 4, 2, True)
    self.layer3 = stage(512, 256, 6, 2, True)

  def forward(self, image):
    x = F.max_pool2d(F.relu(self.bn1(self.conv1(image))), 3, 2, 1)
    f4 = self.res2(x)
    f8 = self.layer2(f4)
    return f4, f8, self.layer3(f8)


class KeyProjection(nn.Module):
  def __init__(self, width):
    super().__init__()
    self.key_proj, self.d_proj, self.e_proj = (conv(1024, n) for n in (width, 1, width))

  def forward(self, f16):
    return self.key_proj(f16), self.d_proj(f16) ** 2 + 1, torch.sigmoid(self.e_proj(f16))


class Residual(nn.Module):
  def __init__(self, width, features):
    super().__init__()
    self.conv1, self.conv2 = conv(width, features), conv(features, features)
    self.downsample = conv(width, features) if width != features else None

  def forward(self, x):
    y = self.conv2(F.relu(self.conv1(F.relu(x))))
    return y + (x if self.downsample is None else self.downsample(x))


class ChannelGate(nn.Module):
  def __init__(self, width):
    super().__init__()
    inner = width // 16
    self.mlp = nn.Sequential(
      nn.Flatten(), nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width)
    )

  def forward(self, x):
    gate = self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))
    return x * torch.sigmoid(gate)[..., None, None]


class SpatialGate(nn.Module):
  def __init__(self):
    super().__init__()
    self.spatial = nn.Module()
    self.spatial.conv = conv(2, 1, 7)

  def forward(self, x):
    pooled = torch.stack([x.amax(1), x.mean(1)], 1)
    return x * torch.sigmoid(self.spatial.conv(pooled))


class Fusion(nn.Module):
  def __init__(self, width, features):
    super().__init__()
    self.block1, self.block2 = Residual(width, features), Residual(features, features)
    self.attention = nn.Module()
    self.attention.ChannelGate, self.attention.SpatialGate = ChannelGate(features), SpatialGate()

  def forward(self, *parts):
    x = self.block1(torch.cat(parts, 1))
    return self.block2(x + self.attention.SpatialGate(self.attention.ChannelGate(x)))


def gated(values, hidden):
  forget, update, new = values.float().chunk(3, 1)
  forget, update = torch.sigmoid(forget), torch.sigmoid(update)
  return forget * hidden * (1 - update) + update * torch.tanh(new)


class ValueEncoder(nn.Module):
  def __init__(self, width, hidden):
    super().__init__()
    self.conv1, self.bn1 = conv(5, 64, 7, 2, bias=False), nn.BatchNorm2d(64)
    self.layer1 = stage(64, 64, 2, 1, False)
    self.layer2 = stage(64, 128, 2, 2, False)
    self.layer3 = stage(128, 256, 2, 2, False)
    self.fuser = Fusion(1024 + 256, width)
    self.hidden_reinforce = nn.Module()
    self.hidden_reinforce.transform = conv(width + hidden, 3 * hidden)

  def forward(self, image, f16, masks, hidden, deep):
    """image [1, 3, H, W], masks [K, H, W] -> value [K, C, h, w], hidden."""
    others = masks.sum(0, keepdim=True) - masks
    x = torch.cat([image.expand(len(masks), -1, -1, -1), torch.stack([masks, others], 1)], 1)
    x = F.relu(F.max_pool2d(self.bn1(self.conv1(x)), 3, 2, 1))
    x = self.layer3(self.layer2(self.layer1(x)))
    value = self.fuser(f16.expand(len(masks), -1, -1, -1), x)
    if deep:
      hidden = gated(self.hidden_reinforce.transform(torch.cat([value, hidden], 1)), hidden)
    return value, hidden


class Up(nn.Module):
  def __init__(self, skip, width, features):
    super().__init__()
    self.skip_conv, self.out_conv = conv(skip, width), Residual(width, features)

  def forward(self, skip, x):
    return self.out_conv(F.interpolate(x, scale_factor=2, mode="bilinear") + self.skip_conv(skip))


class Decoder(nn.Module):
  def __init__(self, width, hidden):
    super().__init__()
    self.fuser = Fusion(1024 + width + hidden, width)
    self.up_16_8, self.up_8_4 = Up(512, width, 256), Up(256, 256, 256)
    self.pred = conv(256, 1)
    update = self.hidden_update = nn.Module()
    update.g16_conv, update.g8_conv, update.g4_conv = (conv(n, 256, 1) for n in (width, 256, 257))
    update.transform = conv(256 + hidden, 3 * hidden)

  def forward(self, f16, f8, f4, readout, hidden, keep_hidden):
    """-> logits [K, H, W], hidden."""
    g16 = self.fuser(f16.expand(len(readout), -1, -1, -1), readout, hidden)
    g8 = self.up_16_8(f8, g16)
    g4 = self.up_8_4(f4, g8)
    logits = self.pred(F.relu(g4))
    if keep_hidden:
      update, g4 = self.hidden_update, torch.cat([g4, logits], 1)
      x = update.g16_conv(g16) + update.g8_conv(F.avg_pool2d(g8, 2))
      x = torch.cat([x + update.g4_conv(F.avg_pool2d(g4, 4)), hidden], 1)
      hidden = gated(update.transform(x), hidden)
    return F.interpolate(logits.float(), scale_factor=4, mode="bilinear")[:, 0], hidden


class XMem(nn.Module):
  def __init__(self, key_dim=64, value_dim=512, hidden_dim=64):
    super().__init__()
    self.key_encoder, self.key_proj = KeyEncoder(), KeyProjection(key_dim)
    self.value_encoder = ValueEncoder(value_dim, hidden_dim)
    self.decoder = Decoder(value_dim, hidden_dim)
    self.hidden_dim = hidden_dim
