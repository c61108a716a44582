"""The tracks of one camera against a second, slow way to make them: a loop over objects and frames.

The slow way goes through the devkit's boxes (`nuscenes.utils.data_classes.Box`) and pyquaternion.
"""

import numpy as np
import nuscenes_tables
import pytest

from vistraj_jax.core import geometry
from vistraj_jax.prepare.nuscenes import boxes, database, tracks

VERSION = "v1.0-mini"
KEYFRAMES = 7
CAMERA = "CAM_FRONT_LEFT"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
  """Objects with gaps in their annotations, and images of uneven times and numbers of sweeps."""
  root = nuscenes_tables.write(
    tmp_path_factory.mktemp("data") / "nuscenes",
    scenes=("scene-0103",),
    keyframes=KEYFRAMES,
    objects=60,
    seed=3,
  )
  rng = np.random.default_rng(0)

  def thin(records):
    records[:] = [r for r in records if rng.random() < 0.8]

  def uneven(records):
    records[:] = [r for r in records if r["is_key_frame"] or rng.random() < 0.7]
    for record in records:
      record["timestamp"] += int(rng.integers(-15_000, 15_000))

  nuscenes_tables.edit(root, "sample_annotation", thin)
  nuscenes_tables.edit(root, "sample_data", uneven)
  return database.Database(root, VERSION).scene("scene-0103")


def _box(camera, translation, size, rotation, image, clip):
  """Returns left, top, width, height of one 3-D box in one image, or None."""
  from nuscenes.utils.data_classes import Box
  from pyquaternion import Quaternion

  box = Box(translation, size, Quaternion(rotation))
  for pose in (camera.ego_pose[image], camera.sensor_pose):
    box.translate(-pose[:3])
    box.rotate(Quaternion(pose[3:]).inverse)
  corners, depth = box.corners().T[None], box.center[None, 2]
  (found,) = geometry.visible_box(corners, depth, camera.intrinsic, camera.image_size, clip)
  return found if np.isfinite(found[0]) and found[2:].min() >= 1 else None


def _rows(scene, conversion):
  """Returns {(token, frame): (box, class, visibility, annotated)} by a loop."""
  from pyquaternion import Quaternion

  f, camera = conversion.frames_per_keyframe, scene.cameras[CAMERA]
  fired = [camera.time[i] for i in range(len(camera.time)) if camera.is_keyframe[i]]
  image_of = [list(camera.time).index(time) for time in fired]
  rows = {}
  for token in set(scene.instance.tolist()):
    seen, there = {}, {}
    for n in np.flatnonzero(scene.instance == token):
      k, class_id = int(scene.keyframe[n]), boxes.class_id(scene.category[n])
      if class_id < 0 or scene.visibility[n] < conversion.min_visibility:
        continue
      there[k] = n
      pose = scene.translation[n], scene.size_wlh[n], scene.rotation[n]
      box = _box(camera, *pose, image_of[k], conversion.clip)
      if box is not None:
        seen[k] = box, class_id, scene.visibility[n]
    for k, (box, class_id, level) in seen.items():
      later = [seen[other][2] for other in sorted(seen) if other > k]
      rows[token, f * k + 1] = box, class_id, min([level, *later[:1]]), True
    for k in there:
      if k + 1 not in there:
        continue
      a, b = there[k], there[k + 1]
      for j in range(1, f):
        weight, frame = j / f, f * k + 1 + j
        if conversion.interpolation == "image2d":
          if k not in seen or k + 1 not in seen:
            continue
          box = (1 - weight) * seen[k][0] + weight * seen[k + 1][0]
        else:
          time = (1 - weight) * fired[k] + weight * fired[k + 1]
          image = min(range(len(camera.time)), key=lambda i: abs(camera.time[i] - time))
          turned = Quaternion.slerp(
            Quaternion(scene.rotation[a]), Quaternion(scene.rotation[b]), weight
          )
          moved = (1 - weight) * scene.translation[a] + weight * scene.translation[b]
          box = _box(camera, moved, scene.size_wlh[a], turned.elements, image, conversion.clip)
          if box is None:
            continue
        level = min(scene.visibility[a], scene.visibility[b])
        rows[token, frame] = box, boxes.class_id(scene.category[a]), level, False
  return rows


@pytest.mark.parametrize("interpolation", ["image2d", "pose3d"])
@pytest.mark.parametrize(
  ("frames_per_keyframe", "min_visibility", "clip"),
  [(6, 1, "corners"), (6, 2, "hull"), (1, 1, "corners"), (5, 3, "corners")],
)
def test_tracks_are_those_of_a_loop(
  scene, interpolation, frames_per_keyframe, min_visibility, clip
):
  conversion = tracks.Conversion(frames_per_keyframe, min_visibility, clip, interpolation)
  found = tracks.camera_tracks(scene, CAMERA, conversion)
  wanted = _rows(scene, conversion)
  names = {number: token for token, number in found.ids.items()}
  table = found.table
  keys = [
    (names[i], frame)
    for i, frame in zip(table.track_id.tolist(), table.frame.tolist(), strict=True)
  ]
  assert len(set(keys)) == len(keys) > 20 * (1 + (frames_per_keyframe > 1))
  assert set(keys) == wanted.keys()
  columns = [wanted[key] for key in keys]
  np.testing.assert_allclose(table.box_xywh, [row[0] for row in columns], atol=0.0051)
  np.testing.assert_array_equal(table.class_id, [row[1] for row in columns])
  np.testing.assert_array_equal(table.visibility, [row[2] for row in columns])
  np.testing.assert_array_equal(found.is_keyframe, [row[3] for row in columns])
  np.testing.assert_array_equal(found.is_keyframe, (table.frame - 1) % frames_per_keyframe == 0)
  order = np.lexsort((table.track_id, table.frame))
  np.testing.assert_array_equal(order, np.arange(len(table)))
  first = [table.frame[table.track_id == i].min() for i in names]
  assert list(names) == list(range(1, len(names) + 1)) and first == sorted(first)


def test_the_scene_has_what_the_loop_is_to_show(scene):
  sweeps = np.diff(np.flatnonzero(scene.cameras[CAMERA].is_keyframe))
  assert len(set(sweeps.tolist())) > 1  # their number differs
  tokens = set(scene.instance.tolist())
  keyframes = {token: scene.keyframe[scene.instance == token] for token in tokens}
  assert sum((np.diff(k) > 1).any() for k in keyframes.values()) > 10  # gaps
  flat, solid = (_rows(scene, tracks.Conversion(interpolation=n)) for n in ("image2d", "pose3d"))
  assert solid.keys() - flat.keys()  # in sight between keyframes only
