"""Clips of agents: geometry of masks and points, rows, splits, batches, resume, bad input."""

import dataclasses
import json
import shutil

import clip_data
import grain
import numpy as np
import pytest

from launch import prepare
from vistraj_jax.core import checks, geometry
from vistraj_jax.data import clip_arrays, example, pipeline, records, xmem
from vistraj_jax.data import depth as depth_images
from vistraj_jax.prepare import rasters
from vistraj_jax.prepare.nuscenes import clip_rows, clips, database


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
  return clip_data.write(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="module")
def root(tables, tmp_path_factory):
  out = tmp_path_factory.mktemp("clips") / "out"
  prepare.main(clip_data.arguments(tables, out))
  return out


def _load(root, mode="bev", split="val", **changes):
  return xmem.load(clip_data.data_config(root, mode, **changes), split, None)


def _sizes(cfg):
  height, width = cfg["image_size"]
  return {**cfg, "height": height, "width": width}


@pytest.mark.parametrize("mode", xmem.MODES)
def test_a_batch_is_what_the_element_says(root, mode):
  found = _load(root, mode)
  sizes = _sizes(clip_data.data_config(root, mode))
  batch = found.gather(np.array([0, 1]))
  assert batch.keys() == xmem.ELEMENT[mode].keys()
  for name, (dtype, shape) in xmem.ELEMENT[mode].items():
    assert batch[name].dtype == dtype, name
    assert batch[name].shape == (2, *(sizes.get(s, s) for s in shape)), name
  assert set(np.unique(batch["masks"])) == {0, 1}
  np.testing.assert_array_equal(batch["past_xy"][:, -1], batch["last_xy"])
  np.testing.assert_array_equal(batch["ego_delta"][:, -1], 0)
  assert batch["future_valid"].all() and batch["row"].tolist() == [0, 1]


def test_the_report_and_the_statistics(tables, tmp_path, capsys):
  prepare.main(clip_data.arguments(tables, tmp_path / "out", min_speed=1.0, inputs=("bev",)))
  out = capsys.readouterr().out
  assert "train: " in out and "too slow" in out and "key frames have no point" in out
  statistics = json.loads((tmp_path / "out" / xmem.STATISTICS).read_text())
  total = statistics["splits"]["val"]
  counts = total["counts"]
  assert counts["clips"] == len(_load(tmp_path / "out")) == sum(total["categories"].values())
  # Twelve objects in every window, one of which is a barrier; half of the others stand.
  assert counts["windows"] == 2 and sum(counts.values()) - counts["windows"] == 24
  assert counts["no agent"] == 2 and counts["too slow"] >= 12
  assert total["sweeps"] == 5 and total["empty_sweeps"] == 1
  with pytest.raises(checks.InputError, match="prepared with --inputs bev; prepare it with camera"):
    _load(tmp_path / "out", "camera")


def test_points_of_the_target_lie_in_its_mask_and_those_of_none_do_not(root):
  found = _load(root)
  layout, seen, inside = found.layout, 0, 0
  for i in range(len(found)):
    clip = found.clip(i)
    for t in np.flatnonzero(clip["num_points"]):
      xy = clip["points"][t, : clip["num_points"][t], :2]
      rows, columns = np.floor((layout.reach - xy) / layout.resolution).astype(int).T
      mask = clip["masks"][t, 0]
      # The target's place, from the frame of the anchor to that of this key frame.
      dx, dy, yaw = clip["ego_delta"][t]
      away = clip["past_xy"][t] - (dx, dy)
      place = away @ np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
      center = np.argwhere(mask).mean(0) * layout.resolution
      np.testing.assert_allclose(layout.reach - center, place, atol=0.75)
      near = np.linalg.norm(xy - place, axis=-1) < 0.3  # no box is smaller
      inside += mask[rows[near], columns[near]].sum()
      far = np.linalg.norm(xy - place, axis=-1) > 6  # nor longer than twice this
      assert not mask[rows[far], columns[far]].any()
      seen += near.sum()
  assert seen > 10 and inside > 0.85 * seen  # corners of masks are rounded to whole cells
  empty = found.clip(0)  # the sweep of key frame 1 has no point
  assert empty["num_points"][1] == 0 and not empty["points"][1].any()


