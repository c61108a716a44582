"""One nuScenes scene as plain arrays: annotations, sensors and ego poses, kept in one .npz file.

Workers read these files and never open the tables. Poses are x, y, z (m) and a quaternion w, x, y,
z; times are seconds since 1970.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import files

_LIDAR = "LIDAR_TOP"  # no name of a camera


@dataclasses.dataclass(frozen=True)
class Camera:
  """All images of one camera in one scene, keyframes and sweeps, in order of time.

  Attributes:
    sensor_pose: float64 [7], camera in ego.
    intrinsic: float64 [3, 3].
    image_size: (width, height), px.
    time: float64 [S], s.
    ego_pose: float64 [S, 7], ego in global at `time`.
    is_keyframe: bool [S]; the k-th True is keyframe k of the scene.
    file: str [S], paths below the data root.
    token: str [S], of the tables.
  """

  sensor_pose: np.ndarray
  intrinsic: np.ndarray
  image_size: tuple
  time: np.ndarray
  ego_pose: np.ndarray
  is_keyframe: np.ndarray
  file: np.ndarray
  token: np.ndarray

  def frames(self, frames_per_keyframe):
    """Lays the frames over the camera's own times: keyframe images, and equal steps between.

    Returns:
      (int64 [L], the image nearest in time to each of the L frames, itself at a keyframe;
      float64 [L], time of the frames, s), L = frames_per_keyframe (K - 1) + 1.
    """
    keyframes = np.flatnonzero(self.is_keyframe)
    position = np.arange(frames_per_keyframe * (len(keyframes) - 1) + 1) / frames_per_keyframe
    time = np.interp(position, np.arange(len(keyframes)), self.time[keyframes])
    nearest = np.abs(self.time - time[:, None]).argmin(1)
    nearest[::frames_per_keyframe] = keyframes
    return nearest, time


@dataclasses.dataclass(frozen=True)
class Lidar:
  """All sweeps of the LiDAR in one scene, in order of time; fields as those of `Camera`."""

  sensor_pose: np.ndarray
  time: np.ndarray
  ego_pose: np.ndarray
  is_keyframe: np.ndarray
  file: np.ndarray
  token: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
  """The annotations [N] of K keyframes (2 Hz), sorted by keyframe, and the sensors.

  Attributes:
    name: official name, "scene-0061".
    sample: str [K], token of the keyframes.
    time: float64 [K], s, of the keyframes.
    keyframe: int64 [N], from 0.
    instance: str [N], token of the object.
    category: str [N].
    translation: float64 [N, 3], size_wlh: [N, 3], rotation: [N, 4]; 3-D boxes, global frame.
    visibility: int64 [N], 1 to 4 for the shares 0-40, 40-60, 60-80, 80-100 %; 0 is unknown.
    cameras: {name: `Camera`}.
    lidar: `Lidar`, or None where it was not read.
  """

  name: str
  sample: np.ndarray
  time: np.ndarray
  keyframe: np.ndarray
  instance: np.ndarray
  category: np.ndarray
  translation: np.ndarray
  size_wlh: np.ndarray
  rotation: np.ndarray
  visibility: np.ndarray
  cameras: dict
  lidar: Lidar | None = None


def save(path, scene):
  """Writes a scene to an .npz file, atomically."""
  arrays = {f.name: getattr(scene, f.name) for f in dataclasses.fields(Scene)}
  cameras, lidar = arrays.pop("cameras"), arrays.pop("lidar")
  for name, sensor in {**cameras, **({} if lidar is None else {_LIDAR: lidar})}.items():
    for field in dataclasses.fields(sensor):
      arrays[f"{name}/{field.name}"] = getattr(sensor, field.name)
  arrays["cameras"] = np.array(list(cameras), np.str_)
  with files.atomic_path(path) as temporary, open(temporary, "wb") as f:
    # Text as UTF-8 takes a quarter of NumPy's own.
    np.savez(f, **{name: _packed(np.asarray(value)) for name, value in arrays.items()})


def load(path, cameras=None):
  """Reads a scene that `save` wrote, with the named cameras only (default: all)."""
  with np.load(path) as arrays:

    def sensor(kind, name):
      return {f.name: _unpacked(arrays[f"{name}/{f.name}"]) for f in dataclasses.fields(kind)}

    names = _unpacked(arrays["cameras"]).tolist() if cameras is None else cameras
    values = {
      f.name: _unpacked(arrays[f.name])
      for f in dataclasses.fields(Scene)
      if f.name not in ("cameras", "lidar")
    }
    values["name"] = str(values["name"])
    values["cameras"] = {}
    for name in names:
      fields = sensor(Camera, name)
      fields["image_size"] = tuple(fields["image_size"].tolist())
      values["cameras"][name] = Camera(**fields)
    if f"{_LIDAR}/time" in arrays:
      values["lidar"] = Lidar(**sensor(Lidar, _LIDAR))
  return Scene(**values)


def _packed(array):
  return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array


def _unpacked(array):
  return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
