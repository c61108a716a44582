"""launch.evaluate videos end to end: files, roll-outs, samples, and what it refuses."""

import functools
import json
import shutil

import jax
import magvit_runs
import numpy as np
import pytest
from xmem_cases import QUICK

from configs import magvit as config_file
from launch import evaluate, plot
from vistraj_jax.core import checks, weights
from vistraj_jax.encoders import lpips, video_shapes
from vistraj_jax.viz import future_video as pictures


def _config(root, head):
  c = config_file.get_config("smoke")
  c.data.root = str(root)
  c.model.head = head
  return c


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
  """(folder of scores, run) of a head over codes: two windows of five frames, three samples."""
  folder = tmp_path_factory.mktemp("videos")
  root = magvit_runs.videos(folder, frames=15)
  run = magvit_runs.save(_config(root, "masked"), folder / "run")
  with pytest.MonkeyPatch.context() as patch:  # the programs are compiled in haste
    patch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=QUICK))
    arguments = ["--run", run, "--data", f"{root}:clean", "--windows", 2, "--samples", 3]
    arguments += ["--batch_size", 2, "--keep", 3, "--out", folder / "out"]
    assert evaluate.main(["videos", *map(str, arguments)]) == 0
  return folder / "out", run


def test_scores(scored):
  found = json.loads((scored[0] / "clean.json").read_text())
  assert found["windows"] == 3 and found["split"] == "val"
  wanted = {"predicted", "through_pixels", "ceiling", "black", "grey", "copy_last", "straight_line"}
  assert set(found["scores"]) == wanted
  assert len(found["horizon"]["through_pixels"]["psnr"]) == 10
  # The first window is the same both ways.
  of = lambda name: found["horizon"][name]["mse"]  # noqa: E731
  np.testing.assert_allclose(of("predicted")[:5], of("through_pixels")[:5])
  samples = found["samples"]
  assert samples["count"] == 3 and samples["psnr_best"] > samples["psnr_mean"]
  assert samples["diversity"] > 0
  text = (scored[0] / "scores.md").read_text()
  assert (
    "## clean" in text
    and "Of 3 samples of the first 5 frames the best" in text
    and "| copy last" in text
  )
  assert "3 windows, 10 frames ahead (trained for 5)" in text and "LPIPS" not in text


def test_predictions_are_what_is_scored(scored):
  kept = pictures.read_predictions(scored[0] / "clean.npz")
  assert set(kept["predicted"]) == {"predicted", "through_pixels", "ceiling"}
  assert kept["past"].shape == (3, 5, 16, 16, 3) and kept["truth"].shape == (3, 10, 16, 16, 3)
  assert float(kept["fps"]) == 10
  truth, predicted = (
    x.astype(float) / 255 for x in (kept["truth"], kept["predicted"]["predicted"])
  )
  own = ((predicted - truth) ** 2).mean((0, 2, 3, 4))
  found = json.loads((scored[0] / "clean.json").read_text())["horizon"]["predicted"]["mse"]
  np.testing.assert_allclose(own, found, rtol=2e-2)
  strip, curve = scored[0] / "strip.png", scored[0] / "curve.png"
  assert not plot.main(
    ["videos", "--predictions", str(scored[0] / "clean.npz"), "--out", str(strip)]
  )
  assert not plot.main(["horizon", "--scores", str(scored[0] / "clean.json"), "--out", str(curve)])
  assert strip.is_file() and curve.is_file()


def test_refusals(scored, tmp_path):
  _, run = scored
  call = lambda *args: evaluate.main(["videos", "--out", str(tmp_path), *map(str, args)])  # noqa: E731
  with pytest.raises(checks.InputError, match="--samples: 0 received, 1 or more wanted"):
    call("--run", run, "--samples", 0)
  with pytest.raises(checks.InputError, match="5 \\+ 15 frames received, but the longest video"):
    call("--run", run, "--windows", 3)
  with pytest.raises(checks.InputError, match="neither the folder of a run nor of one"):
    call("--run", tmp_path)
  only, latents, other = (tmp_path / name for name in ("tokenizer_only", "latents", "other"))
  settings = (run / "config.json").read_text()
  for folder, phase in ((only, "tokenizer"), (latents, "predictor"), (other, "predictor")):
    shutil.copytree(run / "predictor", folder / phase)
    (folder / "config.json").write_text(settings.replace('"masked"', '"bits"'))
  with pytest.raises(checks.InputError, match="is not trained yet; run launch.train to the end"):
    call("--run", only)
  with pytest.raises(checks.InputError, match="--samples: 2 received, .*'bits'.* has one future"):
    call("--run", latents, "--samples", 2)
  (other / "config.json").write_text(settings.replace('"task": "magvit"', '"task": "xmem"'))
  with pytest.raises(checks.InputError, match="is a run of 'xmem'"):
    call("--run", other)


@pytest.mark.slow
def test_fvd_and_lpips(tmp_path):
  """Columns of their own, worth nothing here but for the order: the weights are random."""
  root = magvit_runs.videos(tmp_path, frames=18)
  c = _config(root, "bits")
  c.data.update(past=9, future=9)
  run = magvit_runs.save(c, tmp_path / "run")
  rng = np.random.default_rng(0)
  files = {}
  for name, shapes in (
    ("i3d_inception", video_shapes.shapes("i3d_inception")),
    ("lpips", lpips.shapes()),
  ):
    flat = {n: abs(rng.normal(0, 1 / np.sqrt(np.prod(s[:-1])), s)) for n, s in shapes.items()}
    tree = weights.unflatten({n: x.astype(np.float32) for n, x in flat.items()})
    files[name] = tmp_path / f"{name}.safetensors"
    weights.save_weights(files[name], tree, name, {})
  arguments = ["--run", run, "--fvd", files["i3d_inception"], "--lpips", files["lpips"]]
  evaluate.main(["videos", *map(str, [*arguments, "--keep", 0, "--out", tmp_path / "out"])])
  found = json.loads((tmp_path / "out" / "val.json").read_text())
  assert found["fvd"]["predicted"]["n"] == 3 and not found["fvd"]["ceiling"]["stable"]
  assert set(found["fvd"]) == {"predicted", "ceiling", "copy_last"}
  assert found["scores"]["copy_last"]["lpips"] > 0
  text = (tmp_path / "out" / "scores.md").read_text()
  assert "FVD of n = 3 clips of 9 frames, too few" in text and "| LPIPS |" in text
  assert not (tmp_path / "out" / "val.npz").exists()
