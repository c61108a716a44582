"""launch.tokenize end to end: the report, codes of two halves, and what it refuses."""

import functools
import json

import cv2
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from xmem_cases import QUICK, jit

from configs import magvit as magvit_config
from launch import tokenize, train
from vistraj_jax.core import checks, weights
from vistraj_jax.data import pipeline, records
from vistraj_jax.models.magvit import frozen
from vistraj_jax.nn import initializers
from vistraj_jax.prepare.future_video import convert
from vistraj_jax.prepare.world import video_writer

CONFIG = {"kind": "magvit2", "channels": 4, "multipliers": [2, 1], "num_blocks": 1, "bits": 6}
CONFIG["groups"] = 2


def _save(path, seed):
  params = initializers.init(frozen.make(CONFIG), jax.random.PRNGKey(seed))
  weights.save_weights(path, jax.device_get(params), frozen.SYSTEM, CONFIG)
  return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """(videos, tokenizer, codes) of six videos of ten frames."""
  folder = tmp_path_factory.mktemp("tokenize")
  source, videos, codes = (folder / name for name in ("source", "videos", "codes"))
  clips = {"train": 3, "val": 3}
  settings = {"clips": clips, "size": 16, "frames": 10, "radius": 0.15, "clutter": "heavy"}
  video_writer.write(source, settings)
  convert.prepare(source, videos, options=convert.Options(size=16, frames=10))
  tokenizer = _save(folder / "tokenizer.safetensors", 0)
  with pytest.MonkeyPatch.context() as patch:  # the programs are compiled in haste
    patch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=QUICK))
    assert tokenize.main([*_arguments(videos, tokenizer, codes), "--allow_worse_than_black"]) == 0
  return videos, tokenizer, codes


def _arguments(videos, tokenizer, out=None):
  sizes = ["--past", "5", "--future", "5", "--image_size", "16", "--shard_windows", "2"]
  arguments = ["--data", str(videos), "--tokenizer", str(tokenizer), *sizes, "--batch_size", "2"]
  return [*arguments, "--out", str(out)] if out else arguments


def _config(codes, **changes):
  return {"pipeline": "video_codes", "root": str(codes), "past": 5, "future": 5, **changes}


def test_report(made):
  report = json.loads((made[2] / "report.json").read_text())
  assert report["split"] == "val" and report["windows"] == 3
  assert report["scores"]["black"]["psnr"] > report["scores"]["tokenizer"]["psnr"]
  assert {"psnr", "mae", "ssim", "iou"} <= report["scores"]["copy_first"].keys()
  assert 0 <= report["bfloat16"]["bits_flipped"] <= report["bfloat16"]["tokens_changed"] <= 1
  picture = cv2.imread(str(made[2] / "reconstructions.png"))
  assert picture.shape == (2 * 2 * (16 + 2), 8 * (16 + 2), 3)
  assert cv2.imread(str(made[2] / "code_usage.png")).std() > 1
  usage = report["code_usage"]
  assert usage["of"] == 64 and usage["tokens"] == 3 * 2 * 3 * 8 * 8
  assert sum(times for _, times in usage["counts"]) == usage["tokens"]
  found = tokenize.code_usage(np.array([3, 1, 3, 3]), 4)
  assert found["counts"] == [[3, 3], [1, 1]] and found["distinct"] == 2
  assert found["perplexity"] == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))


def test_flips_are_means_over_all_windows(made):
  """The last batch of the report holds one window of two, which counts as much as the others."""
  videos, path, codes = made
  found, report = frozen.load(path), json.loads((codes / "report.json").read_text())
  half = tokenize._encoder(frozen.make(found.config, "bfloat16"), found.params)
  stored = pipeline.load(_config(codes), "val", ConfigDict())
  args = tokenize._parser().parse_args(_arguments(videos, path))
  batch = tokenize._windows(args, "val").gather
  coarse = np.concatenate([half(batch([0, 1])), half(batch([2, 2]))[:1]])
  changed = np.stack([stored.past, stored.future], 1) ^ coarse
  assert (changed[2] != 0).mean() != (changed != 0).mean()
  assert report["bfloat16"]["tokens_changed"] == pytest.approx((changed != 0).mean())
  bits = [changed >> d & 1 for d in range(CONFIG["bits"])]
  assert report["bfloat16"]["bits_flipped"] == pytest.approx(np.mean(bits))


def test_flips_of_codes_made_in_bfloat16(made, capsys):
  """They are counted against those of float32, as the other way round."""
  videos, path, codes = made
  report = json.loads((codes / "report.json").read_text())
  arguments = [*_arguments(videos, path), "--dtype", "bfloat16", "--allow_worse_than_black"]
  assert tokenize.main(arguments) == 0
  flipped = 100 * report["bfloat16"]["bits_flipped"]
  assert flipped > 0 and f"bfloat16: {flipped:.2f} % of the bits flip" in capsys.readouterr().out


