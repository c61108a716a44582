"""Published weights: only what is needed is read, every naming fits, bad files are refused."""

import hashlib
import json
import pathlib

import golden_cases
import huggingface_hub
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from huggingface_hub import errors

from vistraj_jax import encoders
from vistraj_jax.convert import apply, pretrained, safetensors_file, write_torch
from vistraj_jax.convert import encoders as names
from vistraj_jax.core import checks, weights

TINY = {"hidden_size": 96, "depth": 2, "num_heads": 4, "mlp_width": 192, "image_size": 56}
ENCODER = encoders.make("smolvlm_tower", **TINY)
WANT = ENCODER.shapes()


@pytest.fixture(scope="module")
def tensors():
  return golden_cases.load("vlm_waypoint", "idefics3_vision_tiny").checkpoint()


@pytest.fixture(scope="module")
def params(tensors):
  return pretrained.from_tensors(tensors, "smolvlm_tower", WANT, "case")


def _equal(found, wanted):
  found, wanted = weights.flatten(found), weights.flatten(wanted)
  assert list(found) == list(wanted)
  for name, array in wanted.items():
    np.testing.assert_array_equal(found[name], array, name)


def _write_header(path, entries, size):
  """Writes a safetensors file of `size` data bytes, of which only the given arrays are stored."""
  header, data, position = {}, {}, 0
  for name, (dtype, shape, length, array) in entries.items():
    offsets = [position, position + length]
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    data[position] = array
    position += length
  text = json.dumps(header).encode()
  with open(path, "wb") as f:
    f.write(len(text).to_bytes(8, "little") + text)
    start = f.tell()
    for offset, array in data.items():
      if array is not None:
        f.seek(start + offset)
        f.write(array.tobytes())
    f.truncate(start + position)
  assert position == size


def _read_bytes():
  """Bytes this process has read so far."""
  lines = pathlib.Path("/proc/self/io").read_text().splitlines()
  return int(dict(line.split(": ") for line in lines)["rchar"])


