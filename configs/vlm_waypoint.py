"""Waypoints from a vision encoder, past motion and intent (Waymo end-to-end driving).

  python -m launch.train --config=configs/vlm_waypoint.py --workdir=runs/vlm_waypoint
  python -m launch.train --config=configs/vlm_waypoint.py --config.data.features=FEATURES \\
    --config.data.layer=19
  python -m launch.train --config=configs/vlm_waypoint.py:lora,mlp --config.data.root=DATA \\
    --config.model.encoder.checkpoint=WEIGHTS --config.model.lora.rank=32

Variants, as in --config=configs/vlm_waypoint.py:image or :image,attention or :lora,mlp,small
  features  a head on cached features (launch.encode); the whole split lies on the device.
  image     a head on images that a frozen encoder sees anew in every step.
  lora      as image; then a second phase also trains a low-rank update of the encoder.
  scratch   a small encoder trained from nothing together with the head.
  ego_only  the same head without vision: what vision has to beat.
  smoke     a few steps of a tiny network on images, for tests.
Heads, after the comma: mlp (926,248 parameters with 1152 features), attention (one query reads the
tokens), proposals (50 drivable futures and a scorer), anchors (a vocabulary of futures), linear.
Encoder, after another: full (SmolVLM's tower), small (minutes on a CPU; always so in scratch).
"""

import ml_collections

VARIANTS = ("features", "image", "lora", "scratch", "ego_only", "smoke")
HEADS = ("mlp", "attention", "proposals", "anchors", "linear")
HEAD = ((".*", "head"),)
# Patterns must match something, so each variant says only what it has.
LORA_FROZEN = (("lora/.*", "frozen"), (".*", "head"))
LORA = (("lora/.*", "lora"), (".*", "head"))
SIZES = ("full", "small")
SCRATCH = (("encoder/.*", "encoder"), (".*", "head"))


def get_config(variant="features,mlp"):
  """Returns the locked-by-the-command configuration of a variant."""
  variant, head, size = (*variant.split(","), "", "")[:3]
  head, size = head or "mlp", size or "full"
  if variant not in VARIANTS or head not in HEADS or size not in SIZES:
    raise ValueError(
      f"configs/vlm_waypoint.py: variant {variant!r}, head {head!r}, encoder {size!r}; known: "
      f"{VARIANTS}, {HEADS}, {SIZES}"
    )
  c = ml_collections.ConfigDict()
  c.task = "vlm_waypoint"
  c.seed = 0
  c.parallel = "jit"  # or "pmap"
  c.mesh = dict(data=-1, model=1)  # -1: all devices
  c.partition = ((".*", ()),)  # parameter name -> mesh axes; () = a copy on every device
  c.run = "all"  # or the name of one phase

  c.model = ml_collections.ConfigDict(dict(head=_head(head)))
  c.loss = _loss(head)
  c.augment = dict(flip_prob=0.0)  # share of mirrored examples; only where images are read
  c.data = dict(pipeline="waymo_e2e", root="embedded", worker_count=0)
  c.data.dev_share = 0.1  # of the training sequences, to choose the best evaluation; 0: on val
  c.init = dict(checkpoint="", skip=())  # "" = from scratch, on purpose

  c.optimizer = dict(b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2, clip_norm=1.0)
  # What encoders call their norms' and layers' scales, as far as a variant trains them.
  c.optimizer.decay = ((".*(scale|bias)", False), (".*", True))
  c.ema_decay = 0.0  # 0 = off
  c.steps_per_call = 100  # steps in one compiled call
  c.eval_every = dict(epochs=1.0)
  c.eval_batch_size = 1024
  c.phases = ml_collections.ConfigDict(sort_keys=False)  # run in this order

  if variant in ("features", "ego_only"):
    is_ego = variant == "ego_only"
    c.data.update(visual="none" if is_ego else "features", resident=True)
    if not is_ego:
      # folder of launch.encode, and which of the hidden states in it
      c.data.update(features="embedded", layer=-1)
      # what the features must be made with; "" = whatever their header says
      c.model.features = dict(encoder="", checkpoint="", preprocess="", pooling="")
    c.phases.head = _phase(HEAD, "init", 128, dict(epochs=10.0, warmup_steps=100), dict(head=1e-3))
  else:
    c.data.update(visual="image", camera="FRONT", image_size=0)  # px; 0 = as stored
    c.model.encoder = _encoder()
    c.steps_per_call, c.eval_batch_size = 10, 64
    c.phases.head = _phase(HEAD, "init", 64, dict(epochs=2.0, warmup_steps=50), dict(head=5e-4))
  if variant == "lora":
    # alpha 0 = twice the rank; last_n 0 = all layers; adapter: public folder to start from
    c.model.lora = dict(rank=16, alpha=0.0, targets=("q", "k", "v", "out"), last_n=0, adapter="")
    c.phases.head.groups = LORA_FROZEN
    rates = dict(head=1e-4, lora=1e-5)
    c.phases.lora = _phase(LORA, "best", 64, dict(epochs=2.0, warmup_steps=50), rates)
  if variant in ("scratch", "smoke") or (size == "small" and "encoder" in c.model):
    c.model.encoder.dtype = "float32"
    c.model.encoder.fields = dict(hidden_size=96, depth=4, num_heads=4, mlp_width=192)
    c.model.encoder.fields.update(image_size=112, processor_edge=0)
    c.data.image_size = 112
  if variant in ("scratch", "smoke"):
    c.model.encoder.frozen = False
    c.phases.head.groups = SCRATCH
    c.phases.head.update(epochs=20.0, lr=dict(head=5e-4, encoder=5e-4))
  if variant == "smoke":
    c.model.encoder.fields.update(hidden_size=16, depth=1, num_heads=2, mlp_width=16, image_size=28)
    c.steps_per_call, c.eval_batch_size, c.data.dev_share = 2, 8, 0.0
    c.eval_every = dict(steps=4)
    del c.phases.head.epochs
    c.phases.head.update(steps=4, warmup_steps=1, batch_size=8)
  return c


