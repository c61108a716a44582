"""TrackSSM: a motion model for multi-object tracking, fine-tuned in two phases.

  python -m launch.train --config=configs/trackssm.py --workdir=runs/trackssm
  python -m launch.train --config=configs/trackssm.py --config.data.root=DATA \\
    --config.init.checkpoint=weights.safetensors

Variants, as in --config=configs/trackssm.py:quick
  full     the two phases of the original project: the decoder with the encoder frozen, then all.
  quick    a small network from nothing in minutes: everything first, then the two phases.
  pretrain from nothing, one phase over all parameters (the public recipe, shortened).
  smoke    a few steps of a tiny network, for tests.
"""

import ml_collections

ALL = ((".*", "decoder"),)
ENCODER_FROZEN = (("encoder/.*", "frozen"), (".*", "decoder"))
TWO_RATES = (("encoder/.*", "encoder"), (".*", "decoder"))


def get_config(variant="full"):
  """Returns the locked-by-the-command configuration of a variant."""
  c = ml_collections.ConfigDict()
  c.task = "trackssm"
  c.seed = 0
  c.parallel = "jit"  # or "pmap"
  c.mesh = dict(data=-1, model=1)  # -1: all devices
  c.partition = ((".*", ()),)  # parameter name -> mesh axes; () = a copy on every device
  c.run = "all"  # or the name of one phase

  c.model = dict(
    width=256,
    num_layers=6,
    num_heads=6,
    state_size=16,
    history=5,
    box_sigmoid=True,  # False for the released MOT17 weights
    scan_method="unrolled",
    dtype="float32",  # of the products; "bfloat16" pays on GPU and TPU
  )
  c.loss = dict(smooth_l1=1.0, giou=1.0)
  c.augment = dict(kind="default", flip_prob=0.5, pad_prob=0.2)
  c.data = dict(
    pipeline="trackssm",
    root="embedded",
    sample_stride=1,  # every n-th window of a track
    frame_stride=1,  # frames between the boxes of a window
    worker_count=0,
  )
  c.init = dict(checkpoint="", skip=())  # "" = from scratch, on purpose

  c.optimizer = dict(b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-4, clip_norm=1.0)
  # The public recipe decays everything; Mamba marks A_log and D as not to be decayed.
  c.optimizer.decay = ((".*(A_log|D|scale|bias)", False), (".*", True))
  c.ema_decay = 0.0  # 0 = off
  c.steps_per_call = 50  # steps in one compiled call
  c.eval_every = dict(epochs=1.0)
  c.eval_batch_size = 512

  c.phases = ml_collections.ConfigDict(sort_keys=False)  # run in this order
  if variant == "quick":
    c.model.update(width=128, num_layers=2)  # learns 100 times more windows a minute on a CPU
    c.eval_every = dict(steps=500)
    c.phases.pretrain = _phase(ALL, "init", 64, dict(steps=5000, warmup_steps=200), 0)
    c.phases.pretrain.lr = dict(decoder=2e-3)
    c.phases.decoder = _phase(ENCODER_FROZEN, "best", 64, dict(steps=1000, warmup_steps=50), 7)
    c.phases.decoder.lr = dict(decoder=3e-4)
    c.phases.full = _phase(TWO_RATES, "best", 64, dict(steps=1000, warmup_steps=50), 10)
    c.phases.full.lr = dict(encoder=6e-5, decoder=3e-4)
  elif variant == "pretrain":
    c.phases.pretrain = _phase(ALL, "init", 512, dict(epochs=40.0, warmup_epochs=1.0), 0, 1e-3)
    c.phases.pretrain.lr = dict(decoder=1e-3)
  elif variant in ("full", "smoke"):
    first, second = dict(epochs=40.0, warmup_epochs=5.0), dict(epochs=80.0, warmup_epochs=5.0)
    c.phases.decoder = _phase(ENCODER_FROZEN, "init", 64, first, 7, 1e-2)
    c.phases.decoder.lr = dict(decoder=1e-4)
    c.phases.full = _phase(TWO_RATES, "best", 32, second, 10, 2e-3)
    c.phases.full.lr = dict(encoder=1e-5, decoder=5e-5)
  else:
    raise ValueError(
      f"configs/trackssm.py: variant {variant!r}; known: 'full', 'quick', 'pretrain', 'smoke'"
    )
  if variant == "smoke":
    c.model.update(width=32, num_layers=2, num_heads=3, state_size=4)
    c.steps_per_call, c.eval_batch_size = 4, 32
    for phase in c.phases.values():
      del phase.epochs, phase.warmup_epochs
      phase.update(steps=12, warmup_steps=2, batch_size=16)
    c.eval_every = dict(steps=6)
  return c


def _phase(groups, start_from, batch_size, duration, patience, final_fraction=1e-2):
  """A phase: parameter name -> group ("frozen" is not trained), start, batch size, duration."""
  return ml_collections.ConfigDict(
    dict(
      groups=groups,
      start_from=start_from,  # "init", or "best" of the phase before
      batch_size=batch_size,  # windows a step, over all devices
      patience=patience,  # evaluations without improvement; 0 = never stop early
      final_fraction=final_fraction,  # last learning rate / peak
      **duration,
    )
  )
