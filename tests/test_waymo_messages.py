"""Waymo end-to-end messages: golden records, real bytes, legal oddities of the wire, damage."""

import io
import json
import struct

import golden_cases
import numpy as np
import pytest
import real_data
from PIL import Image

from vistraj_jax.core import checks
from vistraj_jax.data import records, waymo_e2e
from vistraj_jax.prepare.waymo_e2e import messages, wire


def _source(data, tmp_path):
  (tmp_path / "file").write_bytes(data)
  return records.TFRecordSource([tmp_path / "file"])


def test_golden_records(tmp_path):
  case = golden_cases.load("vlm_waypoint", "waymo_e2e_records")
  source = _source(case.arrays["tfrecord"].tobytes(), tmp_path)
  assert len(source) == 5
  wanted = case.arrays
  for i in range(5):
    frame = messages.read_frame(source[i])
    offset, length = source.place(i)[1:]
    assert (offset, length) == (wanted["payload_offset"][i], wanted["payload_length"][i])
    assert frame.images["FRONT"] == (
      wanted["front_jpeg_offset"][i] - offset,
      wanted["front_jpeg_length"][i],
    )
    assert (frame.name, frame.intent) == (wanted["name"][i], wanted["intent"][i])
    np.testing.assert_array_equal(frame.past, wanted["past"][i])
    if len(frame.future):
      np.testing.assert_array_equal(frame.future, wanted["future"][i])
    else:
      assert np.isnan(wanted["future"][i]).all()
    for k, rated in enumerate(frame.rated):
      assert len(rated.xy) == wanted["rater_len"][i, k]
      assert rated.score == wanted["rater_score"][i, k]
      np.testing.assert_array_equal(rated.xy, wanted["rater_traj"][i, k, : len(rated.xy)])
    assert np.isnan(wanted["rater_score"][i, len(frame.rated) :]).all()
    order = [waymo_e2e.CAMERAS.index(name) + 1 for name in frame.images]
    assert order == list(wanted["camera_order"][i])
    for k, name in enumerate(waymo_e2e.CAMERAS):
      calibration = frame.calibrations[name]
      np.testing.assert_array_equal(calibration.intrinsic, wanted["intrinsic"][k])
      np.testing.assert_array_equal(calibration.extrinsic, wanted["extrinsic"][k])
      assert [calibration.width, calibration.height] == list(wanted["size_wh"][k])
    assert messages.read_frame(source[i], calibrations=False).calibrations == {}
  first, length = messages.read_frame(source[0]).images["FRONT"]
  image = Image.open(io.BytesIO(source[0][first : first + length]))
  np.testing.assert_allclose(np.asarray(image).astype(int), wanted["front_pixels_0"], atol=2)


def test_composed_records_of_real_data():
  folder = real_data.folder("waymo")
  source = records.TFRecordSource([folder / "e2e_composed.tfrecord"])
  expected = json.loads((folder / "e2e_expected.json").read_text())
  assert len(source) == len(expected["records"])
  for payload, wanted in zip(source, expected["records"], strict=True):
    frame = messages.read_frame(payload)
    np.testing.assert_array_equal(frame.past, np.array(wanted["past"], np.float32))
    np.testing.assert_array_equal(frame.future[:, :2], np.array(wanted["future"], np.float32))
    assert frame.intent == wanted["intent"]
    assert [r.score for r in frame.rated] == wanted["preference_scores"]
    for camera, (name, place) in zip(expected["cameras"], frame.images.items(), strict=True):
      assert (waymo_e2e.CAMERAS[camera["name"] - 1], camera["jpeg_bytes"]) == (name, place[1])


