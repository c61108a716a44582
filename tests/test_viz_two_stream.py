"""Pictures of the two-stream predictor: sheets of frames, attention of the CLS, ablation bars."""

import json

import cv2
import jax
import numpy as np
import pytest
import two_stream_data

from configs import two_stream as config_file
from launch import plot
from vistraj_jax.core import checks, weights
from vistraj_jax.models.two_stream import attention_maps, baselines, blocks, settings
from vistraj_jax.viz import ablation, frame_pairs

ROWS = [
  {"run": "a", "metric": {"probe_r2": [0.2, 0.3], "policy_mse": [0.1]}},
  {"run": "single_stream", "metric": {"probe_r2": [-0.1, 0.1]}},
]


def test_sheet(tmp_path):
  """Four pictures a row, each four times as big; errors of a quarter of full brightness are hot."""
  picture = np.full((48, 48, 3), 100, np.uint8)
  prediction = np.full((48, 48, 3), 100 / 255)
  prediction[:24] += 0.25
  row = {"img_t": picture, "truth": picture, "prediction": prediction}
  row |= {"text": "12 dB", "copy_text": "k = 1"}
  sheet = frame_pairs.draw_sheet([row, row], tmp_path / "a.png")
  assert sheet.shape == (22 + 2 * 192, 4 * 192, 3)
  np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png")), sheet)
  error = sheet[22:214, 3 * 192 :].astype(int)
  assert error[10, 10].sum() > 500 and error[150, 150].sum() < 20
  assert (sheet[60, 20] == 100).all() and (sheet[60, 200] == 164).all()


def test_attention_maps(tmp_path):
  """The patch with four times the even share is the hottest; without attention all is dark."""
  picture = np.zeros((32, 32, 3), np.uint8)
  shares = np.array([[[4 / 4, 0, 0, 0], [0.25] * 4]])
  row = {"img_t": picture, "img_tk": picture, "attention": shares, "text": "k = 1"}
  sheet = frame_pairs.draw_attention([row], [2, 4], ["M"], tmp_path / "a.png").astype(int)
  side = 32 * 6
  assert sheet.shape == (22 + side, 4 * side, 3)
  first = sheet[22:, 2 * side : 3 * side]
  assert first[20, 20].sum() > 300 > 60 > first[20, 150].sum()
  even = sheet[22:, 3 * side :]
  assert (even[20, 20] == even[20, 150]).all() and 20 < even[20, 20].sum() < 300


def test_first_token_attention_of_a_block():
  """softmax(q0 k / sqrt(d)) by NumPy, for two heads; a hidden token has no share."""
  block = blocks.Block(num_heads=2)
  rng = np.random.default_rng(0)
  x = rng.normal(size=(3, 5, 8)).astype(np.float32)
  mask = np.ones((3, 5), bool)
  mask[:, 4] = False
  variables = block.init(jax.random.PRNGKey(0), x)
  assert set(variables) == {"params"}
  _, seen = block.apply(variables, x, key_mask=mask, mutable=["intermediates"])
  found = seen["intermediates"][blocks.FIRST_TOKEN_ATTENTION][0]
  params = variables["params"]
  y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  q, k, _ = np.split(y @ params["qkv"]["kernel"] + params["qkv"]["bias"], 3, -1)
  q, k = (z.reshape(3, 5, 2, 4) for z in (q, k))
  scores = np.exp(np.einsum("bhd,bkhd->bhk", q[:, 0], k) / 2) * mask[:, None]
  np.testing.assert_allclose(found, scores / scores.sum(-1, keepdims=True), atol=1e-5)


def test_a_masked_autoencoder_has_no_cls():
  with pytest.raises(checks.InputError, match="'videomae' has no CLS token"):
    attention_maps.cls_attention(baselines.VideoMAE(), {}, None, None)


def test_ablation(tmp_path, capsys):
  path = tmp_path / "report.json"
  path.write_text(json.dumps(ROWS))
  assert plot.main(["ablation", "--report", str(path), "--out", str(tmp_path / "a.png")]) == 0
  assert "(2 runs)" in capsys.readouterr().out
  assert cv2.imread(str(tmp_path / "a.png")).std() > 10
  made = ablation.draw(ROWS, tmp_path / "b.png", ["probe_r2"])
  (ax,) = made.axes
  np.testing.assert_allclose([bar.get_width() for bar in ax.patches], [0.25, 0.0], atol=1e-12)
  assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "single stream"]


@pytest.mark.parametrize(
  "content, sentence",
  [
    (None, "there is no such file; give a report's JSON"),
    ("{", "no JSON"),
    ("[]", "a list of .* is wanted"),
    ('[{"run": "a", "metric": {"r2": []}}]', "a list of .* is wanted"),
    ('[{"run": "a", "metric": {"r2": 0.5}}]', "a list of .* is wanted"),
    ('[{"run": "a", "metric": {"r2": [NaN]}}]', "a list of .* is wanted"),
  ],
)
def test_wrong_reports(tmp_path, content, sentence):
  path = tmp_path / "report.json"
  if content is not None:
    path.write_text(content)
  with pytest.raises(checks.InputError, match=f"report.json: {sentence}"):
    ablation.read_rows(path)


def test_unknown_metric(tmp_path):
  with pytest.raises(checks.InputError, match="--metrics: 'r3' is not allowed; choose one of"):
    ablation.draw(ROWS, tmp_path / "a.png", ["r3"])


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Weights of a tiny network with two streams, and trajectories."""
  folder = tmp_path_factory.mktemp("pictures")
  model = config_file.get_config("smoke").model
  net = settings.make(model)
  variables = settings.init(net, jax.random.PRNGKey(0))
  tree = {**variables["params"], "batch_stats": variables["batch_stats"]}
  weights.save_weights(folder / "a.safetensors", tree, "two_stream", model.to_dict())
  two_stream_data.write(folder / "data")
  return folder


def _plot(folder, command, *arguments):
  base = ["--run", folder / "a.safetensors", "--data", folder / "data"]
  return plot.main([str(a) for a in (command, *base, "--out", folder / "p.png", *arguments)])


def test_pairs_and_attention_of_a_network(trained, capsys):
  assert _plot(trained, "pairs", "--gaps", 1, 5, "--count", 1) == 0
  printed = capsys.readouterr().out
  assert "p.png (2 pairs, PSNR " in printed and " dB, of frame t " in printed
  assert cv2.imread(str(trained / "p.png")).shape == (22 + 2 * 192, 4 * 192, 3)
  assert _plot(trained, "attention", "--gaps", 2, "--count", 1) == 0
  assert "(1 pairs, 2 streams, blocks [1 2])" in capsys.readouterr().out
  assert cv2.imread(str(trained / "p.png")).shape == (22 + 2 * 192, 4 * 192, 3)


def test_wrong_arguments(trained):
  with pytest.raises(checks.InputError, match=r"--gaps: 12 received; split 'val' allows 1 to 11"):
    _plot(trained, "pairs", "--gaps", 12)
  with pytest.raises(checks.InputError, match="--count: 0 received, 1 or more"):
    _plot(trained, "attention", "--count", 0)
  with pytest.raises(checks.InputError, match="--out: p.jpg does not end in '.png'"):
    _plot(trained, "pairs", "--gaps", 1, "--count", 1, "--out", "p.jpg")
