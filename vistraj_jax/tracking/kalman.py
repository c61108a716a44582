"""Kalman filter over boxes: constant velocity of centre and size, noise in proportion to the box.

State of a track: mean [8] = (cx, cy, w, h, and their change per frame) in px, covariance [8, 8].
Standard deviations are 1/20 of the box for positions and 1/160 for velocities, as in BoT-SORT
(arXiv 2206.14651, the variant of DeepSORT's filter with width and height as states).
"""

import numpy as np

_POSITION = 1.0 / 20.0
_VELOCITY = 1.0 / 160.0
_STEP = np.eye(8) + np.eye(8, k=4)


class KalmanMotion:
  """The filter as a motion model of the tracker; see `motion_models` for the interface."""

  name = "kalman"
  frame_rate = None

  def allocate(self, slots):
    """Returns the state of `slots` empty slots."""
    return {"mean": np.zeros((slots, 8)), "covariance": np.zeros((slots, 8, 8))}

  def start(self, box_cxcywh):
    """Returns the state of new tracks at boxes [N, 4]: no velocity, wide uncertainty."""
    mean = np.concatenate([box_cxcywh, np.zeros_like(box_cxcywh)], axis=1)
    return {"mean": mean, "covariance": _diagonal(mean, 2 * _POSITION, 10 * _VELOCITY)}

  def predict(self, state, image_size):
    """Returns the boxes [N, 4] one frame later; `image_size` is not needed."""
    del image_size
    return state["mean"][:, :4] + state["mean"][:, 4:]

  def observe(self, state, box_cxcywh):
    """Returns the state one frame later, corrected by the detected boxes [N, 4]."""
    mean, covariance = _advance(state)
    noise = np.square(_POSITION * _sides(mean))
    innovation = covariance[:, :4, :4].copy()
    innovation[:, range(4), range(4)] += noise
    # gain^T = innovation^-1 H covariance: both symmetric, so no explicit inverse is needed.
    gain_transposed = np.linalg.solve(innovation, covariance[:, :4, :])
    gain = gain_transposed.transpose(0, 2, 1)
    mean = mean + (gain @ (box_cxcywh - mean[:, :4])[..., None])[..., 0]
    return {"mean": mean, "covariance": covariance - gain @ covariance[:, :4, :]}

  def coast(self, state, predicted_cxcywh):
    """Returns the state one frame later without a detection; the size stops changing."""
    del predicted_cxcywh
    mean, covariance = _advance(state)
    mean[:, 6:] = 0.0
    return {"mean": mean, "covariance": covariance}

  def warp(self, state, matrix):
    """Returns the state in the pixels of a moved camera; `matrix` [2, 3] maps old to new px."""
    turn = np.kron(np.eye(4), matrix[:, :2])
    mean = state["mean"] @ turn.T
    mean[:, :2] += matrix[:, 2]
    return {"mean": mean, "covariance": turn @ state["covariance"] @ turn.T}


def _advance(state):
  """Returns mean [N, 8] and covariance [N, 8, 8] one frame later."""
  mean, covariance = state["mean"], state["covariance"]
  noise = _diagonal(mean, _POSITION, _VELOCITY)
  return mean @ _STEP.T, _STEP @ covariance @ _STEP.T + noise


def _diagonal(mean, position, velocity):
  """Returns covariances [N, 8, 8] of independent errors in proportion to the box sides."""
  sides = _sides(mean)
  covariance = np.zeros((len(mean), 8, 8))
  deviation = np.concatenate([position * sides, velocity * sides], axis=1)
  covariance[:, range(8), range(8)] = np.square(deviation)
  return covariance


def _sides(mean):
  """Returns w, h, w, h [N, 4]."""
  return mean[:, [2, 3, 2, 3]]
