"""Bridge, EgoDex, LIBERO and plain videos -> trajectory records: tiny made sources, wrong input."""

import json

import numpy as np
import pytest
import two_stream_data

from launch import prepare as launch_prepare
from vistraj_jax.core import checks
from vistraj_jax.data import example, images, records, two_stream
from vistraj_jax.prepare.frame_pairs import bridge, libero, trajectories, videos
from vistraj_jax.viz import video as video_writer


def _read(root, split):
  source = two_stream.Trajectories(root, split)
  return [source[i] for i in range(len(source))]


def _options(**changes):
  return trajectories.Options(**{"size": 48, "val_share": 0.5, **changes})


# --- writers of tiny sources ---------------------------------------------------------------------


def _episode(name, length=6, seed=0):
  """One episode as TensorFlow Datasets write it."""
  pictures = two_stream_data.frames(length, seed=seed)
  spec = {
    "steps/observation/image_0": ("bytes", (None,)),
    "steps/observation/state": ("float32", (None, 7)),
    "steps/action": ("float32", (None, 7)),
    "steps/language_instruction": ("bytes", (None,)),
    "episode_metadata/file_path": ("bytes", ()),
    "episode_metadata/episode_id": ("int64", ()),
  }
  state = np.arange(7.0 * length).reshape(length, 7) / 10
  state[:, 3:6] = [0.0, 0.0, np.pi / 2]
  values = {
    "steps/observation/image_0": [images.encode(p) for p in pictures],
    "steps/observation/state": state,
    "steps/action": np.arange(7.0 * length).reshape(length, 7),
    "steps/language_instruction": ["push the block"] * length,
    "episode_metadata/file_path": f"/data/{name}",
    "episode_metadata/episode_id": seed,
  }
  return example.encode(values, spec)


def _rlds(folder, count=8):
  payloads = [_episode("a", seed=k) for k in range(count)]
  records.write_records(records.shard_path(folder, "bridge_dataset", "train", 0, 1), payloads)
  records.write_records(records.shard_path(folder, "bridge_dataset", "val", 0, 1), payloads[:2])
  return folder


def _raw(folder, count=8, length=12):
  for k in range(count):
    traj = folder / "toy" / "push" / "00" / "2022-01-01" / "raw" / "traj_group0" / f"traj{k}"
    (traj / "images0").mkdir(parents=True)
    for i, picture in enumerate(two_stream_data.frames(length, seed=k)):
      (traj / "images0" / f"im_{i}.jpg").write_bytes(images.encode(picture))
    (traj / "lang.txt").write_text("move the pot\nconfidence: 1.0\n")
  return folder


def _videos(folder, rates=(10,) * 6, length=20):
  folder.mkdir(parents=True, exist_ok=True)
  for k, rate in enumerate(rates):
    pictures = two_stream_data.frames(length, size=64, seed=k)[..., ::-1]
    video_writer.write_video(folder / f"{k}.mp4", list(np.ascontiguousarray(pictures)), rate)
  return folder


