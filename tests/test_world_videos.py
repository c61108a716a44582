"""Generated videos: shapes, paths, clutter, splits by seed, and the way to records."""

import json

import numpy as np
import pytest

from launch import prepare as launch_prepare
from vistraj_jax.core import checks
from vistraj_jax.data import future_video, pipeline
from vistraj_jax.metrics import future_video as scores
from vistraj_jax.prepare import embedded
from vistraj_jax.prepare.world import clutter, moving, shapes, video_writer


def _settings(**changes):
  return video_writer.complete({"frames": 12, "size": 32, **changes})


# --- shapes --------------------------------------------------------------------------------------


def test_sharp_disc_has_the_pixels_whose_centres_it_covers():
  span = np.arange(-6, 7)
  assert shapes.coverage("circle", span[:, None], span, 5, False).sum() == 81
  assert shapes.coverage("circle", span[:, None], span, 1, False).sum() == 5


@pytest.mark.parametrize("kind", shapes.KINDS)
def test_shapes_have_the_area_of_the_circle(kind):
  span = np.arange(-20.0, 21)
  covered = shapes.coverage(kind, span[:, None] + 0.3, span + 0.2, 8, True)
  assert covered.sum() == pytest.approx(np.pi * 64, rel=0.02)
  rows = (covered * (span[:, None] + 0.3)).sum() / covered.sum()
  columns = (covered * (span + 0.2)).sum() / covered.sum()
  assert abs(rows) < 0.1 and abs(columns) < 0.1  # its centre is the centre of its area


def test_smooth_discs_are_where_they_are_between_pixels():
  for row in (10.0, 10.25, 10.5):
    thing = shapes.Shape(np.array([row, 12.6]), 3, (255, 0, 0), smooth=True)
    video, _ = video_writer.render([thing], 1, 24)
    weight = video[0, ..., 0] / 255
    assert (weight.sum(1) @ np.arange(24)) / weight.sum() == pytest.approx(row, abs=0.03)


def test_opacity_order_times_and_borders():
  below = shapes.Shape(np.array([4.0, 4.0]), 2, (200, 0, 0), mask=1)
  above = shapes.Shape(
    np.array([4.0, 4.0]), 1, (100, 100, 100), first=1, last=3, opacity=0.5, mask=2
  )
  outside = shapes.Shape(np.array([-9.0, 40.0]), 2, (9, 9, 9), mask=2)
  corner = shapes.Shape(np.array([0.0, 9.0]), 1, (0, 0, 50), mask=2)
  video, masks = video_writer.render([below, above, outside, corner], 4, 10)
  assert video[:, 4, 4].tolist() == [[200, 0, 0], [150, 50, 50], [150, 50, 50], [200, 0, 0]]
  assert masks[:, 4, 4].tolist() == [1, 2, 2, 1]
  assert masks[0].sum() == 13 + 2 * 3  # the disc of 13 px, three px of five in the corner


def test_noise_is_as_strong_as_its_level():
  grey = np.full((2, 64, 64, 3), 128, np.uint8)
  noisy = shapes.add_noise(grey, 0.05, np.random.default_rng(0)).astype(float)
  assert noisy.std() == pytest.approx(0.05 * 255, rel=0.03)


# --- paths ---------------------------------------------------------------------------------------


def test_discs_slide_or_bounce():
  parameters = [4, 10, -1.5, 0.5]
  slide = moving.disc_centres(parameters, 5, 32, 2)
  assert slide.tolist() == [[4, 10], [2, 10], [2, 11], [2, 11], [2, 12]]
  bounce = moving.disc_centres(parameters, 5, 32, 2, "bounce", subpixel=True)
  assert bounce.tolist() == [[4, 10], [2.5, 10.5], [3, 11], [4.5, 11.5], [6, 12]]
  far = moving.disc_centres([20, 20, 7.3, -9.1], 200, 32, 2, "bounce", True)
  assert far.min() >= 2 and far.max() <= 29


