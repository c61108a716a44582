"""Waymo shards -> frames and index: order, cameras, sizes, reports, bad input, resumption."""

import json
import os

import numpy as np
import pytest
import real_data
import waymo_shards as shards

from launch import command_line
from launch import prepare as launch_prepare
from vistraj_jax.core import checks
from vistraj_jax.data import features, images, pipeline, records, waymo_e2e
from vistraj_jax.prepare import runner
from vistraj_jax.prepare.waymo_e2e import convert, messages

A, B, C = "a" * 32, "b" * 32, "c" * 32


@pytest.fixture
def source(tmp_path):
  """Two train shards with two mixed sequences, a val shard with ratings, a test shard."""
  folder = tmp_path / "source"
  rated = tuple(
    messages.Rated(np.full((n, 2), k, np.float32), score)
    for k, (n, score) in enumerate(((21, 9.0), (20, 5.0), (7, 2.0)))
  )
  placeholder = (messages.Rated(np.zeros((0, 2), np.float32), -1.0),) * 3
  nothing = np.zeros((0, 3), np.float32)
  train = [(A, 8), (B, 30), (A, 9)], [(B, 31), (A, 10)]
  shards.write(
    folder, "train", [[shards.payload(shards.frame(*f), f[1]) for f in part] for part in train]
  )
  val = [shards.frame(C, 149, rated=placeholder), shards.frame(C, 150, rated=rated, intent=0)]
  shards.write(folder, "val", [[shards.payload(f, 3) for f in val]])
  test = [shards.frame("d" * 32, 5, future=nothing)]
  shards.write(folder, "test", [[shards.payload(f, 4) for f in test]])
  (folder / convert.CLUSTERS).write_text(json.dumps({C: "Cyclist"}))
  return folder


def _load(out, split, **cfg):
  values = {"visual": "image", "camera": "FRONT", "image_size": 0, "root": str(out), **cfg}
  return waymo_e2e.load(values, split, {})


def test_frames_and_index(source, tmp_path):
  out = tmp_path / "out"
  statistics = convert.prepare(source, out, size=16)
  train, val, test = (statistics["splits"][s] for s in ("train", "val", "test"))
  assert (train["shards"], train["sequences"], train["frames"]) == (2, 2, 5)
  assert train["intents"] == {"unknown": 0, "straight": 2, "left": 2, "right": 1}
  assert (val["rated"], val["intents"]["unknown"], val["clusters"]) == (1, 1, {"Cyclist": 2})
  assert (test["frames"], test["with_future"]) == (1, 0)
  assert not (out / "index").exists() and not (out / ".prepare").exists()
  frames = _load(out, "train")
  assert frames.names.tolist() == [f"{A}-008", f"{B}-030", f"{A}-009", f"{B}-031", f"{A}-010"]
  assert frames.sequences == (A, B)
  batch = frames.gather(np.array([3, 0]))
  wanted = [shards.frame(B, 31), shards.frame(A, 8)]
  np.testing.assert_array_equal(batch["past"], [f.past for f in wanted])
  np.testing.assert_array_equal(batch["future"], [f.future[:, :2] for f in wanted])
  np.testing.assert_array_equal(batch["intent"], [f.intent for f in wanted])
  np.testing.assert_array_equal(batch["sequence"], [1, 0])
  assert batch["image"].shape == (2, 16, 16, 3)
  assert np.abs(batch["image"].astype(int) - 11).max() <= 5  # the front camera is the darkest
  for name, value in batch.items():
    dtype, shape = waymo_e2e.ELEMENT[name]
    assert value.dtype == dtype and len(value.shape) == 1 + len(shape)
  val = _load(out, "val").gather(np.arange(2))
  np.testing.assert_array_equal(val["rated/len"], [[0, 0, 0], [21, 20, 7]])
  np.testing.assert_array_equal(val["rated/score"], [[-1, -1, -1], [9, 5, 2]])
  np.testing.assert_array_equal(val["rated/xy"][1, 2, 6:9, 0], [2, 0, 0])
  np.testing.assert_array_equal(val["cluster"], [0, 0])
  np.testing.assert_array_equal(val["intent"], [3, 0])
  test = _load(out, "test").gather(np.array([0]))
  assert test["has_future"] == [0] and (test["future"] == 0).all()
  # The index finds the original bytes again.
  columns = waymo_e2e.read_index(out, "train")
  shard, offset, length = columns["place"][4]
  data = (source / columns["shards"][shard]).read_bytes()[offset : offset + length]
  frame = messages.read_frame(data)
  assert frame.name == f"{A}-010"
  first, size = columns["jpeg"][4, waymo_e2e.CAMERAS.index("REAR")] - (offset, 0)
  assert frame.images["REAR"] == (first, size)