def _head(name):
  fields = dict(name=name, standardize=True, residual=name not in ("proposals", "anchors"))
  if name in ("mlp", "anchors"):
    fields.update(width=512, dropout=0.1)
  if name == "mlp":
    fields.update(normalize_features=True)
  if name == "proposals":
    fields.update(num_proposals=50, num_blocks=4, num_heads=8)
  if name == "anchors":
    fields.update(anchors="", num_anchors=8192)  # .npy [num_anchors, 20, 2] m
  return fields


def _loss(head):
  if head not in ("proposals", "anchors"):
    return dict(ade=1.0)
  return dict(
    ade=1.0 if head == "proposals" else 0.0,  # anchors do not move
    best_of=5,  # proposals whose ADE counts
    scorer="mse" if head == "proposals" else "nearest",  # mse, reinforce, margin, nearest
    scorer_weight=1.0,
    temperature=1.0,  # of reinforce
    rater_feedback=0.0,
  )


def _encoder():
  return ml_collections.ConfigDict(
    dict(
      name="smolvlm_tower",
      fields=ml_collections.ConfigDict(),  # sizes and settings other than the published ones
      checkpoint="",  # folder or hub name of published weights; a run that trained it; "" = random
      sha256="",  # the checkpoint's, if it must be that one
      seed=0,  # of random weights
      layer=-1,  # hidden state for the head
      dtype="bfloat16",
      frozen=True,
    )
  )


def _phase(groups, start_from, batch_size, duration, lr, patience=0, final_fraction=1e-2):
  """A phase: parameter name -> group ("frozen" is not trained), start, batch size, duration."""
  return ml_collections.ConfigDict(
    dict(
      groups=groups,
      start_from=start_from,  # "init", or "best" of the phase before
      batch_size=batch_size,  # frames a step, over all devices
      patience=patience,  # evaluations without improvement; 0 = never stop early
      final_fraction=final_fraction,  # last learning rate / peak
      lr=lr,
      **duration,
    )
  )
