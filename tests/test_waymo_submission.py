"""Challenge submissions: golden bytes, archives, every kind of invalid one, the command."""

import dataclasses
import io
import json
import tarfile

import golden_cases
import numpy as np
import pytest
import waymo_shards as shards

from configs import vlm_waypoint as config_file
from launch import submit as launch_submit
from launch import train
from vistraj_jax.core import checks
from vistraj_jax.prepare.waymo_e2e import convert, submission, wire

NAMES = [f"{k:032x}-149" for k in range(5)]


def _submission(names=NAMES, **changes):
  rng = np.random.default_rng(0)
  values = {
    "predictions": {name: rng.normal(size=(20, 2)).astype(np.float32) for name in names},
    "account_name": "a@example.org",
    "unique_method_name": "m",
    "uses_public_model_pretraining": False,
    "num_model_parameters": "1M",
    **changes,
  }
  return submission.Submission(**values)


def test_golden_bytes():
  case = golden_cases.load("vlm_waypoint", "submission")
  config = case.config
  made = submission.Submission(
    predictions=dict(zip(case.arrays["frame_name"], case.arrays["trajectory"], strict=True)),
    authors=tuple(config["authors"]),
    public_model_names=tuple(config["public_model_names"]),
    **{
      name: config[name]
      for name in (
        *("account_name", "unique_method_name", "affiliation", "description", "method_link"),
        *("uses_public_model_pretraining", "num_model_parameters"),
      )
    },
  )
  data = case.arrays["serialized"].tobytes()
  assert submission.write_submission(made) == data
  found = submission.read_submission(data)
  assert list(found.predictions) == case.arrays["frame_name"].tolist()
  np.testing.assert_array_equal(list(found.predictions.values()), case.arrays["trajectory"])
  assert dataclasses.replace(found, predictions={}) == dataclasses.replace(made, predictions={})


def test_archive_holds_exactly_the_listed_frames(tmp_path, monkeypatch):
  monkeypatch.setattr(submission, "_FRAMES_PER_FILE", 2)
  listed = NAMES[1:][::-1]
  report = submission.write_archive(tmp_path / "a.tar.gz", _submission(), listed)
  assert (report["files"], report["frames"], report["account_name"]) == (2, 4, "a@example.org")
  with tarfile.open(tmp_path / "a.tar.gz") as archive:
    assert archive.getnames() == [f"submission.binproto-0000{k}-of-00002" for k in (0, 1)]
    parts = [submission.read_submission(archive.extractfile(e).read()) for e in archive]
  assert [name for part in parts for name in part.predictions] == listed
  for part in parts:
    for name, xy in part.predictions.items():
      np.testing.assert_array_equal(xy, _submission().predictions[name])
  first = (tmp_path / "a.tar.gz").read_bytes()
  submission.write_archive(tmp_path / "a.tar.gz", _submission(), listed)
  assert (tmp_path / "a.tar.gz").read_bytes() == first


def _archive(path, *parts):
  with tarfile.open(path, "w:gz") as archive:
    for number, part in enumerate(parts):
      data = part if isinstance(part, bytes) else submission.write_submission(part)
      entry = tarfile.TarInfo(f"part{number}")
      entry.size = len(data)
      archive.addfile(entry, io.BytesIO(data))
  return path


def _wrong(index, xy):
  predictions = _submission().predictions
  return _submission(predictions={**predictions, NAMES[index]: np.asarray(xy, np.float32)})


