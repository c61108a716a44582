"""Two-stream (motion and form) video predictor, its ablations and baselines.

  python -m launch.train --config=configs/two_stream.py --workdir=runs/two_stream
  python -m launch.train --config=configs/two_stream.py:v6 --config.data.root=DATA \\
    --config.model.dtype=bfloat16 --config.model.remat=block

Variants, as in --config=configs/two_stream.py:a or :a,small or :small
  base           the network of the original project, with P made of the current frame only.
  seed           as it was first run: P made of the frame to be predicted (a leak), dropout on the
                 attention weights, everything decayed. To repeat old numbers: they prove nothing.
  a, b, c, d     decoder ablations: a no path but the patches; b with the current frame; c also the
                 last CLS at three levels; d CLS of three depths (the same as base).
  v6             later recipe: luminance change only, two stages, a decoder a stream, masks, turns,
                 gaps up to 60 frames (small: 20). Trajectories have to be longer than that; those
                 of the embedded data have 12 to 57 frames, which want --config.data.gap.max=40
                 --config.data.gap.center=20.
  single_stream  one transformer on both inputs: half the compute.
  videomae       masked autoencoder of two frames.
  smoke          a few steps of a tiny network, for tests.
Sizes, after the comma: full (192,307,427 parameters with two streams), small (64 px, width 96,
depth 6: minutes on a CPU with the embedded data).
No loss reaches `fusion/fc_cls`, so it is frozen: it keeps its random start and does not decay.
"""

import ml_collections

VARIANTS = ("base", "seed", "a", "b", "c", "d", "v6", "single_stream", "videomae", "smoke")
SIZES = ("full", "small")
ALL = ((".*", "all"),)
# Patterns must match something, so variants without fusion leave the first line out.
WITHOUT_FUSED_CLS = (("fusion/fc_cls/.*", "frozen"), (".*", "all"))