def _poses(path, length, joints=videos.EGODEX_JOINTS, confidences=True):
  import h5py

  with h5py.File(path, "w") as file:
    for k, joint in enumerate(joints):
      matrices = np.tile(np.eye(4), (length, 1, 1))
      matrices[:, :3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # a quarter turn about z
      matrices[:, 0, 3] = k + np.arange(length) / 100
      file[f"transforms/{joint}"] = matrices
      if confidences:
        file[f"confidences/{joint}"] = np.full(length, 0.5)
    file.attrs["llm_description"] = "open the box"
    file.attrs["llm_description2"] = "close the box"
    file.attrs["which_llm_description"] = "2"


def _demos(path, count=6, length=8, without=()):
  import h5py

  path.parent.mkdir(parents=True, exist_ok=True)
  with h5py.File(path, "w") as file:
    data = file.create_group("data")
    data.attrs["problem_info"] = json.dumps({"language_instruction": "stack the bowls"})
    for k in range(count):
      demo = data.create_group(f"demo_{k}")
      content = {
        "actions": np.full((length, 7), k, np.float32),
        "obs/agentview_rgb": two_stream_data.frames(length, seed=k),
        "obs/eye_in_hand_rgb": two_stream_data.frames(length, seed=100 + k),
        "obs/ee_pos": np.arange(3.0 * length).reshape(length, 3),
        "obs/ee_ori": np.full((length, 3), 0.1),
      }
      for name, value in content.items():
        if name not in without:
          demo[name] = value


# --- tiny sources --------------------------------------------------------------------------------


def test_bridge_rlds(tmp_path, capsys):
  source, out = _rlds(tmp_path / "source"), tmp_path / "out"
  launch_prepare.main(["bridge", "--source", str(source), "--out", str(out), "--val_share", "0.5"])
  statistics = json.loads((out / two_stream.STATISTICS).read_text())["splits"]
  assert sum(total["trajectories"] for total in statistics.values()) == 10
  assert sum(total["duplicates"] for total in statistics.values()) == 2  # held in both splits
  printed = capsys.readouterr().out
  assert "duplicates" in printed and "60 frames in" in printed
  found = {split: _read(out, split) for split in ("train", "val")}
  names = {split: {r["trajectory_id"] for r in rows} for split, rows in found.items()}
  assert not names["train"] & names["val"]
  row = found["train"][0]
  assert row["instruction"] == b"push the block" and row["fps"] == 5
  assert row["joints"] == [b"end_effector"] and row["action_size"] == 7
  np.testing.assert_allclose(row["pose"][1], [0.7, 0.8, 0.9], rtol=1e-6)
  np.testing.assert_allclose(row["orientation"][0], [0, 0, np.pi / 2], atol=1e-6)
  np.testing.assert_allclose(row["action"].reshape(-1, 7)[1], np.arange(7.0, 14))
  number = int(row["trajectory_id"].decode().rpartition("/")[2])
  want = images.encode(two_stream_data.frames(6, seed=number)[0])
  assert row["frames"][0] == want  # small and square: the source's own bytes


def test_tfds_metadata_names_lists(tmp_path):
  out = tmp_path / "out"
  bridge.prepare(_rlds(tmp_path / "source"), out, options=_options())
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(out)
  assert builder.info.splits["train"].num_examples == len(_read(out, "train"))
  assert isinstance(builder.info.features["frames"], tfds.features.Sequence)


def test_bridge_raw(tmp_path):
  source, out = _raw(tmp_path / "source"), tmp_path / "out"
  statistics = bridge.prepare(source, out, options=_options(size=32))["splits"]
  assert sum(total["frames"] for total in statistics.values()) == 8 * 12
  row = _read(out, "train")[0]
  assert row["instruction"] == b"move the pot" and row["size"] == 32
  number = int(row["trajectory_id"].decode()[-1])
  truth = two_stream_data.frames(12, seed=number)
  for k in (0, 2, 11):  # by number, not by name: im_2 lies before im_11
    small = trajectories.resized(truth[k], 32, "squash")
    assert np.abs(images.decode(row["frames"][k]).astype(int) - small).mean() < 2


def test_damaged_frame_ends_a_trajectory(tmp_path):
  source, out = _raw(tmp_path / "source", count=6), tmp_path / "out"
  folder = next(iter(sorted(source.rglob("images0"))))
  (folder / "im_3.jpg").write_bytes(b"\xff\xd8 cut")
  (folder / "im_5.jpg").unlink()  # leaves frame 4 alone
  statistics = bridge.prepare(source, out, options=_options())["splits"]
  assert sum(total["damaged_frames"] for total in statistics.values()) == 2
  assert sum(total["short"] for total in statistics.values()) == 1
  lengths = sorted(n for total in statistics.values() for n in total["lengths"])
  assert lengths == [3, 6, 12, 12, 12, 12, 12]
  names = [r["trajectory_id"].decode() for s in ("train", "val") for r in _read(out, s)]
  assert sum(name.endswith(("#0", "#6")) for name in names) == 2


def test_egodex(tmp_path):
  source, out = _videos(tmp_path / "source" / "part1" / "open"), tmp_path / "out"
  for k in range(3):
    _poses(source / f"{k}.hdf5", 20, confidences=k != 1)
  (tmp_path / "source" / "test").mkdir()
  (source / "5.mp4").rename(tmp_path / "source" / "test" / "5.mp4")
  statistics = videos.prepare_egodex(tmp_path / "source", out, options=_options())["splits"]
  assert statistics["test"]["trajectories"] == 1
  rows = {r["trajectory_id"].decode(): r for s in statistics for r in _read(out, s)}
  row = rows["part1/open/0.mp4"]
  assert row["instruction"] == b"close the box" and len(row["joints"]) == 6
  pose = row["pose"].reshape(20, 6, 3)
  np.testing.assert_allclose(pose[7, 2], [2.07, 0, 0], atol=1e-6)
  np.testing.assert_allclose(row["orientation"][0], [0, 0, np.pi / 2], atol=1e-6)
  assert row["confidence"].tolist() == [0.5] * 120
  assert len(rows["part1/open/1.mp4"]["confidence"]) == 0
  assert len(rows["test/5.mp4"]["pose"]) == 0


def test_videos_cut_and_thinned(tmp_path):
  source, out = _videos(tmp_path / "source"), tmp_path / "out"
  options = _options(chunk=6, overlap=2)
  statistics = videos.prepare(source, out, fps=5.0, options=options)["splits"]
  for total in statistics.values():
    assert set(total["lengths"]) == {6} and set(total["fps"]) == {5.0}
  row = next(r for r in _read(out, "train") if r["trajectory_id"].endswith(b"#0"))
  assert [r["trajectory_id"].decode()[5:] for r in _read(out, "train")][:2] == ["#0", "#4"]
  number = int(row["trajectory_id"].decode()[0])
  truth = two_stream_data.frames(20, size=64, seed=number)
  for k in range(6):  # every second frame of the video
    small = trajectories.resized(truth[2 * k], 48, "center_crop")
    assert np.abs(images.decode(row["frames"][k]).astype(int) - small).mean() < 6


def test_libero(tmp_path, capsys):
  _demos(tmp_path / "source" / "libero_spatial" / "a_demo.hdf5", count=12)
  out = tmp_path / "out"
  launch_prepare.main(
    ["libero", "--source", str(tmp_path / "source"), "--out", str(out)]
    + ["--camera", "eye_in_hand", "--val_share", "0.5"]
  )
  assert "96 frames in" in capsys.readouterr().out
  rows = {r["trajectory_id"].decode(): r for s in ("train", "val") for r in _read(out, s)}
  assert len(rows) == 12
  row = rows["libero_spatial/a_demo.hdf5:demo_10"]
  assert row["instruction"] == b"stack the bowls" and row["fps"] == 20
  assert set(row["action"]) == {10} and row["action_size"] == 7
  np.testing.assert_allclose(row["pose"][1], [3, 4, 5])
  np.testing.assert_allclose(row["orientation"], 0.1, rtol=1e-6)
  truth = two_stream_data.frames(8, seed=110)[3]
  assert np.abs(images.decode(row["frames"][3]).astype(int) - truth).mean() < 2


def test_worker_processes_write_the_same_bytes(tmp_path):
  source = _raw(tmp_path / "source")
  for name, processes in (("a", 1), ("b", 2)):
    bridge.prepare(source, tmp_path / name, options=_options(), processes=processes)
  for path in (tmp_path / "a").iterdir():
    assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_shapes_of_stored_frames():
  wide = np.zeros((20, 40, 3), np.uint8)
  wide[:, :10] = 255
  assert trajectories.resized(wide, 16, "center_crop").max() == 0  # the left quarter is cut off
  squashed = trajectories.resized(wide, 16, "squash")
  assert squashed.shape == (16, 16, 3) and squashed[:, 0].min() > 200
  assert trajectories.resized(wide, 256, "squash").shape == (20, 20, 3)  # never enlarged


def test_chunks():
  options = _options(chunk=10, overlap=4)
  assert trajectories._chunks(0, 10, options) == [(0, 10)]
  assert trajectories._chunks(0, 25, options) == [(0, 10), (5, 15), (10, 20), (15, 25)]
  assert trajectories._chunks(2, 20, options) == [(2, 11), (6, 15), (11, 20)]
  assert trajectories._chunks(3, 100, _options(chunk=0)) == [(3, 100)]


def test_png_frames(tmp_path):
  """TensorFlow Datasets write PNG where a release did not ask for JPEG."""
  import io

  from PIL import Image

  picture, buffer = two_stream_data.frames(1)[0], io.BytesIO()
  Image.fromarray(picture).save(buffer, "PNG")
  np.testing.assert_array_equal(trajectories.decode(buffer.getvalue()), picture)
  assert trajectories.stored(buffer.getvalue()[:40], _options()) is None


# --- wrong input ---------------------------------------------------------------------------------


def test_wrong_sources(tmp_path):
  _demos(tmp_path / "libero" / "a.hdf5", without=("obs/ee_pos",))
  _demos(tmp_path / "other" / "a.hdf5")
  with pytest.raises(checks.InputError, match="data/demo_0: no data set 'obs/ee_pos'; it has"):
    libero.prepare(tmp_path / "libero", tmp_path / "o1", options=_options())
  with pytest.raises(checks.InputError, match="--camera: 'top' is not allowed"):
    libero.prepare(tmp_path / "libero", tmp_path / "o2", camera="top")
  (tmp_path / "other" / "a.hdf5").write_bytes(b"no hdf5")
  with pytest.raises(checks.InputError, match=r"a.hdf5: no readable HDF5 file"):
    libero.prepare(tmp_path / "other", tmp_path / "o3", options=_options())
  for prepare in (bridge.prepare, videos.prepare, videos.prepare_egodex, libero.prepare):
    with pytest.raises(checks.InputError, match="no such folder"):
      prepare(tmp_path / "absent", tmp_path / "o4")
  with pytest.raises(checks.InputError, match=r"neither bridge_dataset-\*.* nor folders traj"):
    bridge.prepare(tmp_path / "other", tmp_path / "o5")
  with pytest.raises(checks.InputError, match=r"no file ending in .mp4, .mov"):
    videos.prepare(tmp_path / "other", tmp_path / "o6")
  with pytest.raises(checks.InputError, match=r"record \d: the record has no field 'steps/obs"):
    bridge.prepare(_rlds(tmp_path / "rlds"), tmp_path / "o7", camera=3, options=_options())


def test_wrong_videos(tmp_path):
  source = _videos(tmp_path / "source", rates=(10, 10, 20))
  with pytest.raises(checks.InputError, match=r"0.mp4 has 10 frames a second and .*2.mp4 has 20"):
    videos.prepare(source, tmp_path / "o1", options=_options())
  with pytest.raises(checks.InputError, match=r"--fps: 15 received, but .*0.mp4 has 10 a second"):
    videos.prepare(source, tmp_path / "o2", fps=15.0, options=_options())
  (source / "2.mp4").unlink()
  with pytest.raises(checks.InputError, match=r"--val_share: 1e-06 of 2 videos leaves only \['tr"):
    videos.prepare(source, tmp_path / "o3", options=_options(val_share=1e-6))
  (source / "9.mp4").write_bytes(b"no video")
  with pytest.raises(checks.InputError, match=r"9.mp4: no readable video"):
    videos.prepare(source, tmp_path / "o4", options=_options())
  options = _options(keep_going=True)
  statistics = videos.prepare(source, tmp_path / "o5", options=options)["splits"]
  assert sum(total["unreadable"] for total in statistics.values()) == 1


def test_wrong_poses(tmp_path):
  source = _videos(tmp_path / "source")
  _poses(source / "0.hdf5", 19)
  with pytest.raises(checks.InputError, match="0.mp4: 20 frames and 19 rows of pose"):
    videos.prepare_egodex(source, tmp_path / "o1", options=_options())
  _poses(source / "0.hdf5", 20, joints=("rightHand",))
  with pytest.raises(checks.InputError, match="0.hdf5: no data set transforms/rightThumbTip; it"):
    videos.prepare_egodex(source, tmp_path / "o2", options=_options())
  action = np.zeros((4, 7))
  action[2, 6] = np.inf
  clip = trajectories.Trajectory(
    "x", [np.zeros((16, 16, 3), np.uint8)] * 4, 5.0, "s", action=action
  )
  with pytest.raises(checks.InputError, match="s x: action of frame 2 is not finite; mend"):
    trajectories.records_of(clip, _options(size=16))


def test_single_frames_only(tmp_path):
  source = _raw(tmp_path / "source", length=1)
  with pytest.raises(checks.InputError, match=r"'train' has no trajectory of two or more frames"):
    bridge.prepare(source, tmp_path / "out", options=_options())


@pytest.mark.parametrize(
  "changes, sentence",
  [
    ({"size": 8}, "--size: 8 received, 16 px or more"),
    ({"chunk": 60, "overlap": 59}, "--chunk, --overlap: 60 and 59 frames received"),
    ({"val_share": 0.0}, "--val_share: 0.0 received, above 0 to below 1"),
    ({"resize": "pad"}, "--resize: 'pad' is not allowed"),
  ],
)
def test_wrong_options(changes, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    _options(**changes)


def test_slightly_slower_videos_keep_all_frames(tmp_path):
  """Of 29.97 frames a second that are taken for 30, the 501st and all after it were lost once."""
  path = _videos(tmp_path, (10,), 60) / "0.mp4"
  assert len(list(videos.frames(path, 0.99))) == 60
  assert len(list(videos.frames(path, 2.5))) == 24
