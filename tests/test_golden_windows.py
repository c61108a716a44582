"""Windows and 12 fps rows equal the golden cases."""

import json
import pathlib

import numpy as np
import pytest

from vistraj_jax.data import trackssm
from vistraj_jax.prepare.nuscenes import boxes as nuscenes_boxes

GOLDEN = pathlib.Path(__file__).parent / "golden" / "trackssm"


def _load(case):
  folder = GOLDEN / case
  manifest = json.loads((folder / "manifest.json").read_text())
  with np.load(folder / "io.npz") as arrays:
    return manifest, dict(arrays)


def test_track_windows():
  manifest, io = _load("track_windows")
  history = manifest["config"]["history_len"]
  found = []
  for boxes in io["boxes"]:
    starts = trackssm.windows(boxes, np.arange(len(boxes)), history)
    found += [boxes[start : start + history + 2] for start in starts]
  found = np.array(found)
  condition = np.concatenate([found[:, 1:-1], np.diff(found, axis=1)[:, :-1]], -1)
  tolerance = manifest["tolerance"]
  np.testing.assert_allclose(condition, io["condition"], **tolerance)
  np.testing.assert_allclose(found[:, -1], io["cur_bbox"], **tolerance)
  np.testing.assert_allclose(found[:, -1] - found[:, -2], io["delta_bbox"], **tolerance)


@pytest.mark.parametrize("camera", ["CAM_FRONT", "CAM_BACK_LEFT"])
def test_nuscenes_to_mot(camera):
  manifest, io = _load("nuscenes_to_mot")
  config, tolerance = manifest["config"], manifest["tolerance"]
  keyframe = io["ann_keyframe"]
  boxes = {
    clip: nuscenes_boxes.camera_boxes(
      io["ann_translation"],
      io["ann_size"],
      io["ann_rotation"],
      io["ego_pose"][keyframe],
      io[f"sensor_{camera}"],
      io[f"intrinsic_{camera}"],
      config["image"],
      clip,
    )
    for clip in ("corners", "hull")
  }
  for clip, found in boxes.items():
    wanted = io[f"proj_{clip}_{camera}"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance["atol_projection"])
  classes = np.array([nuscenes_boxes.class_id(name) for name in config["categories"]])
  classes = classes[io["ann_category"]]
  visible = io["ann_visibility"] >= config["min_visibility"]
  rows = np.flatnonzero(~np.isnan(boxes["corners"][:, 0]) & (classes >= 0) & visible)
  table, is_keyframe = nuscenes_boxes.keyframes_to_frames(
    keyframe[rows],
    io["ann_instance"][rows],
    boxes["corners"][rows],
    classes[rows],
    io["ann_visibility"][rows],
  )
  found = np.column_stack(
    [
      table.frame,
      table.track_id,
      table.box_xywh.round(2),
      table.score,
      table.class_id,
      table.visibility,
      np.full(len(table), -1),
    ]
  )
  wanted = io[f"rows_{camera}"]
  np.testing.assert_allclose(found, wanted, rtol=tolerance["rtol"], atol=tolerance["atol"])
  np.testing.assert_array_equal(is_keyframe, (table.frame - 1) % 6 == 0)
