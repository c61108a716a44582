"""Video tokenizer: Open-MAGVIT2's network and losses, trained from scratch or further.

  python -m launch.train --config=configs/magvit_tokenizer.py --workdir=runs/tokenizer
  python -m launch.train --config=configs/magvit_tokenizer.py:published --config.data.root=DATA \\
    --config.init.checkpoint=tokenizer.safetensors --config.model.dtype=bfloat16

Variants, as in --config=configs/magvit_tokenizer.py:published
  small       527,501 parameters, windows of 9 frames of 32 x 32 px, tokens of 2 frames and
              4 x 4 px: generated videos in minutes on 2 cores. The foreground has its own loss,
              for it covers 1 % of the picture: black everywhere would be nearly right. Codes need
              not be many either: at the published weight of their entropy (0.1) a network this
              small makes different codes of the same black, and paints black.
  natural     small, for real videos (--config.data.root=DATA): random crops of 32 px, all pixels
              alike. With the hard softmax of the others every token would become the same code in
              the first steps, and the picture stay one colour.
  published   370,547,349 parameters, windows of 17 frames of 128 x 128 px, the public recipe with
              its discriminator; for accelerators. LPIPS, whose weights are a download, comes with
              --config.loss.lpips=1.0 --config.loss.lpips_weights=FILE.
  smoke       a few steps of a tiny network with a discriminator, for tests.
A past and a future that are encoded apart are two windows; both halves of an example train.
"""

import ml_collections

VARIANTS = ("small", "natural", "published", "smoke")


def get_config(variant="small"):
  """Returns the locked-by-the-command configuration of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f"configs/magvit_tokenizer.py: variant {variant!r}; known: {VARIANTS}")
  c = ml_collections.ConfigDict()
  c.task = "magvit_tokenizer"
  c.seed = 0
  c.parallel = "jit"  # or "pmap"
  c.mesh = dict(data=-1, model=1)  # -1: all devices
  c.partition = ((".*", ()),)  # parameter name -> mesh axes; () = a copy on every device
  c.run = "all"  # or the name of one phase

  c.model = dict(
    kind="magvit2",
    channels=8,
    multipliers=(1, 2, 4),  # of a level; all but the last halve the sides, and frames if not 1
    num_blocks=1,  # of a level
    bits=18,
    groups=8,  # of the norms
    patch_channels=16,  # of the discriminator, if there is one
    dtype="float32",  # of the products; "bfloat16" pays on GPU and TPU
  )
  # Pixels are in -1..1. A loss of weight 0 is not computed.
  c.loss = dict(
    l1=1.0,
    l2=0.0,
    foreground=1.0,  # the foreground's mean absolute error, cubed
    lpips=0.0,  # 1 in the public recipe
    lpips_weights="",  # file of `launch.convert lpips`
    commitment=0.25,
    entropy=0.01,
    temperature=0.01,  # of the entropy's softmax over codes
    adversarial=0.0,
    lecam=0.05,  # with the discriminator
    lecam_decay=0.999,
  )
  c.data = dict(
    pipeline="future_video",
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
  c.ema_decay = 0.98  # 0 = off; a slower average still holds much of the random start
  c.steps_per_call = 5  # steps in one compiled call
  c.eval_every = dict(steps=200)
  c.eval_batch_size = 4
  c.phases = ml_collections.ConfigDict(sort_keys=False)
  c.phases.tokenizer = dict(
    groups=((".*", "all"),),
    start_from="init",
    batch_size=4,  # examples a step, two windows each, over all devices
    lr=dict(all=2e-3),
    steps=1000,
    warmup_steps=20,
    final_fraction=0.05,
    patience=0,
  )

  if variant == "natural":
    c.loss.update(foreground=0.0, commitment=0.02, entropy=0.1, temperature=0.5)
    c.data.update(root="", windows_per_video=4)
  elif variant == "published":
    c.model.update(
      channels=128, multipliers=(1, 2, 2, 4), num_blocks=4, groups=32, patch_channels=64
    )
    c.loss.update(foreground=0.0, entropy=0.1, adversarial=0.3)
    c.data.update(past=17, future=17, image_size=128)
    c.optimizer.update(b1=0.5, b2=0.9, clip_norm=0.0)
    c.ema_decay = 0.999
    c.eval_every = dict(epochs=10.0)
    del c.phases.tokenizer.steps, c.phases.tokenizer.warmup_steps
    c.phases.tokenizer.update(batch_size=8, lr=dict(all=1e-4), epochs=2000.0, warmup_epochs=2.0)
    c.phases.tokenizer.final_fraction = 0.01
  elif variant == "smoke":
    c.model.update(channels=4, multipliers=(1, 2), groups=2, bits=6, patch_channels=4)
    c.loss.update(adversarial=0.1, l2=0.5)
    c.data.update(past=5, future=5, image_size=16)
    c.steps_per_call, c.eval_every = 2, dict(steps=2)
    c.phases.tokenizer.update(steps=4, warmup_steps=1)
  return c
