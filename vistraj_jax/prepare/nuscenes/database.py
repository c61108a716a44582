"""nuScenes tables, opened through nuscenes-devkit -> `Scene`, with every token checked.

The devkit stops at the first token that points nowhere. Here only the scene that holds it is lost.
"""

import contextlib
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.prepare.nuscenes import boxes, devkit_tables
from vistraj_jax.prepare.nuscenes.scene import Camera, Lidar, Scene

CAMERAS = (
  "CAM_FRONT",
  "CAM_FRONT_LEFT",
  "CAM_FRONT_RIGHT",
  "CAM_BACK",
  "CAM_BACK_LEFT",
  "CAM_BACK_RIGHT",
)
LIDAR = "LIDAR_TOP"
_VISIBILITY = {"": 0, "1": 1, "2": 2, "3": 3, "4": 4}
# Largest magnitude of a number: far above any coordinate (m, of maps too), size or focal length,
# far below what overflows when it is squared. Times count microseconds since 1970.
_LARGEST = {"timestamp": 1e18}
_LARGEST_OTHERS = 1e8
# What is allowed of a field beside such numbers: words, and a function of [N, width] -> bool [N].
_WHOLE = ("1 whole number above 0", lambda v: ((v > 0) & (v == np.floor(v))).all(-1))
_ALLOWED = {
  "rotation": ("a quaternion other than 0", lambda v: (abs(v) > 1e-8).any(-1)),
  "size": ("3 finite numbers of 0 or more", lambda v: (v >= 0).all(-1)),
  "camera_intrinsic": (
    "3 x 3 numbers, focal lengths above 0",
    lambda v: (v[:, :5:4] > 0).all(-1),
  ),
  **{field: _WHOLE for field in ("width", "height", "nbr_samples")},
}
_REMEDY = "download the tables again, or leave this scene out with --keep_going"