def test_codes(made):
  """What is stored is what the tokenizer says of each half by itself."""
  videos, path, codes = made
  found = frozen.load(path)
  data = pipeline.load(_config(codes), "train", ConfigDict())
  assert len(data) == 3 and data.about()["tokenizer"] == found.fingerprint
  windows = pipeline.load(
    {
      "pipeline": "future_video",
      "root": str(videos),
      "past": 5,
      "future": 5,
      "image_size": 16,
      "windows_per_video": 1,
      "eval_windows_per_video": 1,
    },
    "train",
    {},
  )
  assert data.ids == windows.strings(range(3))["id"]
  video = windows.gather(np.arange(3))["video"]
  batch, encode = data.gather(np.arange(3)), jit(found.tokenizer.encode)
  for half, name in ((video[:, :5], "past_codes"), (video[:, 5:], "future_codes")):
    latents = encode(found.params, frozen.as_input(found.tokenizer, half))
    sure = (np.abs(latents) > 1e-4).all(-1)
    wanted = found.tokenizer.quantize(latents)[1]
    np.testing.assert_array_equal(batch[name][sure], np.asarray(wanted)[sure])
    assert sure.mean() > 0.9 and batch[name].shape == (3, 3, 8, 8)
  assert len(list(codes.glob("latents-train.tfrecord-*"))) == 2


def test_a_second_call_keeps_finished_shards(made, capsys):
  videos, tokenizer, codes = made
  before = {p: p.stat().st_mtime_ns for p in codes.glob("latents-*")}
  gone = records.shard_path(codes, "latents", "train", 1, 2)
  gone.unlink()
  assert tokenize.main([*_arguments(videos, tokenizer, codes), "--allow_worse_than_black"]) == 0
  after = {p: p.stat().st_mtime_ns for p in codes.glob("latents-*")}
  assert [p for p in before if before[p] != after[p]] == [gone]
  printed = capsys.readouterr().out
  assert "val: all 2 shards are there" in printed and "of the bits flip" in printed


def test_refusals(made, tmp_path):
  videos, tokenizer, codes = made
  with pytest.raises(checks.InputError, match=r"dB where a black picture has .*--allow_worse"):
    tokenize.main(_arguments(videos, tokenizer))
  other = _save(tmp_path / "other.safetensors", 1)
  with pytest.raises(checks.InputError, match=r"holds codes with tokenizer '.*', now it is '"):
    tokenize.main([*_arguments(videos, other, codes), "--allow_worse_than_black"])
  clean = tmp_path / "clean"  # as many videos of the same names
  settings = {"clips": {"train": 3, "val": 3}, "size": 16, "frames": 10, "radius": 0.15}
  video_writer.write(tmp_path / "source", settings)
  convert.prepare(tmp_path / "source", clean, options=convert.Options(size=16, frames=10))
  with pytest.raises(checks.InputError, match=r"other videos, .* split 'train' of .*clean"):
    tokenize.main([*_arguments(clean, tokenizer, codes), "--allow_worse_than_black"])
  with pytest.raises(checks.InputError, match=r"--past, --future: 5 and 7 frames give 3 and 4"):
    tokenize.main([*_arguments(videos, tokenizer), "--future", "7"])
  with pytest.raises(checks.InputError, match=r"a window of 6 frames received, 2k\+1 frames"):
    tokenize.main([*_arguments(videos, tokenizer), "--past", "6"])
  with pytest.raises(checks.InputError, match="codes with past 5, wanted 9"):
    pipeline.load(_config(codes, past=9), "train", {})
  with pytest.raises(checks.InputError, match="no such file; make codes with"):
    pipeline.load(_config(tmp_path), "train", {})
  network = tmp_path / "network.safetensors"
  weights.save_weights(network, {"x": np.zeros(2)}, "trackssm", {"width": 3})
  with pytest.raises(checks.InputError, match="holds no video tokenizer"):
    tokenize.main(_arguments(videos, network))


@pytest.mark.slow
def test_a_predictor_trains_from_codes(made, tmp_path):
  _, tokenizer, codes = made
  c = magvit_config.get_config("smoke,codes")
  c.data.root, c.model.tokenizer.checkpoint = str(codes), str(tokenizer)
  c.phases.predictor.batch_size = 2
  train.train(c, tmp_path / "run")
  log = (tmp_path / "run" / "log.jsonl").read_text()
  assert "codes_right/val" in log and "psnr" not in log
