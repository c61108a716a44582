"""Two-stream training end to end on tiny generated trajectories, and what its data promise."""

import json

import jax
import numpy as np
import pytest
import two_stream_data

from configs import two_stream as config_file
from launch import train
from vistraj_jax.core import checks, trained, weights
from vistraj_jax.data import pipeline, records, two_stream
from vistraj_jax.tasks import two_stream as task_lib

pytestmark = pytest.mark.slow  # minutes on 2 cores; `make test-slow`


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  return two_stream_data.write(tmp_path_factory.mktemp("pairs"))


def _config(root, variant="smoke", **changes):
  c = config_file.get_config(variant)
  c.data.root = str(root)
  for name, value in changes.items():
    *path, last = name.split(".")
    node = c
    for part in path:
      node = node[part]
    node[last] = value
  c.lock()
  return c


def _rows(workdir):
  return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def test_training(root, tmp_path):
  """The loss falls, statistics and the average are kept, baselines stand beside every score."""
  config = _config(root, ema_decay=0.9, **{"phases.pretrain.steps": 12, "loss.ssim_weight": 0.1})
  summary = train.train(config, tmp_path / "run")["pretrain"]
  rows = _rows(tmp_path / "run")
  losses = [row["loss/mse/train"] for row in rows if "loss/mse/train" in row]
  assert np.mean(losses[-2:]) < np.mean(losses[:2])
  assert {"loss/ssim/train", "grad_norm", "lr/all"} <= rows[-2].keys() | rows[-1].keys()
  assert summary["mse/add_motion"] < 1e-12 < summary["mse/copy"]  # M of four channels is a leak
  assert summary["psnr/val"] == pytest.approx(-10 * np.log10(summary["mse/val"]), abs=1.5)
  assert {f"ssim_by_gap/gap{k}" for k in (1, 2, 3)} <= summary.keys()
  assert summary["loss/val"] == pytest.approx(summary["mse/val"])
  about = json.loads((tmp_path / "run" / "data_set.json").read_text())
  assert about["val"]["trajectories"] == 2 and about["train"]["frame_rate"] == 5.0
  first = _start(config)
  best = weights.flatten(trained.load_best(tmp_path / "run" / "pretrain"))
  frozen = "fusion/fc_cls/kernel"
  np.testing.assert_array_equal(best[frozen], first[frozen])
  assert (best["encoder/cls_token"] != first["encoder/cls_token"]).any()


def _start(config):
  task = task_lib.TwoStreamTask(config)
  return weights.flatten(task.init(jax.random.PRNGKey(config.seed))["params"])


@pytest.mark.parametrize("variant", ["v6", "videomae", "single_stream"])
def test_other_networks_train(root, tmp_path, variant):
  smoke, config = config_file.get_config("smoke"), config_file.get_config(variant)
  names = ("image_size", "embed_dim", "num_heads", "depth", "num_stages")
  config.model.update({name: smoke.model[name] for name in names})
  config.model.exchange_heads = 0
  config.model.decoder.update(width=16, depth=1, num_heads=2)
  config.model.videomae.update(decoder_dim=16, decoder_depth=1, decoder_heads=2)
  config.data.update(root=str(root), pairs_per_trajectory=8)
  config.data.gap.update(max=3, center=2)
  groups = config.phases.pretrain.groups
  del config.phases
  config.phases = smoke.phases
  config.phases.pretrain.update(groups=groups, steps=2)
  del config.eval_every
  config.update(eval_every=smoke.eval_every, steps_per_call=1, eval_batch_size=8)
  summary = train.train(config, tmp_path / "run")["pretrain"]
  assert np.isfinite(summary["loss/val"])
  assert ("masked_mse/mean_colour" if variant == "videomae" else "psnr/copy") in summary


def test_every_setting_is_read(root, tmp_path):
  from test_configs import _leaves, _Watched

  config, read = _config(root, **{"phases.pretrain.steps": 2}), set()
  train.train(_Watched(config, "", read), tmp_path / "run")
  other_networks = {name for name in _leaves(config) if name.startswith("model.videomae.")}
  assert set(_leaves(config)) - read == other_networks


