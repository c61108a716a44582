"""TrackSSM as a motion model: histories of any number of tracks in pixels -> next boxes.

The number of tracks is padded to a few sizes, so that a tracker compiles a handful of programs.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks, trained
from vistraj_jax.models.trackssm import network, windows

# Numbers of tracks that are compiled; beyond the last, multiples of it.
BUCKETS = (8, 16, 32, 40, 48, 64, 96, 128, 160, 192, 224, 256)
PADS = ("first", "last")


def load(path, pad="first"):
  """Returns `make_predict` for trained weights.

  Args:
    path: weights file, run folder or phase folder (see `core.trained.load`).
    pad: see `make_predict`.

  Returns:
    As `make_predict`; its attribute `frame_rate` is that of the training data in Hz, or None.

  Raises:
    InputError: no weights there, or weights that are not TrackSSM's.
  """
  params, settings = trained.load(path)
  fields = dict(settings)
  history = fields.pop("history")
  fields["dtype"] = jnp.dtype(fields.get("dtype", "float32"))
  predict = make_predict(network.TrackSSM(**fields), params, history, pad)
  predict.frame_rate = trained.data_set(path).get("train", {}).get("frame_rate")
  return predict


def make_predict(model, params, history, pad="first"):
  """Returns predict(boxes, counts, image_size) -> next boxes, all NumPy, in pixels.

  Args:
    model: `network.TrackSSM`.
    params: its parameters.
    history: condition rows T.
    pad: for young tracks, see `windows.condition_of_history`.

  Returns:
    A function of boxes float [N, T + 1, 4] (cx, cy, w, h in px, oldest first, the last counts[n]
    rows valid), counts int [N] and image_size float [N, 2] (width, height) that gives float32
    [N, 4] (cx, cy, w, h in px). N may change from call to call.
  """
  checks.choice("pad", pad, PADS)
  params = jax.device_put(params)

  @jax.jit
  def forward(params, boxes, counts, image_size):
    scale = jnp.tile(image_size, 2)
    condition = windows.condition_of_history(boxes / scale[:, None], counts, pad)
    return model.apply({"params": params}, condition)[-1] * scale

  def predict(boxes, counts, image_size):
    rows = len(boxes)
    checks.shape("predict: boxes", boxes, (None, history + 1, 4))
    if not rows:
      return np.zeros((0, 4), np.float32)
    padded = bucket(rows) - rows
    fill = functools.partial(np.pad, mode="edge")  # copies of real tracks: nothing overflows
    out = forward(
      params,
      fill(np.asarray(boxes, np.float32), ((0, padded), (0, 0), (0, 0))),
      fill(np.asarray(counts, np.int32), (0, padded)),
      fill(np.asarray(image_size, np.float32), ((0, padded), (0, 0))),
    )
    return np.asarray(out)[:rows]

  predict.history = history
  predict.frame_rate = None
  predict.compilations = forward._cache_size
  return predict


def bucket(rows):
  """Returns the compiled size for a number of tracks."""
  for size in BUCKETS:
    if rows <= size:
      return size
  return -(-rows // BUCKETS[-1]) * BUCKETS[-1]
