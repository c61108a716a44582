"""XMem's memory for the futures of agents: masks first, then trajectories (nuScenes clips).

  python -m launch.train --config=configs/xmem.py --workdir=runs/xmem
  python -m launch.train --config=configs/xmem.py:bev,full --config.data.root=DATA \\
    --config.model.checkpoint=WEIGHTS --config.model.pillars.checkpoint=PILLARS \\
    --config.model.dtype=bfloat16 --config.model.remat=True

Variants, as in --config=configs/xmem.py:camera or :camera,full
  bev           LiDAR points seen from above, through PointPillars.
  camera        frames of one camera.
  camera_fused  the same with the points' inverse depth; config.model.fusion says how.
  seed          bev with the original project's head, loss, memory and decay.
  smoke         a few steps of a tiny network, for tests.
Sizes, after the comma: small (a narrow network, everything trained from scratch), full (the
published network, to start from published weights; PointPillars is frozen). seed is full.
Without memory, for comparison: --config.model.memory.update_memory=False (frames after the first
are not written) or --config.model.memory.detach_memory=True (they are, but nothing is learned
through it).
"""

import ml_collections

VARIANTS = ("bev", "camera", "camera_fused", "seed", "smoke")
SIZES = ("small", "full")


def get_config(variant="bev,small"):
  """Returns the locked-by-the-command configuration of a variant."""
  variant, size = (*variant.split(","), "")[:2]
  size = size or ("full" if variant == "seed" else "small")
  if variant not in VARIANTS or size not in SIZES:
    raise ValueError(
      f"configs/xmem.py: variant {variant!r}, size {size!r}; known: {VARIANTS}, {SIZES}"
    )
  is_full = size == "full"
  mode = variant if variant.startswith("camera") else "bev"
  c = ml_collections.ConfigDict()
  c.task = "xmem"
  c.seed = 0
  c.parallel = "jit"  # or "pmap"
  c.mesh = dict(data=-1, model=1)  # -1: all devices
  c.partition = ((".*", ()),)  # parameter name -> mesh axes; () = a copy on every device
  c.run = "all"  # or the name of one phase

  c.data = dict(
    pipeline="xmem",
    root="embedded",
    mode=mode,
    image_size=_image_size(mode, is_full),  # height, width, px
    t_in=9,  # observed key frames, 2 Hz
    t_out=12,  # future ones; of the data and of the head
    objects=1,  # the target and others in view
    points=20000 if is_full else 4096,  # most LiDAR points of a key frame
    worker_count=0,
  )
  c.model = _model(mode, is_full)
  c.loss = dict(
    mask=1.0,
    ade=1.0,
    fde=2.0,
    cross_entropy=1.0,
    relaxation=0.05,  # weight of the futures that are not the best, in all
    temperature=1.0,  # m, of the scores' targets; 0: the best future is the only right one
  )
  c.init = dict(checkpoint="", skip=())  # "" = from scratch, on purpose

  c.optimizer = dict(b1=0.9, b2=0.999, eps=1e-8, clip_norm=1.0)
  c.optimizer.weight_decay = dict(head=1e-4, decoder=1e-5, key_encoder=1e-6, value_encoder=1e-6)
  c.optimizer.decay = ((".*(scale|bias)", False), (".*", True))
  c.ema_decay = 0.0  # 0 = off
  c.steps_per_call = 10  # steps in one compiled call
  c.eval_every = dict(epochs=1.0)
  c.eval_batch_size = 8
  c.phases = ml_collections.ConfigDict(sort_keys=False)  # run in this order
  c.phases.masks = _phase("masks", mode, is_full, "init", 5.0)
  c.phases.trajectory = _phase("trajectory", mode, is_full, "best", 10.0)

  if variant == "seed":
    c.model.memory.update(min_mid=2, max_mid=8, num_prototypes=64, top_k=10, long_term=False)
    c.model.memory.detach_written_mask = True
    c.model.warmup_frames = 5
    c.model.head.update(kind="seed", use_ego_motion=False, use_past_xy=False, residual=False)
    c.model.head.t0_feature = "zero"
    c.loss.update(cross_entropy=0.1, relaxation=0.0, temperature=0.0)
    c.optimizer.decay = ((".*", True),)
  elif variant == "smoke":
    c.data.update(image_size=(32, 32), points=64)
    c.model.xmem.update(key_dim=8, value_dim=16, hidden_dim=8, width=4)
    c.model.pillars.update(pillar_features=8, widths=(8, 8, 8), neck_widths=(8, 8, 8))
    c.model.memory.num_prototypes = 8
    c.model.head.hidden = 16
    c.steps_per_call, c.eval_batch_size = 2, 4
    c.eval_every = dict(steps=4)
    for phase in c.phases.values():
      del phase.epochs
      phase.update(steps=4, warmup_steps=1, batch_size=4)
  return c