def test_about(source, tmp_path):
  convert.prepare(source, tmp_path / "out", size=16)
  about = _load(tmp_path / "out", "val", visual="none").about()
  assert about["clusters"] == ["Cyclist"] and about["rated"] == 1 and about["sequences"] == 1
  past = np.stack([shards.frame(C, i).past for i in (149, 150)])
  np.testing.assert_allclose(about["past_mean"], past.mean(0), rtol=1e-5)
  assert json.loads(json.dumps(about)) == about


def test_original_bytes_of_all_cameras(source, tmp_path):
  out = tmp_path / "out"
  convert.prepare(source, out, size=0, cameras=waymo_e2e.CAMERAS, splits=("val",))
  frame = _load(out, "val").images.frame(1)
  jpegs = shards.jpegs(3)
  for name in waymo_e2e.CAMERAS:
    assert frame[f"image/{name}"] == jpegs[name]
    np.testing.assert_array_equal(frame[f"calib/{name}"][:9], np.arange(9) + 10)
    np.testing.assert_array_equal(frame[f"calib/{name}"][9:13], [1, 0, 0, 1.5])
  np.testing.assert_array_equal(frame["image_hw"], [shards.SIZE] * 8)
  np.testing.assert_array_equal(frame["camera_hw"], [shards.SIZE] * 8)
  side = _load(out, "val", camera="SIDE_LEFT").gather(np.array([0]))["image"]
  assert side.shape == (1, *shards.SIZE, 3) and abs(int(side.mean()) - 101) <= 2
  assert _load(out, "val", image_size=8).gather(np.array([0, 1]))["image"].shape == (2, 8, 8, 3)
  with pytest.raises(checks.InputError, match="config.data.camera: 'TOP' is not allowed"):
    _load(out, "val", camera="TOP")
  with pytest.raises(checks.InputError, match="index-train.npz: no such file; give the folder"):
    _load(out, "train")
  with pytest.raises(checks.InputError, match="resident: images do not fit"):
    _load(out, "val").resident()


def test_command_processes_and_resumption(source, tmp_path, capsys, monkeypatch):
  arguments = ["waymo_e2e", "--source", str(source), "--size", "16", "--out"]
  launch_prepare.main([*arguments, str(tmp_path / "a"), "--processes", "2"])
  printed = capsys.readouterr().out
  assert "Cyclist 2" in printed and "8 frames in" in printed

  write = records.write_records

  def fails_at_val(path, payloads):
    if "val_" in str(path):
      raise OSError(28, "No space left on device", str(path))
    return write(path, payloads)

  with monkeypatch.context() as patch:
    patch.setattr(records, "write_records", fails_at_val)
    with pytest.raises(SystemExit, match="No space left"):
      command_line.run(lambda: launch_prepare.main([*arguments, str(tmp_path / "b")]))
  made = []
  work = convert.convert_shard
  monkeypatch.setattr(
    convert, "convert_shard", lambda path, *rest: made.append(path.name) or work(path, *rest)
  )
  launch_prepare.main([*arguments, str(tmp_path / "b")])
  assert [name[:4] for name in made] == ["val_", "test"]
  launch_prepare.main([*arguments, str(tmp_path / "b")])  # finished: nothing is made again
  assert len(made) == 2
  names = sorted(p.name for p in (tmp_path / "a").iterdir())
  assert names == sorted(p.name for p in (tmp_path / "b").iterdir())
  for name in names:
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_wrong_settings(source, tmp_path):
  out = tmp_path / "out"
  for wrong, sentence in (
    ({"cameras": ("TOP",)}, "--cameras: 'TOP' is not allowed; choose one of .*'FRONT_LEFT'"),
    ({"cameras": ("REAR", "REAR")}, "has one twice"),
    ({"splits": ("dev",)}, "--split: 'dev' is not allowed"),
    ({"size": -1}, "--size: -1"),
  ):
    with pytest.raises(checks.InputError, match=sentence):
      convert.prepare(source, out, **wrong)
  with pytest.raises(checks.InputError, match="nowhere: no such folder"):
    convert.prepare(tmp_path / "nowhere", out)
  (tmp_path / "empty").mkdir()
  with pytest.raises(checks.InputError, match="no file training_.*give the folder of the end"):
    convert.prepare(tmp_path / "empty", out)
  with pytest.raises(checks.InputError, match=r"no file val_\*"):
    convert.prepare(tmp_path / "empty", out, splits=("val",))
  records.write_records(source / "val_other.tfrecord-00000-of-00001", [])
  with pytest.raises(checks.InputError, match="val shards of several releases"):
    convert.prepare(source, out)
  (source / "val_other.tfrecord-00000-of-00001").unlink()
  (source / convert.CLUSTERS).write_text("[1]")
  with pytest.raises(checks.InputError, match="wants {sequence: cluster}"):
    convert.prepare(source, out)


