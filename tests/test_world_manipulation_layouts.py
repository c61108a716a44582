"""Demonstrations in the layouts of Bridge, EgoDex and LIBERO, read back by their converters."""

import json

import numpy as np
import pytest
import real_data

from configs import two_stream as config_file
from launch import prepare as launch_prepare
from launch import train
from vistraj_jax.core import checks, geometry
from vistraj_jax.data import images, pipeline, two_stream
from vistraj_jax.prepare import embedded
from vistraj_jax.prepare.frame_pairs import libero, trajectories, videos
from vistraj_jax.prepare.world import manipulation as world
from vistraj_jax.prepare.world import manipulation_expert as expert
from vistraj_jax.prepare.world import manipulation_libero, manipulation_writer

SMALL = {"size": 48, "seed": 3}
OPTIONS = trajectories.Options(size=48, chunk=0, overlap=0, val_share=0.5)


def _records(root):
  statistics = json.loads((root / two_stream.STATISTICS).read_text())
  found = {}
  for split in statistics["splits"]:
    source = two_stream.Trajectories(root, split)
    found |= {source[i]["trajectory_id"].decode(): source[i] for i in range(len(source))}
  return found


def _run(source, out, layout, *arguments):
  launch_prepare.main(
    ["manipulation", "--layout", layout, "--out", str(source), "--size", "48", "--seed", "3"]
    + list(arguments)
  )
  launch_prepare.main(
    [layout, "--source", str(source), "--out", str(out), "--size", "48", "--val_share", "0.5"]
  )


def _difference(jpeg, frame):
  return np.abs(images.decode(jpeg).astype(int) - frame).mean()


