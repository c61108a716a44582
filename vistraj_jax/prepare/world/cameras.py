"""Six pinhole cameras on the ego car, and the 2-D boxes of a drive's agents in them.

Mounting, angles of view and names follow the nuScenes car: camera frames look along +z with +x
right and +y down; camera poses are given in the ego frame (rear axle, x ahead, y left, z up).
"""

import dataclasses

import numpy as np

from vistraj_jax.core import geometry

IMAGE_SIZE = (1600, 900)  # px
RANGE = 80.0  # m; agents farther away are not listed
_AHEAD = (0.5, -0.5, 0.5, -0.5)  # quaternion of a camera that looks along the ego's +x


@dataclasses.dataclass(frozen=True)
class Camera:
  """Pose in the ego frame (m, quaternion w, x, y, z), intrinsic matrix [3, 3] and size in px."""

  name: str
  translation: tuple
  rotation: tuple
  intrinsic: np.ndarray
  image_size: tuple = IMAGE_SIZE


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


def boxes(drive, state, camera):
  """Projects all agents of a `driving.Drive` in a `driving.State` into one camera.

  Nothing hides anything here; what is really seen, `render` tells.

  Returns:
    [T, A, 4] left, top, width, height in px, clipped to the image; nan where the agent is the ego
    car, behind, outside or farther away than `RANGE` (m).
  """
  box = np.full((*state.yaw.shape, 4), np.nan)
  places = geometry.into_frame(state.center, state.ego_translation, state.ego_rotation)
  places = geometry.into_frame(places, camera.translation, camera.rotation)
  near = (places[..., 2] > 0.1) & (np.linalg.norm(places, axis=-1) < RANGE)
  near[:, 0] = False
  time, agent = np.nonzero(near)
  corners = geometry.box_corners(
    state.center[time, agent],
    drive.size_wlh[agent],
    geometry.yaw_quaternion(state.yaw[time, agent]),
  )
  corners = geometry.into_frame(corners, state.ego_translation[time], state.ego_rotation[time])
  corners = geometry.into_frame(corners, camera.translation, camera.rotation)
  box[time, agent] = geometry.visible_box(
    corners, places[time, agent, 2], camera.intrinsic, camera.image_size
  )
  return box
