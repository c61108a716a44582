"""`launch.segment` from file to file with a tiny network: what it writes and what it refuses."""

import json

import av
import numpy as np
import pytest
from PIL import Image
from test_xmem import _tiny

from launch import segment
from vistraj_jax.core import checks, weights
from vistraj_jax.data import frames
from vistraj_jax.viz import masks as drawing
from vistraj_jax.viz import video

SIZE = (60, 88)  # worked on at 30 x 44, as the streams of test_xmem are


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Six frames with two moving squares, their masks, and tiny weights."""
  root = tmp_path_factory.mktemp("segment")
  (root / "frames").mkdir()
  rng = np.random.default_rng(0)
  for t in range(6):
    labels = np.zeros(SIZE, np.uint8)
    labels[5:15, 5 + t : 15 + t], labels[18:28, 30 - t : 40 - t] = 1, 4
    image = rng.integers(0, 60, (*SIZE, 3), dtype=np.uint8)
    image[labels == 1], image[labels == 4] = (200, 50, 50), (50, 50, 220)
    Image.fromarray(image).save(root / "frames" / f"{t:05d}.png")
    frames.write_labels(root / "masks" / f"{t:05d}.png", labels)
  model, params = _tiny()
  config = {
    **{name: getattr(model, name) for name in ("key_dim", "value_dim", "hidden_dim", "width")},
    **{name: list(getattr(model, name)) for name in ("key_depths", "value_depths")},
  }
  weights.save_weights(root / "tiny.safetensors", params, "xmem", config)
  return root


def _arguments(files, out, **changes):
  named = {
    "frames": files / "frames",
    "masks": files / "masks",
    "weights": files / "tiny.safetensors",
    "out": out,
    "mem_every": 1,
    "min_mid": 2,
    "max_mid": 4,
    "num_prototypes": 3,
    "max_long": 9,
    "top_k": 4,
    **changes,
  }
  flags = [f"--{name}" for name, value in named.items() if value is True]
  pairs = [(f"--{name}", str(value)) for name, value in named.items() if value is not True]
  return [*flags, *(word for pair in pairs for word in pair)]


def test_masks_overlay_and_scores(files, tmp_path, capsys):
  out = tmp_path / "out"
  assert segment.main(_arguments(files, out, truth=files / "masks", side=30)) == 0
  first = frames.read_labels(files / "masks" / "00000.png")
  for t in range(6):
    path = out / "masks" / f"{t:05d}.png"
    labels = frames.read_labels(path)
    assert labels.shape == SIZE and set(np.unique(labels)) <= {0, 1, 4}
    with Image.open(path) as image:
      assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]
    if not t:
      assert (labels == first).mean() > 0.95  # it went through 30 px and back
  with frames.open_video(out / "overlay.mp4") as made:
    assert made.size == SIZE and len(list(made.images)) == 6 and made.frame_rate == 10
  found = json.loads((out / "scores.json").read_text())
  assert found["frames"] == [f"{t:05d}" for t in range(1, 6)]
  # One px a frame: the first mask repeated overlaps by 9/11 after a frame, 8/12 after two, ...
  want = [(10 - t) / (10 + t) for t in range(1, 6)]
  for number in "14":
    np.testing.assert_allclose(found["per_frame"]["repeated"][number]["J"], want)
  printed = capsys.readouterr().out
  assert "6 frames of 88 x 60 px, worked on at 44 x 30; objects [1, 4]; memory" in printed
  assert "first mask repeated" in printed and "frames/s" in printed


def test_every_mask_used_leaves_nothing_to_score(files, tmp_path, capsys):
  arguments = _arguments(files, tmp_path / "o", use_masks="all", truth=files / "masks", side=30)
  assert segment.main(arguments) == 0
  assert "nothing is left to score" in capsys.readouterr().out
  seen, true = (frames.read_labels(r / "masks" / "00004.png") for r in (tmp_path / "o", files))
  assert (seen == true).mean() > 0.95


def test_refusals(files, tmp_path):
  def refused(sentence, **changes):
    with pytest.raises(checks.InputError, match=sentence):
      segment.main(_arguments(files, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()

  refused("there is no such folder or video file", frames=files / "nowhere")
  refused("memory.min_mid: 1 is not allowed", min_mid=1)
  refused("--side: 8 px is not allowed", side=8)
  refused("num_prototypes: 60 is not allowed", num_prototypes=60, max_long=70)
  for name, labels, sentence in (
    ("empty", np.zeros(SIZE, np.uint8), "the first mask shows no object"),
    ("small", np.ones((20, 30), np.uint8), "a mask of 30 x 20 px where the frames have 88 x 60"),
  ):
    path = tmp_path / f"{name}.png"
    frames.write_labels(path, labels)
    refused(sentence, masks=path)
  colour = tmp_path / "colour.png"
  Image.new("RGB", SIZE[::-1]).save(colour)
  refused("a picture of mode RGB, no mask", masks=colour)
  (tmp_path / "late").mkdir()
  frames.write_labels(tmp_path / "late" / "00003.png", np.ones(SIZE, np.uint8))
  refused("there is no mask 00000.png for the first frame", masks=tmp_path / "late")
  other = tmp_path / "other.safetensors"
  weights.save_weights(other, {"a": np.zeros(2)}, "trackssm", {"width": 3})
  refused("holds no XMem weights", weights=other)


def test_masks_are_resized_on_request(files, tmp_path):
  path = tmp_path / "small.png"
  frames.write_labels(path, np.pad(np.full((10, 10), 3, np.uint8), 5))
  assert (segment._labels(path, (40, 40), True) == 3).sum() == 400


def test_video_files_are_read(tmp_path):
  pictures = [np.full((32, 48, 3), 40 * i, np.uint8) for i in range(5)]
  video.write_video(tmp_path / "a.mp4", pictures, 12)
  with av.open(str(tmp_path / "a.mkv"), "w") as film:  # does not say how many frames it has
    stream = film.add_stream("ffv1", rate=12)
    stream.height, stream.width, stream.pix_fmt = 32, 48, "bgr0"
    for picture in pictures:
      film.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
    film.mux(stream.encode())
  for name in ("a.mp4", "a.mkv"):
    with frames.open_video(tmp_path / name) as opened:
      assert opened.size == (32, 48) and opened.frame_rate == 12
      assert opened.names == [f"{i:05d}" for i in range(5)]
      read = list(opened.images)
    assert [round(float(image.mean()) / 40) for image in read] == [0, 1, 2, 3, 4]
  (tmp_path / "b.mp4").write_bytes(b"no video")
  with pytest.raises(checks.InputError, match=r"b.mp4: not a readable video"):
    frames.open_video(tmp_path / "b.mp4").__enter__()


def test_a_video_that_breaks_off_is_refused(tmp_path):
  """Frames that never came are not left out in silence."""
  pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), np.uint8)
  with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as film:
    stream = film.add_stream("mpeg4", rate=12)
    stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
    for picture in pictures:
      film.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
    film.mux(stream.encode())
  whole = (tmp_path / "a.mp4").read_bytes()
  (tmp_path / "b.mp4").write_bytes(whole[: len(whole) * 2 // 3])
  with frames.open_video(tmp_path / "a.mp4") as opened:
    assert len(list(opened.images)) == len(opened.names) == 5
  with frames.open_video(tmp_path / "b.mp4") as opened:
    assert len(opened.names) == 5
    with pytest.raises(
      checks.InputError, match="b.mp4: (damaged after|claims 5 frames, but) [1-4]"
    ):
      list(opened.images)


def test_overlay_tints_objects_and_leaves_the_rest():
  image = np.full((7, 9, 3), 100, np.uint8)
  labels = np.zeros((7, 9), np.uint8)
  labels[1:6, 1:6] = 1
  drawn = drawing.overlay(image, labels, frames.palette(), opacity=0.5)
  assert drawn.shape == (6, 8, 3)
  np.testing.assert_array_equal(drawn[3, 7], image[3, 7])
  np.testing.assert_array_equal(drawn[3, 3], [114, 50, 50])
  np.testing.assert_array_equal(drawn[1, 1], [128, 0, 0])  # the outline
