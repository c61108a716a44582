"""Scores of predicted frames: MSE, PSNR and SSIM in all and by gap, beside trivial predictors.

Works on NumPy and on JAX arrays. The gap is the number of frames from the current frame to the
predicted one. Two predictors need no learning: the current frame itself ("copy"), and the current
frame plus what M says of the change ("add_motion"), which with M of four channels is the truth:
a low error of a network proves little unless it is set beside both.
"""

from vistraj_jax.core import images

SCORES = {"mse": images.mse, "psnr": images.psnr, "ssim": images.ssim}
MAX_BUCKETS = 10


def gap_buckets(max_gap):
  """Returns [(name, lowest gap, highest gap)]: single gaps up to 10, else ranges of equal width."""
  width = -(-max_gap // MAX_BUCKETS)
  ranges = [(low, min(low + width - 1, max_gap)) for low in range(1, max_gap + 1, width)]
  return [(f"gap{a}" if a == b else f"gap{a}-{b}", a, b) for a, b in ranges]


def trivial_predictions(img_t, motion):
  """Returns {"copy", "add_motion"}: predictions [B, H, W, 3] without a network.

  Args:
    img_t: current frame [B, H, W, 3], float in 0..1.
    motion: the M input [B, H, W, C] of `models.two_stream.preprocess.motion`: change of Y, R, G, B
      (4 channels), or of Y first (3 or 1), which is then added to all three colours.
  """
  xp = img_t.__array_namespace__()
  change = motion[..., 1:4] if motion.shape[-1] == 4 else motion[..., :1]
  return {"copy": img_t, "add_motion": xp.clip(img_t + change, 0, 1)}


def scores(predicted, target):
  """Returns {"mse", "psnr", "ssim"}: one number an image [B]; images [B, H, W, 3] in 0..1."""
  return {name: score(predicted, target) for name, score in SCORES.items()}