@pytest.fixture(scope="module")
def rlds(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bridge") / "source"
  manipulation_writer.write(folder, manipulation_writer.usual("bridge", {**SMALL, "episodes": 2}))
  return folder


def test_bridge(tmp_path, capsys):
  source, out = tmp_path / "source", tmp_path / "out"
  _run(source, out, "bridge", "--episodes", "3")
  printed = capsys.readouterr().out
  assert "episodes 3, all successful; frames " in printed
  assert f"read it with `launch.prepare bridge --source {source}`" in printed
  settings = world.Settings(size=48, rate=20)
  seed = 3 * 10**6 + 1
  found = expert.demonstration(settings, seed, every=4)
  row = _records(out)[f"generated/{found.seed}/1"]
  count = row["num_frames"]
  assert count == len(found.hand) - 1 and row["fps"] == found.rate == 5
  assert row["instruction"].decode() == found.instruction
  for k in (0, count // 2, count - 1):
    assert row["frames"][k] == images.encode(found.frames["agentview"][k])
  np.testing.assert_allclose(row["pose"], found.hand[:-1, :3], atol=1e-6)
  np.testing.assert_allclose(row["orientation"][:, 2], found.hand[:-1, 3], atol=1e-6)
  action = row["action"].reshape(-1, 7)
  np.testing.assert_allclose(action[:, :3], np.diff(found.hand[:, :3], axis=0), atol=1e-6)
  assert set(action[:, 6]) == {0, 1} and action[-1, 6] == 1  # closed at first, then open
  # The same command again finds everything done.
  launch_prepare.main(
    ["manipulation", "--layout", "bridge", "--out", str(source), "--size", "48", "--seed", "3"]
    + ["--episodes", "3"]
  )
  assert "frames/s" not in capsys.readouterr().out


def test_bridge_metadata(rlds):
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(rlds)
  assert {s: info.num_examples for s, info in builder.info.splits.items()} == {"train": 2}
  steps = builder.info.features["steps"]
  assert isinstance(steps, tfds.features.Dataset)
  assert steps.feature["observation"]["image_0"].shape == (48, 48, 3)


def test_bridge_metadata_are_those_of_the_release(rlds):
  """Every field that is written has the class, type and shape of the public one."""
  public = real_data.folder("bridge_dataset") / "1.0.0" / "features.json"

  def fields(feature, name=""):
    for key in ("featuresDict", "sequence"):
      if key in feature:
        inner = feature[key].get("features") or {"": feature[key]["feature"]}
        return {k: v for part, f in inner.items() for k, v in fields(f, f"{name}/{part}").items()}
    return {name: {k: v for k, v in feature.items() if k != "description"}}

  ours, theirs = (fields(json.loads(p.read_text())) for p in (rlds / "features.json", public))
  missing = {name.rpartition("/")[2] for name in set(theirs) - set(ours)}
  assert missing == {"language_embedding", "image_1", "image_2", "image_3"}
  for name, feature in ours.items():
    text = json.dumps(feature).replace('"48"', '"64"')  # sizes of the images
    assert json.loads(text) == theirs[name], name


def test_egodex(tmp_path):
  source, out = tmp_path / "source", tmp_path / "out"
  settings = manipulation_writer.usual("egodex", {**SMALL, "episodes": 3})
  manipulation_writer.write(source, settings)
  videos.prepare_egodex(source, out, options=OPTIONS)
  found = expert.demonstration(world.Settings(size=48, rate=30, moving_camera=True), 3 * 10**6 + 2)
  task = found.instruction.replace(" ", "_")
  row = _records(out)[f"part1/{task}/2.mp4"]
  assert row["fps"] == 30 and row["num_frames"] == len(found.hand)
  assert row["instruction"].decode() == found.instruction
  for k in (0, 40, len(found.hand) - 1):
    assert _difference(row["frames"][k], found.frames["agentview"][k]) < 8
  pose = row["pose"].reshape(-1, 6, 3)
  np.testing.assert_allclose(pose[:, 0, 1], found.hand[:, 2] + 0.16, atol=1e-6)  # y is up
  apart = np.linalg.norm(pose[:, 1] - pose[:, 2], axis=1)  # thumb to index finger
  np.testing.assert_allclose(apart, found.hand[:, 4] + 0.016, atol=1e-6)
  assert row["confidence"].min() == 1
  with _episode(source / "part1" / task / "2.hdf5") as file:
    _check_projection(file, found)


def _episode(path):
  import h5py

  return h5py.File(path)


def _check_projection(file, found):
  """The finger's tip, through the file's own camera, lies where the picture's camera sees it."""
  camera, intrinsic = file["transforms/camera"][()], file["camera/intrinsic"][()]
  tip = file["transforms/rightIndexFingerTip"][:, :, 3]
  local = np.einsum("tij,tj->ti", np.linalg.inv(camera.astype(np.float64)), tip)
  pixels, depth = geometry.project(local[:, :3], intrinsic)
  assert (depth > 0.3).all()
  place = found.hand[5, :3] + [
    np.sin(found.hand[5, 3]) * 0.008,
    -np.cos(found.hand[5, 3]) * 0.008,
    0,
  ]
  viewpoint = found.viewpoints[5]
  want = geometry.into_frame(place[None], viewpoint.position, viewpoint.rotation)
  assert found.hand[5, 4] == 0  # the fingers are closed
  np.testing.assert_allclose(pixels[5], geometry.project(want[0], intrinsic)[0], atol=1e-3)


def test_libero(tmp_path, monkeypatch):
  monkeypatch.setattr(world, "TASKS", world.TASKS[:2])
  source, out = tmp_path / "source", tmp_path / "out"
  manipulation_writer.write(
    source, manipulation_writer.usual("libero", {**SMALL, "episodes": 1, "size": 32})
  )
  libero.prepare(source, out, camera="eye_in_hand", options=OPTIONS)
  name = "push_the_red_block_to_the_green_square"
  path = source / manipulation_libero.SUITE / f"{name}_demo.hdf5"
  environment = manipulation_libero.environment(path)
  assert environment.settings == world.Settings(task=world.TASKS[0], size=32, spread=0.25)
  rows = _records(out)
  assert len(rows) == len(world.TASKS)
  row = rows[f"{manipulation_libero.SUITE}/{name}_demo.hdf5:demo_0"]
  assert row["fps"] == 20 and row["instruction"].decode() == world.TASKS[0]
  with _episode(path) as file:
    demo = file["data/demo_0"]
    environment.reset(int(demo.attrs["seed"]))
    actions, pictures = demo["actions"][()], demo["obs/agentview_rgb"][()]
    assert demo["dones"][-1] == 1 and demo["dones"][()].sum() == 1
    assert demo["robot_states"].shape == (len(actions), 9)
    assert file["data"].attrs["total"] == sum(len(d["actions"]) for d in file["data"].values())
  np.testing.assert_allclose(row["action"].reshape(-1, 7), actions, atol=1e-7)
  for k, action in enumerate(actions):
    np.testing.assert_array_equal(environment.frame(), pictures[k])
    np.testing.assert_allclose(row["pose"][k], environment.hand[:3], atol=1e-6)
    if k % 40 == 0:
      assert _difference(row["frames"][k], environment.frame("eye_in_hand")) < 3
    turned = manipulation_libero.orientation(environment.hand[3:4])[0]
    np.testing.assert_allclose(row["orientation"][k], turned, atol=1e-6)
    done, success = environment.advance(action)
  assert done and success


def test_orientation_points_down():
  from scipy.spatial import transform

  yaw = np.array([-0.7, 0.0, 0.4])
  found = transform.Rotation.from_rotvec(manipulation_libero.orientation(yaw)).as_matrix()
  np.testing.assert_allclose(found[:, :, 2], [(0, 0, -1)] * 3, atol=1e-12)
  np.testing.assert_allclose(found[:, 0, 0], np.cos(yaw), atol=1e-12)
  np.testing.assert_allclose(found[:, 1, 0], np.sin(yaw), atol=1e-12)


# --- the embedded data set -----------------------------------------------------------------------


@pytest.fixture
def small_world(tmp_path, monkeypatch):
  monkeypatch.setenv("VISTRAJ_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(embedded.os, "cpu_count", lambda: 1)
  settings = {**manipulation_writer.SETTINGS, **SMALL, "episodes": 12}
  monkeypatch.setattr(manipulation_writer, "SETTINGS", settings)
  return tmp_path


def test_embedded_data_set(small_world):
  root = embedded.root("two_stream")
  assert root.parent == embedded.cache_folder() and embedded.root("two_stream") == root
  config = config_file.get_config()
  config.data.root = str(root)
  pairs = pipeline.load(config.data, "train", config.model)
  assert pairs.about()["frame_rate"] == 5 and pairs.trajectories.lengths.max() > 10
  assert embedded.demonstrations("bridge") == next(
    p for p in root.parent.iterdir() if p.name.startswith("manipulation-bridge") and p.is_dir()
  )


@pytest.mark.slow
def test_training_runs_as_it_stands(small_world):
  config = config_file.get_config("a,small")
  config.phases.pretrain.update(batch_size=8)
  del config.phases.pretrain.epochs, config.phases.pretrain.warmup_epochs
  config.phases.pretrain.update(steps=10, warmup_steps=1)
  config.eval_every, config.eval_batch_size = {"steps": 10}, 8
  summary = train.train(config, small_world / "run")["pretrain"]
  assert np.isfinite(summary["loss/val"]) and summary["psnr/copy"] > 15


# --- wrong input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
  "changes, sentence",
  [
    ({"layout": "robomimic"}, "--layout: 'robomimic' is not allowed; choose one of"),
    ({"episodes": 0}, "--episodes: 0 received; give 1 to 1000000"),
    ({"size": 8}, "--size: 8 received; give 16 to 1024"),
    ({"layout": "egodex", "size": 65}, "--size: 65 received; a video's side is even"),
    ({"spread": 2.0}, "--spread: 2.0 received; give 0 to 1"),
    ({"noise": -1.0}, "--noise: -1.0 received; give 0 to 1"),
  ],
)
def test_wrong_settings(tmp_path, changes, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    manipulation_writer.write(tmp_path / "o", {**manipulation_writer.SETTINGS, **changes})


def test_files_of_other_environments(tmp_path):
  import h5py

  path = tmp_path / "a.hdf5"
  with pytest.raises(checks.InputError, match="a.hdf5: no readable HDF5 file"):
    manipulation_libero.environment(path)
  with h5py.File(path, "w") as file:
    file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Libero"})
  with pytest.raises(checks.InputError, match="env_args name the environment 'Libero'; only those"):
    manipulation_libero.environment(path)


def test_other_settings_in_the_same_folder(rlds):
  settings = manipulation_writer.usual("bridge", {**SMALL, "episodes": 1})
  with pytest.raises(checks.InputError, match=r"prepared with other \['episodes'\]; delete it"):
    manipulation_writer.write(rlds, settings)