def test_only_the_encoder_is_read(tmp_path, tensors, params):
  # The decoder of this file has 64 GB, all of it a hole in the file.
  hole = 32 << 30
  half = hole // 2
  entries = {
    "model.text_model.embed_tokens.weight": ("BF16", [half // 1024, 1024], hole, None),
    **{n: ("F32", list(t.shape), t.nbytes, t) for n, t in tensors.items()},
    "lm_head.weight": ("BF16", [half // 1024, 1024], hole, None),
  }
  needed = sum(t.nbytes for t in tensors.values())
  _write_header(tmp_path / "model.safetensors", entries, 2 * hole + needed)
  before = _read_bytes()
  found = pretrained.load_pretrained(tmp_path, "smolvlm_tower", WANT)
  assert _read_bytes() - before < needed + 100_000
  _equal(found, params)


def test_shards_that_hold_no_part_are_not_touched(tmp_path, tensors, params):
  parts = [dict(list(tensors.items())[:20]), dict(list(tensors.items())[20:])]
  index = {}
  for i, part in enumerate(parts):
    safetensors.numpy.save_file(part, tmp_path / f"{i}.safetensors")
    index |= dict.fromkeys(part, f"{i}.safetensors")
  index["model.text_model.norm.weight"] = "absent.safetensors"
  (tmp_path / pretrained.INDEX).write_text(json.dumps({"weight_map": index}))
  _equal(pretrained.load_pretrained(tmp_path, "smolvlm_tower", WANT), params)
  files = pretrained.files_of(tmp_path, "smolvlm_tower")
  assert [p.name for p in files] == ["0.safetensors", "1.safetensors"]
  digests = [hashlib.sha256(p.read_bytes()).hexdigest() for p in files]
  both = hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
  pretrained.load_pretrained(tmp_path, "smolvlm_tower", WANT, sha256=both)
  (tmp_path / "1.safetensors").unlink()
  with pytest.raises(checks.InputError, match=r"shards \['1.safetensors'\] are missing"):
    pretrained.load_pretrained(tmp_path, "smolvlm_tower", WANT)


def test_sha256(tmp_path, tensors):
  path = tmp_path / "model.safetensors"
  safetensors.numpy.save_file(tensors, path)
  right = hashlib.sha256(path.read_bytes()).hexdigest()
  pretrained.load_pretrained(path, "smolvlm_tower", WANT, sha256=right.upper())
  with pytest.raises(checks.InputError, match=f"its sha256 is {right}, wanted 00.*other weights"):
    pretrained.load_pretrained(path, "smolvlm_tower", WANT, sha256="00")


@pytest.mark.parametrize(
  "prefix",
  [*("model." * n + "vision_model." * m for n in (0, 1) for m in (1, 2)), ""],
)
def test_prefixes(prefix, tensors, params):
  found = {n.replace("model.vision_model.", prefix): t for n, t in tensors.items()}
  found["model.connector.modality_projection.proj.weight" if prefix else "head.probe"] = np.ones(1)
  _equal(pretrained.from_tensors(found, "smolvlm_tower", WANT, "file"), params)


def test_pytorch_file(tmp_path, tensors, params):
  write_torch.write_checkpoint(tmp_path / "tower.pth", {"model": tensors, "epoch": 3})
  _equal(pretrained.load_pretrained(tmp_path / "tower.pth", "smolvlm_tower", WANT), params)


def test_half_precision(tmp_path, tensors, params):
  half = {n: t.astype(ml_dtypes.bfloat16) for n, t in tensors.items()}
  safetensors.numpy.save_file(half, tmp_path / "model.safetensors")
  found = pretrained.load_pretrained(tmp_path, "smolvlm_tower", WANT)
  _equal(found, jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params))
  kept = pretrained.load_pretrained(tmp_path, "smolvlm_tower", WANT, dtype=ml_dtypes.bfloat16)
  assert kept["final_norm"]["scale"].dtype == ml_dtypes.bfloat16


def test_missing_unused_and_misshapen_tensors_are_listed(tensors):
  found = dict(tensors)
  del found["model.vision_model.post_layernorm.bias"]
  found["model.vision_model.encoder.layers.2.mlp.fc1.bias"] = np.zeros(192, np.float32)
  found["model.vision_model.post_layernorm.weight"] = np.zeros(95, np.float32)
  sentence = (
    r"FILE: .*1 missing: post_layernorm.bias \(96,\); "
    r"1 extra: encoder.layers.2.mlp.fc1.bias \(192,\); "
    r"1 misshapen: post_layernorm.weight \(95,\) where \(96,\) is wanted"
  )
  with pytest.raises(checks.InputError, match=sentence):
    pretrained.from_tensors(found, "smolvlm_tower", WANT, "FILE")
  with pytest.raises(checks.InputError, match="holds no tensor of encoder 'sam_vit_b'"):
    pretrained.from_tensors(tensors, "sam_vit_b", {}, "FILE")


def test_a_folder_without_weights_and_a_name_that_is_none(tmp_path):
  with pytest.raises(checks.InputError, match="has neither model.safetensors nor model.safeten"):
    pretrained.load_pretrained(tmp_path, "smolvlm_tower", WANT)
  with pytest.raises(checks.InputError, match="no such file or folder, and it is no name of a hub"):
    pretrained.load_pretrained(tmp_path / "absent", "smolvlm_tower", WANT)


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_cut_files(tmp_path, tensors, keep):
  path = tmp_path / "model.safetensors"
  safetensors.numpy.save_file(tensors, path)
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(checks.InputError, match="not a whole safetensors file"):
    safetensors_file.entries(path)


def test_hub(tmp_path, monkeypatch, tensors, params):
  """The hub is asked for one file, and only for the name of a repository."""
  safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
  asked = []

  def download(repository, name):
    asked.append((repository, name))
    if repository == "someone/else":
      raise errors.EntryNotFoundError("404")
    if repository == "no/network":
      raise errors.LocalEntryNotFoundError("offline")
    return str(tmp_path / name)

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
  pretrained.load_pretrained(tmp_path, "smolvlm_tower", WANT)
  assert not asked
  _equal(pretrained.load_pretrained("owner/name", "smolvlm_tower", WANT), params)
  assert asked == [("owner/name", "model.safetensors")]
  with pytest.raises(checks.InputError, match="someone/else: has neither"):
    pretrained.load_pretrained("someone/else", "smolvlm_tower", WANT)
  with pytest.raises(checks.InputError, match="the hub gave no model.safetensors"):
    pretrained.load_pretrained("no/network", "smolvlm_tower", WANT)


CASES = {
  "idefics3_vision_tiny": ("smolvlm_tower", TINY),
  "siglip_vision_tiny": ("siglip_so400m", {**TINY, "pool": "siglip_head"}),
  "internvit_tiny": ("internvit_300m", TINY),
  "sam_vit_tiny": (
    "sam_vit_b",
    {"hidden_size": 64, "depth": 3, "num_heads": 4, "mlp_width": 256, "image_size": 128}
    | {"window": 3, "global_layers": (1,), "neck_width": 32},
  ),
  "sam2_hiera_tiny": (
    "sam2_hiera_tiny",
    {"image_size": 224, "embed_dim": 24, "stages": (1, 2, 3, 2), "global_blocks": (4,)},
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_naming_of_every_encoder(case):
  """Written with any of its sources' names, a network is read back; the first is the golden one."""
  name, fields = CASES[case]
  tensors = golden_cases.load("vlm_waypoint", case).checkpoint()
  want = encoders.make(name, **fields).shapes()
  tree = pretrained.from_tensors(tensors, name, want, "golden")
  exported = pretrained.export(tree, name, want)
  assert {n: t.shape for n, t in exported.items()} == {n: t.shape for n, t in tensors.items()}
  for n, array in exported.items():
    np.testing.assert_array_equal(array, tensors[n], n)
  for source in names.SOURCES[name]:
    named = source.pack(apply.to_source(source.table, weights.flatten(tree), want, "case"))
    if not source.prefix:
      _equal(pretrained.from_tensors(named, name, want, "file"), tree)


def test_sam_by_meta_and_without_neck():
  name, fields = CASES["sam_vit_tiny"]
  tensors = golden_cases.load("vlm_waypoint", "sam_vit_tiny").checkpoint()
  want = encoders.make(name, **fields).shapes()
  tree = pretrained.from_tensors(tensors, name, want, "golden")
  changes = (
    ("vision_encoder.", "image_encoder."),
    ("patch_embed.projection", "patch_embed.proj"),
    ("layers.", "blocks."),
    ("layer_norm1", "norm1"),
    ("layer_norm2", "norm2"),
    ("neck.conv1", "neck.0"),
    ("neck.norm1", "neck.1"),
    ("neck.conv2", "neck.2"),
    ("neck.norm2", "neck.3"),
  )
  meta = {}
  for n, array in tensors.items():
    for old, new in changes:
      n = n.replace(old, new)
    meta[n] = array
  meta["mask_decoder.iou_token.weight"] = np.zeros(4, np.float32)
  _equal(pretrained.from_tensors(meta, name, want, "meta"), tree)
  bare = encoders.make(name, **{**fields, "neck_width": None})
  found = pretrained.from_tensors(meta, name, bare.shapes(), "meta")
  assert "neck" not in found and bare.width == 64


def test_internvit_as_the_library_names_it():
  name, fields = CASES["internvit_tiny"]
  tensors = golden_cases.load("vlm_waypoint", "internvit_tiny").checkpoint()
  want = encoders.make(name, **fields).shapes()
  tree = pretrained.from_tensors(tensors, name, want, "golden")
  changes = (
    ("vision_model.", "model.vision_tower."),
    ("class_embedding", "cls_token"),
    ("patch_embedding.", "patch_embeddings.projection."),
    ("position_embedding", "position_embeddings"),
    ("layers.", "layer."),
    ("norm1", "layernorm_before"),
    ("norm2", "layernorm_after"),
    ("attn.proj", "attention.projection_layer"),
    ("ls1", "lambda_1"),
    ("ls2", "lambda_2"),
  )
  library = {}
  for n, array in tensors.items():
    for old, new in changes:
      n = n.replace(old, new)
    if "attn.qkv" in n:
      for letter, third in zip("qkv", np.split(array, 3), strict=True):
        library[n.replace("attn.qkv", f"attention.{letter}_proj")] = third
    else:
      library[n] = array
  _equal(pretrained.from_tensors(library, name, want, "library"), tree)
