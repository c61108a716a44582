"""Learning itself: a small network beats the trivial motion models on tracks that curve."""

import jax
import numpy as np
import tiny_run

from vistraj_jax.tasks import base
from vistraj_jax.train import optim, phases, state, step


def _curved_tracks(count):
  """Boxes on circles, [count, 7, 4]: the direction turns by 0.6 rad a frame."""
  rng = np.random.default_rng(0)
  centre, phase = rng.uniform(0.35, 0.65, (count, 1, 2)), rng.uniform(0, 6.3, (count, 1))
  angle = phase + 0.6 * np.arange(7)
  position = centre + 0.15 * np.stack([np.cos(angle), np.sin(angle)], -1)
  return np.concatenate([position, np.full((count, 7, 2), 0.12)], -1).astype(np.float32)


def test_beats_trivial_motion_on_curved_tracks():
  changes = {"model.width": 64, "model.num_heads": 3, "augment.kind": "none"}
  config = tiny_run.config("", **changes)
  config.augment.update(flip_prob=0.0, pad_prob=0.0)
  task = base.make(config)
  phase = phases.Phase(
    name="all",
    groups=((".*", "all"),),
    learning_rates={"all": 3e-3},
    num_steps=1500,
    warmup_steps=50,
    final_fraction=0.01,
    patience=0,
    start_from="init",
    batch_size=64,
    steps_per_epoch=1,
    call_steps=100,
    eval_steps=100,
  )
  variables = task.init(jax.random.PRNGKey(0))
  tx = optim.build(phase, config.optimizer, variables["params"])
  labels = optim.labels_of(phase, variables["params"])
  held = state.create(variables, tx, jax.random.PRNGKey(1), 0.0)
  batch = {"boxes": _curved_tracks(64), "mask": np.ones(64, np.float32)}
  stacked = {name: np.broadcast_to(x, (100, *x.shape)) for name, x in batch.items()}
  call = jax.jit(lambda s, b: step.train_steps(s, b, task=task, tx=tx, labels=labels))
  for _ in range(15):
    held, _ = call(held, stacked)
  metrics = step.eval_step(held.variables, batch, task=task)
  iou = {name: float(value.value) for name, value in metrics.items() if name.startswith("iou/")}
  assert iou["iou/val"] > max(iou["iou/identity"], iou["iou/constant_velocity"]) + 0.1, iou