def test_pairs_do_not_depend_on_who_asks(root):
  """The same pair whatever the batch and its order; another one in another epoch."""
  config = _config(root)
  pairs = pipeline.load(config.data, "train", config.model)
  assert len(pairs) == 6 * 8
  a, b = pairs.draw(np.array([3, 7]), 0, 1), pairs.draw(np.array([7]), 0, 1)
  for name in a:
    np.testing.assert_array_equal(a[name][1:], b[name], err_msg=name)
  other = pairs.draw(np.arange(48), 0, 2), pairs.draw(np.arange(48), 0, 1)
  assert (other[0]["gap"] != other[1]["gap"]).any()
  assert a["img_t"].shape == (2, 32, 32, 3) and a["img_t"].dtype == np.uint8
  np.testing.assert_allclose(a["weight"], np.exp(-0.7 * (a["gap"] - 1)))
  loader = pipeline.batches(pairs, batch_size=8, seed=0, train=True)
  iterator = iter(loader)
  next(iterator)
  state = iterator.get_state()
  wanted = next(iterator)
  again = iter(loader)
  again.set_state(state)
  np.testing.assert_array_equal(next(again)["img_tk"], wanted["img_tk"])


def test_evaluation_pairs_are_fixed(root):
  found = [
    pipeline.load(_config(root, seed=seed).data, "val", {"image_size": 32}).gather(np.arange(8))
    for seed in (0, 1)
  ]
  np.testing.assert_array_equal(found[0]["img_t"], found[1]["img_t"])
  assert found[0]["valid"].all() and set(found[0]["gap"]) <= {1, 2, 3}


def test_frames_of_a_pair_are_the_stored_ones(root):
  """With the whole frame kept at its size, the pair is two frames `gap` apart, as JPEG has them."""
  config = _config(root, **{"data.crop_ratio": 1.0, "model.image_size": 48})
  pairs = pipeline.load(config.data, "val", config.model)
  element = pairs.gather(np.array([5]))
  row, start, gap = pairs.pair(5, np.random.default_rng((0, 5)))
  truth = two_stream_data.frames(12, seed=hash((True, row)) % 1000)
  assert gap == element["gap"][0]
  for name, frame in (("img_t", start), ("img_tk", start + gap)):
    difference = element[name][0].astype(int) - truth[frame]
    assert np.abs(difference).mean() < 2


def test_pair_rule(root):
  """Gaps as drawn; where fewer than two starts are left, gap 1."""
  pairs = pipeline.load(_config(root).data, "train", {"image_size": 32})
  pairs.probabilities = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])  # always 8
  short, long = pairs.trajectories.lengths[:2]
  assert (short, long) == (9, 12)
  found = [pairs.pair(i % 2, np.random.default_rng(i)) for i in range(200)]
  starts = {row: {start for r, start, _ in found if r == row} for row in (0, 1)}
  assert {gap for row, _, gap in found if row == 0} == {1}
  assert starts[0] == set(range(8))
  assert {gap for row, _, gap in found if row == 1} == {8}
  assert starts[1] == set(range(4))


def test_independent_crops(root):
  shared, apart = (
    pipeline.load(_config(root, **{"data.crop": crop, "data.crop_ratio": 0.5}).data, "train",
                  {"image_size": 24})
    for crop in ("shared", "independent")
  )  # fmt: skip
  moved = [
    np.abs(x["img_t"].astype(int) - x["img_tk"]).mean()
    for x in (pairs.draw(np.arange(48), 0, 0) for pairs in (shared, apart))
  ]
  assert moved[1] > 2 * moved[0]


