"""Pictures of tracks: which pixels are drawn, tiles, trails, video and contact sheet."""

import types

import av
import cv2
import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.viz import tracks, video

BLANK = np.array(tracks.BLANK)


def _table(rows):
  """rows of (frame, id, x, y, w, h)."""
  rows = np.asarray(rows, np.float64).reshape(-1, 6)
  ids = rows[:, :2].astype(np.int64)
  return types.SimpleNamespace(frame=ids[:, 0], track_id=ids[:, 1], box_xywh=rows[:, 2:])


def _camera(name="a", rows=(), **kwargs):
  """20 frames of 640 x 360 px at 10 Hz."""
  return tracks.Camera(name, 640, 360, 20, 10.0, _table(rows), **kwargs)


def _has(picture, colour):
  return (np.abs(picture.astype(int) - colour) <= 2).all(-1)


def test_box_is_drawn_in_its_colour_and_only_in_its_frame():
  scene = tracks.Scene([_camera(rows=[(3, 7, 100, 100, 200, 80)])], width=640)
  picture = scene.frame(3)
  assert picture.shape == (*scene.size, 3) and picture.dtype == np.uint8
  for x, y in ((100, 140), (300, 140), (200, 180)):  # left, right, bottom edge
    np.testing.assert_allclose(picture[y, x], tracks.colour(7), atol=2)
  np.testing.assert_array_equal(picture[160, 200], BLANK)
  np.testing.assert_array_equal(scene.frame(4)[140, 100], BLANK)


def test_boxes_scale_with_the_tile():
  scene = tracks.Scene([_camera(rows=[(1, 7, 100, 100, 200, 80)])], width=320)
  picture = scene.frame(1)
  assert picture.shape[1] == 320
  np.testing.assert_allclose(picture[70, 50], tracks.colour(7), atol=2)


def test_colours_are_stable_and_apart():
  assert tracks.colour(5) == tracks.colour(5)
  assert len({tracks.colour(i) for i in range(50)}) == 50
  near = np.array([tracks.colour(i) for i in range(20)], int)
  assert (np.abs(np.diff(near, axis=0)).sum(1) > 100).all()


def test_trail_reaches_back_by_its_seconds():
  rows = [(frame, 7, 20 * frame, 100, 10, 10) for frame in range(1, 11)]
  picture = tracks.Scene([_camera(rows=rows)], width=640, trail_seconds=0.3).frame(10)
  drawn = ~_has(picture[105], BLANK)
  # Centres of frames 7 to 10: x = 145 .. 205; the line's ends are blurred.
  assert drawn[145:200].all() and not drawn[1:143].any()


def test_trail_belongs_to_one_track():
  rows = [(1, 1, 20, 20, 10, 10), (2, 2, 300, 200, 10, 10)]
  picture = tracks.Scene([_camera(rows=rows)], width=640).frame(2)
  assert not _has(picture[:360], tracks.colour(1)).any()


def test_predicted_box_is_dashed_and_truth_is_grey():
  box = (1, 4, 100, 100, 200, 80)
  camera = _camera(predicted=_table([box]), truth=_table([(1, 1, 400, 200, 100, 60)]))
  picture = tracks.Scene([camera], width=640).frame(1)
  edge = _has(picture[100, 100:300], tracks.colour(4))
  assert 0.4 < edge.mean() < 0.7 and np.count_nonzero(np.diff(edge.astype(int))) > 20
  assert _has(picture[200, 400:500], (170, 170, 170)).all()


def test_legend_names_only_what_is_drawn():
  plain = tracks.Scene([_camera()], width=640).legend
  rich = tracks.Scene([_camera(predicted=_table([]), truth=_table([]))], width=640).legend
  assert not (plain[:, 320:] != plain[0, 0]).any()
  assert (rich[:, 320:] != plain[0, 0]).any()


def test_cameras_are_tiled():
  cameras = [_camera(str(i), [(1, 7, 100, 100, 200, 80)]) for i in range(6)]
  scene = tracks.Scene(cameras, width=960)
  assert scene.size == (2 * 180 + 26, 960)
  own = _has(scene.frame(1)[:360], tracks.colour(7))
  for top in (0, 180):
    for left in (0, 320, 640):
      assert own[top + 70, left + 50]


def test_cameras_of_other_shape_are_centred():
  tall = tracks.Camera("tall", 360, 640, 20, 10.0, _table([(1, 7, 100, 100, 100, 100)]))
  scene = tracks.Scene([_camera(), tall], width=640)
  own = _has(scene.frame(1), tracks.colour(7))
  scale = 320 / 360
  assert own[round(150 * scale), 320 + round(100 * scale)]


def test_images_are_the_background(tmp_path):
  for frame in (1, 2):
    cv2.imwrite(str(tmp_path / f"{frame:06d}.png"), np.full((360, 640, 3), 40 * frame, np.uint8))
  scene = tracks.Scene([_camera(images=tmp_path, extension=".png")], width=320)
  assert (scene.frame(1)[100, 100] == 40).all() and (scene.frame(2)[100, 100] == 80).all()
  with pytest.raises(checks.InputError, match=r"000003\.png: no readable image of frame 3"):
    scene.frame(3)


def test_box_far_outside_is_survived():
  rows = [(1, 1, -1e7, -1e7, 3e7, 3e7), (1, 2, 1e8, 1e8, 5, 5), (1, 3, 50, 50, 0, 0)]
  assert tracks.Scene([_camera(rows=rows)], width=320).frame(1).shape == (206, 320, 3)


def test_no_camera():
  with pytest.raises(checks.InputError, match="there is no sequence to draw"):
    tracks.Scene([])


def test_contact_sheet_holds_the_frames_in_order():
  rows = [(frame, frame, 100, 100, 200, 80) for frame in (1, 5, 9)]
  sheet = tracks.contact_sheet([_camera(rows=rows)], [1, 5, 9], columns=2, width=646)
  assert sheet.shape == (2 * (180 + 6) + 26, 646, 3)
  for index, frame in enumerate((1, 5, 9)):
    top, left = index // 2 * 186, index % 2 * 326
    np.testing.assert_allclose(sheet[top + 70, left + 50], tracks.colour(frame), atol=2)
  assert (sheet[300, 500] == 255).all()  # the fourth place is empty paper


def test_video_has_the_frames(tmp_path):
  path = tmp_path / "a.mp4"
  shades = [50, 100, 150, 200, 250]
  pictures = (np.full((64, 96, 3), shade, np.uint8) for shade in shades)
  assert video.write_video(path, pictures, 12.0) == 5
  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    decoded = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert stream.average_rate == 12 and stream.codec_context.pix_fmt == "yuv420p"
    assert stream.codec_context.name == "h264"
  assert len(decoded) == 5 and decoded[0].shape == (64, 96, 3)
  np.testing.assert_allclose([picture.mean() for picture in decoded], shades, atol=4)


def test_video_and_picture_sentences(tmp_path):
  with pytest.raises(checks.InputError, match=r"a\.avi: a video ends in '\.mp4'"):
    video.write_video(tmp_path / "a.avi", [], 10)
  with pytest.raises(checks.InputError, match=r"a\.mp4: there are no frames to write"):
    video.write_video(tmp_path / "a.mp4", [], 10)
  with pytest.raises(checks.InputError, match=r"a\.jpg: a picture ends in '\.png'"):
    video.write_png(tmp_path / "a.jpg", np.zeros((2, 2, 3), np.uint8))
  assert list(tmp_path.iterdir()) == []
