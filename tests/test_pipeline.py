"""Windows, batches, order, shares of processes, padding, exact resume."""

import grain
import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.data import example, pipeline, records, trackssm


def _track(sequence, track_id, frames, rng):
  frames = np.asarray(frames)
  return {
    "sequence": sequence,
    "camera": "",
    "track_id": track_id,
    "class_id": track_id % 7,
    "frames": frames,
    "boxes": rng.uniform(1, 100, (len(frames), 4)),
    "visibility": np.ones(len(frames)),
    "is_keyframe": np.ones(len(frames)),
    "width": 200,
    "height": 100,
    "frame_rate": 12.0,
  }


def _write(root, split, tracks):
  payloads = [example.encode(track, trackssm.SPEC) for track in tracks]
  records.write_records(records.shard_path(root, "trackssm", split, 0, 1), payloads)


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
  root = tmp_path_factory.mktemp("tracks")
  rng = np.random.default_rng(0)
  lengths = rng.integers(3, 40, 30)
  tracks = [_track(f"s{k % 3}", k, np.arange(n) + k, rng) for k, n in enumerate(lengths)]
  _write(root, "train", tracks)
  _write(root, "val", tracks[:9])
  return {"pipeline": "trackssm", "root": str(root)}


def _loader(cfg, split="train", **kwargs):
  settings = {"batch_size": 8, "seed": 3, "train": split == "train", **kwargs}
  return pipeline.make_loader(cfg, split, {"history": 5}, **settings)


def _take(iterator, count):
  return [next(iterator) for _ in range(count)]


