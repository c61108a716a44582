"""Motion models: where is every track in the next frame?

A motion model keeps its state as a dictionary of arrays with one row per track slot; the tracker
gathers rows, calls the model, and writes rows back. The methods, for N rows at once:

  allocate(slots) -> state of empty slots
  start(box_cxcywh [N, 4]) -> state of new tracks
  predict(state, image_size [N, 2]) -> box_cxcywh [N, 4], one frame later; changes nothing
  observe(state, box_cxcywh [N, 4]) -> state one frame later, where these boxes were detected
  coast(state, predicted_cxcywh [N, 4]) -> state one frame later without a detection
  warp(state, matrix [2, 3]) -> state in the pixels of a moved camera

Boxes are centre x, centre y, width, height in px. What happens to a lost track is the tracker's
decision: it either calls `coast` (roll-out) or leaves the state alone (freeze).
"""

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.tracking import kalman

NAMES = ("identity", "constant_velocity", "kalman")


class HistoryMotion:
  """A motion model that is a function of the last boxes of a track, learned or not.

  Attributes:
    rows: number of boxes kept per track.
    name: for reports.
    frame_rate: Hz of the data a learned model was trained on; None if unknown or irrelevant.
  """

  def __init__(self, predict, rows, name, frame_rate=None):
    """Wraps `predict(boxes_cxcywh [N, rows, 4], counts [N], image_size [N, 2]) -> [N, 4]`.

    Boxes come oldest first, newest last; where a track has fewer than `rows` boxes, only the last
    `counts` are real and its oldest box is repeated in front of them.
    """
    self._predict = predict
    self.rows = rows
    self.name = name
    self.frame_rate = frame_rate

  def allocate(self, slots):
    """Returns the state of `slots` empty slots."""
    return {"boxes": np.zeros((slots, self.rows, 4)), "count": np.zeros(slots, np.int64)}

  def start(self, box_cxcywh):
    """Returns the state of new tracks at boxes [N, 4]."""
    boxes = np.repeat(box_cxcywh[:, None], self.rows, axis=1)
    return {"boxes": boxes, "count": np.ones(len(boxes), np.int64)}

  def predict(self, state, image_size):
    """Returns the boxes [N, 4] one frame later."""
    return self._predict(state["boxes"], state["count"], image_size)

  def observe(self, state, box_cxcywh):
    """Returns the state one frame later, the detected boxes [N, 4] appended."""
    boxes = np.concatenate([state["boxes"][:, 1:], box_cxcywh[:, None]], axis=1)
    return {"boxes": boxes, "count": np.minimum(state["count"] + 1, self.rows)}

  def coast(self, state, predicted_cxcywh):
    """Returns the state one frame later, the predicted boxes [N, 4] appended: roll-out."""
    return self.observe(state, predicted_cxcywh)

  def warp(self, state, matrix):
    """Returns the histories in the pixels of a moved camera; `matrix` [2, 3] maps old to new px."""
    return {"boxes": warp_boxes(state["boxes"], matrix), "count": state["count"]}


def make(name):
  """Returns the motion model `name`, one of `NAMES`; learned ones come by `learned`."""
  checks.choice("motion", name, NAMES)
  if name == "kalman":
    return kalman.KalmanMotion()
  if name == "identity":
    return HistoryMotion(lambda boxes, counts, image_size: boxes[:, -1], 1, name)
  return HistoryMotion(lambda boxes, counts, image_size: _constant_velocity(boxes), 2, name)


def learned(predict, history, name, frame_rate=None):
  """Returns a motion model around a network.

  Boxes that cannot be (not finite, no area, a side more than twice the image) are replaced by those
  of constant velocity.

  Args:
    predict: function of `HistoryMotion`, called with float32 boxes and image sizes. It gets
      history + 1 boxes, so that each row the network reads has a true difference to the one before.
    history: rows the network reads.
    name: for reports.
    frame_rate: Hz of its training data, or None.
  """

  def predict_possible(boxes, counts, image_size):
    predicted = predict(boxes.astype(np.float32), counts, image_size.astype(np.float32))
    checks.shape(f"boxes predicted by motion model {name!r}", predicted, (len(boxes), 4))
    predicted = np.array(predicted, np.float64)
    with np.errstate(invalid="ignore"):
      sides = predicted[:, 2:]
      possible = ((sides > 0) & (sides <= 2.0 * image_size)).all(1)
    possible &= np.isfinite(predicted).all(1)
    predicted[~possible] = _constant_velocity(boxes[~possible])
    return predicted

  return HistoryMotion(predict_possible, history + 1, name, frame_rate)


def warp_boxes(box_cxcywh, matrix):
  """Returns boxes [..., 4] after the affine map `matrix` [2, 3] of their pixels.

  The centre is mapped; width and height are turned and scaled as a vector, as BoT-SORT does.
  """
  centre = box_cxcywh[..., :2] @ matrix[:, :2].T + matrix[:, 2]
  return np.concatenate([centre, box_cxcywh[..., 2:] @ matrix[:, :2].T], axis=-1)


def _constant_velocity(boxes):
  """Returns last + (last - one before) [N, 4]; a side that would vanish keeps its last size."""
  last = boxes[:, -1]
  following = 2 * last - boxes[:, -2]
  following[:, 2:] = np.where(following[:, 2:] > 0, following[:, 2:], last[:, 2:])
  return following