class Database:
  """The opened tables of one version.

  Attributes:
    names: names of all scenes, sorted.
    strays: sentences on records that belong to no scene, since the token that would say so points
      nowhere.
  """

  def __init__(self, dataroot, version):
    """Opens the tables; takes minutes and several GB for v1.0-trainval.

    Raises:
      InputError: a folder, table or map mask is missing, a table is damaged, or the devkit is not
        installed.
    """
    self._folder = pathlib.Path(dataroot) / version
    self._tables = devkit_tables.open_tables(dataroot, version)
    self._scenes = {}
    for record in self._tables.scene:
      name = record.get("name")
      checks.require(
        isinstance(name, str) and name not in self._scenes,
        f"{self._folder / 'scene.json'}: scene {record['token']} has the name {name!r}; every "
        "scene needs a name of its own; download the tables again.",
      )
      self._scenes[name] = record
    self.names = sorted(self._scenes)
    self._images = {}
    self._sweeps = {}
    self._damage = {}  # scene token -> sentence
    self.strays = []
    self._find_strays()

  def scene(self, name, lidar=False):
    """Returns one scene, with the sweeps of the LiDAR if asked for.

    Raises:
      InputError: no such scene; a token points nowhere; a value is missing or no finite number; a
        category is unknown; a keyframe has no image, or no sweep. Names scene, table, record and
        value.
    """
    near = checks.nearest(name, self.names)
    checks.require(name in self._scenes, f"{self._folder}: holds no {name!r}; nearest: {near}.")
    try:
      return self._scene(name, self._scenes[name], lidar)
    except KeyError as error:
      raise checks.InputError(f"{name}: a record lacks the field {error}; {_REMEDY}.") from error

  def _scene(self, name, record, lidar):
    if record["token"] in self._damage:
      raise checks.InputError(self._damage[record["token"]])
    samples = self._samples(name, record)
    time = self._numbers(name, "sample", samples, "timestamp")
    checks.require(
      (np.diff(time) > 0).all(), f"{name}: the times of its keyframes do not rise; {_REMEDY}."
    )
    annotations = [
      (k, self._tables.get("sample_annotation", token))
      for k, sample in enumerate(samples)
      for token in sample["anns"]
    ]
    records = [annotation for _, annotation in annotations]
    self._check_once(name, annotations)
    translation, size, rotation = (
      self._numbers(name, "sample_annotation", records, field, width)
      for field, width in (("translation", 3), ("size", 3), ("rotation", 4))
    )
    return Scene(
      name=name,
      sample=np.array([sample["token"] for sample in samples], np.str_),
      time=time / 1e6,
      keyframe=np.array([k for k, _ in annotations], np.int64),
      instance=np.array([r["instance_token"] for r in records], np.str_),
      category=np.array([self._category(name, r) for r in records], np.str_),
      translation=translation,
      size_wlh=size,
      rotation=rotation,
      visibility=np.array([self._visibility(name, r) for r in records], np.int64),
      cameras=self._cameras(name, samples),
      lidar=self._lidar(name, samples) if lidar else None,
    )

  def _samples(self, name, record):
    """Follows the keyframes of a scene from the first to the last."""
    (count,) = self._numbers(name, "scene", [record], "nbr_samples")
    samples, where, field = [], record, "first_sample_token"
    table = "scene"
    while where[field]:
      sample = self._follow(name, table, where, field, "sample")
      checks.require(
        sample["scene_token"] == record["token"] and len(samples) < count,
        f"{name}: sample {sample['token']} is of another scene, or of more than the {count:g} "
        f"samples that scene.json counts; {_REMEDY}.",
      )
      samples.append(sample)
      table, where, field = "sample", sample, "next"
    checks.require(
      len(samples) == count and samples,
      f"{name}: {len(samples)} samples follow each other where scene.json counts {count:g}; "
      f"{_REMEDY}.",
    )
    return samples

  def _check_once(self, name, annotations):
    seen = set()
    for k, annotation in annotations:
      key = (k, annotation["instance_token"])
      checks.require(
        key not in seen,
        f"{name}: annotation {annotation['token']}: instance {key[1]} is annotated twice in "
        f"keyframe {k}; {_REMEDY}.",
      )
      seen.add(key)

  def _cameras(self, name, samples):
    by_camera = {}
    for k, sample in enumerate(samples):
      for record in self._images.get(sample["token"], ()):
        by_camera.setdefault(record["channel"], []).append((k, record))
    return {
      camera: self._camera(name, camera, by_camera[camera], len(samples))
      for camera in sorted(by_camera)
    }

  def _camera(self, name, camera, images, count):
    records, calibration, fields = self._sensor(name, camera, images, count, "images")
    sides = [self._numbers(name, "sample_data", records, side) for side in ("width", "height")]
    sizes = {(int(width), int(height)) for width, height in zip(*sides, strict=True)}
    checks.require(
      len(sizes) == 1,
      f"{name}: {camera} has the image sizes {sorted(sizes)}; one is wanted; {_REMEDY}.",
    )
    intrinsic = self._numbers(name, "calibrated_sensor", [calibration], "camera_intrinsic", 9)
    return Camera(intrinsic=intrinsic.reshape(3, 3), image_size=sizes.pop(), **fields)

  def _lidar(self, name, samples):
    sweeps = [
      (k, record)
      for k, sample in enumerate(samples)
      for record in self._sweeps.get(sample["token"], ())
      if record["channel"] == LIDAR
    ]
    checks.require(sweeps, f"{name}: holds no sweep of {LIDAR}; {_REMEDY}.")
    return Lidar(**self._sensor(name, LIDAR, sweeps, len(samples), "sweeps")[2])

  def _sensor(self, name, channel, data, count, what):
    """Sorts the sample_data [(keyframe, record)] of one sensor by time.

    Returns:
      (records, the calibration, {field of `Camera` and `Lidar`: value}).
    """
    time = self._numbers(name, "sample_data", [record for _, record in data], "timestamp")
    data = [data[i] for i in np.argsort(time, kind="stable")]
    records = [record for _, record in data]
    keyframes = [k for k, record in data if record["is_key_frame"]]
    checks.require(
      keyframes == list(range(count)),
      f"{name}: {channel} has {what} of keyframes {keyframes[:50]} where 0 to {count - 1}, each "
      f"once and in order of time, are wanted; {_REMEDY}.",
    )
    calibrations = {record["calibrated_sensor_token"] for record in records}
    checks.require(
      len(calibrations) == 1,
      f"{name}: {channel} has {len(calibrations)} calibrations; one is wanted; {_REMEDY}.",
    )
    calibration = self._follow(
      name, "sample_data", records[0], "calibrated_sensor_token", "calibrated_sensor"
    )
    egos = [self._follow(name, "sample_data", r, "ego_pose_token", "ego_pose") for r in records]
    fields = {
      "sensor_pose": self._poses(name, "calibrated_sensor", [calibration])[0],
      "time": np.sort(time) / 1e6,
      "ego_pose": self._poses(name, "ego_pose", egos),
      "is_keyframe": np.array([record["is_key_frame"] for record in records], bool),
      "file": np.array([self._filename(name, record) for record in records], np.str_),
      "token": np.array([record["token"] for record in records], np.str_),
    }
    return records, calibration, fields

  def _category(self, name, annotation):
    instance = self._follow(name, "sample_annotation", annotation, "instance_token", "instance")
    category = self._follow(name, "instance", instance, "category_token", "category")
    category = str(category["name"])
    try:
      boxes.class_id(category)
    except checks.InputError as error:
      raise checks.InputError(f"{name}: annotation {annotation['token']}: {error}") from None
    return category

  def _visibility(self, name, annotation):
    token = annotation["visibility_token"]
    checks.require(
      isinstance(token, str) and token in _VISIBILITY,
      f"{name}: annotation {annotation['token']} has the visibility_token {token!r}; '1' to '4' or "
      f"an empty one are allowed; {_REMEDY}.",
    )
    return _VISIBILITY[token]

  def _filename(self, name, image):
    file = image["filename"]
    checks.require(
      isinstance(file, str) and pathlib.PurePosixPath(file).suffix,
      f"{name}: sample_data {image['token']}: filename is {file!r}; a path with an ending such as "
      f".jpg wanted; {_REMEDY}.",
    )
    return file

  def _poses(self, name, table, records):
    return np.concatenate(
      [
        self._numbers(name, table, records, "translation", 3),
        self._numbers(name, table, records, "rotation", 4),
      ],
      -1,
    )

  def _numbers(self, name, table, records, field, width=None):
    """Returns `field` of all records, float64 [len(records), width]; without a width [len]."""
    count = 1 if width is None else width
    what, allowed = _ALLOWED.get(field, (f"{count} finite number{'s' * (count > 1)}", None))
    values = np.full((len(records), count), np.nan)
    try:
      values[:] = np.array([r[field] for r in records], np.float64).reshape(values.shape)
    except (KeyError, TypeError, ValueError):
      for row, record in zip(values, records, strict=True):
        with contextlib.suppress(KeyError, TypeError, ValueError):
          row[:] = np.array(record[field], np.float64).reshape(count)
    largest = _LARGEST.get(field, _LARGEST_OTHERS)
    good = (np.abs(values) <= largest).all(-1)  # not so of nan
    if allowed is not None:
      good &= allowed(values)
    if not good.all():
      record = records[int(np.argmin(good))]
      raise checks.InputError(
        f"{name}: {table} {record['token']}: {field} is {str(record.get(field))[:80]}; {what} "
        f"wanted, none beyond {largest:g}; {_REMEDY}."
      )
    return values[:, 0] if width is None else values

  def _follow(self, name, table, record, field, wanted):
    """Returns the record of table `wanted` that `record[field]` points to."""
    token = record.get(field)
    if not self._has(wanted, token):
      raise checks.InputError(f"{name}: {_nowhere(table, record, field, wanted)}")
    return self._tables.get(wanted, token)

  def _has(self, table, token):
    try:
      self._tables.getind(table, token)
    except KeyError:
      return False
    return True

  def _find_strays(self):
    """Groups images and sweeps by keyframe; finds the scenes of records whose tokens are wrong."""
    for table in ("sample_data", "sample_annotation"):
      for record in getattr(self._tables, table):
        if not self._has("sample", record["sample_token"]):
          self._damaged(table, record, _nowhere(table, record, "sample_token", "sample"))
        elif table == "sample_data" and not record["channel"]:
          self._damaged(table, record, self._no_sensor(record))
        elif table == "sample_data" and record["sensor_modality"] == "camera":
          self._images.setdefault(record["sample_token"], []).append(record)
        elif table == "sample_data" and record["sensor_modality"] == "lidar":
          self._sweeps.setdefault(record["sample_token"], []).append(record)

  def _damaged(self, table, record, sentence):
    scene = self._scene_of(table, record)
    if scene:
      self._damage.setdefault(scene["token"], f"{scene['name']}: {sentence}")
    else:
      self.strays.append(f"no scene: {sentence}")

  def _no_sensor(self, image):
    token = image["calibrated_sensor_token"]
    if not self._has("calibrated_sensor", token):
      return _nowhere("sample_data", image, "calibrated_sensor_token", "calibrated_sensor")
    calibration = self._tables.get("calibrated_sensor", token)
    return _nowhere("calibrated_sensor", calibration, "sensor_token", "sensor")

  def _scene_of(self, table, record):
    """Returns the scene of a record by its keyframe or that of its neighbours in time, or None."""
    neighbours = [record.get(side) for side in ("prev", "next")]
    neighbours = [self._tables.get(table, t) for t in neighbours if self._has(table, t)]
    for each in (record, *neighbours):
      if self._has("sample", each["sample_token"]):
        token = self._tables.get("sample", each["sample_token"])["scene_token"]
        return self._tables.get("scene", token) if self._has("scene", token) else None
    return None


def _nowhere(table, record, field, wanted):
  return (
    f"{table} {record['token']}: {field} {record.get(field)!r} points to no record of {wanted}; "
    f"{_REMEDY}."
  )