def test_camera_masks_depth_and_intrinsics_fit_at_every_size(root):
  for size in ((45, 80), (90, 160), (30, 40)):
    found = _load(root, "camera_fused", image_size=size)
    hits = 0
    for i in range(len(found)):
      clip, row = found.clip(i), found.index()[i]
      assert clip["frames"].shape == (3, *size, 3)
      at_anchor = np.append(clip["last_xy"], 0.5)
      pose = clip["cam_from_ego"][-1].astype(np.float64)
      point = rasters.transform(pose, at_anchor)
      (u, v), away = geometry.project(point, clip["intrinsics"][-1])
      mask = clip["masks"][-1, 0]
      if not (1 <= u < size[1] - 1 and 1 <= v < size[0] - 1 and away > 0):
        continue  # at the edge of the picture
      u, v = round(u), round(v)
      assert mask[v - 1 : v + 2, u - 1 : u + 2].any(), (row["sample_id"], size)
      inverse, hit = np.moveaxis(clip["depth"][-1], -1, 0)
      inside = (hit > 0) & (mask > 0)
      assert ((inverse > 0) <= (hit > 0)).all()
      if inside.sum() > 5:
        expected = depth_images.inverse_depth(np.array(away))[0]
        like = np.abs(inverse[inside] / expected - 1) < 0.3
        assert like.mean() > 0.2  # others may stand in front
        hits += 1
    assert hits >= 2


def test_a_box_outside_has_an_empty_mask(tables):
  scene = database.Database(tables, clip_data.VERSION).scene("scene-0103", lidar=True)
  choice = dataclasses.replace(clips.DEFAULTS, reach=25.6, resolution=0.4, image_size=(45, 80))
  agents = clip_rows.Agents(scene, choice)
  counts = {"outside": 0, "behind": 0, "seen": 0}
  for k in range(len(scene.time)):
    pose = agents.ego_pose[k]
    drawn, masks = agents.masks("bev", k)
    rows = agents.row[drawn, k]
    place = geometry.into_frame(scene.translation[rows], pose[:3], pose[3:])
    away, filled = np.abs(place[:, :2]).max(1), masks.any((1, 2))
    assert filled[away < 25].all() and not filled[away > 25.6 + 8].any()
    counts["outside"] += (away > 25.6 + 8).sum()
    _, masks = agents.masks("CAM_FRONT", k)
    behind = place[:, 0] < -8
    assert not masks[behind].any() and masks.sum(0).max() <= 1  # nearer boxes hide others
    counts["behind"] += behind.sum()
    counts["seen"] += masks.any((1, 2)).sum()
  assert min(counts.values()) > 5


def test_a_nearer_box_hides_a_farther_one(tables):
  scene = database.Database(tables, clip_data.VERSION).scene("scene-0103", lidar=True)
  camera = scene.cameras["CAM_FRONT"]
  size, rows = (90, 160), np.flatnonzero(scene.keyframe == 0)[:2]
  # Two cars ahead, the second 10 m behind the first and 2 m to its right.
  ahead = geometry.out_of_frame(
    np.array([[0, 0, 20.0], [2, 0, 30]]), *np.split(camera.sensor_pose, [3])
  )
  ahead = geometry.out_of_frame(ahead, *np.split(camera.ego_pose[0], [3]))
  moved = {"translation": scene.translation.copy(), "size_wlh": np.ones_like(scene.size_wlh) * 2}
  moved["translation"][:] = (0, 0, -1000)
  moved["translation"][rows] = ahead
  choice = dataclasses.replace(clips.DEFAULTS, image_size=size)
  agents = clip_rows.Agents(dataclasses.replace(scene, **moved), choice)
  drawn, masks = agents.masks("CAM_FRONT", 0)
  near, far = (masks[np.flatnonzero(agents.row[drawn, 0] == row)[0]] for row in rows)
  assert near.any() and far.any() and not (near & far).any()
  across = np.flatnonzero(near.any(0)), np.flatnonzero(far.any(0))
  assert across[0].min() < across[1].min() and across[1].max() > across[0].max()


def test_positions_go_to_the_ego_frame_and_back_within_a_millimetre(root, tables):
  scene = database.Database(tables, clip_data.VERSION).scene("scene-0103", lidar=True)
  found = _load(root)
  for i, row in enumerate(found.index()):
    clip = found.clip(i)
    mine = np.flatnonzero(scene.instance == row["instance_token"])
    window = row["first_keyframe"] + np.arange(6)
    wanted = scene.translation[mine[np.searchsorted(scene.keyframe[mine], window)]]
    pose = clip["anchor_pose"].astype(np.float64)
    xy = np.concatenate([clip["past_xy"], clip["future_xy"]])
    height = geometry.into_frame(wanted, pose[:3], pose[3:])[:, 2:]
    back = geometry.out_of_frame(np.concatenate([xy, height], 1), pose[:3], pose[3:])
    np.testing.assert_allclose(back, wanted, atol=1e-3)


