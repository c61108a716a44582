"""Videos of all kinds -> records -> windows: contents, crops, resumption and error sentences."""

import json

import numpy as np
import pytest
import real_data

from launch import prepare as launch_prepare
from vistraj_jax.core import checks
from vistraj_jax.data import future_video, images, pipeline
from vistraj_jax.prepare.future_video import convert, sources
from vistraj_jax.viz import video as video_writer

LENGTH = 12


def _pixels(length=LENGTH, size=(24, 32), seed=0):
  return np.random.default_rng(seed).integers(0, 256, (length, *size, 3), np.uint8)


def _all_kinds(folder, splits=("train", "val")):
  """One .npy, one .npz with three videos and a folder of images in each split; one .mp4."""
  for split in splits:
    (folder / split / "clip").mkdir(parents=True)
    np.save(folder / split / "one.npy", _pixels(seed=1))
    for k, picture in enumerate(_pixels(seed=2)):
      (folder / split / "clip" / f"{k:03d}.png").write_bytes(images.encode_png(picture))
    many = np.stack([_pixels(seed=k) for k in (3, 4, 5)]).astype(np.float32) / 255
    masks = np.zeros((3, LENGTH, 24, 32), np.uint8)
    masks[:, :, 4:8, 10:14] = future_video.TARGET
    centres = np.tile(np.float32([5.5, 11.5]), (3, LENGTH, 1))
    centres[0, 2] = np.nan
    np.savez(
      folder / split / "many.npz",
      videos=many.transpose(0, 1, 4, 2, 3),
      labels=np.array([7, 8, 9]),
      masks=masks,
      centres=centres,
      meta=np.array(['{"a": 1}'] * 3),
    )
  video_writer.write_video(folder / "val" / "film.mp4", list(_pixels(40, (48, 64))), 10)
  return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("videos")
  source, out = _all_kinds(folder / "source"), folder / "out"
  launch_prepare.main(
    [
      *("future_video", "--source", str(source), "--out", str(out)),
      *("--size", "24", "--frames", "6", "--chunk", "20"),
    ]
  )
  return out


def _config(root, **changes):
  return {
    "pipeline": "future_video",
    "root": str(root),
    "past": 4,
    "future": 2,
    "image_size": 24,
    "windows_per_video": 2,
    "eval_windows_per_video": 3,
    **changes,
  }


def test_records(prepared):
  videos = future_video.Videos(prepared, "train")
  ids = dict(zip(videos.ids, range(len(videos)), strict=True))
  assert sorted(ids) == [
    *("train/clip", "train/many.npz#0", "train/many.npz#1", "train/many.npz#2", "train/one.npy")
  ]
  assert (videos.shapes == [LENGTH, 24, 32, 3]).all()  # the size they have already
  whole = videos.window(ids["train/clip"], 0, LENGTH)
  np.testing.assert_array_equal(whole["video"], _pixels(seed=2))
  assert whole["label"] == -1 and not whole["foreground_valid"] and not whole["centre_valid"].any()
  part = videos.window(ids["train/many.npz#1"], 3, 5)
  np.testing.assert_array_equal(part["video"], _pixels(seed=4)[3:8])
  assert part["label"] == 8 and part["foreground_valid"] == 1
  assert (part["foreground"].sum((1, 2)) == 16).all() and part["centre_valid"].all()
  first = videos[ids["train/many.npz#0"]]
  assert json.loads(first["meta"]) == {"a": 1}
  assert first["centre_valid"].tolist() == [1, 1, 0] + [1] * 9 and not first["centres"][2].any()


def test_long_videos_are_cut_so_that_no_window_is_lost(prepared):
  videos = future_video.Videos(prepared, "val")
  cut = [
    (name, shape[0])
    for name, shape in zip(videos.ids, videos.shapes, strict=True)
    if "film" in name
  ]
  assert cut == [("val/film.mp4@0", 20), ("val/film.mp4@15", 20), ("val/film.mp4@30", 10)]
  assert (videos.shapes[-1, 1:] == [24, 32, 3]).all()  # 48 x 64 shrunk
  assert convert._starts(20, convert.Options(frames=6, chunk=20)) == [0]


