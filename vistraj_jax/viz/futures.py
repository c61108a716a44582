"""Predicted futures of agents: from above over LiDAR points, and in the camera's image.

Positions are in m in the ego frame (x ahead, y left) of the last observed key frame.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.viz import style

PAST, TRUTH = "#FFFFFF", "#FFD600"
NEAREST = 0.5  # m in front of the camera; what is nearer is not drawn
_STEP = 0.5  # s between positions
_MARGIN = 8.0  # m around what is shown from above
_PAPER = "#1E2329"


@dataclasses.dataclass(frozen=True)
class View:
  """A camera's image at the last observed key frame.

  Attributes:
    image: uint8 [H, W, 3], red-green-blue.
    intrinsic: [3, 3], px of `image`.
    from_ego: [4, 4], the camera frame (x right, y down, z ahead) from the ego frame.
  """

  image: np.ndarray
  intrinsic: np.ndarray
  from_ego: np.ndarray

  def project(self, xy):
    """Projects points [N, 2] on the ground to px [N, 2], nan where they are not in front."""
    xy = np.asarray(xy, np.float64)
    ground = np.concatenate([xy, np.zeros((len(xy), 1)), np.ones((len(xy), 1))], 1)
    camera = ground @ np.asarray(self.from_ego, np.float64)[:3].T
    in_front = camera[:, 2:] > NEAREST
    pixels = camera @ np.asarray(self.intrinsic, np.float64).T
    return np.where(in_front, pixels[:, :2] / np.where(in_front, pixels[:, 2:], 1), np.nan)


@dataclasses.dataclass(frozen=True)
class Agent:
  """One agent with what was predicted for it.

  Attributes:
    name: title.
    past: [T, 2], nan where unknown, the last at the anchor.
    truth: [F, 2], known future positions.
    futures: [K, T_out, 2].
    probabilities: [K].
    points: [N, 2] of the LiDAR at the anchor, or None.
    view: `View`, or None.
  """

  name: str
  past: np.ndarray
  truth: np.ndarray
  futures: np.ndarray
  probabilities: np.ndarray
  points: np.ndarray | None = None
  view: View | None = None

  def __post_init__(self):
    checks.shape("futures", self.futures, (len(self.probabilities), None, 2))

  def ranked(self):
    """Returns [(colour, probability, line [1 + T_out, 2] from the anchor)], best first."""
    order = np.argsort(-np.asarray(self.probabilities), kind="stable")
    return [
      (
        style.PALETTE[rank % len(style.PALETTE)],
        float(self.probabilities[mode]),
        np.concatenate([self.past[-1:], self.futures[mode]]),
      )
      for rank, mode in enumerate(order)
    ]

  def driven(self):
    """Returns the true line [1 + F, 2] from the anchor."""
    return np.concatenate([self.past[-1:], self.truth])


def draw_futures(agents, path):
  """Draws agents below one another: from above, and beside it in the camera where there is one.

  Args:
    agents: list of `Agent`.
    path: PNG file to write.
  """
  checks.require(agents, f"{path}: no agent to draw.")
  made, axes = style.figure(2, len(agents), width=5.6, height=4.0)
  for row, agent in enumerate(agents):
    _draw_above(axes[2 * row], agent)
    _draw_view(axes[2 * row + 1], agent)
  style.save(made, path)
  return made


def seen_area(agent):
  """Returns (low [2], high [2]) of x and y that hold the ego car, the agent and its futures."""
  known = [np.zeros((1, 2)), agent.past, agent.truth, agent.futures.reshape(-1, 2)]
  known = np.concatenate([np.asarray(xy, np.float64).reshape(-1, 2) for xy in known])
  return np.nanmin(known, 0) - _MARGIN, np.nanmax(known, 0) + _MARGIN


def _draw_above(ax, agent):
  """Ahead is up, left is left."""
  ax.set_facecolor(_PAPER)
  ax.grid(False)
  if agent.points is not None:
    ax.plot(-agent.points[:, 1], agent.points[:, 0], ".", color="0.62", markersize=1.0, zorder=1)
  ax.plot(0, 0, "^", color="#00E5FF", markersize=8, label="ego", zorder=3)
  ax.plot(*_above(agent.past), ".-", color=PAST, linewidth=1.2, markersize=4, label="past")
  ax.plot(*_above(agent.driven()), color=TRUTH, linewidth=5, label="truth", zorder=2)
  for rank, (colour, probability, line) in enumerate(agent.ranked()):
    ax.plot(
      *_above(line),
      ".-",
      color=colour,
      linewidth=1 + 2 * probability,
      markersize=3,
      label=f"{probability:.0%}",
      zorder=100 - rank,
    )
  low, high = seen_area(agent)
  ax.set_aspect("equal", adjustable="box")
  ax.set_xlim(-high[1], -low[1])
  ax.set_ylim(low[0], high[0])
  ax.set_xlabel("to the right (m)", fontsize=8)
  ax.set_ylabel("ahead (m)", fontsize=8)
  ax.set_title(agent.name, fontsize=8)
  ax.legend(
    fontsize=6, loc="center left", bbox_to_anchor=(1.01, 0.5), facecolor="0.35", labelcolor="white"
  )


def _draw_view(ax, agent):
  ax.set_axis_off()
  if agent.view is None:
    return
  height, width = agent.view.image.shape[:2]
  ax.imshow(agent.view.image)
  ax.plot(*agent.view.project(agent.driven()).T, color=TRUTH, linewidth=4)
  for rank, (colour, probability, line) in enumerate(agent.ranked()):
    pixels = agent.view.project(line)
    width_of_line = 0.8 + 2 * probability
    ax.plot(*pixels.T, ".-", color=colour, linewidth=width_of_line, markersize=3, zorder=100 - rank)
  ax.plot(*agent.view.project(agent.past[-1:]).T, "o", color=PAST, markersize=5)
  ax.set_xlim(0, width)
  ax.set_ylim(height, 0)
  ax.set_title(f"{len(agent.futures[0]) * _STEP:g} s ahead on the ground", fontsize=8)


def _above(xy):
  xy = np.asarray(xy)
  return -xy[:, 1], xy[:, 0]
