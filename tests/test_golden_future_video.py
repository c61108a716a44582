"""Moving discs and the Frechet distance against the golden cases."""

import golden_cases
import numpy as np

from vistraj_jax.encoders import i3d_inception
from vistraj_jax.metrics import frechet
from vistraj_jax.metrics import future_video as scores
from vistraj_jax.prepare.world import moving, shapes, video_writer

DISC = ((0, 0, 0), (255, 0, 0))


def disc_video(centres):
  """One sharp disc of radius 5 px: uint8 [T, 128, 128, 3]."""
  thing = shapes.Shape(centres, 5, DISC[1], mask=scores.TARGET)
  return video_writer.render([thing], len(centres), 128)[0]


def test_synthetic_trajectories():
  case = golden_cases.load("magvit", "synthetic_trajectories")
  centres = moving.disc_centres(case.arrays["params"], 50, 128, radius=5)
  np.testing.assert_array_equal(centres, case.arrays["centres"])
  videos = np.stack([disc_video(one) for one in centres])
  assert not videos[..., 1:].any() and ((videos[..., 0] == 255).sum((2, 3)) == 81).all()
  case.check("frames_u8", videos[..., 0][:, None])

  past, future = np.split(videos.astype(np.float32) / 255, 2, axis=1)
  trivial = scores.trivial_predictions(past, 25, np.array([DISC] * 6))
  for name in ("black", "grey", "copy_last"):
    error = ((trivial[name] - future) ** 2).mean()
    case.check(f"mse_{name}", error, rtol=case.manifest["tolerance"]["mse"]["rtol"])


def test_frechet_distance():
  case = golden_cases.load("magvit", "frechet_distance")
  a, b = case.arrays["a"], case.arrays["b"]
  case.check("frechet_distance", frechet.distance(a, b))
  assert abs(frechet.distance(a, a)) < 1e-9
  half = len(a[0]) // 2
  case.check("frechet_distance_rank_deficient", frechet.distance(a[:half], b[:half]))
  frames = case.arrays["video_uint8"]
  long = np.tile(frames, (1, 5, 1, 1, 1))  # the network wants nine frames, the case has two
  video = np.asarray(i3d_inception.preprocess(long))[:, : frames.shape[1]]
  case.check("preprocessed", video.transpose(0, 4, 1, 2, 3))