def _nan(name):
  frame = shards.frame(A, 1)
  value = getattr(frame, name).copy()
  value[3, 1] = np.nan
  return shards.payload(shards.frame(A, 1, **{name: value}))


def _broken_jpeg():
  jpegs = shards.jpegs(0)
  jpegs["FRONT"] = jpegs["FRONT"][:-30]
  return messages.write_frame(shards.frame(A, 1), jpegs)


BAD = {
  "past": (lambda: _nan("past"), "past states are not all finite"),
  "future": (lambda: _nan("future"), "future states are not all finite"),
  "jpeg": (_broken_jpeg, "FRONT: the JPEG is damaged .*copy or prepare the file again"),
  "camera": (
    lambda: shards.payload(shards.frame(A, 1), cameras=waymo_e2e.CAMERAS[1:]),
    r"has no FRONT camera, only \['FRONT_LEFT'",
  ),
  "intent": (lambda: shards.payload(shards.frame(A, 1, intent=7)), "intent is 7; known are 0 to 3"),
  "name": (lambda: shards.payload(shards.frame(A, 1, name="")), "the frame has no name"),
  "states": (
    lambda: shards.payload(shards.frame(A, 1, past=np.zeros((15, 6)))),
    r"past states: shape \(15, 6\) received, \(16, 6\) wanted",
  ),
  "bytes": (lambda: b"\xff\x00", "no E2EDFrame"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_frames(tmp_path, kind):
  make, sentence = BAD[kind]
  good = [shards.payload(shards.frame(A, i)) for i in (0, 2)]
  shards.write(tmp_path / "s", "val", [[good[0], make(), good[1]]])
  with pytest.raises(checks.InputError, match=f"00000-of-00001: record 1.*{sentence}.*keep_going"):
    convert.prepare(tmp_path / "s", tmp_path / "out", size=16)
  statistics = convert.prepare(tmp_path / "s", tmp_path / "out", size=16, keep_going=True)
  total = statistics["splits"]["val"]
  assert (total["frames"], total["skipped"]) == (2, 1)
  assert "record 1" in convert.report(statistics)
  assert _load(tmp_path / "out", "val").names.tolist() == [f"{A}-000", f"{A}-002"]


@pytest.mark.parametrize("damage", ["truncated", "payload", "length"])
def test_damaged_shards(tmp_path, damage):
  payloads = [shards.payload(shards.frame(A, i)) for i in range(3)]
  path = shards.write(tmp_path / "s", "train", [payloads])[0]
  second = len(payloads[0]) + 16
  if damage == "truncated":
    os.truncate(path, second + 500)
  else:
    data = bytearray(path.read_bytes())
    data[second + (600 if damage == "payload" else 2)] ^= 1
    path.write_bytes(data)
  sentence = {"truncated": "truncated", "payload": "fails its checksum", "length": "damaged length"}
  with pytest.raises(
    checks.InputError, match=f"record 1 at byte .*{sentence[damage]}.*--keep_going"
  ):
    convert.prepare(tmp_path / "s", tmp_path / "out", size=16)
  statistics = convert.prepare(tmp_path / "s", tmp_path / "out", size=16, keep_going=True)
  left = [0, 2] if damage == "payload" else [0]
  assert statistics["splits"]["train"]["skipped"] == 1
  assert _load(tmp_path / "out", "train").names.tolist() == [f"{A}-{i:03d}" for i in left]


def test_empty_shard_is_part_of_the_set(tmp_path):
  payloads = [shards.payload(shards.frame(A, 1))]
  shards.write(tmp_path / "s", "train", [[], payloads])
  statistics = convert.prepare(tmp_path / "s", tmp_path / "out", size=16)
  assert statistics["splits"]["train"]["frames"] == 1
  assert len(_load(tmp_path / "out", "train").gather(np.array([0]))["rated/xy"]) == 1


def test_sequence_in_two_splits(tmp_path):
  for split in ("train", "val"):
    shards.write(tmp_path / "s", split, [[shards.payload(shards.frame(A, 1))]])
  with pytest.raises(checks.InputError, match="is in train and in val shards"):
    convert.prepare(tmp_path / "s", tmp_path / "out", size=16)


def test_corrupt_jpeg_is_named_when_it_is_read(tmp_path):
  jpegs = shards.jpegs(0)
  jpegs["FRONT"] = jpegs["FRONT"][:-30]
  payload = messages.write_frame(shards.frame(A, 1), jpegs)
  shards.write(tmp_path / "s", "val", [[payload]])
  convert.prepare(tmp_path / "s", tmp_path / "out", size=0)
  frames = _load(tmp_path / "out", "val")
  with pytest.raises(
    checks.InputError, match=rf"waymo_e2e-val record 0 \({A}-001, FRONT\): the JPEG is damaged"
  ):
    frames.gather(np.array([0]))


def test_images_decode_and_shrink():
  y, x = np.mgrid[:300, :200]
  image = np.stack([x, y // 2, x // 2 + 20], -1).astype(np.uint8)
  jpeg = images.encode(image)
  assert images.size_of(jpeg) == (300, 200)
  assert np.abs(images.decode(jpeg).astype(int) - image).max() <= 6
  small = images.decode(jpeg, (60, 50)).astype(int)
  wanted = image.reshape(60, 5, 50, 4, 3).mean((1, 3))
  assert small.shape == (60, 50, 3) and np.abs(small - wanted)[1:-1, 1:-1].max() <= 5
  for wrong in (b"", b"abc", jpeg[:200], jpeg[:-40]):
    with pytest.raises(checks.InputError, match="picture 7: the JPEG is damaged"):
      images.decode(wrong, where="picture 7")


def test_real_composed_shard(tmp_path):
  (tmp_path / "s").mkdir()
  name = f"{shards.SHARD['val']}.tfrecord-00000-of-00001"
  real = real_data.folder("waymo") / "e2e_composed.tfrecord"
  (tmp_path / "s" / name).symlink_to(real)
  cameras = ("FRONT", "SIDE_LEFT")
  statistics = convert.prepare(tmp_path / "s", tmp_path / "out", size=384, cameras=cameras)
  total = statistics["splits"]["val"]
  assert (total["frames"], total["with_future"], total["skipped"]) == (2, 2, 0)
  batch = _load(tmp_path / "out", "val", camera="SIDE_LEFT").gather(np.arange(2))
  assert batch["image"].shape == (2, 384, 384, 3) and batch["image"].std() > 20
  expected = json.loads((real.parent / "e2e_expected.json").read_text())["records"]
  np.testing.assert_array_equal(
    batch["future"], np.array([r["future"] for r in expected], np.float32)
  )
  with pytest.raises(checks.InputError, match="has no REAR camera"):
    convert.prepare(tmp_path / "s", tmp_path / "rear", cameras=("REAR",))
  assert runner.STATISTICS not in os.listdir(tmp_path / "rear")


def test_features_take_the_place_of_images(source, tmp_path):
  convert.prepare(source, tmp_path / "out", size=16)
  images_of = _load(tmp_path / "out", "val")
  header = features.Header(
    **{"encoder": "tiny", "checkpoint": "random-0", "preprocess": "", "position_rule": "exact"},
    **{"pooling": "mean", "layers": (0, 1), "dtype": "float32", "camera": "FRONT", "images": "16"},
  )
  states = waymo_e2e.states_of(waymo_e2e.read_index(tmp_path / "out", "val"))
  pooled = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float32)
  features.write_features(tmp_path / "f", "val", header, [{**states, "features": pooled}])
  cfg = {"visual": "features", "features": str(tmp_path / "f"), "layer": 1}
  found = waymo_e2e.load(cfg, "val", {"features": {"encoder": "tiny"}})
  batch, wanted = found.gather(np.array([1, 0])), images_of.gather(np.array([1, 0]))
  np.testing.assert_array_equal(batch.pop("features"), pooled[::-1, 1])
  wanted.pop("image")
  assert batch.keys() == wanted.keys()
  for name, value in wanted.items():
    assert batch[name].dtype == value.dtype
    np.testing.assert_array_equal(batch[name], value)
  assert found.resident().keys() == {*wanted, "features"}
  assert found.about()["features"]["encoder"] == "tiny"
  assert found.names.tolist() == images_of.names.tolist()
  with pytest.raises(checks.InputError, match="encoder is 'tiny', wanted 'other'"):
    waymo_e2e.load(cfg, "val", {"features": {"encoder": "other"}})
  features.write_features(
    tmp_path / "g", "val", header, [{"name": ["a-1"], "features": pooled[:1]}]
  )
  with pytest.raises(checks.InputError, match="frames lack .*'future'.*encode this data set again"):
    waymo_e2e.load({**cfg, "features": str(tmp_path / "g")}, "val", {})


def test_batches_of_images(source, tmp_path):
  convert.prepare(source, tmp_path / "out", size=16)
  cfg = {"pipeline": "waymo_e2e", "visual": "image", "camera": "FRONT", "image_size": 0}
  cfg["root"] = str(tmp_path / "out")
  loader = pipeline.make_loader(cfg, "train", {}, batch_size=2, seed=0, train=True, worker_count=1)
  iterator = iter(loader)
  seen = [next(iterator) for _ in range(4)]
  iterator.close()
  assert all(batch["image"].shape == (2, 16, 16, 3) for batch in seen)
  first = {tuple(p) for batch in seen[:2] for p in batch["past"][:, 0]}
  assert len(first) == 4
