"""Real Bridge records, EgoDex episodes and videos -> trajectory records, which train."""

import numpy as np
import pytest
import real_data

from configs import two_stream as config_file
from launch import train
from vistraj_jax.core import checks
from vistraj_jax.data import example, pipeline, records, two_stream
from vistraj_jax.prepare.frame_pairs import bridge, trajectories, videos


def _read(root, split):
  source = two_stream.Trajectories(root, split)
  return [source[i] for i in range(len(source))]


def _train_briefly(root, workdir, max_gap):
  config = config_file.get_config("smoke")
  config.data.root = str(root)
  config.data.gap.max = max_gap
  config.phases.pretrain.steps = 2
  return train.train(config, workdir)["pretrain"]


def test_real_bridge(tmp_path):
  source = real_data.folder("bridge_dataset") / "1.0.0"
  out = tmp_path / "out"
  statistics = bridge.prepare(source, out)["splits"]
  # 25 episodes of 10 frames, which this sample holds twice.
  assert sum(total["trajectories"] for total in statistics.values()) == 50
  assert sum(total["duplicates"] for total in statistics.values()) == 25
  row = _read(out, "train")[0]
  assert row["num_frames"] == 10 and row["size"] == 64 and row["instruction"]
  assert np.abs(row["pose"]).max() < 1  # m, the robot's reach
  original = records.TFRecordSource(records.find_shards(source, "bridge_dataset", "train"))
  stored = {
    example.decode(original[i], {"steps/observation/image_0": ("bytes", (None,))})[
      "steps/observation/image_0"
    ][0]
    for i in range(len(original))
  }
  assert row["frames"][0] in stored
  config = config_file.get_config("smoke")
  config.data.root = str(out)
  with pytest.raises(checks.InputError, match="gap.max: 10 received, .* 10 frames; give 9 or less"):
    config.data.gap.max = 10
    pipeline.load(config.data, "train", config.model)
  summary = _train_briefly(out, tmp_path / "run", 9)
  assert np.isfinite(summary["loss/val"]) and 20 < summary["psnr/copy"] < 50


def test_real_egodex(tmp_path):
  source = real_data.folder("egodex")
  out = tmp_path / "out"
  options = trajectories.Options(size=64, chunk=100, overlap=20, val_share=0.4)
  statistics = videos.prepare_egodex(source, out, options=options)["splits"]
  assert {split: t["lengths"] for split, t in statistics.items()} == {
    "train": [91, 91, 74, 74, 74],
    "val": [73, 73],
  }
  rows = {r["trajectory_id"].decode(): r for s in statistics for r in _read(out, s)}
  first = rows["insert_remove/2.mp4#0"]
  assert first["fps"] == 30 and first["instruction"].startswith(b"Remove own USB")
  pose = first["pose"].reshape(91, 6, 3)
  hand_to_thumb = np.linalg.norm(pose[:, 1] - pose[:, 0], axis=-1)
  assert 0.05 < hand_to_thumb.min() and hand_to_thumb.max() < 0.2  # m
  last = rows["insert_remove/2.mp4#70"]  # 161 frames: 0 to 91 and 70 to 161
  np.testing.assert_array_equal(last["pose"][: 21 * 6], first["pose"][70 * 6 :])
  summary = _train_briefly(out, tmp_path / "run", 9)
  assert np.isfinite(summary["loss/val"])


def test_real_videos(tmp_path):
  source = real_data.folder("video")
  options = trajectories.Options(size=48, val_share=0.4)
  with pytest.raises(checks.InputError, match="demo.mp4 has 28 frames a second and .* has 30"):
    videos.prepare(source, tmp_path / "out", options=options)
  statistics = videos.prepare(source, tmp_path / "out", fps=7.0, options=options)
  assert {t["frames"] for t in statistics["splits"].values()} == {70}
