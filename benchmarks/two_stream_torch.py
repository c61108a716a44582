"""The two-stream predictor in plain torch.nn, timed: the peer of benchmarks/two_stream.py.

By the names of the original checkpoints. Run by `python -m benchmarks.two_stream --torch_python
PYTHON`, prints JSON.
"""

import json
import statistics
import sys

import measure
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LUMINANCE = (0.2126, 0.7152, 0.0722)
BASE = {"image_size": 224, "embed_dim": 768, "depth": 12, "num_heads": 12, "num_stages": 3}
PATCH = 16


class Attention(nn.Module):
  def __init__(self, width, heads):
    super().__init__()
    self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
    nn.init.xavier_uniform_(self.in_proj_weight)
    self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
    self.out_proj, self.heads = nn.Linear(width, width), heads

  def forward(self, x):
    packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
    q, k, v = packed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v)
    return self.out_proj(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
  def __init__(self, width, heads, dropout):
    super().__init__()
    self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
    self.self_attn = Attention(width, heads)
    self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    self.dropout = nn.Dropout(dropout)

  def forward(self, x):
    x = x + self.dropout(self.self_attn(self.norm1(x)))
    y = self.linear2(self.dropout(F.gelu(self.linear1(self.norm2(x)))))
    return x + self.dropout(y)


class Exchange(nn.Module):
  def __init__(self, width, heads):
    super().__init__()
    self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
    self.attn = Attention(width, heads)
    self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

  def forward(self, x):
    x = x + self.attn(self.norm1(x))
    return x + self.mlp(self.norm2(x))


class Streams(nn.Module):
  def __init__(self, image_size, embed_dim, depth, num_heads, num_stages, dropout):
    super().__init__()
    count = (image_size // PATCH) ** 2
    for name, channels in (("m", 4), ("p", 5)):
      token, positions = (0.02 * torch.randn(1, n, embed_dim) for n in (1, count + 1))
      self.register_parameter(f"cls_token_{name}", nn.Parameter(token))
      self.register_parameter(f"pos_embed_{name}", nn.Parameter(positions))
      self.add_module(f"patch_embed_{name}", nn.Conv2d(channels, embed_dim, PATCH, PATCH))
      stages = nn.ModuleList(
        nn.Sequential(*(Block(embed_dim, num_heads, dropout) for _ in range(depth // num_stages)))
        for _ in range(num_stages)
      )
      self.add_module(f"blocks_{name}", stages)
      self.add_module(f"norm_{name}", nn.LayerNorm(embed_dim))
    self.cls_exchange = nn.ModuleList(Exchange(embed_dim, num_heads) for _ in range(num_stages - 1))

  def forward(self, m, p):
    m, p = self._tokens("m", m), self._tokens("p", p)
    taps = {}
    for i, (stage_m, stage_p) in enumerate(zip(self.blocks_m, self.blocks_p, strict=True)):
      m, p = stage_m(m), stage_p(p)
      if i < 2:
        taps[f"stage{i + 1}"] = p[:, 0]
      if i < len(self.cls_exchange):
        met = self.cls_exchange[i](torch.stack([m[:, 0], p[:, 0]], 1))
        m = torch.cat([met[:, :1], m[:, 1:]], 1)
        p = torch.cat([met[:, 1:], p[:, 1:]], 1)
    m, p = self.norm_m(m), self.norm_p(p)
    return m, p, {**taps, "final": p[:, 0]}

  def _tokens(self, name, x):
    x = getattr(self, f"patch_embed_{name}")(x).flatten(2).transpose(1, 2)
    token = getattr(self, f"cls_token_{name}").expand(len(x), -1, -1)
    return torch.cat([token.to(x.dtype), x], 1) + getattr(self, f"pos_embed_{name}")


class Decoder(nn.Module):
  def __init__(self, width):
    super().__init__()

    def up(inputs, channels):
      layers = nn.ConvTranspose2d(inputs, channels, 4, 2, 1), nn.BatchNorm2d(channels), nn.GELU()
      return nn.Sequential(*layers)

    def down(inputs, channels, size, stride):
      layer = nn.Conv2d(inputs, channels, size, stride, size // 2)
      return layer, nn.BatchNorm2d(channels), nn.GELU()

    self.input_proj = nn.Sequential(nn.Linear(width, 512), nn.LayerNorm(512), nn.GELU())
    self.skip_encoder = nn.Sequential(*down(3, 32, 7, 2), *down(32, 64, 3, 2))
    self.up1, self.up2, self.up3, self.up4 = up(512, 256), up(256, 128), up(128, 64), up(64, 32)
    self.cls_proj_1, self.cls_proj_2, self.cls_proj_3 = (
      nn.Linear(width, n) for n in (256, 128, 64)
    )
    self.skip_merge = nn.Sequential(*down(192, 128, 1, 1))
    self.output_conv = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1), nn.GELU(), nn.Conv2d(32, 3, 1))

  def forward(self, patches, image, taps):
    side = int(patches.shape[1] ** 0.5)
    x = self.input_proj(patches).transpose(1, 2).unflatten(-1, (side, side))
    x = self.up1(x) + self.cls_proj_1(taps["final"])[..., None, None]
    x = self.up2(x) + self.cls_proj_2(taps["stage2"])[..., None, None]
    x = self.skip_merge(torch.cat([x, self.skip_encoder(image)], 1))
    x = self.up3(x) + self.cls_proj_3(taps["stage1"])[..., None, None]
    return torch.sigmoid(self.output_conv(self.up4(x)).float())


class Predictor(nn.Module):
  def __init__(self, dropout, **sizes):
    super().__init__()
    sizes = {**BASE, **sizes}
    width = sizes["embed_dim"]
    self.encoder = nn.Module()
    self.encoder.encoder = Streams(**sizes, dropout=dropout)
    self.encoder.fusion = nn.Module()
    self.encoder.fusion.fc_cls = nn.Linear(2 * width, width)
    self.encoder.fusion.fc_patch = nn.Linear(2 * width, width)
    self.decoder = Decoder(width)

  def forward(self, img_t, img_tk):
    """Images uint8 [B, 3, S, S], -> predicted [B, 3, S, S] and the fused CLS."""
    before, after = (x.float() / 255 for x in (img_t, img_tk))
    m, p, taps = self.encoder.encoder(motion(before, after), form(before))
    joined, fusion = torch.cat([m, p], -1), self.encoder.fusion
    return self.decoder(fusion.fc_patch(joined[:, 1:]), before, taps), fusion.fc_cls(joined[:, 0])


def luminance(image):
  return (image * torch.tensor(LUMINANCE, device=image.device)[:, None, None]).sum(1, keepdim=True)


def motion(before, after):
  joined = [torch.cat([luminance(x), x], 1) for x in (before, after)]
  return (joined[1] - joined[0]).clamp(-1, 1)


@torch.autocast(DEVICE, enabled=False)
def form(image):
  y = luminance(image)
  y = ((y - y.mean((1, 2, 3), True)) / (y.std((1, 2, 3), keepdim=True) + 1e-6)).clamp(-3, 3)
  sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=image.device)
  gradients = F.conv2d(y, torch.stack([sobel, sobel.T])[:, None], padding=1)
  largest = gradients.square().sum(1, True).amax((2, 3), True).sqrt()
  return torch.cat([gradients / largest.clamp(min=1e-6), image], 1)


def forward(sizes):
  """Predicted images in evaluation."""
  model, pair = _built(sizes)
  model.eval()

  @torch.inference_mode()
  def one():
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
      model(*pair)[0].sum().item()  # waits for the device

  return _figures(model, one, sizes, "forward")


def training(sizes):
  """Forward and backward pass."""
  model, pair = _built(sizes)

  def one():
    model.zero_grad()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
      loss = F.mse_loss(model(*pair)[0], pair[1].float() / 255)
    loss.backward()
    loss.item()

  return _figures(model, one, sizes, "pass")


def check(sizes):
  """Compares with what our side has written; exits with a sentence where they differ."""
  stored = np.load(f"{sizes['folder']}/two_stream.npz")
  model = Predictor(**sizes["model"])
  model.load_state_dict(
    {n[8:]: torch.tensor(stored[n]) for n in stored.files if n.startswith("weights/")}
  )
  first = lambda name: torch.tensor(stored[name]).movedim(-1, 1)  # noqa: E731
  pair = first("img_t"), first("img_tk")
  with torch.inference_mode():
    image = model.eval()(*pair)[0]
  found = {"image": (image - first("image")).abs().max().item()}
  loss = F.mse_loss(model.train()(*pair)[0], pair[1].float() / 255)
  loss.backward()
  found["loss"] = abs(loss.item() / float(stored["loss"]) - 1)
  norms = {n: 0.0 if p.grad is None else p.grad.norm() for n, p in model.named_parameters()}
  largest = float(max(norms.values()))
  found["gradients"] = max(
    abs(float(norm) - float(stored[f"gradients/{name}"])) / largest for name, norm in norms.items()
  )
  measure.exit_if_different(found, sizes["tolerance"])
  return {"parameters": _parameters(model), **{f"{n}_differs_by": v for n, v in found.items()}}


def _built(sizes):
  torch.manual_seed(0)
  model = Predictor(**sizes["model"]).to(DEVICE)
  side = sizes["model"].get("image_size", BASE["image_size"])
  shape = (sizes["gpu_batch" if DEVICE == "cuda" else "batch"], 3, side, side)
  return model, [torch.randint(0, 256, shape, dtype=torch.uint8, device=DEVICE) for _ in "ab"]


def _figures(model, one, sizes, name):
  spent = statistics.median(measure.times(one, sizes["repeats"]))
  pairs = sizes["gpu_batch" if DEVICE == "cuda" else "batch"]
  return {
    "parameters": _parameters(model),
    f"{name}_ms": 1e3 * spent,
    f"{name}_pairs_per_s": pairs / spent,
    "peak_gb": measure.peak_gb(),
  }


def _parameters(model):
  return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
  torch.set_num_threads(measure.threads())
  part = {f.__name__: f for f in (forward, training, check)}[sys.argv[1]]
  print(json.dumps({**part(json.loads(sys.argv[2])), "torch": torch.__version__}))