def test_windows(prepared):
  examples = pipeline.load(_config(prepared), "train", {})
  assert len(examples) == 10 and examples.about()["videos"] == 5
  a, b = (examples.draw([0, 3, 6], seed=1, epoch=2) for _ in range(2))
  other = examples.draw([0, 3, 6], seed=1, epoch=3)
  for name, (dtype, _) in future_video.ELEMENT.items():
    assert a[name].dtype == dtype
    np.testing.assert_array_equal(a[name], b[name])
  assert a["video"].shape == (3, 6, 24, 24, 3) and (a["video"] != other["video"]).any()

  fixed = pipeline.load(_config(prepared), "val", {})
  names = fixed.strings(range(len(fixed)))
  row = names["id"].index("val/many.npz#2")
  starts = [s for s, name in zip(names["start"], names["id"], strict=True) if "#2" in name]
  assert starts == [1, 3, 5]
  found = fixed.gather([row])
  np.testing.assert_array_equal(found["video"][0], _pixels(seed=5)[1:7, :, 4:28])  # the middle
  np.testing.assert_allclose(found["centre"][0], np.tile([5.5, 7.5], (6, 1)))
  assert (found["foreground"][0, :, 4:8, 6:10] == 1).all() and found["foreground"].sum() == 6 * 16
  assert found["row"] == [row] and found["label"] == [9]


def test_centre_outside_of_the_crop_is_not_valid(prepared):
  videos = future_video.Videos(prepared, "val")
  row = videos.ids.index("val/many.npz#1")
  windows = pipeline.load(_config(prepared, image_size=8), "val", {})
  place = windows._cropped(0, row, 0, (0.0, 0.0))
  assert not place["centre_valid"].any() and not place["centre"].any()  # column 11.5 is beyond 7


def test_batches_are_padded(prepared):
  loader = pipeline.make_loader(
    _config(prepared), "train", model={}, batch_size=4, seed=0, train=False
  )
  found = list(loader)
  assert [batch["mask"].tolist() for batch in found] == [[1] * 4, [1] * 4, [1, 1, 0, 0]]
  assert found[0]["foreground"].shape == (4, 6, 24, 24)


def test_processes_write_the_same_bytes(tmp_path, prepared):
  source, out = prepared.parent / "source", tmp_path / "out"
  options = convert.Options(size=24, frames=6, chunk=20)
  convert.prepare(source, out, options=options, processes=2)
  for path in prepared.glob("*.tfrecord*"):
    assert (out / path.name).read_bytes() == path.read_bytes()


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch, prepared):
  source, out = prepared.parent / "source", tmp_path / "out"
  options = convert.Options(size=24, frames=6, chunk=20)
  real, calls = sources.read, []

  def read(path, *rest):
    calls.append(path)
    if len(calls) == 4:
      raise KeyboardInterrupt
    return real(path, *rest)

  monkeypatch.setattr(sources, "read", read)
  with pytest.raises(KeyboardInterrupt):
    convert.prepare(source, out, options=options)
  convert.prepare(source, out, options=options)
  assert len(calls) == len(set(calls)) + 1  # only the one that was interrupted came twice
  for path in prepared.glob("*.tfrecord*"):
    assert (out / path.name).read_bytes() == path.read_bytes()


def test_resizing():
  assert convert.scaled_size((48, 64), 24) == (24, 32)
  assert convert.scaled_size((64, 48), 24) == (32, 24)
  assert convert.scaled_size((20, 30), 0) == (20, 30)
  steps = np.repeat(np.uint8([0, 200]), 2)[None, :, None].repeat(4, 0).repeat(3, 2)
  small = convert.resized(steps, (2, 2))
  assert small[0, 0, 0] < small[0, 1, 0] and small.shape == (2, 2, 3)
  clip = sources.Clip(
    "a",
    _pixels(6, (8, 8)),
    masks=np.ones((6, 8, 8)),
    centres=[[3.5, 3.5]] * 6,
    centre_valid=[1] * 6,
  )
  ((payload, shape, _),) = convert.records_of(clip, convert.Options(size=16, frames=6, chunk=12))
  assert shape == [6, 16, 16, 3]
  found = future_video.example.decode(payload, future_video.SPEC)
  np.testing.assert_allclose(found["centres"], 7.5)  # the middle stays the middle


# --- sentences -----------------------------------------------------------------------------------


def _source(tmp_path, **arrays):
  for split in ("train", "val"):
    (tmp_path / split).mkdir(parents=True)
    for name, array in arrays.items():
      np.save(tmp_path / split / f"{name}.npy", array)
  return tmp_path


@pytest.mark.parametrize(
  ("array", "sentence"),
  [
    (_pixels(5), r"train/a.npy: 5 frames, fewer than --frames 6 \(past \+ future\)"),
    (_pixels().astype(np.float32), "has float values of 0 to 255; give float of 0..1 or uint8"),
    (_pixels() / np.float32(255) - 1, "has float values of -1 to 0"),
    (np.full((8, 8, 8, 3), np.nan), "has float values of nan to nan"),
    (_pixels().astype(np.int64), "numbers of type int64 received; give uint8"),
    (_pixels()[..., 0], r"shape \(12, 24, 32\) received; a .npy file holds one video"),
  ],
)
def test_arrays_that_are_refused(tmp_path, array, sentence):
  source = _source(tmp_path / "in", a=array)
  options = convert.Options(size=0, frames=6, chunk=12)
  with pytest.raises(checks.InputError, match=sentence):
    convert.prepare(source, tmp_path / "out", options=options)


