"""XMem written plainly in torch.nn, timed: the peer of benchmarks/xmem.py.

The networks are in xmem_network_torch.py; here is the memory, which grows by concatenation.
Run by `python -m benchmarks.xmem --torch_python PYTHON`, prints JSON.
"""

import json
import statistics
import sys
import time

import measure
import numpy as np
import torch
from torch.nn import functional as F
from xmem_network_torch import XMem

EPS = 1e-7
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def similarity(key, shrinkage, query, selection):
  """key [C, N], shrinkage [N], query and selection [C, Q] -> [N, Q]."""
  squares = (key**2).T @ selection
  products = 2 * key.T @ (query * selection)
  constant = (selection * query**2).sum(0)
  return (products - squares - constant) * shrinkage[:, None] / len(key) ** 0.5


def affinity_of(scores, top_k):
  """Softmax over the memory axis, of all or of the largest entries of each query."""
  if top_k is None:
    return scores.softmax(0)
  values, places = scores.topk(min(top_k, len(scores)), 0)
  return torch.zeros_like(scores).scatter(0, places, values.softmax(0))


class Memory:
  """Columns of frames (work) and of prototypes (long), each {"key", "shrinkage", ...} [..., N]."""

  def __init__(self, rules):
    self.rules, self.long, self.work, self.cells = rules, None, None, 0

  def write(self, **columns):
    self.cells = columns["key"].shape[-1]
    self.work = self._joined(self.work, columns)
    if self.rules["long_term"] and self.frames() >= self.rules["max_mid"]:
      self._consolidate()

  def frames(self):
    return self.work["key"].shape[-1] // self.cells

  def bytes(self):
    return sum(x.nbytes for part in (self.long, self.work) if part for x in part.values())

  def read(self, query, selection):
    parts = [part for part in (self.long, self.work) if part]
    names = ("key", "shrinkage", "value")
    key, shrinkage, value = (torch.cat([p[n] for p in parts], -1) for n in names)
    affinity = affinity_of(similarity(key, shrinkage, query, selection), self.rules["top_k"])
    usage = affinity.detach().sum(1)
    for part in parts:
      count = len(part["use"])
      part["use"], usage = part["use"] + usage[:count], usage[count:]
      part["life"] = part["life"] + 1
    return value @ affinity.to(value.dtype)

  def _joined(self, held, new):
    new["use"] = torch.zeros_like(new["shrinkage"])
    new["life"] = torch.full_like(new["shrinkage"], EPS)
    return new if held is None else {n: torch.cat([held[n], x], -1) for n, x in new.items()}

  def _consolidate(self):
    rules, work = self.rules, self.work
    taken = slice(self.cells, self.cells * (rules["max_mid"] - rules["min_mid"] + 1))
    old = {name: x[..., taken] for name, x in work.items()}
    chosen = (old["use"] / old["life"]).topk(rules["num_prototypes"])[1]
    key = old["key"][:, chosen]
    scores = similarity(old["key"], old["shrinkage"], key, old["selection"][:, chosen])
    affinity = scores.softmax(0)
    new = {"key": key, "shrinkage": old["shrinkage"] @ affinity}
    new["value"] = old["value"] @ affinity.to(old["value"].dtype)
    left = rules["max_long"] - rules["num_prototypes"]
    if self.long and len(self.long["use"]) > left:
      kept = (self.long["use"] / self.long["life"]).topk(left)[1]
      self.long = {name: x[..., kept] for name, x in self.long.items()}
    self.long = self._joined(self.long, new)
    self.work = {
      name: torch.cat([x[..., : taken.start], x[..., taken.stop :]], -1) for name, x in work.items()
    }


def aggregate(probability):
  """[K, H, W] -> logits [1 + K, H, W]."""
  background = (1 - probability).prod(0, keepdim=True)
  p = torch.cat([background, probability]).clamp(EPS, 1 - EPS)
  return torch.log(p / (1 - p))