WRONG = {
  "missing": ((_submission(NAMES[:3]),), rf"2 frames are missing: {NAMES[3]}, {NAMES[4]}"),
  "unknown": ((_submission([*NAMES, "x-1"]),), "1 frames are not listed: x-1"),
  "repeated": (
    (_submission(), _submission(NAMES[:1])),
    f"1 frames occur more than once: {NAMES[0]}",
  ),
  "points": ((_wrong(2, np.ones((19, 2))),), f"1 frames do not have 20 points: {NAMES[2]}"),
  "finite": ((_wrong(1, np.full((20, 2), np.inf)),), f"not finite: {NAMES[1]}"),
  "account": ((_submission(account_name=""),), "part0 does not say account_name"),
  "pretraining": (
    (_submission(uses_public_model_pretraining=None),),
    "does not say uses_public_model_pretraining",
  ),
  "type": ((_submission(submission_type=2),), "of submission type 2, not 1"),
  "other": (
    (_submission(NAMES[:2]), _submission(NAMES[2:], affiliation="x")),
    "part1 says other things about the submission than part0",
  ),
  "bytes": ((b"\xff" * 9,), "part0: no challenge submission"),
  "lengths": (
    (
      wire.message(1, wire.message(2, wire.packed_floats([[1.0]] * 3, (1,)) + wire.float_(2, 0.0))),
    ),
    "columns of different lengths",
  ),
  "nothing": ((), "the archive holds no file"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_invalid_archives(tmp_path, kind):
  parts, sentence = WRONG[kind]
  path = _archive(tmp_path / "a.tar.gz", *parts)
  with pytest.raises(checks.InputError, match=sentence):
    submission.check_archive(path, NAMES)


def test_twice_in_one_file(tmp_path):
  data = submission.write_submission(_submission())
  again = wire.message(1, wire.message(1, NAMES[0]) + wire.message(2, b""))
  with pytest.raises(checks.InputError, match="1 frames occur more than once.*do not have 20"):
    submission.check_archive(_archive(tmp_path / "a.tar.gz", data + again), NAMES)


def test_nothing_invalid_is_written(tmp_path):
  out = tmp_path / "a.tar.gz"
  with pytest.raises(checks.InputError, match="1 of 6 listed frames have no prediction: y-2"):
    submission.write_archive(out, _submission(), [*NAMES, "y-2"])
  with pytest.raises(checks.InputError, match="a.tar.gz: no valid submission: .* not finite"):
    submission.write_archive(out, _wrong(0, np.full((20, 2), np.nan)), NAMES)
  with pytest.raises(checks.InputError, match="a name that ends in .tar.gz"):
    submission.write_archive(tmp_path / "a.zip", _submission(), NAMES)
  assert list(tmp_path.iterdir()) == []
  out.write_bytes(b"no archive")
  with pytest.raises(checks.InputError, match="no .tar.gz archive"):
    submission.check_archive(out, NAMES)
  with pytest.raises(checks.InputError, match="b.tar.gz: no such file"):
    submission.check_archive(tmp_path / "b.tar.gz", NAMES)


def test_lists_of_frames(tmp_path):
  (tmp_path / "a.json").write_text(json.dumps({"ab": 7, "cd": 149}))
  (tmp_path / "a.txt").write_text("ab-007\n\ncd-149\n")
  assert submission.read_listed(tmp_path / "a.json") == ["ab-007", "cd-149"]
  assert submission.read_listed(tmp_path / "a.txt") == ["ab-007", "cd-149"]
  for name, text, sentence in (
    ("b.json", "[1]", r"wants {sequence: index}"),
    ("c.json", "{", "no JSON"),
    ("d.txt", "a-1\na-1\n", "a-1 listed twice"),
    ("e.txt", "", "lists no frame"),
  ):
    (tmp_path / name).write_text(text)
    with pytest.raises(checks.InputError, match=sentence):
      submission.read_listed(tmp_path / name)
  with pytest.raises(checks.InputError, match="nowhere.json: no such file"):
    submission.read_listed(tmp_path / "nowhere.json")


def _arguments(tmp_path, *more):
  (tmp_path / "list.txt").write_text("\n".join(NAMES))
  return [
    *("--frames", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out.tar.gz")),
    *("--account_name", "a@example.org", "--unique_method_name", "m", "--pretrained", "no"),
    *("--num_model_parameters", "1M", *map(str, more)),
  ]


def test_command_with_predictions(tmp_path, capsys):
  found = _submission().predictions
  np.savez(tmp_path / "p.npz", name=list(found), xy=np.array(list(found.values())))
  launch_submit.main(_arguments(tmp_path, "--predictions", tmp_path / "p.npz"))
  assert "5 frames in 1 files, valid" in capsys.readouterr().out
  launch_submit.main(
    ["--check", str(tmp_path / "out.tar.gz"), "--frames", str(tmp_path / "list.txt")]
  )
  assert "m of a@example.org" in capsys.readouterr().out
  np.savez(tmp_path / "q.npz", xy=np.ones((5, 20, 2)))
  for more, sentence in (
    ((), r"either --run or --predictions, \[\] received"),
    (("--predictions", tmp_path / "q.npz"), "wants name and xy"),
    (("--predictions", tmp_path / "r.npz"), "no such file"),
    (("--predictions", tmp_path / "p.npz", "--account_name", ""), "--account_name: not given"),
    (("--run", tmp_path), "neither the folder of a run"),
  ):
    with pytest.raises(checks.InputError, match=sentence):
      launch_submit.main(_arguments(tmp_path, *more))


def test_listed_frames_that_the_data_lacks(tmp_path):
  frame = shards.frame(NAMES[0][:32], 149, future=np.zeros((0, 3), np.float32))
  shards.write(tmp_path / "s", "test", [[shards.payload(frame)]])
  convert.prepare(tmp_path / "s", tmp_path / "data", size=16)
  (tmp_path / "run").mkdir()
  data = {"visual": "none", "root": "elsewhere"}
  (tmp_path / "run" / "config.json").write_text(json.dumps({"data": data, "model": {}}))
  with pytest.raises(
    checks.InputError, match=f"4 of 5 listed frames are not in the test split, {NAMES[1]}"
  ):
    launch_submit.main(_arguments(tmp_path, "--run", tmp_path / "run", "--data", tmp_path / "data"))
  with pytest.raises(checks.InputError, match="--data: not given"):
    launch_submit.main(_arguments(tmp_path, "--run", tmp_path / "run"))


def test_command_with_a_run(tmp_path):
  future = np.zeros((0, 3), np.float32)
  for split, sequences, changes in (
    ("train", ["a" * 32], {}),
    ("val", ["b" * 32], {}),
    ("test", [name[:32] for name in NAMES], {"future": future}),
  ):
    frames = [shards.frame(s, 145 + k, **changes) for s in sequences for k in range(5)]
    shards.write(tmp_path / "s", split, [[shards.payload(f) for f in frames]])
  convert.prepare(tmp_path / "s", tmp_path / "data", size=16)
  config = config_file.get_config("ego_only")
  config.data.root, config.data.dev_share = str(tmp_path / "data"), 0.0
  config.steps_per_call, config.eval_batch_size = 2, 8
  config.eval_every = {"steps": 2}
  del config.phases.head.epochs
  config.phases.head.update(steps=2, warmup_steps=1, batch_size=4)
  config.lock()
  train.train(config, tmp_path / "run")
  more = ("--run", tmp_path / "run", "--data", tmp_path / "data", "--batch_size", 2)
  launch_submit.main(_arguments(tmp_path, *more))
  report = submission.check_archive(tmp_path / "out.tar.gz", NAMES)
  assert report["frames"] == 5 and report["median_end"] > 0
