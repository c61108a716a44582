"""The tracker with a small TrackSSM: a few compiled programs however many tracks there are."""

import jax
import numpy as np

from vistraj_jax.models.trackssm import network, predict
from vistraj_jax.tracking import motion_models
from vistraj_jax.tracking.settings import TrackerSettings
from vistraj_jax.tracking.tracker import Detections, Tracker


def test_compiled_programs_do_not_grow_with_the_number_of_tracks():
  model = network.TrackSSM(width=32, num_layers=1, num_heads=1, state_size=4)
  params = network.init(model, jax.random.key(0), history=2)
  function = predict.make_predict(model, params, 2)
  sizes = []

  def counted(boxes, counts, image_size):
    sizes.append(len(boxes))
    answer = function(boxes, counts, image_size)
    assert answer.shape == (len(boxes), 4) and np.isfinite(answer).all()
    return boxes[:, -1]  # fresh weights know nothing: let the tracks live

  loop = Tracker(
    TrackerSettings(max_detections=200),
    motion_models.learned(counted, 2, "small"),
    frame_rate=2.0,
    image_size=(1600, 900),
  )
  places = np.stack(np.meshgrid(np.arange(20) * 80.0, np.arange(10) * 90.0), -1).reshape(-1, 2)
  boxes = np.concatenate([places, np.full((200, 2), 40.0)], axis=1)
  rng = np.random.RandomState(0)
  for frame in range(60):
    count = (0, 200)[frame % 2] if frame > 55 else rng.randint(0, 4 * frame + 1)
    found = boxes[rng.permutation(200)[: min(count, 200)]]
    loop.step(Detections(found, np.full(len(found), 0.9), np.zeros(len(found), np.int64)))
  used = {predict.bucket(size) for size in sizes}
  assert len(set(sizes)) > 20
  assert function.compilations() == len(used) <= len(predict.BUCKETS)