def get_config(variant="base"):
  """Returns the locked-by-the-command configuration of a variant."""
  variant = "base,small" if variant == "small" else variant
  variant, size = (*variant.split(","), "full")[:2]
  if variant not in VARIANTS or size not in SIZES:
    raise ValueError(
      f"configs/two_stream.py: variant {variant!r}, size {size!r}; known: {VARIANTS}, {SIZES}"
    )
  c = ml_collections.ConfigDict()
  c.task = "two_stream"
  c.seed = 0
  c.parallel = "jit"  # or "pmap"
  c.mesh = dict(data=-1, model=1)  # -1: all devices
  c.partition = ((".*", ()),)  # parameter name -> mesh axes; () = a copy on every device
  c.run = "all"  # or the name of one phase

  c.model = dict(
    streams="two",  # or "rgb6", "mp9", "m_only", "p_only" (one stream), "videomae"
    image_size=224,
    patch_size=16,
    embed_dim=768,
    depth=12,  # blocks a stream
    num_heads=12,
    mlp_ratio=4.0,
    dropout=0.1,
    attn_dropout=0.0,  # above 0 rules fused attention out
    m_channels="rgb4",  # or "luma3", "luma1"
    p_source="current",  # "future" leaks the target
    fusion="separate",  # or "shared"
    num_stages=3,
    num_exchanges=-1,  # -1: after every stage but the last
    exchange_after_last=False,
    exchange="cls",  # or "full": all tokens of both streams
    exchange_heads=0,  # 0: as many as num_heads
    cls_tap="pre",  # or "post": CLS for the decoder before or after the exchange
    pos="learned",  # or "rope2d"
    mask_ratio_m=0.0,
    mask_ratio_p=0.0,
    dtype="float32",  # of the products; "bfloat16" pays on GPU and TPU
    remat="none",  # or "block", "dots"
    attention="auto",  # or "xla", "cudnn"
    stack_streams=True,
  )
  c.model.decoder = dict(
    kind="conv",  # or "per_stream_patch"
    skip=True,  # the current frame, at a quarter of its size
    cls="multiscale",  # or "none", "final_first", "final_all"
    cls_film="add",  # or "scale_shift"
    norm="batch",  # or "group"
    width=512,  # these three of "per_stream_patch"
    depth=4,
    num_heads=8,
  )
  c.model.videomae = dict(mask_ratio=0.75, decoder_dim=384, decoder_depth=4, decoder_heads=6)
  c.loss = dict(ssim_weight=0.0)
  c.augment = dict(rot90_prob=0.0, rot90_independent=0.1)
  c.data = dict(
    pipeline="two_stream",
    root="embedded",
    pairs_per_trajectory=50,  # an epoch
    eval_pairs_per_trajectory=4,
    crop="shared",  # or "independent"
    crop_ratio=0.875,  # side of the crop / side of the frame
    loss_decay=0.7,  # loss of gap k counts exp(-loss_decay (k - 1))
    worker_count=0,
  )
  c.data.gap = dict(dist="exp", max=10, decay=0.3, center=0)  # frames
  c.init = dict(checkpoint="", skip=())  # "" = from scratch, on purpose

  c.optimizer = dict(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01, clip_norm=1.0)
  c.optimizer.decay = ((".*(scale|bias|cls_token|pos_embed)", False), (".*", True))
  c.ema_decay = 0.0  # 0 = off
  c.steps_per_call = 10  # steps in one compiled call
  c.eval_every = dict(epochs=10.0)
  c.eval_batch_size = 64
  c.phases = ml_collections.ConfigDict(sort_keys=False)
  c.phases.pretrain = dict(
    groups=WITHOUT_FUSED_CLS,
    start_from="init",
    batch_size=64,  # pairs a step, over all devices
    lr=dict(all=1e-4),
    epochs=100.0,
    warmup_epochs=0.0,
    final_fraction=0.0,
    patience=0,
  )

  decoder = c.model.decoder
  if variant == "seed":
    c.model.update(p_source="future", attn_dropout=0.1)
    c.data.crop_ratio = 1.0
    c.optimizer.decay = ((".*", True),)
    c.phases.pretrain.epochs = 350.0
  elif variant in ("a", "b", "c"):
    decoder.update(skip=variant != "a", cls="final_all" if variant == "c" else "none")
  elif variant == "v6":
    c.model.update(m_channels="luma3", num_stages=2, exchange_after_last=True, exchange_heads=8)
    c.model.update(mask_ratio_m=0.5, mask_ratio_p=0.5)
    decoder.kind = "per_stream_patch"
    c.augment.rot90_prob = 1.0
    c.data.gap.update(dist="triangular", max=60, center=30)
    c.data.loss_decay = 0.0
    c.optimizer.decay = ((".*(scale|bias|cls_token|pos_embed|mask_token)", False), (".*", True))
    c.phases.pretrain.update(groups=ALL, epochs=50.0, warmup_epochs=5.0, lr=dict(all=2e-4))
  elif variant == "single_stream":
    c.model.streams = "mp9"
    c.phases.pretrain.groups = ALL
  elif variant == "videomae":
    c.model.streams = "videomae"
    c.optimizer.decay = ((".*(scale|bias|mask_token)", False), (".*", True))
    c.phases.pretrain.groups = (("cls_proj/.*", "frozen"), (".*", "all"))
  if size == "small":
    c.model.update(image_size=64, embed_dim=96, depth=6, num_heads=3)
    decoder.update(width=96, depth=2, num_heads=3)
    c.model.videomae.update(decoder_dim=48, decoder_depth=2, decoder_heads=3)
    c.data.update(pairs_per_trajectory=20, eval_pairs_per_trajectory=16)
    c.eval_every = dict(epochs=1.0)
    c.phases.pretrain.update(batch_size=32, epochs=4.0, warmup_epochs=0.2, lr=dict(all=5e-4))
    if variant == "v6":
      c.data.gap.update(max=20, center=10)
  if variant == "smoke":
    c.model.update(image_size=32, embed_dim=32, depth=2, num_heads=2, num_stages=2)
    c.data.update(pairs_per_trajectory=8)
    c.data.gap.max = 3
    c.steps_per_call, c.eval_batch_size = 2, 8
    del c.phases.pretrain.epochs, c.phases.pretrain.warmup_epochs
    c.phases.pretrain.update(steps=4, warmup_steps=1, batch_size=8, lr=dict(all=1e-3))
    c.eval_every = dict(steps=2)
  return c
