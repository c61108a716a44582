"""Clips of agents from real nuScenes tables and frames, and from the simulated world."""

import dataclasses

import clip_data
import numpy as np
import pytest
import real_data

from launch import prepare
from vistraj_jax.core import checks, geometry
from vistraj_jax.data import point_clouds, xmem
from vistraj_jax.prepare.nuscenes import clip_rows, clips, database


def test_real_tracks_give_rows():
  """Positions of the devkit's tracks, in the two validation scenes of nuScenes mini."""
  folder = real_data.folder("nuscenes_scenes")
  scene = database.Database(folder, "v1.0-mini").scene("scene-0103", lidar=True)
  choice = dataclasses.replace(clips.DEFAULTS, image_size=(90, 160), min_pixels=8)
  rows, counts = clip_rows.rows(scene, "val", choice)
  assert counts["windows"] == 10 and counts["clips"] == len(rows) > 5
  for row in rows[::5]:
    assert len(row["obs_sample_tokens"]) == 9 and len(row["fut_sample_tokens"]) == 12
    mine = scene.instance == row["instance_token"]
    ahead = scene.keyframe[mine] == row["first_keyframe"] + 8 + 12
    pose = np.array(row["ego_pose"][-1])
    last = geometry.into_frame(scene.translation[mine][ahead], pose[:3], pose[3:])
    np.testing.assert_allclose(row["target"]["future_xy"][-1], last[0, :2], atol=1e-5)


def test_real_points_lie_in_the_masks_of_their_boxes():
  folder = real_data.folder("nuscenes_frame")
  scene = database.Database(folder, "v1.0-mini").scene("scene-0061", lidar=True)
  choice = dataclasses.replace(clips.DEFAULTS, resolution=0.2)
  agents = clip_rows.Agents(scene, choice)
  assert scene.lidar.file.tolist()[0].startswith("samples/LIDAR_TOP/")
  points = point_clouds.read_points(folder / scene.lidar.file[0])[:, :3]
  pose = scene.lidar.sensor_pose
  ego = geometry.out_of_frame(points, pose[:3], pose[3:])
  world = geometry.out_of_frame(ego, agents.ego_pose[0, :3], agents.ego_pose[0, 3:])
  inside_boxes = in_masks = 0
  for agent, mask in zip(*agents.masks("bev", 0), strict=True):
    car = agents.row[agent, 0]
    if not agents.category[agent].startswith("vehicle."):
      continue
    local = geometry.into_frame(world, scene.translation[car], scene.rotation[car])
    inside = (np.abs(local) < scene.size_wlh[car][[1, 0, 2]] / 2).all(-1)
    inside &= (np.abs(ego[:, :2]) < 51).all(-1)
    rows, columns = np.floor((51.2 - ego[inside, :2]) / 0.2).astype(int).T
    inside_boxes += inside.sum()
    in_masks += mask[rows, columns].sum()
  assert inside_boxes > 100 and in_masks > 0.95 * inside_boxes


def test_real_tables_without_sensor_files_are_refused_at_once(tmp_path):
  folder = real_data.folder("nuscenes_scenes")
  with pytest.raises(checks.InputError, match="files of LIDAR_TOP are missing, the first is"):
    prepare.main(clip_data.arguments(folder, tmp_path / "out"))


@pytest.mark.slow
def test_clips_of_the_simulated_world(tmp_path):
  """Points of moving vehicles lie in their masks, and the report counts what the files hold."""
  world = "world --seconds 4 --train 1 --val 1 --test 0 --moving 40 --parked 10 --sweeps"
  prepare.main([*world.split(), "--processes", "2", "--out", str(tmp_path / "db")])
  small = {**clip_data.CHOICE, "points": 4096, "resolution": 0.5}
  small = clip_data.arguments(tmp_path / "db", tmp_path / "clips", **small)
  small[small.index("--version") + 1] = "v1.0-trainval"
  prepare.main([*small, "--processes", "2"])
  config = clip_data.data_config(tmp_path / "clips", image_size=(256, 256), points=4096)
  found = xmem.load(config, "val", None)
  layout, inside = found.layout, 0
  for i in range(len(found)):
    clip = found.clip(i)
    for t in range(layout.t_in):
      points = clip["points"][t, : clip["num_points"][t]]
      raised = points[np.abs(points[:, 2] - 1.2) < 0.4]  # above the road, below the roofs
      rows, columns = np.floor((layout.reach - raised[:, :2]) / layout.resolution).astype(int).T
      inside += clip["masks"][t, 0][rows, columns].sum()
  assert inside > 5 * len(found)
