"""Torch checkpoints without torch: files of torch 2.13, files we write, and hostile ones."""

import collections
import pathlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from vistraj_jax.convert import read_torch, write_torch
from vistraj_jax.core import checks

FILES = pathlib.Path(__file__).parent / "golden" / "torch_files"
WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def _zip_with_pickle(path, pickled):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickled)
    archive.writestr("archive/version", "3\n")
  return path


def test_views_of_torch():
  got = read_torch.read_checkpoint(FILES / "views.pt")
  base = np.arange(12, dtype=np.float32).reshape(3, 4)
  want = {
    "whole": base,
    "row": base[1],
    "transposed": base.T,
    "every_second": base[:, ::2],
    "expanded": np.full((2, 3), 7, np.float32),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
  }
  assert list(got) == list(want)
  for name, array in want.items():
    assert got[name].dtype == np.float32 and got[name].shape == array.shape
    assert got[name].flags.c_contiguous
    np.testing.assert_array_equal(got[name], array)


def test_dtypes_of_torch():
  got = read_torch.read_checkpoint(FILES / "dtypes.pt")
  assert len(got) == 13 and got["bfloat16"].dtype == ml_dtypes.bfloat16
  for name, array in got.items():
    assert str(array.dtype) == name
    np.testing.assert_array_equal(array.astype(np.complex64) != 0, [True, False, True])
  np.testing.assert_array_equal(got["float8_e4m3fn"].astype(np.float32), [1, 0, 3])


def test_lightning_like_file_of_torch():
  got = read_torch.read_checkpoint(FILES / "lightning_like.ckpt")
  np.testing.assert_array_equal(got["state_dict"]["weight"], WEIGHT)
  np.testing.assert_array_equal(got["parameter"], WEIGHT)
  np.testing.assert_array_equal(got["array"], WEIGHT)
  assert got["optimizer_states"][0]["param_groups"][0]["betas"] == (0.9, 0.999)
  assert (got["epoch"], got["global_step"], got["best"]) == (3, 2**40, 0.25)
  assert (got["where"], got["device"], got["dtype"]) == ("a/b", "cpu", "float32")
  assert got["shape"] == (3, 4)
  stopper = got["callbacks"]["stopper"]
  assert stopper.global_name == "lightning_like.Stopper" and stopper.state == {"patience": 7}
  assert got["hyper_parameters"].items == [("lr", 1e-4)]
  assert got["args"].state == {"batch": 8}


def test_written_file_comes_back(tmp_path):
  rng = np.random.default_rng(0)
  tensors = {
    "kernel": rng.normal(size=(3, 4)).astype(np.float32),
    "transposed": rng.normal(size=(3, 4)).astype(np.float32).T,
    "scalar": np.array(3.0, np.float64),
    "empty": np.zeros((0, 3), np.float32),
    "half": np.asarray([1, 2.5], ml_dtypes.bfloat16),
    "flags": np.array([True, False]),
  }
  plain = {
    "epoch": 0,
    "numbers": [-1, 2**31, -(2**31), 2**63, 0.1, None, (True, False)],
    3: "text",
    "nothing": {},
  }
  path = tmp_path / "a.pt"
  write_torch.write_checkpoint(path, {"ddpm": collections.OrderedDict(tensors), **plain})
  got = read_torch.read_checkpoint(path)
  state = got.pop("ddpm")
  assert got == plain and list(state) == list(tensors)
  for name, want in tensors.items():
    assert state[name].dtype == want.dtype and state[name].shape == want.shape
    np.testing.assert_array_equal(state[name], want)


def test_records_are_aligned_as_torch_aligns_them(tmp_path):
  path = tmp_path / "a.pt"
  write_torch.write_checkpoint(path, {"a": np.ones(3, np.float32), "b": np.ones(5, np.int8)})
  raw = path.read_bytes()
  with zipfile.ZipFile(path) as archive:
    assert [i.filename for i in archive.infolist() if "/data/" in i.filename] == [
      "archive/data/0",
      "archive/data/1",
    ]
    for info in archive.infolist():
      name_size, extra_size = raw[info.header_offset + 26], raw[info.header_offset + 28]
      assert (info.header_offset + 30 + name_size + extra_size) % 64 == 0


def test_safetensors_file(tmp_path):
  import safetensors.numpy

  path = tmp_path / "a.safetensors"
  safetensors.numpy.save_file({"w": WEIGHT}, path)
  np.testing.assert_array_equal(read_torch.read_checkpoint(path)["w"], WEIGHT)
  path.write_bytes(path.read_bytes()[:-4])
  with pytest.raises(checks.InputError, match=r"a\.safetensors: not a whole safetensors file"):
    read_torch.read_checkpoint(path)


