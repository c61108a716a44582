"""tf.train.Example bytes <-> numpy arrays, and TFDS metadata, without TensorFlow.

A specification is `{name: (dtype, shape)}`: dtype "int64", "float32" or "bytes"; shape is a tuple
in which at most the first size may be None (any). Scalars have shape `()`; text is UTF-8 bytes.
"""

import functools
import math

import numpy as np

from vistraj_jax.core import checks

_LISTS = {"int64": "int64_list", "float32": "float_list", "bytes": "bytes_list"}


def encode(values, spec):
  """Returns the serialized Example of `values` {name: array, number, str or bytes} by `spec`.

  The bytes depend on the values only (fields in sorted order).
  """
  checks.require(
    values.keys() == spec.keys(),
    f"example: fields {sorted(values)} received, {sorted(spec)} wanted.",
  )
  example = _example_class()()
  for name, (dtype, shape) in spec.items():
    feature = getattr(example.features.feature[name], _LISTS[dtype])
    if dtype == "bytes":
      value = [values[name]] if shape == () else values[name]
      feature.value.extend(v.encode() if isinstance(v, str) else v for v in value)
    else:
      array = np.asarray(values[name], dtype)
      checks.shape(f"example field {name!r}", array, shape)
      feature.value.extend(array.ravel().tolist())
      if array.size == 0:  # an unset list would lose the type
        feature.SetInParent()
  return example.SerializeToString(deterministic=True)


def decode(data, spec, where="example"):
  """Parses serialized Example bytes to {name: value}.

  Numbers become arrays of the specified shape (scalars become 0-d arrays), bytes stay bytes (a
  list of bytes where the shape is not `()`). Fields that `spec` does not name are ignored.

  Raises:
    InputError: not an Example, or a field is missing, of another type or of another size;
      `where` names the record.
  """
  from google.protobuf import message

  example = _example_class()()
  try:
    example.ParseFromString(data)
  except message.DecodeError:
    raise checks.InputError(f"{where}: the record is no tf.train.Example.") from None
  features = example.features.feature
  values = {}
  for name, (dtype, shape) in spec.items():
    if name not in features:
      raise checks.InputError(
        f"{where}: the record has no field {name!r}; it has {sorted(features)}."
      )
    feature = features[name]
    kind = feature.WhichOneof("kind")
    # An empty list may come without a type: other writers leave the feature unset.
    if kind != _LISTS[dtype] and not (kind is None and shape[:1] == (None,)):
      raise checks.InputError(
        f"{where}: field {name!r} holds a {kind}, a {_LISTS[dtype]} is wanted."
      )
    message_list = getattr(feature, _LISTS[dtype])
    content = message_list.value
    if dtype == "bytes" and shape != ():
      values[name] = list(content)
      continue
    size = math.prod(s for s in shape if s is not None)
    if len(content) % size if None in shape else len(content) != size:
      raise checks.InputError(f"{where}: field {name!r} has {len(content)} values for {shape}.")
    if dtype == "bytes":
      values[name] = content[0]
    else:
      values[name] = _array(message_list, dtype).reshape([-1 if s is None else s for s in shape])
  return values


def places(payload, values):
  """Where the values of a bytes field lie in a serialized Example, so that one can be read alone.

  Args:
    payload: bytes of the Example.
    values: list of bytes of the field, as `decode` returns it.

  Returns:
    int64 [N, 2]: first byte and length of each.
  """
  table, position = [], 0
  for value in values:  # they are serialized in order
    position = payload.index(value, position)
    table.append((position, len(value)))
    position += len(value)
  return np.array(table, np.int64).reshape(-1, 2)


def write_tfds_metadata(root, spec, splits, description, features=None):
  """Writes the JSON files by which `tfds.builder_from_directory(root)` opens the shards there.

  Args:
    root: folder with `{name}-{split}.tfrecord-XXXXX-of-YYYYY` of one data set.
    spec: specification of the records.
    splits: {split: ([records of each shard], bytes of all shards)}.
    description: text for people.
    features: function without arguments that returns the `tfds.features.FeaturesDict` of records
      with a structure of their own; by default `spec` is told, field by field.
  """
  import tensorflow_datasets as tfds

  template = tfds.core.ShardedFileTemplate(
    data_dir=root, template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
  )

  def feature(dtype, shape):
    if dtype != "bytes":
      return tfds.features.Tensor(shape=shape, dtype=np.dtype(dtype))
    return tfds.features.Sequence(tfds.features.Text()) if shape else tfds.features.Text()

  flat = {field: feature(*form) for field, form in spec.items()}
  tfds.folder_dataset.write_metadata(
    data_dir=root,
    features=features() if features else tfds.features.FeaturesDict(flat),
    split_infos=[
      tfds.core.SplitInfo(
        name=split, shard_lengths=list(counts), num_bytes=size, filename_template=template
      )
      for split, (counts, size) in splits.items()
    ],
    filename_template=template,
    description=description,
    check_data=False,  # that check needs TensorFlow
  )


def _array(message_list, dtype):
  """Returns the numbers of a FloatList or Int64List as a flat array."""
  count = len(message_list.value)
  if dtype == "int64":
    return np.fromiter(message_list.value, np.int64, count)
  # The serialized list ends in the packed floats; reading them one by one takes ten times as long.
  packed = message_list.SerializeToString()
  return np.frombuffer(packed, "<f4", count, len(packed) - 4 * count).astype(np.float32)


@functools.cache
def _example_class():
  from tensorflow_datasets.proto import tf_example_pb2

  return tf_example_pb2.Example
