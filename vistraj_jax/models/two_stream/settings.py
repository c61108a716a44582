"""config.model -> the network it describes: two streams, one stream, or the masked autoencoder."""

import functools

import jax
import jax.numpy as jnp

from vistraj_jax.core import checks, trained
from vistraj_jax.core import multiply_adds as multiply_adds_lib
from vistraj_jax.models.two_stream import baselines, blocks, network
from vistraj_jax.nn import initializers

STREAMS = ("two", *baselines.INPUTS, "videomae")
_DTYPES = ("float32", "bfloat16")
_VIT = (
  "embed_dim",
  "depth",
  "num_heads",
  "num_stages",
  "exchange_after_last",
  "num_exchanges",
  "exchange",
  "exchange_heads",
  "cls_tap",
  "pos",
  "mask_ratio_m",
  "mask_ratio_p",
  "remat",
  "stack_streams",
)


def make(model, batch_axis=None):
  """Returns the network of config.model.

  Args:
    model: mapping, the settings of configs/two_stream.py; also as a run's config.json holds them.
    batch_axis: name of the mapped axis over which batch statistics are joined, or None.

  Raises:
    InputError: a setting that is not allowed.
  """
  kind = checks.choice("config.model.streams", model["streams"], STREAMS)
  checks.choice("config.model.attention", model["attention"], blocks.ATTENTION)
  dtype = jnp.dtype(checks.choice("config.model.dtype", model["dtype"], _DTYPES))
  block = {name: model[name] for name in ("mlp_ratio", "dropout", "attn_dropout", "attention")}
  decoder = dict(model["decoder"])
  patch_decoder = {name: decoder.pop(name) for name in ("width", "depth", "num_heads")}
  if kind == "two":
    return network.TwoStreamPredictor(
      image_size=model["image_size"],
      patch_size=model["patch_size"],
      m_channels=model["m_channels"],
      p_source=model["p_source"],
      fusion_layers=model["fusion"],
      decoding=decoder,
      vit={**{name: model[name] for name in _VIT}, "block": block},
      patch_decoder=patch_decoder,
      batch_axis=batch_axis,
      dtype=dtype,
    )
  checks.require(
    model["patch_size"] == 16,
    f"config.model.patch_size: {model['patch_size']} received, streams={kind!r} has 16.",
  )
  for name, only in (("m_channels", "rgb4"), ("p_source", "current")):
    checks.require(
      model[name] == only,
      f"config.model.{name}: {model[name]!r} received, but only streams='two' reads it; leave it "
      f"at {only!r} with streams={kind!r}.",
    )
  common = {name: model[name] for name in ("image_size", "embed_dim", "depth", "num_heads")}
  common |= {"block": block, "remat": model["remat"], "dtype": dtype}
  if kind == "videomae":
    fields = dict(model["videomae"])
    return baselines.VideoMAE(**common, **fields)
  return baselines.SingleStreamPredictor(
    kind, **common, skip=decoder["skip"], norm=decoder["norm"], batch_axis=batch_axis
  )


def init(net, rng):
  """Returns the initial variables of a network of `make`."""
  return _variables(initializers.init(net, rng, *_example(net)))


def shapes(net):
  """Returns the tree of shapes of the variables of a network, without computing anything."""
  return _variables(jax.eval_shape(net.init, jax.random.PRNGKey(0), *_example(net)))


def load(path):
  """Returns (network, variables, config.model) of a training run or weights file.

  Of a policy's file they are those of its encoder.

  Raises:
    InputError: nothing trained is there, or another system's weights.
  """
  variables, model = trained.load_variables(path)
  if "readout" in model:  # as `policy.Policy.save` writes it
    variables, model = {"params": variables["params"]["encoder"]}, model["model"]
  checks.require(
    "m_channels" in model,
    f"{path}: weights of another system; a run of configs/two_stream.py is wanted.",
  )
  return make(model), variables, model


def encoder_params(params):
  """Returns the parameters that `encode` wants, without those of decoders.

  VideoMAE's mask token is among them: its network cannot be set up without.
  """
  others = ("decoder", "encoder_to_decoder", "head")
  return {name: tree for name, tree in params.items() if not name.startswith(others)}


def multiply_adds(net):
  """Returns those of one pair of frames: (of `encode`, of the whole network in evaluation)."""
  variables, example = shapes(net), _example(net)
  encode = functools.partial(net.apply, method="encode")
  params = {"params": variables["params"]}
  return (
    multiply_adds_lib.count(encode, params, *example[:2]),
    multiply_adds_lib.count(net.apply, variables, *example),
  )


def _example(net):
  image = jnp.zeros((1, net.image_size, net.image_size, 3))
  is_masked = isinstance(net, baselines.VideoMAE)
  return (image, image, jnp.zeros((1, net.num_patches))) if is_masked else (image, image)


def _variables(found):
  return {name: tree for name, tree in found.items() if name != "intermediates"}