def test_real_perception_frame():
  source = records.TFRecordSource([real_data.folder("waymo") / "pvps_data_one_frame.tfrecord"])
  frame = messages.read_plain_frame(source[0])
  assert frame.name.startswith("1024360143612057520")
  assert sorted(frame.images) == sorted(waymo_e2e.CAMERAS[:5])
  for name, (first, length) in frame.images.items():
    calibration = frame.calibrations[name]
    image = Image.open(io.BytesIO(source[0][first : first + length]))
    size = (1920, 886 if name.startswith("SIDE") else 1280)
    assert image.size == size == (calibration.width, calibration.height)
    assert calibration.intrinsic[0] == pytest.approx(2050, abs=20)
    rotation = calibration.extrinsic[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert 1.3 < calibration.extrinsic[0, 3] < 1.7 and 2.0 < calibration.extrinsic[2, 3] < 2.2
  ahead = {name: c.extrinsic[:2, 0] for name, c in frame.calibrations.items()}
  np.testing.assert_allclose(ahead["FRONT"], [1, 0], atol=0.02)
  np.testing.assert_allclose(ahead["SIDE_LEFT"], [0, 1], atol=0.05)
  np.testing.assert_allclose(ahead["SIDE_RIGHT"], [0, -1], atol=0.05)


def _frame(**changes):
  rng = np.random.default_rng(3)
  calibration = messages.Calibration(rng.normal(size=9), rng.normal(size=(4, 4)), 972, 1079)
  values = {
    "name": "ab-017",
    "intent": 2,
    "past": rng.normal(size=(16, 6)).astype(np.float32),
    "future": rng.normal(size=(20, 3)).astype(np.float32),
    "rated": (
      messages.Rated(rng.normal(size=(21, 2)).astype(np.float32), 7.0),
      messages.Rated(np.zeros((0, 2), np.float32), -1.0),
    ),
    "images": {},
    "calibrations": {"FRONT": calibration, "REAR": calibration},
  }
  return messages.Frame(**{**values, **changes})


def _assert_same(found, wanted):
  assert (found.name, found.intent) == (wanted.name, wanted.intent)
  np.testing.assert_array_equal(found.past, wanted.past)
  np.testing.assert_array_equal(found.future, wanted.future)
  assert [r.score for r in found.rated] == [r.score for r in wanted.rated]
  for a, b in zip(found.rated, wanted.rated, strict=True):
    np.testing.assert_array_equal(a.xy, b.xy)
  assert found.calibrations.keys() == wanted.calibrations.keys()
  for name, calibration in wanted.calibrations.items():
    np.testing.assert_array_equal(found.calibrations[name].intrinsic, calibration.intrinsic)
    np.testing.assert_array_equal(found.calibrations[name].extrinsic, calibration.extrinsic)


def test_what_is_written_is_read():
  for frame in (_frame(), _frame(future=np.zeros((0, 3), np.float32), intent=0)):
    jpegs = {"REAR": b"r" * 300, "FRONT": b"f" * 20_000}
    payload = messages.write_frame(frame, jpegs)
    found = messages.read_frame(payload)
    _assert_same(found, frame)
    assert list(found.images) == ["REAR", "FRONT"]
    for name, (first, length) in found.images.items():
      assert payload[first : first + length] == jpegs[name]


def test_other_legal_bytes():
  frame = _frame()
  body = messages.write_frame(frame, {})
  unknown = wire.integer(77, 2**40) + wire.message(99, b"x" * 200) + wire.float_(98, 1.0)
  _assert_same(messages.read_frame(unknown + body + unknown), frame)
  # Numbers one by one; the trajectory in two pieces; fields in another order.
  columns = {1: 0, 2: 1, 4: 2, 5: 3, 6: 4, 7: 5}
  past = [
    wire.message(6, b"".join(wire.float_(n, v) for n, i in columns.items() for v in rows[:, i]))
    for rows in (frame.past[:5], frame.past[5:])
  ]
  parts = list(_parts(body))
  assert [number for number, _ in parts] == [1, 5, 6, 7, 8, 8]
  rest = b"".join(data for number, data in reversed(parts) if number not in (6, 8))
  rated = b"".join(data for number, data in parts if number == 8)
  _assert_same(messages.read_frame(past[0] + rest + past[1] + rated), frame)
  # An extrinsic with packed doubles; cameras without a name are kept apart.
  calibration = frame.calibrations["FRONT"]
  packed = wire.message(3, wire.message(1, struct.pack("<16d", *calibration.extrinsic.ravel())))
  text = wire.integer(1, 1) + packed + wire.message(2, struct.pack("<9d", *calibration.intrinsic))
  image = wire.message(4, wire.message(2, b"jpeg") + wire.integer(1, 9))
  found = messages.read_frame(wire.message(1, image + wire.message(1, wire.message(2, text))))
  np.testing.assert_array_equal(found.calibrations["FRONT"].extrinsic, calibration.extrinsic)
  np.testing.assert_array_equal(found.calibrations["FRONT"].intrinsic, calibration.intrinsic)
  assert list(found.images) == ["CAMERA_9"]


def _parts(data):
  """Yields (number, bytes) of the fields of a message."""
  begin = 0
  for number, _, _, end in wire.fields(data, 0, len(data)):
    yield number, data[begin:end]
    begin = end


def test_damage_is_named():
  payload = messages.write_frame(_frame(), {"FRONT": b"f" * 500})
  sentence = "shard 3: no E2EDFrame .*give the end-to-end driving TFRecords"
  for cut in (1, 3, 100, 700, len(payload) - 1):
    with pytest.raises(checks.InputError, match=sentence):
      messages.read_frame(payload[:cut], "shard 3")
  for wrong in (b"\xff" * 20, b"\x0b\x0c", b"\x02\x00", b"\x0a\x80", wire.message(1, b"\x0a\x05a")):
    with pytest.raises(checks.InputError, match=sentence):
      messages.read_frame(wrong, "shard 3")
  with pytest.raises(checks.InputError, match="no Frame of the Waymo"):
    messages.read_plain_frame(payload[:50])
  short = wire.message(6, wire.float_(1, 1.0) + wire.message(2, bytes(8)))
  with pytest.raises(
    checks.InputError, match=r"past_states has columns of different lengths \(\[1"
  ):
    messages.read_frame(short)
