"""The tracker's rules one by one, on scenes of a few boxes."""

import dataclasses

import numpy as np
import pytest

from vistraj_jax.core import checks
from vistraj_jax.tracking import motion_models
from vistraj_jax.tracking.settings import PRESETS, TrackerSettings
from vistraj_jax.tracking.tracker import Detections, Tracker

BYTE, BOT = PRESETS["byte"], PRESETS["bot"]


def _tracker(settings=BYTE, motion="constant_velocity", frame_rate=10.0, **changes):
  return Tracker(
    dataclasses.replace(settings, **changes),
    motion_models.make(motion),
    frame_rate=frame_rate,
    image_size=(1600, 900),
    name="scene",
  )


def _found(*boxes, score=0.9, class_id=0, embedding=None):
  count = len(boxes)
  return Detections(
    np.array(boxes, float).reshape(count, 4),
    np.broadcast_to(np.array(score, float), count),
    np.broadcast_to(np.array(class_id), count),
    None if embedding is None else np.array(embedding, float),
  )


def _ids(tracks):
  return tracks.track_id.tolist()


def test_tracks_of_frame_1_are_output_at_once_later_ones_when_seen_twice():
  loop = _tracker()
  assert _ids(loop.step(_found([0, 0, 50, 50]))) == [1]
  assert _ids(loop.step(_found([0, 0, 50, 50], [300, 0, 50, 50]))) == [1]
  assert _ids(loop.step(_found([300, 0, 50, 50], [0, 0, 50, 50]))) == [1, 2]


def test_the_first_detection_may_come_late():
  loop = _tracker()
  for _ in range(5):
    assert _ids(loop.step(Detections.none())) == []
  assert _ids(loop.step(_found([0, 0, 50, 50]))) == []
  assert _ids(loop.step(_found([0, 0, 50, 50]))) == [1]


def test_an_unconfirmed_track_dies_in_one_empty_frame():
  loop = _tracker()
  loop.step(Detections.none())
  loop.step(_found([0, 0, 50, 50]))
  loop.step(Detections.none())
  assert (loop.tracked_count, loop.lost_count) == (0, 0)


def test_empty_frames_age_lost_tracks():
  # Ten frames a second and 0.2 s: a buffer of 2 frames. Age 3 marks the track, age 4 is the last
  # in which it can be found.
  for empty, kept in ((3, True), (4, False)):
    loop = _tracker(max_lost_s=0.2)
    loop.step(_found([0, 0, 50, 50]))
    for _ in range(empty):
      loop.step(Detections.none())
    loop.step(_found([0, 0, 50, 50]))
    assert _ids(loop.step(_found([0, 0, 50, 50]))) == ([1] if kept else [2])


def test_buffer_in_frames_overrides_seconds():
  assert _tracker(max_lost_s=5.0).max_lost_frames == 50
  assert _tracker(frame_rate=12.0).max_lost_frames == 12
  assert _tracker(max_lost_frames=7).max_lost_frames == 7


def test_a_track_found_in_its_last_frame_can_be_lost_again():
  loop = _tracker(max_lost_frames=0)
  loop.step(_found([0, 0, 50, 50]))
  loop.step(Detections.none())
  assert _ids(loop.step(_found([0, 0, 50, 50]))) == [1]
  loop.step(Detections.none())
  assert loop.lost_count == 1
  assert _ids(loop.step(_found([0, 0, 50, 50]))) == [1]


def _moving(x):
  return _found([x, 100, 40, 40])


@pytest.mark.parametrize(
  "policy, back_at, kept",
  [("rollout", 100, True), ("rollout", 50, False), ("freeze", 100, False), ("freeze", 50, True)],
)
def test_lost_policy(policy, back_at, kept):
  # Seen at x = 0, 10, ..., 40, then hidden for five frames: rolled out to 100, frozen at 50.
  loop = _tracker(lost_policy=policy)
  for k in range(5):
    loop.step(_moving(10 * k))
  for _ in range(5):
    loop.step(Detections.none())
  assert _ids(loop.step(_moving(back_at))) == ([1] if kept else [])


def test_low_detections_continue_live_tracks_but_neither_start_nor_find_lost_ones():
  loop = _tracker()
  loop.step(_found([0, 0, 50, 50]))
  assert loop.step(_found([0, 0, 50, 50], score=0.3)).score.tolist() == [0.3]
  loop.step(Detections.none())
  assert _ids(loop.step(_found([0, 0, 50, 50], score=0.3))) == []
  assert loop.tracked_count == 0


