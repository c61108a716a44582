"""Future video: latents or codes of the next frames from those of the past ones.

  python -m launch.train --config=configs/magvit.py --workdir=runs/future
  python -m launch.train --config=configs/magvit.py --config.data.root=DATA \\
    --config.run=predictor --config.phases.predictor.start_from=init \\
    --config.model.tokenizer.checkpoint=w.safetensors \\
    --config.data.past=17 --config.data.future=17 --config.data.image_size=128 \\
    --config.model.transformer.width=256 --config.model.transformer.num_layers=12

Variants, as in --config=configs/magvit.py:pooled
  full        every latent is a token of one transformer.
  pooled      the original's form: a frame's mean is a token, post-norm, a table of positions. It
              cannot say where anything is.
  factorised  attention over time and over space in turn: for many tokens.
  joint_i3d   the tokenizer goes on training, and I3D's view of the past guides the prediction.
  slowfast    the tokenizer stays as it is; SlowFast's view guides the prediction.
  tokens      a distribution over codes by sub-tokens, masked generation (config.model.head).
  smoke       a few steps of a tiny network, for tests.
  full,codes  the first, from codes that launch.tokenize wrote of past and future, so that encoding
              is paid for once; pooled, factorised, tokens and smoke as well:
    python -m launch.train --config=configs/magvit.py:full,codes --config.data.root=CODES \\
      --config.model.tokenizer.checkpoint=w.safetensors --config.data.past=17 \\
      --config.data.future=17 --config.data.image_size=128
First a small tokenizer trains on the same videos, then the predictor on its latents. With the
weights of a finished one (config.model.tokenizer.checkpoint) the first phase is left out as above;
the other settings of config.model.tokenizer then come from the file. A tokenizer that shows less
than a black picture is refused before the predictor's first step.
"""

import ml_collections

VARIANTS = ("full", "pooled", "factorised", "joint_i3d", "slowfast", "tokens", "smoke")
DATA = ("videos", "codes")
_ALWAYS_FROZEN = (("motion/backbone/.*/(mean|var)", "frozen"),)


