"""Whole clips against the public inference code: masks, hidden states, what memory holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xmem_cases
from xmem_cases import check, jit, last, unit

from vistraj_jax.models.xmem import clip, pooling, schedule, settings

pytestmark = pytest.mark.slow  # minutes on 2 cores; `make test-slow`


def _frames(T, *size):
  return last(unit("base", 1, 3, *size) + 0.5 * unit("frames", T, 3, *size))


def _rules(config):
  names = {
    "min_mid": "min_mid_term_frames",
    "max_mid": "max_mid_term_frames",
    "num_prototypes": "num_prototypes",
    "max_long": "max_long_term_elements",
  }
  names = {ours: config[theirs] for ours, theirs in names.items() if theirs in config}
  same = {name: config[name] for name in ("top_k", "mem_every", "deep_update_every")}
  return settings.MemorySettings(long_term=config["enable_long_term"], **same, **names)


def _run(case, **kwargs):
  """Returns the schedule, outputs without the batch axis, and the last state."""
  config = case.config
  rules = _rules(config)
  shown = {int(t): objects for t, objects in config["mask_frames"].items()}
  K = max(max(objects) for objects in shown.values())
  planned = schedule.plan_clip(rules, config["num_frames"], shown, last_is_end=True)
  masks = np.zeros((1, len(shown), *config["image_hw"], K), np.float32)
  given = np.zeros((1, len(shown), K), bool)
  for i, (t, objects) in enumerate(shown.items()):
    mask = last(case.arrays[f"in/mask_{t:02d}"])
    masks[0, i, ..., : mask.shape[-1]] = mask
    given[0, i, np.array(objects) - 1] = True
  model, params = xmem_cases.published()
  images = _frames(config["num_frames"], *config["image_hw"])[None]
  run = functools.partial(clip.run_clip, model, rules, clip=planned, last_state=True, **kwargs)
  frames, state = jit(run)(params, images, masks, given)
  return planned, jax.tree.map(lambda x: np.asarray(x)[0], frames), state


@pytest.mark.parametrize("name", ["clip", "clip_long"])
def test_clip(name):
  case = xmem_cases.load(name)
  planned, frames, state = _run(case)
  h, w = frames.hidden.shape[2:4]
  check(case, "sizes", planned.sizes * [h * w, 1])
  check(case, "mask_logits", frames.quarter[1:])
  check(case, "prob", np.moveaxis(frames.probability, -1, 1))
  check(case, "hidden", np.moveaxis(frames.hidden, -1, 2))
  check(case, "feature_mean", pooling.mean_over_objects(frames.hidden))
  target = pooling.over_target_sampled(jnp.asarray(frames.hidden[:, 0]), frames.probability[..., 1])
  check(case, "feature_target", target)
  xmem_cases.check_content(case, state.memory, work_usage=True, work_key=True)


def test_object_that_comes_later():
  case = xmem_cases.load("clip_new_object")
  planned, frames, state = _run(case)
  check(case, "sizes", planned.sizes * [16, 1])
  for t in range(7):
    known = 1 if t < 3 else 2
    if t:
      check(case, f"mask_logits_{t:02d}", frames.quarter[t, : 1 if t <= 3 else 2])
    check(case, f"prob_{t:02d}", np.moveaxis(frames.probability[t, ..., : 1 + known], -1, 0))
    check(case, f"hidden_{t:02d}", np.moveaxis(frames.hidden[t, :known], -1, 1))
  for t in range(3):  # the empty slot of the second object
    assert frames.probability[t, ..., 2].max() < 1e-5
  features = pooling.mean_over_objects
  mean = [features(frames.hidden[t, : 1 if t < 3 else 2]) for t in range(7)]
  check(case, "feature_mean", np.stack(mean))
  target = pooling.over_target_sampled(jnp.asarray(frames.hidden[:, 0]), frames.probability[..., 1])
  check(case, "feature_target", target)
  xmem_cases.check_content(case, state.memory, work_key=True)
