"""The tracker's `byte` loop against a recorded run of the published one: equal in every row."""

import json
import pathlib

import numpy as np
import pytest

from vistraj_jax.tracking import motion_models, tracker
from vistraj_jax.tracking.settings import PRESETS, TrackerSettings

FOLDERS = sorted((pathlib.Path(__file__).parent / "golden" / "trackssm").glob("byte_tracker*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_rows_list_sizes_and_order_equal_the_published_loop(folder):
  manifest = json.loads((folder / "manifest.json").read_text())
  config, stored = manifest["config"], np.load(folder / "io.npz")
  settings = TrackerSettings(
    high_score=config["high_thres"],
    low_score=config["low_thres"],
    new_score=config["new_track_thres"],
    first_cost=config["first_iou_cost"],
    second_cost=config["second_iou_cost"],
    unconfirmed_cost=config["unconfirmed_iou_cost"],
    duplicate_cost=config["duplicate_iou_cost"],
    max_lost_frames=config["max_time_lost"],
  )
  loop = tracker.Tracker(
    settings,
    motion_models.make("constant_velocity"),
    frame_rate=30.0,
    image_size=(config["img_w"], config["img_h"]),
  )
  detections, rows, sizes = stored["detections"], [], []
  for frame in range(1, config["frames"] + 1):
    found = detections[detections[:, 0] == frame]
    tracks = loop.step(
      tracker.Detections(found[:, 1:5], found[:, 5], np.zeros(len(found), np.int64))
    )
    sizes.append((loop.tracked_count, loop.lost_count))
    each = zip(tracks.track_id, tracks.box_xywh, tracks.score, strict=True)
    rows += [(frame, track_id, *box, score) for track_id, box, score in each]
  np.testing.assert_array_equal(sizes, stored["tracked_lost"])
  rows = np.array(rows)
  np.testing.assert_array_equal(rows[:, :2], stored["rows"][:, :2])
  np.testing.assert_allclose(rows, stored["rows"], **manifest["tolerance"])


def test_presets_hold_the_published_thresholds():
  assert FOLDERS
  byte = PRESETS["byte"]
  config = json.loads((FOLDERS[0] / "manifest.json").read_text())["config"]
  wanted = [config[k] for k in ("high_thres", "low_thres", "new_track_thres", "first_iou_cost")]
  assert [byte.high_score, byte.low_score, byte.new_score, byte.first_cost] == wanted
