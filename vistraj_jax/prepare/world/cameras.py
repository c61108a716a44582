"""Six pinhole cameras on the ego car: 2-D boxes of a drive's agents and how much of them is seen.

Mounting, angles of view and names follow the nuScenes car: camera frames look along +z with +x
right and +y down; camera poses are given in the ego frame (rear axle, x ahead, y left, z up).
"""

import dataclasses

import numpy as np

from vistraj_jax.core import geometry

IMAGE_SIZE = (1600, 900)  # px
RANGE = 80.0  # m; agents farther away are not listed
_AHEAD = (0.5, -0.5, 0.5, -0.5)  # quaternion of a camera that looks along the ego's +x
_CELL = 10  # px of the grid on which overlaps are counted
_FILL = 0.1  # share of a box, on every side, through which one sees what is behind


@dataclasses.dataclass(frozen=True)
class Camera:
  """Pose in the ego frame (m, quaternion w, x, y, z), intrinsic matrix [3, 3] and size in px."""

  name: str
  translation: tuple
  rotation: tuple
  intrinsic: np.ndarray
  image_size: tuple = IMAGE_SIZE


@dataclasses.dataclass(frozen=True)
class View:
  """What one camera sees of A agents at T times.

  Attributes:
    box_xywh: [T, A, 4] left, top, width, height in px, clipped to the image; nan where not seen.
    depth: [T, A], m; visibility: [T, A], share of the object that nothing hides, 0..1.
  """

  box_xywh: np.ndarray
  depth: np.ndarray
  visibility: np.ndarray


def _camera(name, x, y, z, degrees, focal):
  rotation = geometry.multiply_quaternions(geometry.yaw_quaternion(np.deg2rad(degrees)), _AHEAD)
  intrinsic = np.array([[focal, 0, 800.0], [0, focal, 470.0], [0, 0, 1]])
  return Camera(name, (x, y, z), tuple(rotation), intrinsic)


RIG = (
  _camera("CAM_FRONT", 1.70, 0.0, 1.51, 0, 1260.0),
  _camera("CAM_FRONT_LEFT", 1.55, 0.49, 1.51, 55, 1260.0),
  _camera("CAM_FRONT_RIGHT", 1.55, -0.49, 1.51, -55, 1260.0),
  _camera("CAM_BACK", 0.03, 0.0, 1.57, 180, 800.0),
  _camera("CAM_BACK_LEFT", 1.04, 0.48, 1.56, 110, 1260.0),
  _camera("CAM_BACK_RIGHT", 1.04, -0.48, 1.56, -110, 1260.0),
)


def observe(drive, state, camera):
  """Returns the `View` of one camera on a `driving.Drive` in a `driving.State`."""
  times, agents = state.yaw.shape
  box = np.full((times, agents, 4), np.nan)
  depth = np.full((times, agents), np.inf)
  seen_at = geometry.into_frame(state.center, state.ego_translation, state.ego_rotation)
  seen_at = geometry.into_frame(seen_at, camera.translation, camera.rotation)
  near = (seen_at[..., 2] > 0.1) & (np.linalg.norm(seen_at, axis=-1) < RANGE)
  near[:, 0] = False  # the ego car itself
  time, agent = np.nonzero(near)
  corners = geometry.box_corners(
    state.center[time, agent],
    drive.size_wlh[agent],
    geometry.yaw_quaternion(state.yaw[time, agent]),
  )
  eye = geometry.out_of_frame(
    np.array(camera.translation)[None], state.ego_translation, state.ego_rotation
  )[:, 0]
  share = np.zeros((times, agents))
  # Sight lines to the centre and the corners of the roof.
  targets = np.concatenate([state.center[time, agent, None], corners[:, [0, 1, 4, 5]]], 1)
  share[time, agent] = 1 - _behind_buildings(eye[time], targets, drive.buildings).mean(-1)
  points = geometry.into_frame(corners, state.ego_translation[time], state.ego_rotation[time])
  points = geometry.into_frame(points, camera.translation, camera.rotation)
  depth[time, agent] = seen_at[time, agent, 2]
  box[time, agent] = geometry.visible_box(points, depth[time, agent], camera.intrinsic, IMAGE_SIZE)
  for t in range(times):
    share[t] *= _uncovered(box[t], depth[t], share[t])
  return View(box, depth, share)


def _behind_buildings(eye, targets, buildings):
  """Whether the sight line from eye [N, 3] to targets [N, K, 3] crosses a block: bool [N, K]."""
  hidden = np.zeros(targets.shape[:2], bool)
  start = eye[:, None, :2]
  step = targets[..., :2] - start
  step = np.where(np.abs(step) < 1e-9, 1e-9, step)
  close = np.abs((buildings[:, :2] + buildings[:, 2:]) / 2 - eye[:, :2].mean(0)).max(-1)
  for x0, y0, x1, y1 in buildings[close < 2 * RANGE]:
    to_low, to_high = ((x0, y0) - start) / step, ((x1, y1) - start) / step
    enter = np.minimum(to_low, to_high).max(-1)
    leave = np.maximum(to_low, to_high).min(-1)
    hidden |= (enter < leave) & (leave > 0) & (enter < 1)
  return hidden


def _uncovered(box, depth, share):
  """Share [A] of each 2-D box [A, 4] that no nearer box covers; 1 where there is no box.

  Boxes are counted on a grid, nearest first; agents behind buildings (share 0) cover nothing.
  """
  left = np.ones(len(box))
  grid = np.zeros((IMAGE_SIZE[1] // _CELL, IMAGE_SIZE[0] // _CELL), bool)
  listed = np.flatnonzero(~np.isnan(box[:, 0]) & (share > 0))
  for i in listed[np.argsort(depth[listed])]:
    x0, y0, width, height = box[i] / _CELL
    rows = slice(int(y0), max(int(y0) + 1, int(round(y0 + height))))
    columns = slice(int(x0), max(int(x0) + 1, int(round(x0 + width))))
    part = grid[rows, columns]
    left[i] = 1 - part.mean() if part.size else 1.0
    inner_rows = slice(rows.start + int(_FILL * height), rows.stop - int(_FILL * height))
    inner = slice(columns.start + int(_FILL * width), columns.stop - int(_FILL * width))
    grid[inner_rows, inner] = True
  return left