@pytest.mark.parametrize("kind", moving.CURVES)
def test_curves_stay_in_the_picture_and_shrink_with_distance(kind):
  rng = np.random.default_rng(3)
  centres, radii, points = moving.curve(kind, rng, 16, 64, 2.5, 10.0)
  assert (centres >= radii[:, None]).all() and (centres <= 63 - radii[:, None]).all()
  np.testing.assert_allclose(radii * points[:, 2], radii[0] * points[0, 2])
  np.testing.assert_allclose(centres[:, 1] - 31.5, 64 * points[:, 0] / points[:, 2])
  second = np.diff(points, 2, axis=0)
  if kind == "linear":
    np.testing.assert_allclose(second, 0, atol=1e-12)
  if kind == "parabolic":  # pulled downwards, evenly
    assert (second[:, 1] > 0).all() and np.allclose(second, second[0])
  if kind == "circular":
    middle = points - points.mean(0)
    assert np.linalg.matrix_rank(middle, tol=1e-6) == 2


@pytest.mark.parametrize(
  ("kind", "turn"), [("straight", 0), ("left_turn", 90), ("right_turn", -90), ("u_turn", 180)]
)
def test_motions_turn_as_they_are_called(kind, turn):
  path = moving.motion(kind, np.random.default_rng(0), 61, 128, jitter=0)
  steps = np.diff(path, axis=0)
  heading = np.unwrap(np.arctan2(-steps[:, 0], steps[:, 1]))  # rows grow downwards
  turned = np.rad2deg(heading[-1] - heading[0])
  assert (abs(turned) if kind == "u_turn" else turned) == pytest.approx(turn, abs=5)
  lengths = np.linalg.norm(steps, axis=1)
  np.testing.assert_allclose(lengths, lengths[0])
  assert path.min() >= 0.1 * 128 - 1e-6 and path.max() <= 0.9 * 128 + 1e-6


def test_a_loop_crosses_itself():
  path = moving.motion("loop", np.random.default_rng(0), 61, 128, jitter=0)
  steps = np.diff(path, axis=0)
  np.testing.assert_allclose(steps[0], steps[-1], atol=1e-9)
  assert np.linalg.norm(path[20] - path[40]) < np.linalg.norm(steps[0])  # where the circle closes


# --- clips ---------------------------------------------------------------------------------------


def test_clips_depend_on_seed_split_and_number_only():
  settings = _settings(clutter="moderate")
  one = video_writer.clip(settings, "train", 3)
  same = video_writer.clip({**settings, "clips": {"train": 9}}, "train", 3)
  for name, value in one.items():
    np.testing.assert_array_equal(value, same[name])
  others = [
    video_writer.clip(settings, "val", 3),
    video_writer.clip(settings, "train", 4),
    video_writer.clip({**settings, "seed": 1}, "train", 3),
  ]
  assert all((one["centres"] != other["centres"]).any() for other in others)


@pytest.mark.parametrize("family", video_writer.FAMILIES)
def test_masks_centres_and_colours_tell_where_the_target_is(family):
  settings = _settings(family=family, size=64, clutter="light", clutter_kinds=["background"])
  labels = set()
  for number in range(5):
    clip = video_writer.clip(settings, "train", number)
    labels.add(int(clip["labels"]))
    video, colours = clip["videos"][None].astype(np.float32) / 255, clip["colours"][None]
    share = scores.matte(video, colours)
    found, valid = scores.centres(share)
    assert valid.all() and clip["centre_valid"].all()
    assert np.abs(found[0] - clip["centres"]).max() < 1  # clutter may cover a part
    ours, truth = share[0] > 0.5, clip["masks"] == future_video.TARGET
    assert (ours & truth).sum() / (ours | truth).sum() > 0.9
  assert len(labels) == {"discs": 1, "curves": 4, "motions": 5}[family]


def test_clutter_levels():
  for level, (fewest, most, density, noise) in clutter.LEVELS.items():
    drawn, told = clutter.objects(level, clutter.KINDS, np.random.default_rng(0), 50, 128)
    count = {kind: sum(one["kind"] == kind for one in told) for kind in clutter.KINDS}
    assert count["background"] == int(20 * density) and len(drawn) == len(told)
    assert fewest <= count["persistent"] <= most and fewest <= count["transient"] <= most
    assert all(
      one["last"] is None and not one["first"]
      for one in told
      if one["colour"][0] == 100 and one["kind"] == "persistent"
    )
    transient = [one for one in told if one["kind"] == "transient"]
    assert all(0 <= one["first"] < 20 <= one["last"] < 50 for one in transient)
    assert clutter.noise(level, clutter.KINDS) == noise
    assert clutter.noise(level, ["transient"]) == 0
    flashes = [one for one in told if one["kind"] == "flash"]
    assert fewest <= len(flashes) <= most
    assert all(1 <= one["last"] - one["first"] <= 3 for one in flashes)
  only, told = clutter.objects("heavy", ["transient"], np.random.default_rng(0), 50, 128)
  assert only and {one["kind"] for one in told} == {"transient"}


