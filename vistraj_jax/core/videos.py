"""Writes pictures as H.264 video, atomically."""

import fractions

from vistraj_jax.core import checks, files


def write_video(path, pictures, frame_rate):
  """Writes an MP4 file (H.264, yuv420p, which every player knows).

  Args:
    path: the file, ending in `.mp4`.
    pictures: iterable of uint8 [H, W, 3], blue-green-red, H and W even and equal for all.
    frame_rate: Hz.

  Returns:
    The number of frames.

  Raises:
    InputError: another file ending, or no picture.
  """
  import av

  checks.require(str(path).endswith(".mp4"), f"{path}: a video ends in '.mp4'; rename it.")
  count = 0
  with files.atomic_path(path) as temporary:
    with av.open(str(temporary), "w") as container:
      rate = fractions.Fraction(frame_rate).limit_denominator(1001)
      stream = container.add_stream("h264", rate=rate, options={"crf": "21", "preset": "veryfast"})
      stream.pix_fmt = "yuv420p"
      for picture in pictures:
        if not count:
          stream.height, stream.width = picture.shape[:2]
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        count += 1
      checks.require(count, f"{path}: there are no frames to write.")
      container.mux(stream.encode())
  return count