class Video:
  """Frames one after the other; the masks of the first show all objects."""

  def __init__(self, model, rules):
    self.model, self.rules, self.memory = model, rules, Memory(rules)
    self.time = self.written = 0
    self.hidden = None

  def features(self, images):
    """[T, 3, H, W] -> padded images and all that is made of images alone."""
    height, width = images.shape[2:]
    down, right = -height % 16, -width % 16
    self.crop = (slice(down // 2, down // 2 + height), slice(right // 2, right // 2 + width))
    self.margins = (right // 2, right - right // 2, down // 2, down - down // 2)
    images = F.pad(images, self.margins)
    maps = self.model.key_encoder(images)
    return (images, *(x.float() for x in self.model.key_proj(maps[2])), *maps)

  def step(self, features, masks=None, end=False, deep=None):
    """features of one frame, masks [K, H, W] or None -> logits [1 + K, H, W].

    `deep` is None (a deep update with every written frame, the decoder's with all others) or, as in
    training, a bool for this frame; the decoder's update is then always kept.
    """
    image, key, shrinkage, selection, f4, f8, f16 = features
    h, w = key.shape[2:]
    write = (self.time - self.written >= self.rules["mem_every"] or masks is not None) and not end
    if masks is None:
      readout = self.memory.read(key[0].flatten(1), selection[0].flatten(1)).unflatten(-1, (h, w))
      keep = not end and (deep is not None or not write)
      own, self.hidden = self.model.decoder(f16, f8, f4, readout, self.hidden, keep)
      own = torch.sigmoid(own)
    else:
      own = F.pad(masks, self.margins)
      if self.hidden is None:
        self.hidden = key.new_zeros(len(masks), self.model.hidden_dim, h, w)
    logits = aggregate(own)
    if write:
      written = logits.softmax(0)[1:]
      is_deep = deep is None or deep
      value, self.hidden = self.model.value_encoder(image, f16, written, self.hidden, is_deep)
      columns = {"key": key[0], "selection": selection[0], "value": value}
      columns = {name: x.flatten(-2) for name, x in columns.items()}
      self.memory.write(**columns, shrinkage=shrinkage.flatten())
      self.written = self.time
    self.time += 1
    return logits[:, *self.crop]


def train_loss(model, rules, images, masks, deep):
  """Cross-entropy of the frames after the first; images [T, 3, H, W], masks [T, K, H, W]."""
  video = Video(model, rules)
  features = video.features(images)
  losses = []
  for t in range(len(images)):
    last = t == len(images) - 1
    one = [x[t : t + 1] for x in features]
    logits = video.step(one, None if t else masks[0], end=last, deep=deep[t])
    labels = (masks[t] * torch.arange(1, 1 + masks.shape[1])[:, None, None].to(masks)).sum(0)
    losses.append(F.cross_entropy(logits[None], labels.long()[None]))
  return torch.stack(losses[1:]).mean()


def frames(sizes):
  """Frames of a video whose memory has been consolidated once."""
  model, video, images, masks = _scene(sizes)
  for i in range(sizes["filled"]):
    _frame(video, images[i % len(images)], masks)
  found = [_timed(video, images[i % len(images)]) for i in range(1 + sizes["frames"])][1:]
  return {
    "parameters": _parameters(model),
    "frame_ms": 1e3 * statistics.mean(found),
    "slowest_frame_ms": 1e3 * max(found),
    "frames_per_s": len(found) / sum(found),
    "peak_gb": measure.peak_gb(),
  }


def video(sizes):
  """Cost of the frames so far, at several lengths of one video."""
  model, held, images, masks = _scene(sizes)
  _frame(held, images[0], masks)
  found, spent = {"parameters": _parameters(model)}, []
  for t in range(1, max(sizes["lengths"]) + 1):
    spent.append(_timed(held, images[t % len(images)]))
    if t in sizes["lengths"]:
      found[f"to_{t}_frame_ms"] = 1e3 * statistics.mean(spent)
      found[f"at_{t}_frame_ms"] = 1e3 * statistics.median(spent[-20:])
      found[f"at_{t}_state_mb"] = (held.memory.bytes() + held.hidden.nbytes) / 1e6
  return {**found, "peak_gb": measure.peak_gb()}


def training(sizes):
  """Forward and backward pass of a clip."""
  torch.manual_seed(0)
  model = _laid_out(XMem().eval(), sizes)  # batch norms stay frozen
  images = _laid_out(torch.randn(sizes["frames"], 3, *sizes["size"]), sizes)
  masks = torch.zeros(sizes["frames"], sizes["objects"], *sizes["size"], device=DEVICE)
  for k in range(sizes["objects"]):
    masks[:, k, :, 16 * k : 16 * k + 16] = 1
  deep = [t % 5 == 0 for t in range(sizes["frames"])]

  def one():
    model.zero_grad()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
      loss = train_loss(model, sizes["rules"], images, masks, deep)
    loss.backward()
    loss.item()

  found = {"pass_ms": 1e3 * statistics.median(measure.times(one, sizes["repeats"]))}
  return {"parameters": _parameters(model), **found, "peak_gb": measure.peak_gb()}


def check(sizes):
  """Compares with what our side has written; exits with a sentence where they differ."""
  stored = np.load(f"{sizes['folder']}/xmem.npz")
  model = XMem(**sizes["dims"]).eval()
  state = {n[8:]: torch.tensor(stored[n]) for n in stored.files if n.startswith("weights/")}
  model.load_state_dict(state)
  images, masks = torch.tensor(stored["images"]), torch.tensor(stored["masks"])
  held = Video(model, sizes["rules"])
  with torch.inference_mode():
    probability = [
      held.step(held.features(images[t : t + 1]), None if t else masks[0]).softmax(0)
      for t in range(len(images))
    ]
  found = {
    "probability": (torch.stack(probability) - torch.tensor(stored["probability"]))
    .abs()
    .max()
    .item()
  }
  deep = [t % 5 == 0 for t in range(len(images))]
  loss = train_loss(model, sizes["train_rules"], images, masks, deep)
  loss.backward()
  found["loss"] = abs(loss.item() / float(stored["loss"]) - 1)
  norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
  largest = max(norms.values())
  found["gradients"] = max(
    abs(norm - float(stored[f"gradients/{name}"])) / largest for name, norm in norms.items()
  )
  measure.exit_if_different(found, sizes["tolerance"])
  return {"parameters": _parameters(model), **{f"{n}_differs_by": v for n, v in found.items()}}


def _scene(sizes):
  """Returns (model, video, 4 random images, masks of all objects)."""
  torch.manual_seed(0)
  model = _laid_out(XMem().eval(), sizes)
  images = [_laid_out(torch.randn(1, 3, *sizes["size"]), sizes) for _ in range(4)]
  masks = torch.zeros(sizes["objects"], *sizes["size"], device=DEVICE)
  for k in range(sizes["objects"]):
    masks[k, :, 40 * k : 40 * k + 40] = 1
  return model, Video(model, sizes["rules"]), images, masks


def _laid_out(x, sizes):
  """Returns a network or images on the device, channels last in memory if asked for."""
  layout = torch.channels_last if sizes.get("channels_last") else torch.contiguous_format
  return x.to(DEVICE, memory_format=layout)


@torch.inference_mode()
def _frame(video, image, masks=None):
  with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
    logits = video.step(video.features(image), masks)
  logits.softmax(0).sum().item()  # waits for the device


def _timed(video, image):
  start = time.perf_counter()
  _frame(video, image)
  return time.perf_counter() - start


def _parameters(model):
  return sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
  torch.set_num_threads(measure.threads())
  part = {f.__name__: f for f in (frames, video, training, check)}[sys.argv[1]]
  print(json.dumps({**part(json.loads(sys.argv[2])), "torch": torch.__version__}))