class _Runs:
  """Pickles into a call of `function` with `args`."""

  def __init__(self, function, *args):
    self.call = function, args

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["eval", "exec", "__import__", "open", "getattr"])
def test_pickle_that_calls_builtins_is_refused(tmp_path, name, protocol):
  function = getattr(__import__("builtins"), name)
  pickled = pickle.dumps({"state_dict": _Runs(function, "1", "w")}, protocol)
  path = _zip_with_pickle(tmp_path / "evil.pt", pickled)
  with pytest.raises(checks.InputError, match=rf"evil\.pt: .*'\w+\.{name}'.*nothing was executed"):
    read_torch.read_checkpoint(path)


def test_pickle_that_runs_a_command_leaves_no_trace(tmp_path):
  import os

  trace = tmp_path / "trace"
  path = _zip_with_pickle(tmp_path / "evil.pt", pickle.dumps(_Runs(os.system, f"touch {trace}"), 2))
  with pytest.raises(checks.InputError, match=rf"'{os.system.__module__}\.system'"):
    read_torch.read_checkpoint(path)
  assert not trace.exists()


def test_module_import_by_name_is_not_done(tmp_path):
  (tmp_path / "payload.py").write_text("raise SystemExit('imported')")
  path = _zip_with_pickle(tmp_path / "evil.pt", b"\x80\x02cpayload\nThing\n)\x81.")
  got = read_torch.read_checkpoint(path)
  assert repr(got) == "<opaque payload.Thing>"


def test_legacy_and_script_files_of_torch():
  with pytest.raises(checks.InputError, match=r"legacy\.pth: written in torch's format before 1?"):
    read_torch.read_checkpoint(FILES / "legacy.pth")
  with pytest.raises(checks.InputError, match=r"script\.pt: a TorchScript archive"):
    read_torch.read_checkpoint(FILES / "script.pt")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_cut_file(tmp_path, keep):
  raw = (FILES / "lightning_like.ckpt").read_bytes()
  path = tmp_path / "cut.ckpt"
  path.write_bytes(raw[: int(len(raw) * keep)])
  with pytest.raises(checks.InputError, match=r"cut\.ckpt: the zip archive is cut or damaged"):
    read_torch.read_checkpoint(path)


def test_flipped_byte_in_a_tensor(tmp_path):
  path = tmp_path / "flipped.pt"
  write_torch.write_checkpoint(path, {"a": np.full(1000, 1.5, np.float32)})
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2] ^= 1
  path.write_bytes(raw)
  with pytest.raises(checks.InputError, match=r"flipped\.pt: the zip archive is cut or damaged"):
    read_torch.read_checkpoint(path)


def test_tensor_that_reaches_outside_its_storage(tmp_path):
  good = tmp_path / "good.pt"
  write_torch.write_checkpoint(good, {"a": np.ones(4, np.float32)})
  with zipfile.ZipFile(good) as archive:
    records = {name: archive.read(name) for name in archive.namelist()}
  size = b"(J\x04\x00\x00\x00t"
  assert records["archive/data.pkl"].count(size) == 1
  bad = tmp_path / "bad.pt"
  records["archive/data.pkl"] = records["archive/data.pkl"].replace(
    size, size.replace(b"\4", b"\5")
  )
  with zipfile.ZipFile(bad, "w") as archive:
    for name, data in records.items():
      archive.writestr(name, data)
  with pytest.raises(checks.InputError, match=r"bad\.pt: its pickle is damaged"):
    read_torch.read_checkpoint(bad)


@pytest.mark.parametrize(
  ("content", "sentence"),
  [
    (b"", "the file is empty"),
    (b"version https://git-lfs", r"starts with b'version '"),
    (pickle.dumps({"a": 1}), "a bare pickle"),
  ],
)
def test_other_files(tmp_path, content, sentence):
  path = tmp_path / "other.pt"
  path.write_bytes(content)
  with pytest.raises(checks.InputError, match=rf"other\.pt: .*{sentence}"):
    read_torch.read_checkpoint(path)


def test_missing_file_and_zip_of_something_else(tmp_path):
  with pytest.raises(checks.InputError, match=r"none\.pt: there is no such checkpoint file"):
    read_torch.read_checkpoint(tmp_path / "none.pt")
  path = tmp_path / "photos.zip"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a.jpg", b"")
  with pytest.raises(checks.InputError, match=r"without a data\.pkl.*a\.jpg"):
    read_torch.read_checkpoint(path)


def test_value_torch_cannot_hold(tmp_path):
  with pytest.raises(checks.InputError, match=r"a\.pt\['x'\]\[1\]: .* cannot hold a object"):
    write_torch.write_checkpoint(tmp_path / "a.pt", {"x": [1, object()]})
  with pytest.raises(checks.InputError, match=r"\['x'\]: torch has no tensors of <U1"):
    write_torch.write_checkpoint(tmp_path / "a.pt", {"x": np.array("a")})
  assert list(tmp_path.iterdir()) == []
