"""Example bytes <-> arrays, against the serializer and parser of TensorFlow Datasets."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from vistraj_jax.core import checks
from vistraj_jax.data import example, records

SPEC = {
  "name": ("bytes", ()),
  "number": ("int64", ()),
  "rate": ("float32", ()),
  "frames": ("int64", (None,)),
  "boxes": ("float32", (None, 4)),
  "matrix": ("float32", (2, 3)),
}
VALUES = {
  "name": "scène",
  "number": -7,
  "rate": 12.5,
  "frames": np.array([1, 2, 2**40]),
  "boxes": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
  "matrix": np.ones((2, 3), np.float32),
}


def _features():
  tensor = tfds.features.Tensor
  return tfds.features.FeaturesDict(
    {
      "name": tfds.features.Text(),
      "number": np.int64,
      "rate": np.float32,
      "frames": tensor(shape=(None,), dtype=np.int64),
      "boxes": tensor(shape=(None, 4), dtype=np.float32),
      "matrix": tensor(shape=(2, 3), dtype=np.float32),
    }
  )


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_round_trip(rows):
  values = {**VALUES, "frames": VALUES["frames"][:rows], "boxes": VALUES["boxes"][:rows]}
  found = example.decode(example.encode(values, SPEC), SPEC)
  assert found["boxes"].shape == (rows, 4) and found["boxes"].dtype == np.float32
  assert found["name"] == "scène".encode()
  for name in ("number", "rate", "frames", "boxes", "matrix"):
    np.testing.assert_array_equal(found[name], np.asarray(values[name], SPEC[name][0]))


def test_bytes_do_not_depend_on_the_order_of_fields():
  backwards = dict(reversed(VALUES.items()))
  assert example.encode(VALUES, SPEC) == example.encode(backwards, SPEC)


def test_tfds_reads_ours_and_we_read_theirs():
  features = _features()
  ours = example.encode(VALUES, SPEC)
  read = features.deserialize_example_np(ours)
  np.testing.assert_array_equal(read["boxes"], VALUES["boxes"])
  assert read["name"] == "scène".encode() and read["number"] == -7
  serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
  theirs = serializer.serialize_example(features.encode_example(VALUES))
  found, wanted = example.decode(theirs, SPEC), example.decode(ours, SPEC)
  assert found.keys() == wanted.keys()
  for name in wanted:
    np.testing.assert_array_equal(found[name], wanted[name])


def test_lists_of_bytes():
  spec = {"images": ("bytes", (None,))}
  found = example.decode(example.encode({"images": [b"a", b"bc"]}, spec), spec)
  assert found == {"images": [b"a", b"bc"]}


@pytest.mark.parametrize(
  ("spec", "sentence"),
  [
    ({"other": ("int64", ())}, r"r 3: the record has no field 'other'; it has \['boxes', 'fr"),
    ({"rate": ("int64", ())}, "r 3: field 'rate' holds a float_list, a int64_list is wanted"),
    ({"frames": ("int64", ())}, r"r 3: field 'frames' has 3 values for \(\)"),
    ({"boxes": ("float32", (None, 5))}, r"r 3: field 'boxes' has 12 values for \(None, 5\)"),
  ],
)
def test_wrong_records(spec, sentence):
  with pytest.raises(checks.InputError, match=sentence):
    example.decode(example.encode(VALUES, SPEC), spec, "r 3")


def test_bytes_that_are_no_example():
  with pytest.raises(checks.InputError, match="r 3: the record is no tf.train.Example"):
    example.decode(b"\xff\xff\xff", SPEC, "r 3")


def test_wrong_values_are_not_written():
  with pytest.raises(checks.InputError, match=r"field 'boxes': shape \(3, 3\) received"):
    example.encode({**VALUES, "boxes": np.zeros((3, 3))}, SPEC)
  with pytest.raises(checks.InputError, match=r"fields \['name'\] received"):
    example.encode({"name": "x"}, SPEC)


def test_tfds_opens_the_folder(tmp_path):
  data = example.encode(VALUES, SPEC)
  paths = [records.shard_path(tmp_path, "tracks", "train", i, 2) for i in range(2)]
  for path, count in zip(paths, (2, 1), strict=True):
    records.write_records(path, [data] * count)
  size = sum(p.stat().st_size for p in paths)
  example.write_tfds_metadata(tmp_path, SPEC, {"train": ([2, 1], size)}, "Three records.")
  builder = tfds.builder_from_directory(tmp_path)
  assert builder.info.splits["train"].num_examples == 3
  assert [str(p) for p in builder.info.splits["train"].filepaths] == [str(p) for p in paths]
  read = builder.info.features.deserialize_example_np(records.TFRecordSource(paths)[2])
  np.testing.assert_array_equal(read["boxes"], VALUES["boxes"])
