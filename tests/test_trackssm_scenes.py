"""Scene samples: slots, padding, strides, and the windows that are cut out of them."""

import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.data import example, pipeline, records, trackssm, trackssm_scenes

CFG = {"pipeline": "trackssm_scenes", "sequence_length": 8, "num_queries": 4, "min_track_len": 3}


def _track(sequence, track_id, frames):
  frames = np.asarray(frames)
  return {
    "sequence": sequence,
    "camera": "",
    "track_id": track_id,
    "class_id": track_id % 3,
    "frames": frames,
    "boxes": np.column_stack([frames, frames * track_id, frames + 1, frames + 2]),
    "visibility": np.ones(len(frames)),
    "is_keyframe": np.ones(len(frames)),
    "width": 1,
    "height": 1,
    "frame_rate": 12.0,
  }


def _load(root, tracks, split="train", history=2, **kwargs):
  payloads = [example.encode(track, trackssm.SPEC) for track in tracks]
  records.write_records(records.shard_path(root, "trackssm", split, 0, 1), payloads)
  return pipeline.load({**CFG, "root": root, **kwargs}, split, history=history)


def test_slots_and_padding_by_hand(tmp_path):
  tracks = [
    _track("b", 9, range(1, 9)),
    _track("b", 4, range(3, 9)),  # appears later: second slot
    _track("b", 2, range(7, 30)),  # two boxes in the first sample: no slot there
  ]
  scenes = _load(tmp_path, tracks)
  np.testing.assert_array_equal(scenes.start, [1, 5, 9, 13, 17, 21])
  found = scenes.gather(np.array([0, 1]))
  for name, (dtype, _) in trackssm_scenes.ELEMENT.items():
    assert found[name].dtype == dtype
  first = found["track_ids"][0]
  np.testing.assert_array_equal(first[:, 0], 9)
  np.testing.assert_array_equal(first[:, 1], [-1, -1, 4, 4, 4, 4, 4, 4])
  np.testing.assert_array_equal(first[:, 2:], -1)
  np.testing.assert_array_equal(found["padding_mask"], found["track_ids"] < 0)
  np.testing.assert_array_equal(found["class_ids"][0, :, 1], [-1, -1, 1, 1, 1, 1, 1, 1])
  # Frame 3 of id 4: left 3, top 12, width 4, height 5.
  np.testing.assert_allclose(found["condition"][0, 2, 1], [5, 14.5, 4, 5])
  np.testing.assert_array_equal(found["condition"][0, :2, 1], 0)
  np.testing.assert_array_equal(found["cur_bbox"], found["condition"][:, -1])
  np.testing.assert_array_equal(found["track_ids"][1, -1], [-1, -1, 2, -1])  # by id, then later


def test_other_splits_do_not_overlap(tmp_path):
  scenes = _load(tmp_path, [_track("b", 1, range(1, 30))], "val")
  np.testing.assert_array_equal(scenes.start, [1, 9, 17])


def test_too_many_tracks_keep_a_repeatable_subset(tmp_path):
  scenes = _load(tmp_path, [_track("b", k, range(1, 9)) for k in range(20)])
  ids = scenes.gather(np.array([0]))["track_ids"][0, 0]
  assert len(set(ids)) == 4 and (np.diff(ids) > 0).all() and ids.max() > 3
  np.testing.assert_array_equal(scenes.gather(np.array([0]))["track_ids"][0, 0], ids)


def test_windows_equal_those_of_the_window_pipeline(tmp_path):
  rng = np.random.default_rng(0)
  tracks = []
  for k in range(12):
    frames = np.flatnonzero(rng.random(24) < 0.9) + 1
    tracks.append(_track(f"s{k % 2}", k + 1, frames))
  scenes = _load(tmp_path, tracks, "val", sequence_length=24, num_queries=10)
  batch = scenes.gather(np.arange(len(scenes)))
  boxes, mask = trackssm_scenes.windows_of(batch["condition"], batch["padding_mask"], 2)
  assert boxes.shape == (2, 21, 10, 4, 4) and mask.shape == (2, 21, 10)
  windows = trackssm.load({"root": tmp_path}, "val", history=2)
  wanted = windows.gather(np.arange(len(windows)))["boxes"]
  as_sets = [sorted(tuple(w.ravel()) for w in part) for part in (boxes[mask], wanted)]
  assert as_sets[0] == as_sets[1] and len(wanted) > 50


def test_batches(tmp_path):
  scenes = _load(tmp_path, [_track("b", 1, range(1, 30))], "val")
  loader = pipeline.batches(scenes, batch_size=2, seed=0, train=False)
  batches = list(loader)
  assert [b["mask"].tolist() for b in batches] == [[1, 1], [1, 0]]
  assert batches[0]["condition"].shape == (2, 8, 4, 4)


def test_bad_settings(tmp_path):
  tracks = [_track("b", 1, range(1, 8))]
  with pytest.raises(checks.InputError, match="sequence_length: 3 frames hold no window of 4"):
    _load(tmp_path, tracks, sequence_length=3)
  with pytest.raises(checks.InputError, match="has no 8 consecutive frames with 3 boxes"):
    _load(tmp_path, tracks)