def get_config(variant="full"):
  """Returns the locked-by-the-command configuration of a variant."""
  variant, data = (*variant.split(","), "videos")[:2]
  if variant not in VARIANTS or data not in DATA:
    raise ValueError(
      f"configs/magvit.py: variant {variant!r}, data {data!r}; known: {VARIANTS}, {DATA}"
    )
  c = ml_collections.ConfigDict()
  c.task = "magvit"
  c.seed = 0
  c.parallel = "jit"  # or "pmap"
  c.mesh = dict(data=-1, model=1)  # -1: all devices
  c.partition = ((".*", ()),)  # parameter name -> mesh axes; () = a copy on every device
  c.run = "all"  # or the name of one phase

  c.model = dict(
    head="bits",  # or "mse"; "masked", "autoregressive": distributions over codes
    tokens="all",  # or "pooled"
    token_head="subtokens",  # or "bits"; of the last two heads
    first_bits=9,  # of the first sub-token
    flip_rate=0.0,  # share of bits of the codes an autoregressive model sees flipped in training
    joint=False,  # whether gradients reach the tokenizer
    dtype="float32",  # of the products; "bfloat16" pays on GPU and TPU
  )
  c.model.transformer = dict(
    width=128,
    num_heads=4,
    num_layers=4,
    hidden=512,
    attend="full",  # or "factorised", "axial"
    norm="pre",  # or "post"
    positions="factorised",  # or "table"
    dropout=0.0,
    attention="auto",  # or "xla", "chunked", "cudnn", "flash"
    remat="block",  # or "none", "attention"
  )
  c.model.motion = dict(
    kind="",  # or "i3d", "slowfast"
    checkpoint="",  # file of `launch.convert i3d` or `slowfast`; "" = random
    width=64,  # channels of the backbone's first layer; 64 is published
    frames=32,  # of its clip
    fusion="film",  # or "concat"
  )
  c.model.tokenizer = dict(
    checkpoint="",  # weights file or run; "" = trained by the phase "tokenizer"
    kind="magvit2",
    channels=8,
    multipliers=(1, 2, 4),
    num_blocks=1,
    bits=18,
    groups=8,
    patch_channels=16,
    dtype="float32",
    allow_worse_than_black=False,  # whether to predict in its codes whatever it shows
  )
  # Losses of weight 0 are not computed.
  c.loss = dict(
    latent=1.0,
    pixel=0.0,  # of the decoded prediction
    reconstruction=1.0,  # these two with model.joint: they keep the tokenizer one
    commitment=0.25,
  )
  c.loss.tokenizer = dict(  # of the phase "tokenizer", as in configs/magvit_tokenizer.py
    l1=1.0,
    l2=0.0,
    foreground=1.0,
    lpips=0.0,
    lpips_weights="",
    commitment=0.25,
    entropy=0.01,
    temperature=0.01,
    adversarial=0.0,  # above 0 with configs/magvit_tokenizer.py, whose groups train a discriminator
    lecam=0.05,
    lecam_decay=0.999,
  )
  c.eval = dict(
    decode_input="hard",  # or "soft"
    steps=12,  # these four of heads over codes
    temperature=1.0,
    top_k=0,
    top_p=1.0,
  )
  c.data = dict(
    pipeline="future_video",  # or "video_codes"
    root="embedded",
    world=dict(clutter="none", size=32),  # the embedded videos, see prepare.embedded
    past=9,  # frames: 4k+1
    future=9,
    image_size=32,  # px of the square crops
    windows_per_video=1,  # an epoch
    eval_windows_per_video=1,
    worker_count=0,
  )
  c.init = dict(checkpoint="", skip=())  # "" = from scratch, on purpose

  c.optimizer = dict(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.0, clip_norm=1.0)
  c.optimizer.decay = ((".*", False),)
  c.ema_decay = 0.99  # 0 = off
  c.steps_per_call = 5  # steps in one compiled call
  c.eval_every = dict(steps=250)
  c.eval_batch_size = 4
  c.phases = ml_collections.ConfigDict(sort_keys=False)  # run in this order
  c.phases.tokenizer = dict(
    groups=(("tokenizer/.*", "all"), (".*", "frozen")),
    start_from="init",
    batch_size=4,  # examples a step, over all devices
    lr=dict(all=2e-3),
    steps=1000,
    warmup_steps=20,
    final_fraction=0.05,
    patience=0,
  )
  c.phases.predictor = dict(
    groups=(("tokenizer/.*", "frozen"), (".*", "predictor")),
    start_from="best",
    batch_size=4,
    lr=dict(predictor=1e-3),
    steps=2000,
    warmup_steps=50,
    final_fraction=0.05,
    patience=0,
  )
  phase = c.phases.predictor

  if variant == "pooled":
    c.model.update(head="mse", tokens="pooled")
    c.model.transformer.update(norm="post", positions="table", dropout=0.1)
  elif variant == "factorised":
    c.model.transformer.attend = "factorised"
  elif variant == "joint_i3d":
    c.model.joint = True
    c.model.motion.kind = "i3d"
    c.loss.pixel = 1.0
    # Rates are to each other as in the original: 0.1 tokenizer, 0.5 backbone, 1 the rest.
    phase.groups = (
      *_ALWAYS_FROZEN,
      ("tokenizer/.*", "tokenizer"),
      ("motion/backbone/.*", "backbone"),
      (".*", "predictor"),
    )
    phase.lr = dict(tokenizer=1e-4, backbone=5e-4, predictor=1e-3)
  elif variant == "slowfast":
    c.model.motion.kind = "slowfast"
    phase.groups = (
      *_ALWAYS_FROZEN,
      ("tokenizer/.*", "frozen"),
      ("motion/backbone/.*", "backbone"),
      (".*", "predictor"),
    )
    phase.lr = dict(backbone=5e-4, predictor=1e-3)
  elif variant == "tokens":
    c.model.head = "masked"
  elif variant == "smoke":
    c.model.transformer.update(width=16, num_heads=2, num_layers=1, hidden=32)
    c.model.tokenizer.update(channels=4, multipliers=(1, 2), groups=2, bits=6, patch_channels=4)
    c.model.tokenizer.allow_worse_than_black = True
    c.model.first_bits = 3
    c.model.motion.update(width=8, frames=4)
    c.data.update(past=5, future=5, image_size=16)
    c.eval.steps = 2
    c.steps_per_call, c.eval_every = 2, dict(steps=2)
    for part in c.phases.values():
      part.update(steps=4, warmup_steps=1)

  if data == "codes":
    c.data.update(pipeline="video_codes", root="", resident=True)  # codes are small
    del c.data.world
    del c.phases.tokenizer
    phase.start_from = "init"
  return c
