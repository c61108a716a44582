"""The messages of the Waymo Open end-to-end driving data: bytes to arrays and back.

`read_frame` walks over an E2EDFrame once and never looks into the images: it says where their JPEG
bytes lie. Any field order, packed and unpacked numbers and unknown fields are accepted. Field
numbers are those of the public dataset.proto and end_to_end_driving_data.proto.

Positions are in m, in the ego frame at the moment of the frame: origin at the middle of the rear
axle, x ahead, y left; states come at 4 Hz. A calibration's extrinsic maps points of the camera
frame (x along the view, y left, z up) to the ego frame.
"""

import dataclasses
import struct

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.data.waymo_e2e import CAMERAS
from vistraj_jax.prepare.waymo_e2e import wire

_STATES = (1, 2, 4, 5, 6, 7)  # pos_x, pos_y, vel_x, vel_y, accel_x, accel_y
_POSITION = (1, 2, 3)
_DOUBLE_TAGS = b"\x09" * 16  # field 1, a double; they stand 9 bytes apart


@dataclasses.dataclass(frozen=True)
class Calibration:
  """One camera.

  Attributes:
    intrinsic: float64 [9], f_u, f_v, c_u, c_v (px), k1, k2, p1, p2, k3.
    extrinsic: float64 [4, 4], camera frame -> ego frame, m.
    width, height: px.
  """

  intrinsic: np.ndarray
  extrinsic: np.ndarray
  width: int
  height: int


@dataclasses.dataclass(frozen=True)
class Rated:
  """A trajectory that people rated: xy float32 [L, 2], m; score 0..10, -1 in a placeholder."""

  xy: np.ndarray
  score: float


@dataclasses.dataclass(frozen=True)
class Frame:
  """One E2EDFrame, or a plain Frame with nothing but name, images and calibrations.

  Attributes:
    name: "<sequence>-<index>".
    intent: index in `data.waymo_e2e.INTENTS`.
    past: float32 [P, 6], x, y, vx, vy, ax, ay; m and s; oldest first.
    future: float32 [F, 3], x, y, z, m; F is 0 where the future is not told.
    rated: tuple of `Rated`.
    images: {camera: (offset, length) of the JPEG in the payload}, in the order of the record.
    calibrations: {camera: `Calibration`}.
  """

  name: str
  intent: int
  past: np.ndarray
  future: np.ndarray
  rated: tuple
  images: dict
  calibrations: dict


def read_frame(payload, where="record", *, calibrations=True):
  """Reads one E2EDFrame.

  Args:
    payload: bytes of the record.
    where: names the record in errors.
    calibrations: False leaves them out, which is faster.

  Returns:
    `Frame`. A camera number without a name is called "CAMERA_<number>".

  Raises:
    InputError: the bytes are no such message, or columns of a trajectory differ in length.
  """
  values = {"name": "", "images": {}, "calibrations": {}}
  past, future, rated, intent = {}, {}, [], 0
  try:
    for number, kind, first, last in wire.fields(payload, 0, len(payload)):
      if number == 1 and kind == wire.BYTES:
        _walk_frame(payload, first, last, values, calibrations)
      elif number == 5 and kind == wire.BYTES:
        wire.float_columns(payload, first, last, future)
      elif number == 6 and kind == wire.BYTES:
        wire.float_columns(payload, first, last, past)
      elif number == 7 and kind == wire.VARINT:
        intent = first
      elif number == 8 and kind == wire.BYTES:
        rated.append(wire.float_columns(payload, first, last, {}))
  except wire.WrongBytes:
    raise checks.InputError(
      f"{where}: no E2EDFrame (its bytes end or go on in the wrong place); give the end-to-end "
      "driving TFRecords of the Waymo Open Dataset."
    ) from None
  return Frame(
    name=values["name"],
    intent=intent,
    past=wire.table(past, _STATES, f"{where}: past_states"),
    future=wire.table(future, _POSITION, f"{where}: future_states"),
    rated=tuple(
      Rated(
        wire.table(r, _POSITION[:2], f"{where}: preference_trajectories"), float(r.get(8, [-1])[-1])
      )
      for r in rated
    ),
    images=values["images"],
    calibrations=values["calibrations"],
  )


