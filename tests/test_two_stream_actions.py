"""What probes and policies learn from trajectories, by hand; splits, scores, counting, fitting."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_stream_data

from vistraj_jax.core import checks, multiply_adds
from vistraj_jax.data import two_stream, two_stream_actions
from vistraj_jax.metrics import bootstrap, regression, success
from vistraj_jax.train import fit

THIRD = 2 * np.pi / 3 / 3**0.5  # of a turn about (1, 1, 1): a quarter about z, then one about x


def _arm(**changes):
  """Four frames: the arm turns a quarter about z, then a quarter about its own x."""
  values = {
    "where": "demo",
    "video": "a",
    "joints": ("end_effector",),
    "position": np.array([[0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 5]], float)[:, None],
    "orientation": np.array([[0, 0, 0], [0, 0, np.pi / 2], [THIRD] * 3, [THIRD] * 3])[:, None],
    "action": np.arange(28.0).reshape(4, 7),
  }
  return two_stream_actions.Motion(**{**values, **changes})


def _hand(**changes):
  position = np.arange(4 * 2 * 3, dtype=float).reshape(4, 2, 3) ** 2
  confidence = np.array([[1, 1], [1, 0.3], [0.29, 1], [1, 1]])
  values = {"where": "clip", "video": "b", "joints": ("wrist", "thumb")}
  return two_stream_actions.Motion(**values, position=position, confidence=confidence)._replace(
    **changes
  )


def test_changes_of_an_arm():
  """The turn is seen from the first frame: R_t^-1 R_{t+1} of the second pair is about x."""
  found = two_stream_actions.pose_changes([_arm()], 1)
  assert found.index.tolist() == [[0, 0, 1], [0, 1, 2], [0, 2, 3]]
  np.testing.assert_allclose(found.target[:, :3], [[1, 0, 0], [0, 2, 0], [0, 0, 5]])
  quarter = np.pi / 2
  np.testing.assert_allclose(
    found.target[:, 3:6], [[0, 0, quarter], [quarter, 0, 0], [0, 0, 0]], atol=1e-6
  )
  assert found.target[:, 6].tolist() == [6, 13, 20]  # the command of the last step before the end
  two = two_stream_actions.pose_changes([_arm()], 2)
  assert two.target[:, 6].tolist() == [13, 20]
  np.testing.assert_allclose(two.target[0, 3:6], [THIRD] * 3, atol=1e-6)
  assert found.groups == {"position": [0, 1, 2], "rotation": [3, 4, 5], "gripper": [6]}
  bare = two_stream_actions.pose_changes([_arm(orientation=None)], 1)
  assert bare.target.shape == (3, 4) and bare.groups == {"position": [0, 1, 2], "gripper": [3]}


def test_changes_of_a_hand():
  """Pairs of which a joint is uncertain in one of both frames do not count."""
  found = two_stream_actions.pose_changes([_hand(), _hand(confidence=None)], 1)
  assert found.index.tolist() == [[0, 0, 1], [1, 0, 1], [1, 1, 2], [1, 2, 3]]
  np.testing.assert_allclose(found.target[0], [36, 48, 60, 72, 84, 96])
  assert found.groups == {"wrist": [0, 1, 2], "thumb": [3, 4, 5]}
  limited = two_stream_actions.pose_changes([_hand(confidence=None)] * 9, 1, limit=5)
  assert len(limited.index) == len(np.unique(limited.index, axis=0)) == 5
  with pytest.raises(checks.InputError, match=r"no pair of frames 2 apart has all .* 0.3"):
    two_stream_actions.pose_changes([_hand(confidence=np.full((4, 2), 0.1))], 2)


@pytest.mark.parametrize(
  "motions, gap, sentence",
  [
    ([_arm(position=None)], 1, "demo: has no pose, so there is nothing to probe for"),
    ([_arm()], 4, r"--gaps: 4 received, but the longest trajectory has 4 frames; give 3 or less"),
    ([_arm()], 0, "--gaps: 0 received, 1 or more"),
    ([_arm(), _hand()], 1, r"clip: has joints \['wrist', 'thumb'\], demo has joints \['end_eff"),
    ([_arm(), _arm(action=None)], 1, "demo: has joints .* and orientation, demo has .* and action"),
  ],
)
def test_poses_that_cannot_be_probed(motions, gap, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    two_stream_actions.pose_changes(motions, gap)


def test_steps_of_demonstrations():
  found = two_stream_actions.demonstration_steps([_arm(), _arm(instruction="lift")])
  assert found.index.tolist()[:3] == [[0, 0, 1], [0, 1, 2], [0, 2, 3]]
  assert found.action[:3, 0].tolist() == [7, 14, 21]
  assert found.previous[:3, 0].tolist() == [0, 7, 14]
  assert found.where(found.instruction == "lift").index[:, 0].tolist() == [1, 1, 1]
  with pytest.raises(checks.InputError, match="clip: has no actions, so there is nothing to imit"):
    two_stream_actions.demonstration_steps([_arm(), _hand()])
  with pytest.raises(checks.InputError, match="demo: actions of 3 numbers, demo has 7"):
    two_stream_actions.demonstration_steps([_arm(), _arm(action=np.zeros((4, 3)))])


def test_records_and_frames(tmp_path):
  """Pieces of one video have one name; pairs show the frames that they name."""
  payloads = [two_stream_data.motion_record("arm", f"v{k // 2}#{60 * (k % 2)}", 5, k)
              for k in range(4)]  # fmt: skip
  two_stream_data.write_motions(tmp_path, "arm", splits=(("train", 4),), length=5)
  path = two_stream_data.records.shard_path(tmp_path, two_stream.NAME, "train", 0, 1)
  two_stream_data.records.write_records(path, payloads)
  source = two_stream.Trajectories(tmp_path, "train")
  motions = two_stream_actions.read_motions(source)
  assert [motion.video for motion in motions] == ["v0", "v0", "v1", "v1"]
  assert motions[0].action.shape == (5, 7) and motions[0].position.shape == (5, 1, 3)
  assert motions[0].confidence is None and motions[0].instruction == "push"
  pairs = two_stream_actions.FramePairs(source, [[2, 1, 4], [0, 0, 1]], 24)
  batch = pairs.gather(np.array([1, 0]))
  np.testing.assert_array_equal(batch["img_curr"][1], pairs.frame((2, 4)))
  np.testing.assert_array_equal(batch["img_prev"][0], pairs.frame((0, 0)))
  assert batch["img_prev"].shape == (2, 24, 24, 3)


def test_no_video_is_on_both_sides():
  video = np.array(["e", "a", "c", "a", "b", "d", "e", "a", "b"])
  held = two_stream_actions.held_out(video)
  order = np.random.RandomState(42).permutation(5)
  assert set(video[held]) == {"abcde"[order[-1]]}
  assert not set(video[held]) & set(video[~held])
  with pytest.raises(checks.InputError, match="split by video: 1 video received, two or more"):
    two_stream_actions.held_out(video[:1])


def test_r2_of_sums_and_its_interval():
  rng = np.random.default_rng(0)
  target = rng.normal(size=(60, 3)) + 5
  predicted = target + rng.normal(size=(60, 3)) * 0.5
  sums = regression.row_sums(predicted, target)
  r2 = regression.scores(predicted, target)["r2"]
  np.testing.assert_allclose(regression.r2_of_sums(sums.sum(0, keepdims=True)), r2)
  video = np.repeat(np.arange(12), 5)
  found = bootstrap.interval(sums, video, regression.r2_of_sums, samples=400)
  assert found.sequences == 12 and found.value == pytest.approx(r2)
  assert found.low < r2 < found.high and found.high - found.low < 0.3
  mean = lambda total: total[:, 0] / total[:, 1]  # noqa: E731
  rows = np.stack([predicted[:, 0], np.ones(60)], 1)
  one, two = bootstrap.interval(rows, video, mean, 300), bootstrap.paired(
    np.zeros(60), predicted[:, 0], video, 300
  )  # fmt: skip
  assert (one.value, one.low, one.high) == pytest.approx((two.mean, two.low, two.high))
  with pytest.raises(checks.InputError, match="60 rows of 3 sequence names"):
    bootstrap.interval(rows, video[:3], mean)


def test_wilson():
  """8 of 10: (0.8 + 0.19207 -+ 1.96 sqrt(0.016 + 0.0096)) / 1.38415."""
  found = success.wilson(8, 10)
  assert (found.low, found.high) == pytest.approx((0.49016, 0.94332), abs=1e-4)
  assert success.wilson(0, 5).low == 0 and success.wilson(5, 5).high == pytest.approx(1)
  with pytest.raises(checks.InputError, match="there is no trial"):
    success.wilson(0, 0)


def test_multiply_adds():
  a, b = np.ones((2, 3)), np.ones((3, 5))
  assert multiply_adds.count(lambda a, b: a @ b, a, b) == 30
  scanned = lambda x: jax.lax.scan(lambda x, _: (x @ jnp.ones((3, 3)), None), x, None, 4)[0]  # noqa: E731
  assert multiply_adds.count(jax.jit(scanned), a) == 4 * 18
  assert (
    multiply_adds.count(lambda x: jax.lax.cond(True, lambda: x @ b, lambda: a @ b * 1), a) == 30
  )
  image, kernel = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 5))
  dimensions = ("NHWC", "HWIO", "NHWC")
  conv = lambda x: jax.lax.conv_general_dilated(  # noqa: E731
    x, kernel, (1, 1), "SAME", dimension_numbers=dimensions
  )
  assert multiply_adds.count(conv, image) == 4 * 4 * 5 * 3 * 3 * 2
  with pytest.raises(ValueError, match="unknown length"):
    multiply_adds.count(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, scanned, x), a[:, :3])


@dataclasses.dataclass(frozen=True)
class _Line:
  """y = w x."""

  def loss(self, params, data, rows, key):
    del key
    return ((params * data["x"][rows] - data["y"][rows]) ** 2).mean()

  def outputs(self, params, held_out):
    return params * held_out["x"]

  def score(self, outputs, held_out):
    return ((outputs - held_out["y"]) ** 2).mean()


def test_fit():
  """The slope of the data; scores are of the held-out rows and their best epoch is known."""
  x = np.linspace(-1, 1, 50, dtype=np.float32)
  data, held = {"x": x, "y": 3 * x}, {"x": x[:5], "y": 2 * x[:5]}
  run = lambda **changes: fit.fit(  # noqa: E731
    _Line(), np.float32(0), data, held,
    **{"count": 50, "epochs": 60, "batch_size": 8, "optimizer": fit.AdamW(0.02, 0.0), **changes},
  )  # fmt: skip
  found = run()
  assert float(found.params) == pytest.approx(3, abs=0.05)
  assert found.losses[-1] < 1e-2 < found.losses[0]
  assert found.best_epoch == np.argmin(found.scores) + 1 < 60
  np.testing.assert_allclose(found.best_outputs / held["x"], 2, atol=0.1)
  np.testing.assert_allclose(found.outputs, float(found.params) * held["x"], rtol=1e-6)
  assert run(seed=1).losses[0] != found.losses[0]
  for changes, sentence in (
    ({"epochs": 0}, "--epochs: 0 received"),
    ({"batch_size": 0}, "--batch_size: 0 received"),
    ({"count": 0}, "there is no row to learn from"),
    ({"optimizer": fit.AdamW(float("nan"), 0.0), "epochs": 3}, "the loss of epoch .* lower --lr"),
  ):
    with pytest.raises(checks.InputError, match=sentence):
      run(**changes)
