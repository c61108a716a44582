"""LiDAR files: round trip, real sweeps, bad files."""

import numpy as np
import pytest
import real_data

from vistraj_jax.core import checks
from vistraj_jax.data import point_clouds


def test_round_trip_and_layout(tmp_path):
  points = np.array([(1, 2, 3, 40, 5), (-1.5, 0, 0.25, 255, 31)], np.float32)
  path = tmp_path / "new" / "sweep.pcd.bin"
  point_clouds.write_points(path, points)
  np.testing.assert_array_equal(point_clouds.read_points(path), points)
  assert path.read_bytes()[:8] == b"\x00\x00\x80\x3f\x00\x00\x00\x40"  # 1.0, 2.0, little-endian
  assert len(path.read_bytes()) == 40
  point_clouds.write_points(path, points[:0])
  assert point_clouds.read_points(path).shape == (0, 5)


def test_bad_files(tmp_path):
  path = tmp_path / "sweep.pcd.bin"
  with pytest.raises(checks.InputError, match="no such LiDAR file"):
    point_clouds.read_points(path)
  path.write_bytes(bytes(50))
  with pytest.raises(checks.InputError, match="50 bytes received, a multiple of 20 wanted"):
    point_clouds.read_points(path)
  points = np.zeros((3, 5), "<f4")
  points[1, 2] = np.inf
  path.write_bytes(points.tobytes())
  with pytest.raises(checks.InputError, match=r"point 1 is \[0.0, 0.0, inf"):
    point_clouds.read_points(path)
  with pytest.raises(checks.InputError, match="not finite cannot be written"):
    point_clouds.write_points(tmp_path / "other.pcd.bin", points)
  with pytest.raises(checks.InputError, match="shape"):
    point_clouds.write_points(tmp_path / "other.pcd.bin", np.zeros((3, 4)))
  assert not (tmp_path / "other.pcd.bin").exists()


@pytest.mark.parametrize("name", ["nuscenes_frame", "nuscenes_samples"])
def test_real_sweeps(name):
  paths = sorted(real_data.folder(name).rglob("*.pcd.bin"))
  assert paths
  for path in paths:
    points = point_clouds.read_points(path)
    np.testing.assert_array_equal(points.ravel(), np.fromfile(path, np.float32))
    assert set(np.unique(points[:, 4])) <= set(range(32))
    assert points[:, 3].min() >= 0 and points[:, 3].max() <= 255
    reach = np.linalg.norm(points[:, :3], axis=1)
    assert 1 < np.median(reach) < 30 and reach.max() < 150
    if name == "nuscenes_frame":
      assert points.shape == (34688, 5)
      # Most beams that look down meet the street, 1.84 m below the sensor.
      down = points[points[:, 4] < 10]
      assert -2.1 < np.median(down[:, 2]) < -1.6