def test_low_detections_do_not_keep_a_lost_track():
  loop = _tracker(max_lost_frames=2)
  loop.step(_found([0, 0, 50, 50]))
  loop.step(Detections.none())
  for _ in range(4):
    loop.step(_found([0, 0, 50, 50], score=0.3))
  assert loop.lost_count == 0


def test_a_score_equal_to_the_limit_is_in_no_band():
  loop = _tracker()
  loop.step(_found([0, 0, 50, 50]))
  assert _ids(loop.step(_found([0, 0, 50, 50], score=0.6))) == []


def test_a_score_between_high_and_new_starts_nothing():
  loop = _tracker()
  loop.step(_found([0, 0, 50, 50], score=0.65))
  assert loop.tracked_count == 0
  loop.step(_found([0, 0, 50, 50], score=0.7))
  assert loop.tracked_count == 1


def test_refound_score_by_preset():
  for settings, wanted in ((BYTE, 0.9), (BOT, 0.8)):
    loop = _tracker(settings)
    loop.step(_found([0, 0, 50, 50], score=0.9))
    loop.step(Detections.none())
    assert loop.step(_found([0, 0, 50, 50], score=0.8)).score.tolist() == [wanted]
    assert loop.step(_found([0, 0, 50, 50], score=0.75)).score.tolist() == [0.75]


def test_class_gate_keeps_classes_apart():
  loop = _tracker()
  loop.step(_found([0, 0, 50, 50], class_id=0))
  loop.step(_found([0, 0, 50, 50], class_id=4))
  tracks = loop.step(_found([0, 0, 50, 50], class_id=4))
  assert (_ids(tracks), tracks.class_id.tolist()) == ([2], [4])


def test_without_class_gate_the_class_of_most_score_wins():
  loop = _tracker(class_gate=False)
  frames = ((0.7, 2), (0.9, 12), (0.65, 2))
  classes = [
    loop.step(_found([0, 0, 50, 50], score=s, class_id=c)).class_id.tolist() for s, c in frames
  ]
  assert classes == [[2], [12], [2]]
  assert loop.step(_found([0, 0, 50, 50], score=0.9, class_id=12)).class_id.tolist() == [12]


def test_score_fusion_raises_the_cost():
  # Overlap 0.4: cost 0.6 plain; 1 - 0.4 * 0.45 = 0.82 fused, above first_cost 0.8.
  shifted = [50.0 * (1 - 0.4) / 1.4, 0, 50, 50]
  for fused, wanted in ((False, [1]), (True, [])):
    loop = _tracker(fuse_score=fused, high_score=0.4, low_score=0.4)
    loop.step(_found([0, 0, 50, 50]))
    assert _ids(loop.step(_found(shifted, score=0.45))) == wanted


@pytest.mark.parametrize("min_hits, shown", [(1, [1, 1, 1]), (2, [0, 1, 1]), (3, [0, 0, 1])])
def test_min_hits(min_hits, shown):
  loop = _tracker(BOT, min_hits=min_hits)
  loop.step(Detections.none())
  assert [len(_ids(loop.step(_found([0, 0, 50, 50])))) for _ in range(3)] == shown


@pytest.mark.parametrize("frames_before, left", [(6, []), (5, [2])])
def test_of_a_lost_and_a_live_track_on_one_object_the_younger_goes(frames_before, left):
  # Track 1 is lost at x = 0; track 2, which lives 5 frames, comes closer, always nearest to itself.
  # On a tie the live one goes.
  loop = _tracker(motion="identity", first_cost=0.3, max_lost_frames=20)
  for _ in range(frames_before):
    loop.step(_found([0, 0, 50, 50]))
  for x in (25, 20, 15, 11, 7.9):
    tracks = loop.step(_found([x, 0, 50, 50]))
  assert (_ids(tracks), loop.tracked_count, loop.lost_count) == ([2], 1, 1)
  tracks = loop.step(_found([4, 0, 50, 50]))
  assert (_ids(tracks), loop.tracked_count + loop.lost_count) == (left, 1)


