"""Published nuScenes annotations: the 3-D box in the camera's frame gives the published 2-D box."""

import json

import numpy as np
import real_data

from vistraj_jax.core import geometry
from vistraj_jax.prepare.nuscenes import boxes


def _global_box(box_cam3d, cam_to_ego, ego_to_global):
  """Returns translation [1, 3] and rotation [1, 4], global, of a box with a heading in the camera.

  The published angle turns the box in the ground plane from the camera's x axis on; the ground's
  normal is global +z, which a tilted camera does not see along its own y axis.
  """
  center = geometry.out_of_frame(box_cam3d[None, :3], cam_to_ego[:3], cam_to_ego[3:])
  center = geometry.out_of_frame(center, ego_to_global[:3], ego_to_global[3:])
  to_global = geometry.rotation_matrix(
    geometry.multiply_quaternions(ego_to_global[3:], cam_to_ego[3:])
  )
  up = to_global.T @ [0, 0, 1]
  right = np.array([1, 0, 0]) - up[0] * up
  right /= np.linalg.norm(right)
  angle = box_cam3d[6]
  heading = to_global @ (np.cos(angle) * right + np.sin(angle) * np.cross(up, right))
  return center, geometry.yaw_quaternion(np.arctan2(heading[1:2], heading[:1]))


def test_camera_boxes_give_the_published_image_boxes():
  path = real_data.folder("nuscenes_samples") / "mono3d.coco.json"
  published = json.loads(path.read_text())
  images = {image["id"]: image for image in published["images"]}
  seen = []
  for annotation in published["annotations"]:
    image = images[annotation["image_id"]]
    box = np.array(annotation["bbox_cam3d"])
    cam_to_ego, ego_to_global = (
      np.array(image[f"{name}_translation"] + image[f"{name}_rotation"])
      for name in ("cam2ego", "ego2global")
    )
    intrinsic, size = np.array(image["cam_intrinsic"]), (image["width"], image["height"])
    point, depth = geometry.project(box[:3], intrinsic)
    np.testing.assert_allclose([*point, depth], annotation["center2d"], atol=1e-6)
    center, rotation = _global_box(box, cam_to_ego, ego_to_global)
    (got,) = boxes.camera_boxes(
      center, box[None, 3:6], rotation, ego_to_global[None], cam_to_ego, intrinsic, size, "hull"
    )
    np.testing.assert_allclose(got, annotation["bbox"], atol=0.2)
    seen.append(np.abs(got - annotation["bbox"]).max())
  assert len(seen) == 11 and np.median(seen) < 0.07