def test_files_that_are_refused(tmp_path):
  options = convert.Options(size=0, frames=6, chunk=12)

  def refused(sentence, **changes):
    chosen = convert.Options(**{**options.__dict__, **changes})
    with pytest.raises(checks.InputError, match=sentence):
      convert.prepare(tmp_path / "in", tmp_path / "out", options=chosen)

  refused("--source: .*in: no such folder")
  (tmp_path / "in").mkdir()
  refused("no file ending in .mp4, .* and no folder of PNG or JPEG images")
  _source(tmp_path / "in", a=_pixels())
  (tmp_path / "in" / "val" / "b.mp4").write_bytes(b"no video")
  refused("val/b.mp4: no readable video")
  (tmp_path / "in" / "val" / "b.mp4").unlink()
  np.savez(tmp_path / "in" / "val" / "c.npz", frames=_pixels()[None])
  refused(r"c.npz: no array `videos`; it has \['frames'\]")
  np.savez(tmp_path / "in" / "val" / "c.npz", videos=_pixels()[None], labels=np.zeros(2))
  refused(r"c.npz: labels: shape \(2,\) received, \(1,\) wanted")
  (tmp_path / "in" / "val" / "c.npz").write_bytes(b"PK nothing")
  refused("c.npz: no readable .npz file")
  (tmp_path / "in" / "val" / "c.npz").unlink()
  folder = tmp_path / "in" / "val" / "mixed"
  folder.mkdir()
  for k, size in enumerate([(24, 32)] * 7 + [(32, 24)]):
    (folder / f"{k}.png").write_bytes(images.encode_png(_pixels(1, size)[0]))
  refused(r"7.png: \(32, 24\) px where \(24, 32\) are wanted; all frames have one size")
  statistics = convert.prepare(
    tmp_path / "in", tmp_path / "left_out", options=convert.Options(0, 6, 12, keep_going=True)
  )
  assert statistics["splits"]["val"]["unreadable"] == 1
  assert "1" in convert.report(statistics)


@pytest.mark.parametrize(
  ("changes", "sentence"),
  [
    ({"size": 4}, "--size: 4 px; give 8 or more"),
    ({"frames": 1}, "--frames: 1 received"),
    ({"chunk": 60}, "--chunk: 60 frames received; give twice --frames, 100, or more"),
    ({"val_share": 1.0}, "--val_share: 1.0 received"),
  ],
)
def test_options_that_are_refused(changes, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    convert.Options(**changes)


@pytest.mark.parametrize(
  ("changes", "sentence"),
  [
    ({"past": 20}, r"20 \+ 2 frames received, but the longest video .* has 12; give fewer"),
    ({"image_size": 48}, "48 px received, but train/.* is stored with 24 px"),
    ({"future": 0}, "config.data.future: 0 received, give 1 or more"),
  ],
)
def test_settings_that_are_refused(prepared, changes, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    pipeline.load(_config(prepared, **changes), "train", {})


def test_without_folders_videos_are_split_by_hash(tmp_path):
  np.savez(tmp_path / "many.npz", videos=np.zeros((20, 4, 8, 8, 3), np.uint8))
  options = convert.Options(size=0, frames=4, chunk=8, val_share=0.3)
  statistics = convert.prepare(tmp_path, tmp_path / "out", options=options)["splits"]
  assert statistics["train"]["videos"] + statistics["val"]["videos"] == 20
  one = convert.Options(size=0, frames=4, chunk=8, val_share=1e-9)
  with pytest.raises(checks.InputError, match=r"--val_share: 1e-09 of 1 files leaves only"):
    convert.prepare(tmp_path, tmp_path / "other", options=one)


def test_real_clips(tmp_path):
  source = real_data.folder("video")
  for split, name in (("train", "demo.mp4"), ("val", "test.mp4")):
    (tmp_path / "in" / split).mkdir(parents=True)
    (tmp_path / "in" / split / name).symlink_to(source / name)
  options = convert.Options(size=32, frames=10, chunk=20)
  statistics = convert.prepare(tmp_path / "in", tmp_path / "out", options=options)["splits"]
  assert all(min(shape[1:3]) == 32 for total in statistics.values() for shape in total["shapes"])
  windows = pipeline.load(_config(tmp_path / "out", image_size=32, past=5, future=5), "val", {})
  assert windows.gather([0])["video"].std() > 10
