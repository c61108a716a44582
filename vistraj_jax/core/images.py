"""How alike two images are: MSE, PSNR and SSIM, one number an image, of NumPy or JAX arrays."""

import math

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def mse(a, b):
  """Mean squared difference: a, b [B, H, W, C], values in 0..1 -> [B]."""
  return ((a - b) ** 2).mean((1, 2, 3))


def psnr(a, b):
  """Peak signal-to-noise ratio in dB: a, b [B, H, W, C], values in 0..1 -> [B].

  Equal images would give infinity; the error is floored at 1e-10, which shows as 100 dB.
  """
  xp = a.__array_namespace__()
  return -10 * xp.log10(xp.maximum(mse(a, b), 1e-10))


def ssim(a, b):
  """Structural similarity (Wang et al. 2004): a, b float32 [B, H, W, C], in 0..1 -> [B], at most 1.

  Window of 11 x 11 px, Gaussian with sigma 1.5, per channel; beyond the border lies 0.
  """
  mean_a, mean_b = _blur(a), _blur(b)
  var_a = _blur(a * a) - mean_a**2
  var_b = _blur(b * b) - mean_b**2
  covariance = _blur(a * b) - mean_a * mean_b
  alike = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
  alike = alike / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))
  return alike.mean((1, 2, 3))


def _blur(x):
  """Gaussian window over height, then width, with zeros beyond the border."""
  xp, half = x.__array_namespace__(), _WINDOW // 2
  taps = [math.exp(-((i - half) ** 2) / (2 * _SIGMA**2)) for i in range(_WINDOW)]
  taps = [tap / sum(taps) for tap in taps]
  height, width = x.shape[1:3]
  x = xp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
  x = sum(tap * x[:, i : i + height] for i, tap in enumerate(taps))
  return sum(tap * x[:, :, i : i + width] for i, tap in enumerate(taps))