def read_plain_frame(payload, where="record"):
  """Reads name, images and calibrations of a Frame that is not in an E2EDFrame.

  Returns and raises as `read_frame`; there are no states.
  """
  values = {"name": "", "images": {}, "calibrations": {}}
  try:
    _walk_frame(payload, 0, len(payload), values, calibrations=True)
  except wire.WrongBytes:
    raise checks.InputError(f"{where}: no Frame of the Waymo Open Dataset.") from None
  past, future = np.zeros((0, 6), np.float32), np.zeros((0, 3), np.float32)
  return Frame(intent=0, past=past, future=future, rated=(), **values)


def write_frame(frame, images):
  """Returns the bytes of an E2EDFrame.

  Args:
    frame: `Frame`; its `images` are not looked at. Without rows, `future` is left out.
    images: {camera: JPEG bytes}, in the order in which they shall stand in the record.
  """
  context = wire.message(1, frame.name)
  for camera, calibration in frame.calibrations.items():
    context += wire.message(
      2,
      wire.integer(1, CAMERAS.index(camera) + 1)
      + wire.unpacked_doubles(2, calibration.intrinsic)
      + wire.message(3, wire.unpacked_doubles(1, calibration.extrinsic.ravel()))
      + wire.integer(4, calibration.width)
      + wire.integer(5, calibration.height),
    )
  body = wire.message(1, context) + wire.integer(2, 0)
  for camera, jpeg in images.items():
    body += wire.message(4, wire.integer(1, CAMERAS.index(camera) + 1) + wire.message(2, jpeg))
  data = wire.message(1, body)
  if len(frame.future):
    data += wire.message(5, wire.packed_floats(frame.future, _POSITION))
  data += wire.message(6, wire.packed_floats(frame.past, _STATES)) + wire.integer(7, frame.intent)
  for rated in frame.rated:
    trajectory = wire.packed_floats(rated.xy, _POSITION[:2]) if len(rated.xy) else b""
    data += wire.message(8, trajectory + wire.float_(8, rated.score))
  return data


def _walk_frame(data, first, last, values, calibrations):
  """Adds name, images and calibrations of a Frame message to `values`."""
  for number, kind, begin, end in wire.fields(data, first, last):
    if kind != wire.BYTES:
      continue
    if number == 4:
      camera, place = "CAMERA_0", (begin, 0)
      for inner, inner_kind, start, stop in wire.fields(data, begin, end):
        if inner == 1 and inner_kind == wire.VARINT:
          camera = _camera_name(start)
        elif inner == 2 and inner_kind == wire.BYTES:
          place = (start, stop - start)
      values["images"][camera] = place
    elif number == 1:
      for inner, inner_kind, start, stop in wire.fields(data, begin, end):
        if inner == 1 and inner_kind == wire.BYTES:
          values["name"] = wire.text(data, start, stop)
        elif inner == 2 and inner_kind == wire.BYTES and calibrations:
          camera, calibration = _calibration(data, start, stop)
          values["calibrations"][camera] = calibration


def _camera_name(number):
  return CAMERAS[number - 1] if 1 <= number <= len(CAMERAS) else f"CAMERA_{number}"


def _calibration(data, first, last):
  """Returns (camera, `Calibration`)."""
  camera, width, height = "CAMERA_0", 0, 0
  intrinsic, extrinsic = [], []
  for number, kind, begin, end in wire.fields(data, first, last):
    if kind == wire.VARINT:
      if number == 1:
        camera = _camera_name(begin)
      elif number == 4:
        width = begin
      elif number == 5:
        height = begin
    elif number == 2:
      intrinsic += wire.doubles(data, begin, end)
    elif number == 3 and kind == wire.BYTES:
      if data[begin:end:9] == _DOUBLE_TAGS and end - begin == 144:  # as everyone writes it
        extrinsic += struct.unpack("<" + "xd" * 16, data[begin:end])
      else:
        for inner, _, start, stop in wire.fields(data, begin, end):
          extrinsic += wire.doubles(data, start, stop) if inner == 1 else ()
  if len(intrinsic) != 9 or len(extrinsic) != 16:
    raise wire.WrongBytes
  extrinsic = np.array(extrinsic).reshape(4, 4)
  return camera, Calibration(np.array(intrinsic), extrinsic, width, height)