def test_the_published_anchor_is_the_first_cameras_pose_on_a_level(tables):
  scene = database.Database(tables, clip_data.VERSION).scene("scene-0103", lidar=True)
  cameras = ("CAM_FRONT_RIGHT", "CAM_FRONT")
  choice = dataclasses.replace(clips.DEFAULTS, anchor="published", cameras=cameras)
  agents = clip_rows.Agents(scene, choice)
  xy, valid = agents.positions(3, 2)
  camera = scene.cameras["CAM_FRONT_RIGHT"]
  pose = camera.ego_pose[np.flatnonzero(camera.is_keyframe)[2]]
  np.testing.assert_array_equal(agents.anchor_pose[2], pose)
  # These cars stand level: the published rule gives the same.
  rows = agents.row[3]
  wanted = geometry.into_frame(scene.translation[rows], pose[:3], pose[3:])[:, :2]
  np.testing.assert_allclose(xy, wanted, atol=1e-9)
  plain = clip_rows.Agents(scene, clips.DEFAULTS).positions(3, 2)[0]
  assert valid.all() and 0.01 < np.abs(xy - plain).max() < 0.5  # the car drives on in between


def test_rows_repeat_and_only_the_seed_of_points_differs(root, tables, tmp_path):
  prepare.main(clip_data.arguments(tables, tmp_path / "again"))
  prepare.main(clip_data.arguments(tables, tmp_path / "other", seed=5))
  for split in ("train", "val"):
    mine, again, other = (
      [records.find_shards(folder, xmem.NAME, split)[0], xmem.rows_path(folder, split)]
      for folder in (root, tmp_path / "again", tmp_path / "other")
    )
    assert [p.read_bytes() for p in mine] == [p.read_bytes() for p in again]
    assert mine[1].read_bytes() == other[1].read_bytes()
    assert mine[0].read_bytes() != other[0].read_bytes()


def test_no_scene_is_in_two_splits_and_rows_name_no_machine(root, tables):
  scenes = {}
  for split in ("train", "val"):
    found = _load(root, split=split)
    names = found.strings(np.arange(len(found)))
    scenes[split] = set(names["scene"])
    ids = [f"{i}_{s}" for i, s in zip(names["instance_token"], names["sample_token"], strict=True)]
    assert names["sample_id"] == ids and len(set(ids)) == len(ids)
    text = xmem.rows_path(root, split).read_text()
    assert str(tables) not in text and "samples/LIDAR_TOP/" in text
    assert found.about()["clips"] == len(found) > 3
  assert scenes == {"train": {"scene-0061"}, "val": {"scene-0103"}}


def test_packed_arrays_come_back():
  rng = np.random.default_rng(0)
  points = rng.uniform((-100, -100, -5, 0, -0.6), (100, 100, 3, 1, 0), (50, 5))
  again = clip_arrays.unpack_points(clip_arrays.pack_points(points), "here")
  np.testing.assert_allclose(again, points, atol=0.002)
  masks = rng.random((3, 5, 7)) > 0.5
  again = clip_arrays.unpack_masks(clip_arrays.pack_masks(masks), (3, 5, 7), "here")
  np.testing.assert_array_equal(again, masks)
  depth = np.where(rng.random((5, 7)) > 0.5, rng.uniform(1, 80, (5, 7)), 0)
  again = clip_arrays.unpack_depth(clip_arrays.pack_depth(depth), (5, 7), "here")
  np.testing.assert_allclose(again, depth, 1e-3)


def test_smaller_depth_images_keep_the_nearest_point():
  depth = np.zeros((4, 4), np.float32)
  depth[0, 0], depth[1, 1], depth[3, 2] = 9, 4, 7
  np.testing.assert_array_equal(depth_images.resized(depth, (2, 2)), [[4, 0], [0, 7]])
  large = depth_images.resized(depth, (8, 8))
  assert np.count_nonzero(large) == 3 and large[3, 3] == 4


def test_resume_in_mid_epoch_gives_the_same_batches(root):
  cfg = clip_data.data_config(root)

  def batches():
    return pipeline.make_loader(cfg, "train", None, batch_size=2, seed=1, train=True)

  iterator = iter(batches())
  next(iterator)
  state = iterator.get_state()
  wanted = [next(iterator) for _ in range(4)]
  again = iter(batches())
  again.set_state(state)
  for batch in wanted:
    other = next(again)
    for name in batch:
      np.testing.assert_array_equal(batch[name], other[name])
  assert isinstance(batches(), grain.IterDataset)