def test_damaged_frames_are_left_out(tmp_path, capsys):
  """Training takes another pair; evaluation counts the pair out instead of showing black."""
  folder = two_stream_data.write(tmp_path / "data", splits=(("train", 4), ("val", 2)))
  for split in ("train", "val"):
    count = 4 if split == "train" else 2
    good = [two_stream_data.frames(9, seed=k) for k in range(count)]
    payloads = [two_stream_data.record("bad", [b"\xff\xd8nothing"] * 9)]
    payloads += [two_stream_data.record(f"{k}", x) for k, x in enumerate(good[1:])]
    records.write_records(records.shard_path(folder, two_stream.NAME, split, 0, 1), payloads)
  statistics = {s: {"lengths": [9] * n, "fps": [5.0] * n} for s, n in (("train", 4), ("val", 2))}
  (folder / two_stream.STATISTICS).write_text(json.dumps({"splits": statistics}))
  config = _config(folder)
  pairs = pipeline.load(config.data, "train", config.model)
  batch = pairs.draw(np.arange(8), 0, 0)
  assert batch["valid"].all() and (batch["img_t"].reshape(8, -1).std(1) > 1).all()
  assert pairs.trajectories.damaged >= 2
  assert "damaged frame left out (1 so far)" in capsys.readouterr().err
  batch = pipeline.load(config.data, "val", config.model).gather(np.arange(4))
  assert batch["valid"].tolist() == [0, 1, 0, 1]


def _statistics(root, tmp_path, **changes):
  """A copy of the folder whose statistics say something else."""
  folder = tmp_path / "copy"
  folder.mkdir()
  for path in root.iterdir():
    (folder / path.name).write_bytes(path.read_bytes())
  found = json.loads((folder / two_stream.STATISTICS).read_text())
  found["splits"]["train"].update(changes)
  (folder / two_stream.STATISTICS).write_text(json.dumps(found))
  return folder


@pytest.mark.parametrize(
  "changes, sentence",
  [
    ({"fps": [5.0] * 5 + [30.0]}, r"split 'train' mixes frame rates \[5.0, 30.0\] Hz"),
    ({"lengths": [9]}, r"lists 1 trajectories of split 'train', the files hold 6; prepare"),
  ],
)
def test_wrong_data(root, tmp_path, changes, sentence):
  folder = _statistics(root, tmp_path, **changes)
  with pytest.raises(checks.InputError, match=sentence):
    pipeline.load(_config(folder).data, "train", {"image_size": 32})


@pytest.mark.parametrize(
  "name, value, sentence",
  [
    ("data.gap.max", 12, r"gap.max: 12 received, .* split 'train', has 12 frames; give 11 or less"),
    ("data.gap.max", 0, "config.data.gap.max: 0 received, 1 or more frames"),
    ("data.gap.dist", "normal", "config.data.gap.dist: 'normal' is not allowed"),
    ("data.crop", "none", "config.data.crop: 'none' is not allowed"),
    ("data.crop_ratio", 1.5, "config.data.crop_ratio: 1.5 received, above 0 to 1 allowed"),
  ],
)
def test_wrong_data_settings(root, name, value, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    pipeline.load(_config(root, **{name: value}).data, "train", {"image_size": 32})


def test_triangle_needs_its_center(root):
  with pytest.raises(checks.InputError, match=r"gap.center: 0 received, 1 to gap.max \(3\)"):
    pipeline.load(_config(root, **{"data.gap.dist": "triangular"}).data, "train", {})


def test_gaps_that_are_too_long_for_their_center(root):
  changes = {"data.gap.dist": "triangular", "data.gap.max": 60, "data.gap.center": 30}
  sentence = r"give 11 or less and config.data.gap.center \(now 30\) no more than that, or longer"
  with pytest.raises(checks.InputError, match=sentence):
    pipeline.load(_config(root, **changes).data, "train", {"image_size": 32})
  changes |= {"data.gap.max": 11, "data.gap.center": 11}
  pipeline.load(_config(root, **changes).data, "train", {"image_size": 32})


def test_quarter_turns():
  image = np.arange(2 * 3 * 3 * 1).reshape(2, 3, 3, 1)
  for k in range(4):
    found = task_lib.rotated(image, np.array([k, 0]))
    np.testing.assert_array_equal(found[0], np.rot90(image[0], k))
    np.testing.assert_array_equal(found[1], image[1])
  rng, rows = jax.random.PRNGKey(0), np.arange(400)
  image = np.broadcast_to(image[:1], (400, 3, 3, 1))
  a, b = task_lib.turned(image, image, rng, rows, 1.0, 0.1)
  apart = (np.asarray(a) != np.asarray(b)).any((1, 2, 3)).mean()
  assert 0.03 < apart < 0.13  # 10 % draw apart, a quarter of them alike
  turned = (np.asarray(a) != image).any((1, 2, 3)).mean()
  assert 0.65 < turned < 0.85