def _image_size(mode, is_full):
  if mode == "bev":
    return (256, 256) if is_full else (128, 128)
  return (256, 448) if is_full else (128, 224)


def _model(mode, is_full):
  model = ml_collections.ConfigDict()
  model.checkpoint = ""  # published XMem weights (launch.convert xmem); "" = random
  model.xmem = dict(
    key_dim=64 if is_full else 32,
    value_dim=512 if is_full else 64,
    hidden_dim=64 if is_full else 32,
    width=64 if is_full else 16,
    key_depths=(3, 4, 6) if is_full else (1, 1, 1),
    value_depths=(2, 2, 2) if is_full else (1, 1, 1),
  )
  model.memory = dict(
    update_memory=True,  # whether frames after the first masks are written
    top_k=0,  # elements each query reads; 0 = all
    mem_every=1,
    deep_update_every=-1,
    long_term=True,  # begins with clips of max_mid frames
    min_mid=5,
    max_mid=10,
    num_prototypes=64,
    max_long=1024,
    read="dense",
    usage_power=1.0,
    mass_power=0.0,
    mass_floor=0.01,
    age_scale=float("inf"),
    detach_written_mask=False,
    detach_memory=False,
    detach_long_term=False,
  )
  model.warmup_frames = 1  # frames that show the true masks
  model.head = dict(
    kind="scored",  # or "seed"
    modes=6,
    hidden=64,
    dropout=0.1,
    use_ego_motion=True,
    use_past_xy=True,
    residual=True,  # futures are offsets from constant velocity
    t0_feature="hidden",  # or "key", "zero": of the frames that show the true masks
  )
  if mode == "bev":
    model.pillars = dict(
      checkpoint="",  # of `launch.convert pointpillars`; full: frozen, so it has to be given
      reach=51.2,  # m, to each side; the data's
      points=10,  # most in a pillar
      pillar_features=64 if is_full else 16,
      widths=(64, 128, 256) if is_full else (16, 32, 64),
      depths=(2, 4, 4) if is_full else (1, 1, 1),
      neck_widths=(64, 96, 96) if is_full else (16, 16, 16),
    )
    model.adapter = dict(features=64 if is_full else 16, groups=8)
  elif mode == "camera_fused":
    model.fusion = "concat"  # or "project"
  model.dtype = "float32"  # of convolutions; "bfloat16" pays on GPU and TPU
  model.remat = False
  return model


def _phase(objective, mode, is_full, start_from, epochs):
  """A phase; parameters are in groups by the part of the network they belong to."""
  trains_head = objective == "trajectory"
  groups = [(".*/(mean|var)", "frozen")]
  if not trains_head:
    groups.append(("head/.*", "frozen"))
  if mode == "bev" and is_full:
    groups.append(("pillars/.*", "frozen"))
  groups += [
    ("xmem/key_encoder/.*", "key_encoder"),
    ("xmem/value_encoder/.*", "value_encoder"),
    ("xmem/.*", "decoder"),
  ]
  rates = dict(decoder=2e-5, key_encoder=2e-6, value_encoder=2e-6)
  if not is_full:
    rates = dict.fromkeys(rates, 1e-3)
  if trains_head or mode != "camera":  # the head, and what makes images of other sensors
    groups.append((".*", "head"))
    rates["head"] = 3e-3
  return ml_collections.ConfigDict(
    dict(
      objective=objective,  # losses, and what the best checkpoint is the best of
      groups=tuple(groups),
      start_from=start_from,  # "init", or "best" of the phase before
      batch_size=8,  # clips a step, over all devices
      lr=rates,
      epochs=epochs,
      warmup_steps=20,
      final_fraction=0.05,
      patience=0,  # evaluations without improvement; 0 = never stop early
    )
  )