def test_camera_motion_carries_live_unconfirmed_and_lost_tracks():
  shift = np.array([[1.0, 0, 60], [0, 1, 0]])
  # Frame 2 loses track 2 and starts 3; a track found again is output last.
  for matrix, wanted in ((shift, [1, 3, 2]), (None, [])):
    loop = _tracker(motion="identity")
    boxes = np.array([[100.0, 0, 50, 50], [100, 200, 50, 50], [100, 400, 50, 50]])
    step = np.array([60.0, 0, 0, 0])
    loop.step(_found(*boxes[:2]))
    loop.step(_found(boxes[0] + step, boxes[2] + step), matrix)
    assert _ids(loop.step(_found(*(boxes + 2 * step)), matrix)) == wanted


def test_camera_motion_moves_the_history_of_a_frozen_track():
  # A thing that stands still in the world while the camera zooms out and pans for six frames.
  matrix = np.array([[0.9, 0, 25], [0, 0.9, 5]])
  box = np.array([[400.0, 300, 80, 60]])  # centre format
  loop = _tracker(BOT)
  for frame in range(12):
    hidden = 4 <= frame < 10
    xywh = np.concatenate([box[0, :2] - box[0, 2:] / 2, box[0, 2:]])
    tracks = loop.step(Detections.none() if hidden else _found(xywh), matrix if frame else None)
    assert _ids(tracks) == ([] if hidden else [1])
    box = motion_models.warp_boxes(box, matrix)


def test_camera_motion_of_a_wrong_shape():
  with pytest.raises(checks.InputError, match=r"scene, frame 1: camera_motion: shape \(3, 3\)"):
    _tracker().step(Detections.none(), np.eye(3))


def test_embeddings_decide_between_close_boxes():
  # Both detections overlap both tracks; geometry alone would not swap them.
  left, right = [0, 0, 50, 50], [20, 0, 50, 50]
  looks = [[1.0, 0, 0], [0, 1, 0]]
  swapped = [[4, 0, 50, 50], [16, 0, 50, 50]]
  for given, wanted in (([[0, 5.0, 0], [5, 0, 0]], [16, 4]), (None, [4, 16])):
    loop = _tracker(motion="identity")
    loop.step(_found(left, right, embedding=looks))
    tracks = loop.step(_found(*swapped, embedding=given))
    assert tracks.box_xywh[:, 0].tolist() == wanted


def test_embeddings_do_not_count_beyond_the_proximity_or_for_other_classes():
  for box, class_id in (([45, 0, 50, 50], 0), ([5, 0, 50, 50], 3)):
    loop = _tracker(motion="identity")
    loop.step(_found([0, 0, 50, 50], embedding=[[1.0, 0]]))
    assert _ids(loop.step(_found(box, class_id=class_id, embedding=[[1.0, 0]]))) == []


def _look(degrees):
  return [[np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))]]


@pytest.mark.parametrize("degrees, kept", [(0, True), (55, True), (65, False)])
def test_embeddings_count_up_to_the_appearance_cost(degrees, kept):
  # The boxes cost 0.38, too much for 0.35; half the cosine distance of 60 degrees is 0.25.
  loop = _tracker(motion="identity", first_cost=0.35)
  loop.step(_found([0, 0, 50, 50], embedding=_look(0)))
  tracks = loop.step(_found([12, 0, 50, 50], embedding=_look(degrees)))
  assert _ids(tracks) == ([1] if kept else [])


@pytest.mark.parametrize("degrees, kept", [(0, True), (90, False)])
def test_embeddings_change_slowly(degrees, kept):
  loop = _tracker(motion="identity", first_cost=0.35)
  loop.step(_found([0, 0, 50, 50], embedding=_look(0)))
  loop.step(_found([0, 0, 50, 50], embedding=_look(90)))  # matches by its box
  tracks = loop.step(_found([12, 0, 50, 50], embedding=_look(degrees)))
  assert _ids(tracks) == ([1] if kept else [])


def test_a_new_track_does_not_inherit_the_embedding_of_its_slot():
  loop = _tracker(motion="identity", first_cost=0.35, unconfirmed_cost=0.35, max_tracks=1)
  loop.step(Detections.none())
  loop.step(_found([0, 0, 50, 50], embedding=_look(0)))
  loop.step(Detections.none())
  loop.step(_found([0, 0, 50, 50], embedding=_look(90)))
  assert _ids(loop.step(_found([12, 0, 50, 50], embedding=_look(90)))) == [2]