@pytest.mark.parametrize(
  ("changes", "sentence"),
  [
    ({"t_in": 4}, "config.data.t_in: 4 received, but the clips of .* have 3 .*--t_in 4"),
    ({"t_out": 2}, "config.data.t_out: 2 received, but the clips of .* have 3"),
    ({"objects": 3}, "config.data.objects: 3 received, 1 to 2 allowed"),
    ({"objects": 0}, "config.data.objects: 0 received, 1 to 2 allowed"),
    ({"points": 301}, "config.data.points: 301 received, 1 to 300 allowed"),
    ({"mode": "radar"}, "config.data.mode: 'radar' is not allowed"),
    ({"image_size": (8, 256)}, r"config.data.image_size: \(8, 256\) received"),
  ],
)
def test_settings_that_the_data_does_not_fit(root, changes, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    _load(root, **changes)


@pytest.mark.parametrize(
  ("mode", "changes", "sentence"),
  [
    ("bev", {"bev_hw": [4, 4]}, "bev masks of 4 x 4 px received, 512 x 512 wanted"),
    ("bev", {"object_valid": [0, 0]}, "0 objects of 2; the target and room for 2 are wanted"),
    ("bev", {"past_xy": [[0, 0]]}, "1 key frames in 'past_xy', t_in = 3 wanted"),
    ("bev", {"future_xy": [[0, 0]]}, "1 key frames in 'future_xy', t_out = 3 wanted"),
    ("bev", {"bev_masks": [b"?"] * 3}, "key frame 0: the masks are damaged"),
    ("bev", {"points": [b"?"] * 3}, "key frame 0: 1 bytes of points, a multiple of 10 wanted"),
    ("bev", {"schema_version": 9}, "schema 9 received, 1 wanted"),
    ("camera", {"frames": [b"?"] * 3}, "frame 0: the JPEG is damaged"),
    ("camera", {"frames": []}, "0 of 3 key frames have 'frames'"),
  ],
)
def test_damaged_records_are_named(root, tmp_path, mode, changes, sentence):
  broken = tmp_path / "broken"
  shutil.copytree(root, broken)
  (path,) = records.find_shards(broken, xmem.NAME, "val")
  payloads = list(records.TFRecordSource([path]))
  record = {**example.decode(payloads[1], xmem.SPEC), **changes}
  payloads[1] = example.encode(record, xmem.SPEC)
  records.write_records(path, payloads)
  found = _load(broken, mode)
  found.clip(0)
  with pytest.raises(checks.InputError, match=f"xmem-val record 1 .*{sentence}"):
    found.clip(1)


def test_missing_files_and_wrong_settings(tables, tmp_path):
  copy = tmp_path / "tables"
  shutil.copytree(tables, copy)
  image = sorted((copy / "samples" / "CAM_FRONT").glob("scene-0061*"))[2]
  image.unlink()
  with pytest.raises(checks.InputError, match=f"1 of 9 files of CAM_FRONT .* is {image}"):
    prepare.main(clip_data.arguments(copy, tmp_path / "out"))
  prepare.main([*clip_data.arguments(copy, tmp_path / "less"), "--keep_going"])
  statistics = json.loads((tmp_path / "less" / xmem.STATISTICS).read_text())
  assert list(statistics["skipped"]) == ["scene-0061"] and list(statistics["splits"]) == ["val"]
  arguments = clip_data.arguments(copy, tmp_path / "frames", inputs=("camera",))
  prepare.main([*arguments, "--keep_going"])
  total = json.loads((tmp_path / "frames" / xmem.STATISTICS).read_text())["splits"]["val"]
  assert total["sweeps"] == 0 and total["counts"]["clips"]  # nobody wants points
  for changes, sentence in (
    ({"max_sweep_age": 2.5}, "--max_sweep_age: 2.5 s received; give at most 1.9"),
    ({"t_out": 0}, "--t_out: 0 received; give 1 or more"),
    ({"cameras": ("CAM_UP",)}, "--cameras: 'CAM_UP' is not allowed"),
    ({"inputs": ("bev", "bev")}, "--inputs: .* name one or more, each once"),
    ({"resolution": 0.7}, "grid: 0.7 m does not divide 128.0 m"),
    ({"image_size": (4, 80)}, r"--image_size: \(4, 80\) received"),
    ({"t_in": 7}, "no clip: scenes have no 10 key frames"),
  ):
    with pytest.raises(checks.InputError, match=sentence):
      prepare.main(clip_data.arguments(tables, tmp_path / "wrong", **changes))
