"""Features of pairs of frames by frozen two-stream encoders, computed once and kept in files."""

import functools
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

from vistraj_jax.core import files

TOKENS = "tokens"  # patch tokens of the streams, beside the readouts


class Encoder(NamedTuple):
  """A frozen encoder.

  Attributes:
    network: Flax module with `encode`.
    params: nested dict, without those of decoders.
    model: config.model of it.
    identity: hash of all that decides its features.
    encode: compiled function (params, batch, with_tokens) -> features.
  """

  network: Any
  params: Any
  model: dict
  identity: str
  encode: Any


def data_root(text):
  """Returns the folder that --data names; embedded[:LAYOUT] is made on first use."""
  from vistraj_jax.prepare import embedded

  name, _, layout = text.partition(":")
  return str(embedded.two_stream_root(layout or "libero")) if name == "embedded" else text


def load_encoder(path):
  """Returns the `Encoder` of a run or weights file; see `trained.load_variables`."""
  import jax

  from vistraj_jax.models.two_stream import settings

  network, variables, model = settings.load(path)
  encode = jax.jit(functools.partial(_features, network), static_argnums=2)
  return _encoder(network, variables, model, encode)


def randomized(encoder, seed):
  """Returns the encoder with random weights: the control."""
  import jax

  from vistraj_jax.models.two_stream import settings

  variables = jax.device_get(settings.init(encoder.network, jax.random.PRNGKey(seed)))
  return _encoder(encoder.network, variables, encoder.model, encoder.encode)


def features(encoder, pairs, index, folder, label, *, with_tokens=False, batch_size=64):
  """Returns {readout: float32 [N, D or 2 D]}, read from a file that the first call writes.

  Args:
    encoder: `Encoder`.
    pairs: `two_stream_actions.FramePairs`.
    index: int [N, 3], what `pairs` was made of; it is part of the file's name.
    folder: where the files lie.
    label: first part of the file's name, and of the progress bar.
    with_tokens: whether TOKENS float16 [N, streams, patches, D] are kept too.
    batch_size: pairs a call, over all devices.
  """
  import numpy as np

  about = f"{encoder.identity} {pairs.identity} {with_tokens}".encode()
  key = hashlib.sha256(about + np.ascontiguousarray(index).tobytes()).hexdigest()[:16]
  path = pathlib.Path(folder) / f"{label}-{key}.npz"
  if not path.is_file():
    found = _encode(encoder, pairs, len(index), label, with_tokens, batch_size)
    with files.atomic_path(path) as temporary:
      np.savez(temporary, **found)
  with np.load(path) as stored:
    return {name: stored[name] for name in stored.files}


def _encoder(network, variables, model, encode):
  from vistraj_jax.core import weights
  from vistraj_jax.models.two_stream import settings

  params = settings.encoder_params(variables["params"])
  digest = hashlib.sha256(json.dumps(model, sort_keys=True).encode())
  for name, leaf in weights.flatten(params).items():
    digest.update(name.encode())
    digest.update(leaf.tobytes())
  return Encoder(network, params, model, digest.hexdigest()[:16], encode)


def _features(net, params, batch, with_tokens):
  import jax.numpy as jnp

  from vistraj_jax.models.two_stream import network

  images = batch["img_prev"], batch["img_curr"]
  encoding = net.apply({"params": params}, *images, method="encode")
  found = {kind: network.readout(encoding, kind) for kind in network.readouts_of(encoding)}
  if with_tokens:
    found[TOKENS] = network.streams_of(encoding).astype(jnp.float16)
  return found


def _encode(encoder, pairs, count, label, with_tokens, batch_size):
  import jax
  import numpy as np
  import tqdm
  from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

  from launch import batches

  devices = jax.local_devices()
  batch_size = -(-batch_size // len(devices)) * len(devices)
  mesh = Mesh(devices, ("data",), axis_types=(AxisType.Auto,))
  rows, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data",), ()))
  params = jax.device_put(encoder.params, whole)
  call = lambda batch: encoder.encode(params, jax.device_put(batch, rows), with_tokens)  # noqa: E731
  found = {}
  with tqdm.tqdm(total=count, unit="pair", desc=label, delay=3) as bar:
    for chosen, values in batches.in_batches(np.arange(count), pairs.gather, call, batch_size, bar):
      for name, value in values.items():
        if name not in found:
          found[name] = np.empty((count, *value.shape[1:]), value.dtype)
        found[name][chosen] = value
  return found