def test_embeddings_may_begin_with_empty_frames():
  loop = _tracker()
  for _ in range(2):
    assert _ids(loop.step(_found(embedding=np.zeros((0, 2))))) == []
  loop.step(_found([0, 0, 50, 50], embedding=[[1.0, 0]]))
  loop.step(_found([0, 0, 50, 50], embedding=[[1.0, 0]]))
  assert _ids(loop.step(_found(embedding=np.zeros((0, 2))))) == []
  assert loop.lost_count == 1


def test_embeddings_of_changing_length_are_an_error():
  loop = _tracker()
  loop.step(_found([0, 0, 50, 50], embedding=[[1.0, 0]]))
  with pytest.raises(checks.InputError, match="frame 2: embedding.*received.*wanted"):
    loop.step(_found([0, 0, 50, 50], embedding=[[1.0, 0, 0]]))


def test_too_many_detections_name_frame_and_setting():
  loop = _tracker(max_detections=2)
  loop.step(_found([0, 0, 9, 9]))
  with pytest.raises(checks.InputError, match="scene, frame 2: 3 detections.*max_detections=2"):
    loop.step(_found(*[[100 * k, 0, 9, 9] for k in range(3)]))


def test_too_many_tracks_name_frame_and_setting():
  loop = _tracker(max_tracks=3)
  loop.step(_found([0, 0, 9, 9], [100, 0, 9, 9]))
  with pytest.raises(checks.InputError, match="scene, frame 2: 2 new tracks.*max_tracks=3"):
    loop.step(_found([0, 300, 9, 9], [100, 300, 9, 9]))


@pytest.mark.parametrize(
  "found, wanted",
  [
    (_found([0, 0, -1, 5]), "frame 1: a box is not finite or has a negative side"),
    (_found([0, np.nan, 1, 5]), "frame 1: a box is not finite"),
    (_found([0, 0, 1, 5], score=50.0), "frame 1: scores reach from 50 to 50; scale"),
    (_found([0, 0, 1, 5], score=np.nan), "frame 1: scores reach from nan"),
    (_found([0, 0, 1, 5], class_id=-1), "frame 1: class ids reach from -1 to -1"),
    (_found([0, 0, 1, 5], class_id=10**9), "class ids reach from .* use 0 to 1023"),
    (_found([0, 0, 1, 5], embedding=[[np.inf]]), "an embedding holds nan or inf"),
  ],
)
def test_malformed_detections(found, wanted):
  with pytest.raises(checks.InputError, match=wanted):
    _tracker().step(found)


@pytest.mark.parametrize(
  "changes, wanted",
  [
    ({"lost_policy": "keep"}, "lost_policy: 'keep' is not allowed.*rollout"),
    ({"first_cost": 1.2}, "first_cost: 1.2 is not allowed; choose from 0 to 1"),
    ({"high_score": float("nan")}, "high_score: nan"),
    ({"embedding_momentum": -0.1}, "embedding_momentum"),
    ({"low_score": 0.7}, "low_score: 0.7 is above high_score 0.6"),
    ({"min_hits": 0}, "min_hits: 0"),
    ({"max_lost_s": -1.0}, "max_lost_s: -1.0"),
    ({"max_lost_frames": -1}, "max_lost_frames: -1"),
    ({"max_tracks": 0}, "max_tracks: 0"),
  ],
)
def test_bad_settings(changes, wanted):
  with pytest.raises(checks.InputError, match=wanted):
    TrackerSettings(**changes)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("motion", motion_models.NAMES)
def test_random_scenes_reuse_slots_and_keep_the_invariants(preset, motion):
  rng = np.random.RandomState(0)
  loop = _tracker(PRESETS[preset], motion, max_tracks=40, min_hits=1)
  seen, last_id = {}, 0
  for _ in range(150):
    count = rng.randint(0, 12)
    boxes = np.concatenate([rng.uniform(0, 400, (count, 2)), rng.uniform(30, 90, (count, 2))], 1)
    class_id = rng.randint(0, 2, count)
    tracks = loop.step(_found(*boxes, score=rng.uniform(0, 1, count), class_id=class_id))
    assert len(set(_ids(tracks))) == len(_ids(tracks))
    for track_id, box, class_of in zip(_ids(tracks), tracks.box_xywh, tracks.class_id, strict=True):
      row = np.flatnonzero((boxes == box).all(1))
      assert len(row) == 1 and class_id[row[0]] == class_of == seen.get(track_id, class_of)
      seen[track_id] = class_of
    last_id = max([last_id, *_ids(tracks)])
  assert last_id > 40  # more tracks than slots
