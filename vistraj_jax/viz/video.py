"""Pictures as PNG files, atomically; videos by `core.videos`."""

from vistraj_jax.core import checks, files
from vistraj_jax.core.videos import write_video

__all__ = ["write_png", "write_video"]


def write_png(path, picture):
  """Writes uint8 [H, W, 3], blue-green-red."""
  import cv2

  checks.require(str(path).endswith(".png"), f"{path}: a picture ends in '.png'; rename it.")
  with files.atomic_path(path) as temporary:
    checks.require(cv2.imwrite(str(temporary), picture), f"{path}: the picture was not written.")