def test_the_same_paths_with_and_without_clutter():
  clean = video_writer.clip(_settings(), "val", 0)
  cluttered = video_writer.clip(_settings(clutter="heavy"), "val", 0)
  np.testing.assert_array_equal(clean["centres"], cluttered["centres"])
  assert (cluttered["masks"] == future_video.OTHER).any()
  assert json.loads(str(cluttered["meta"]))["noise"] == 0.1


def test_several_discs_have_several_colours():
  changes = {"objects": 3, "colours": ["green", "cyan"], "shapes": ["square", "triangle"]}
  clip = video_writer.clip(_settings(**changes, walls="bounce", subpixel=True), "train", 0)
  meta = json.loads(str(clip["meta"]))
  assert len(set(meta["colours"])) == 3 and meta["colours"][-1] in ("green", "cyan")
  assert clip["colours"][1].tolist() == list(video_writer.COLOURS[meta["colours"][-1]])
  assert set(meta["shapes"]) <= {"square", "triangle"}
  assert set(np.unique(clip["masks"])) == {0, future_video.TARGET, future_video.OTHER}


@pytest.mark.parametrize(
  ("changes", "sentence"),
  [
    ({"family": "balls"}, "--family: 'balls' is not allowed"),
    ({"clutter": "some"}, "--clutter: 'some' is not allowed"),
    ({"colours": ["brown"]}, "--colours: 'brown' is not allowed"),
    ({"shapes": []}, "--shapes: none given"),
    ({"size": 8}, "--size: 8 received, 16 to 1024 allowed"),
    ({"objects": 9}, "--objects: 9 received, 1 to 7 allowed"),
  ],
)
def test_settings_that_are_refused(changes, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    video_writer.complete(changes)


def test_commands_end_to_end(tmp_path, capsys):
  made, out = tmp_path / "made", tmp_path / "out"
  launch_prepare.main(
    [
      *("generated_videos", "--family", "motions", "--clutter", "light", "--out", str(made)),
      *("--train", "22", "--val", "3", "--test", "2", "--frames", "8", "--size", "32"),
    ]
  )
  assert "27 clips (22 train, 3 val, 2 test)" in capsys.readouterr().out
  launch_prepare.main(
    [
      *("future_video", "--source", str(made), "--out", str(out)),
      *("--size", "0", "--frames", "8", "--chunk", "16"),
    ]
  )
  assert "32 x 32" in capsys.readouterr().out
  cfg = {"pipeline": "future_video", "root": str(out), "past": 5, "future": 3, "image_size": 32}
  cfg |= {"windows_per_video": 1, "eval_windows_per_video": 1}
  counts = {split: len(pipeline.load(cfg, split, {})) for split in ("train", "val", "test")}
  assert counts == {"train": 22, "val": 3, "test": 2}
  found = pipeline.load(cfg, "val", {}).gather(range(3))
  settings = video_writer.complete(
    {"family": "motions", "clutter": "light", "frames": 8, "size": 32}
  )
  clip = video_writer.clip(settings, "val", 1)
  np.testing.assert_array_equal(found["video"][1], clip["videos"])
  np.testing.assert_array_equal(found["foreground"][1], clip["masks"])
  np.testing.assert_allclose(found["centre"][1], clip["centres"], atol=1e-4)
  assert found["label"].tolist() == [0, 1, 2] and found["foreground_valid"].all()


def test_embedded_videos(tmp_path, monkeypatch):
  monkeypatch.setenv("VISTRAJ_JAX_CACHE", str(tmp_path))
  monkeypatch.setattr(embedded.os, "cpu_count", lambda: 1)
  world = {"size": 16, "frames": 6, "radius": 0.1, "clips": {"train": 3, "val": 2}}
  root = embedded.root("magvit", world)
  assert root.parent == tmp_path and embedded.root("magvit", world) == root
  assert len(future_video.Videos(root, "train")) == 3
  with pytest.raises(checks.InputError, match=r"config.data.world: \['sizes'\] is unknown"):
    embedded.root("magvit", {"sizes": 3})
  with pytest.raises(checks.InputError, match="embedded data of xmem cannot be changed"):
    embedded.root("xmem", world)