def _assert_same(first, second):
  assert len(first) == len(second)
  for a, b in zip(first, second, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_number_of_windows_of_ragged_tracks():
  for length in range(12):
    boxes = np.ones((length, 4))
    starts = trackssm.windows(boxes, np.arange(length), 5)
    np.testing.assert_array_equal(starts, np.arange(max(0, length - 6)))


def test_no_window_crosses_a_gap_or_a_missing_box():
  frames = np.r_[0:8, 9:17, 20:26]  # 8, 8 and 6 rows
  np.testing.assert_array_equal(trackssm.windows(np.ones((22, 4)), frames, 5), [0, 1, 8, 9])
  boxes = np.ones((22, 4))
  boxes[7, 2] = np.nan
  np.testing.assert_array_equal(trackssm.windows(boxes, frames, 5), [0, 8, 9])


def test_stride_needs_the_frames_between():
  frames = np.arange(20)
  np.testing.assert_array_equal(trackssm.windows(np.ones((20, 4)), frames, 1, 6), np.arange(8))
  frames = np.delete(frames, 9)
  assert len(trackssm.windows(np.ones((19, 4)), frames, 1, 6)) == 0


def test_values_of_one_window(tmp_path):
  rng = np.random.default_rng(1)
  _write(tmp_path, "val", [_track("b", 3, range(1, 9), rng), _track("a", 4, range(5, 12), rng)])
  examples = trackssm.load({"root": tmp_path}, "val", {"history": 5})
  assert len(examples) == 3 and examples.sequences == ("a", "b")
  found = examples.gather(np.array([2, 1]))
  wanted = _track("b", 3, range(1, 9), np.random.default_rng(1))["boxes"][1:8].astype(np.float32)
  cxcywh = np.concatenate([wanted[:, :2] + wanted[:, 2:] / 2, wanted[:, 2:]], 1)
  np.testing.assert_allclose(found["boxes"][1], cxcywh / [200, 100, 200, 100], rtol=1e-6)
  np.testing.assert_array_equal(found["frame"], [11, 8])
  np.testing.assert_array_equal(found["sequence"], [0, 1])
  np.testing.assert_array_equal(found["class_id"], [4, 3])
  np.testing.assert_array_equal(found["frame_rate"], [12, 12])
  for name, (dtype, _) in trackssm.ELEMENT.items():
    assert found[name].dtype == dtype


def test_strides_by_config(cfg):
  every = len(trackssm.load(cfg, "train", {"history": 5}))
  third = len(trackssm.load({**cfg, "sample_stride": 3}, "train", {"history": 5}))
  assert every / 3 <= third < every / 2
  slow = trackssm.load({**cfg, "frame_stride": 3}, "train", {"history": 2})
  np.testing.assert_array_equal(slow.steps, [0, 3, 6, 9])
  np.testing.assert_array_equal(slow.frame_rate, np.full(30, 4.0))


def test_training_epochs_visit_every_example_once_in_new_orders(cfg):
  examples = pipeline.load(cfg, "train", {"history": 5})
  steps = len(examples) // 8
  batches = _take(iter(_loader(cfg)), 2 * steps)
  keys = [tuple(box.ravel()) for batch in batches for box in batch["boxes"]]
  first, second = keys[: steps * 8], keys[steps * 8 :]
  assert len(set(first)) == steps * 8 == len(set(second))
  assert first != second
  assert len(set(first) & set(second)) > steps * 7
  assert all((batch["mask"] == 1).all() for batch in batches)


def test_order_is_a_function_of_the_seed(cfg):
  _assert_same(_take(iter(_loader(cfg)), 60), _take(iter(_loader(cfg)), 60))
  other = next(iter(_loader(cfg, seed=4)))
  assert (other["boxes"] != next(iter(_loader(cfg)))["boxes"]).any()


@pytest.mark.parametrize("shards", [2, 3])
def test_processes_share_the_global_batch(cfg, shards):
  whole = _take(iter(_loader(cfg, batch_size=6)), 50)
  parts = [
    _take(iter(_loader(cfg, batch_size=6 // shards, shard=k, num_shards=shards)), 50)
    for k in range(shards)
  ]
  joined = [
    {name: np.concatenate([part[name] for part in step]) for name in step[0]}
    for step in zip(*parts, strict=True)
  ]
  _assert_same(joined, whole)


@pytest.mark.parametrize(("shards", "batch_size"), [(1, 8), (3, 7), (4, 100)])
def test_evaluation_sees_every_example_once_in_equally_many_batches(cfg, shards, batch_size):
  examples = pipeline.load(cfg, "val", {"history": 5})
  per_process = [
    list(_loader(cfg, "val", batch_size=batch_size, shard=k, num_shards=shards))
    for k in range(shards)
  ]
  assert len({len(batches) for batches in per_process}) == 1
  seen = []
  for batches in per_process:
    for batch in batches:
      assert batch["boxes"].shape == (batch_size, 7, 4) and batch["mask"].dtype == np.float32
      seen += [tuple(box.ravel()) for box in batch["boxes"][batch["mask"] == 1]]
  everything = examples.gather(np.arange(len(examples)))["boxes"]
  assert sorted(seen) == sorted(tuple(box.ravel()) for box in everything)


def test_resume_is_exact(cfg):
  steps = pipeline.num_examples(cfg, "train", {"history": 5}) // 8
  for stop in (0, 1, steps - 1, steps, steps + 5):
    iterator = iter(_loader(cfg))
    _take(iterator, stop)
    state = iterator.get_state()
    wanted = _take(iterator, steps)
    again = iter(_loader(cfg))
    again.set_state(state)
    _assert_same(_take(again, steps), wanted)


def test_resume_through_a_checkpoint(cfg, tmp_path):
  import orbax.checkpoint as ocp

  iterator = iter(_loader(cfg))
  _take(iterator, 5)
  with ocp.CheckpointManager(tmp_path / "run") as manager:
    manager.save(5, args=ocp.args.Composite(data=grain.checkpoint.CheckpointSave(iterator)))
    manager.wait_until_finished()
    wanted = _take(iterator, 3)
    again = iter(_loader(cfg))
    manager.restore(5, args=ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(again)))
  _assert_same(_take(again, 3), wanted)


def test_worker_processes_change_nothing(cfg):
  iterator = iter(_loader(cfg, worker_count=2))
  found = _take(iterator, 9)
  state = iterator.get_state()
  iterator.close()
  _assert_same(found, _take(iter(_loader(cfg)), 9))
  again = iter(_loader(cfg, worker_count=2))
  again.set_state(state)
  rest = _take(again, 3)
  again.close()
  _assert_same(rest, _take(iter(_loader(cfg)), 12)[9:])


def test_bad_input(cfg, tmp_path):
  with pytest.raises(checks.InputError, match="config.data.pipeline: 'trakssm' is not allowed"):
    _loader({**cfg, "pipeline": "trakssm"})
  with pytest.raises(checks.InputError, match="split 'train' has .* fewer than one global batch"):
    _loader(cfg, batch_size=10_000)
  with pytest.raises(checks.InputError, match="no file trackssm-test"):
    _loader(cfg, "test")
  _write(tmp_path, "train", [_track("s", 1, range(6), np.random.default_rng(0))])
  with pytest.raises(checks.InputError, match="has 1 tracks and none of 7 boxes"):
    _loader({**cfg, "root": tmp_path})


def test_record_of_unequal_lengths(tmp_path):
  track = _track("s", 1, range(9), np.random.default_rng(0))
  _write(tmp_path, "val", [{**track, "visibility": np.ones(8)}])
  with pytest.raises(checks.InputError, match="trackssm-val record 0: 8 visibility for 9 frames"):
    trackssm.load({"root": tmp_path}, "val", {"history": 5})


def test_damaged_shard_is_noticed(cfg, tmp_path):
  path = records.find_shards(cfg["root"], "trackssm", "val")[0]
  data = bytearray(path.read_bytes())
  data[200] ^= 1
  (tmp_path / path.name).write_bytes(data)
  with pytest.raises(checks.InputError, match=f"{path.name}: record 0 at byte 12 fails"):
    _loader({**cfg, "root": tmp_path}, "val")
