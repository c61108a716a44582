"""JPEG bytes to uint8 images and back, shrunk on the way where that saves work.

A JPEG can be decoded at k/8 of its size from its coefficients. `decode` takes the smallest such
size that still covers what is wanted and resamples the rest of the way with a Lanczos kernel.
"""

import numpy as np

from vistraj_jax.core import checks

QUALITY = 95


def decode(data, size=None, where="image"):
  """Decodes a JPEG; threads may do so side by side.

  Args:
    data: bytes.
    size: (height, width) of the result, whatever the aspect ratio; None keeps that of the JPEG.
    where: names the image in errors.

  Returns:
    uint8 [height, width, 3], red, green, blue.

  Raises:
    InputError: the bytes are no JPEG, or a damaged one.
  """
  import simplejpeg

  least = {} if size is None else {"min_height": size[0], "min_width": size[1]}
  try:
    image = simplejpeg.decode_jpeg(data, **least)
  except ValueError as error:
    raise checks.InputError(
      f"{where}: the JPEG is damaged ({str(error).strip()}); copy or prepare the file again."
    ) from None
  return image if size is None else resized(image, size)


def resized(image, size):
  """Resamples uint8 [H, W, 3] to (height, width) with a Lanczos kernel."""
  if image.shape[:2] == tuple(size):
    return image
  from PIL import Image

  return np.asarray(Image.fromarray(image).resize(tuple(size)[::-1], Image.Resampling.LANCZOS))


def encode(image):
  """Returns the JPEG bytes of uint8 [H, W, 3], with full colour resolution."""
  import simplejpeg

  image = np.ascontiguousarray(image)
  return simplejpeg.encode_jpeg(image, quality=QUALITY, colorsubsampling="444")


def decode_png(data, where="image"):
  """Returns uint8 [H, W, 3], red, green, blue, or [H, W] of the bytes of a PNG or the like.

  Raises:
    InputError: the bytes are no image, or a damaged one.
  """
  import cv2

  image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
  checks.require(
    image is not None, f"{where}: the image is damaged; copy or prepare the file again."
  )
  return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def encode_png(image):
  """Returns the PNG bytes, which keep every value, of uint8 [H, W, 3] or [H, W]."""
  import cv2

  image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
  # Of OpenCV's strategies this one is the smallest and the fastest, of photographs too.
  how = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
  _, data = cv2.imencode(".png", image, how)
  return data.tobytes()


def size_of(data, where="image"):
  """Returns (height, width) of a JPEG from its header.

  Raises:
    InputError: as `decode`.
  """
  import simplejpeg

  try:
    return simplejpeg.decode_jpeg_header(data)[:2]
  except ValueError as error:
    raise checks.InputError(
      f"{where}: the JPEG is damaged ({str(error).strip()}); copy or prepare the file again."
    ) from None
