"""Masks laid over images."""

import numpy as np


def overlay(image, labels, palette, opacity=0.5):
  """Tints objects and draws their outlines.

  Args:
    image: uint8 [H, W, 3].
    labels: uint8 [H, W], object numbers, 0 for background.
    palette: uint8 [256, 3], in the image's order of colours.
    opacity: of the tint, 0..1.

  Returns:
    uint8 [H, W, 3], cut to even height and width, as videos want them.
  """
  import cv2

  colours = palette[labels]
  mixed = cv2.addWeighted(image, 1 - opacity, colours, opacity, 0)
  out = np.where((labels > 0)[..., None], mixed, image)
  edge = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
  out[edge & (labels > 0)] = colours[edge & (labels > 0)]
  height, width = (side // 2 * 2 for side in labels.shape)
  return np.ascontiguousarray(out[:height, :width])
