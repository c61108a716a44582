"""Eight clips of moving rectangles by heart, with and without writing to memory."""

import functools

import jax
import numpy as np
import optax
import pytest
import test_xmem_trajectory as cases
import xmem_cases
import xmem_clips

from vistraj_jax.tasks import xmem as task_lib
from vistraj_jax.train import state, step

pytestmark = pytest.mark.slow  # minutes on 2 cores

STEPS = 200


def _learn(root, update):
  """Returns the scores on the eight clips after `STEPS` steps on images and masks alone."""
  config = xmem_clips.config(
    root,
    "camera",
    **{
      **cases._TINY_CAMERA,
      "data.image_size": (64, 64),
      "model.memory.update_memory": update,
      "model.head.modes": 3,
      **{f"model.head.{name}": False for name in ("use_past_xy", "use_ego_motion", "residual")},
    },
  )
  task = task_lib.XMemTask(config)
  variables, batch = task.init(jax.random.PRNGKey(0)), cases.whole_batch(config, 8)
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
  labels = jax.tree.map(lambda _: "all", variables["params"])
  train_state = state.create(variables, tx, jax.random.PRNGKey(0), 0.0)
  run = xmem_cases.jit(functools.partial(step.train_step, task=task, tx=tx, labels=labels))
  for _ in range(STEPS):
    train_state, scalars = run(train_state, batch)
    assert np.isfinite(scalars["grad_norm"])
  found = xmem_cases.jit(task.metrics)(train_state.variables, batch)
  return {name: float(value.value) for name, value in found.items()}


def test_eight_clips_by_heart(tmp_path, capsys):
  """The agents move 3 m on average; both networks learn the clips, the difference is printed."""
  root = xmem_clips.write(tmp_path)
  found = {update: _learn(root, update) for update in (True, False)}
  with capsys.disabled():
    for update, values in found.items():
      print(
        f"\nmemory {'written' if update else 'of the first frame only'}: minADE_5 "
        f"{values['min_ade_5/val']:.3f} m, mask IoU {values['mask_iou/val']:.3f}"
      )
  for values in found.values():
    assert values["min_ade_1/constant_position"] > 2.5
    assert values["min_ade_5/val"] < 0.3
    assert values["mask_iou/val"] > 0.8 > values["mask_iou/first_mask"]
