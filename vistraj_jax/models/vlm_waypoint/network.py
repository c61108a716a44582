"""The waypoint network as a whole: encoder (or cached features, or nothing), LoRA and head.

What is trained is one tree {"head": ..., "lora": ..., "encoder": ...}, the last two only where the
settings ask for them; a frozen encoder lies in a second tree that no checkpoint holds.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks, trained
from vistraj_jax.models.vlm_waypoint import anchors, attention, inputs, mlp, proposals
from vistraj_jax.nn import dropout, lora

HEADS = {
  "mlp": mlp.WaypointHead,
  "linear": mlp.LinearHead,
  "attention": attention.MonocularHead,
  "proposals": proposals.ProposalHead,
  "anchors": anchors.AnchorHead,
}
ON_TOKENS = ("attention", "proposals")
SEVERAL = ("proposals", "anchors")  # heads with more than one proposal


class Network:
  """Encoder, low-rank update and head, as functions of two parameter trees.

  Args:
    model: mapping, config.model:
      `head`: {"name": one of `HEADS`, "standardize": whether the past is standardised by the
        training data's statistics, and fields of the head}; the anchor head also has "anchors", the
        file of its vocabulary.
      `encoder`, if images are given: {"name", "fields", "checkpoint", "sha256", "dtype", "layer",
        "seed", "frozen"}.
      `lora`, if the encoder is adapted: {"rank", "alpha", "targets", "last_n", "adapter"}.
    data_set: {"train": what is known of the training data}: "past_mean" and "past_std" [16, 6]
      where the head standardises, and "shapes" {field: shape of one example} for `init`.

  Raises:
    InputError: unknown names or fields, or settings that do not go together.
  """

  def __init__(self, model, data_set=None):
    self.known = (data_set or {}).get("train", {})
    fields = dict(model["head"])
    self.head_name = checks.choice("config.model.head.name", fields.pop("name"), HEADS)
    self.anchors = fields.pop("anchors", "")
    self.head = _head(self.head_name, fields, self.known)
    settings = model.get("encoder")
    self.encoder = None
    if settings:
      self._set_encoder(dict(settings))
    self.lora = dict(model.get("lora", {}))
    if self.lora:
      checks.require(
        self.encoder is not None,
        "config.model.lora: an encoder cannot be adapted where features are cached; train from "
        "images (config.model.encoder).",
      )
      checks.require(
        self.encoder_settings["frozen"],
        "config.model.lora: LoRA adapts a frozen encoder; set config.model.encoder.frozen to True.",
      )

  def init(self, rng):
    """-> the trained tree."""
    head_rng, lora_rng, encoder_rng = jax.random.split(rng, 3)
    params = {}
    features = self._features_shape()
    example = (features, jax.ShapeDtypeStruct((1, 16, 6), jnp.float32))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), example)
    arguments = (*zeros, jnp.zeros((1,), jnp.int32))
    extra = {}
    if self.head_name == "anchors":
      extra["anchors"] = jnp.zeros((self.head.num_anchors, self.head.num_waypoints, 2))
    params["head"] = jax.jit(self.head.init)(head_rng, *arguments, **extra)["params"]
    if self.lora:
      params["lora"] = self._first_lora(lora_rng)
    if self.encoder is not None and not self.encoder_settings["frozen"]:
      params["encoder"] = self._encoder_params()
    return params

  def fixed(self):
    """-> {"encoder": frozen parameters, "anchors": vocabulary}, as far as there are any."""
    found = {}
    if self.encoder is not None and self.encoder_settings["frozen"]:
      from vistraj_jax.encoders import weights

      found["encoder"] = weights.kernels_as(self._encoder_params(), self.dtype)
    if self.head_name == "anchors":
      found["anchors"] = anchors.read(self.anchors, self.head.num_waypoints)
      checks.require(
        len(found["anchors"]) == self.head.num_anchors,
        f"config.model.head.num_anchors: {self.head.num_anchors} received, {self.anchors} holds "
        f"{len(found['anchors'])}.",
      )
    return found

  def __call__(self, params, fixed, batch, rng=None):
    """Proposes futures.

    Args:
      params: tree of `init`.
      fixed: tree of `fixed`.
      batch: "past" [B, 16, 6] (m, m/s, m/s2; ego frame), "intent" int [B], and "image" uint8
        [B, H, W, 3], "features" [B, F] or "tokens" [B, N, C] as the settings want; in training
        also "position" int [B].
      rng: key for dropout in training; None for evaluation.

    Returns:
      `inputs.Proposals`.
    """
    encoder_keys = head_keys = None
    if rng is not None:
      keys = dropout.row_keys(rng, batch["position"])
      head_keys, encoder_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    features = self._features(params, fixed, batch, encoder_keys)
    extra = {"anchors": fixed["anchors"]} if "anchors" in fixed else {}
    return self.head.apply(
      {"params": params["head"]}, features, batch["past"], batch["intent"], head_keys, **extra
    )

  def _first_lora(self, rng):
    """A fresh low-rank update that changes nothing yet, or the one of an adapter folder."""
    settings = self.lora
    if settings["adapter"]:
      from vistraj_jax.encoders import weights

      name = self.encoder_settings["name"]
      tree, found = weights.load_adapter(self.encoder, name, settings["adapter"], settings["rank"])
      alpha = settings["alpha"] or 2 * settings["rank"]
      checks.require(
        found == alpha,
        f"config.model.lora.alpha: {alpha:g} received, {settings['adapter']} was trained with "
        f"{found:g}; set it to that.",
      )
      return tree
    shapes = jax.eval_shape(self.encoder.init, rng)
    last_n = settings["last_n"] or None
    return lora.init(rng, shapes, settings["rank"], tuple(settings["targets"]), last_n)

  def _features(self, params, fixed, batch, keys):
    if self.encoder is None:
      return batch.get("tokens" if self.head_name in ON_TOKENS else "features")
    adapted = {}
    if self.lora:
      alpha = self.lora["alpha"] or 2 * self.lora["rank"]
      adapted = {"lora": params["lora"], "alpha": alpha, "keys": keys}
    encoded = self.encoder.encode(
      fixed["encoder"] if self.encoder_settings["frozen"] else params["encoder"],
      batch["image"],
      layers=(self.encoder_settings["layer"],),
      dtype=self.dtype,
      **adapted,
    )
    return encoded.tokens if self.head_name in ON_TOKENS else encoded.pooled[:, 0]

  def _features_shape(self):
    """Returns the form of what the head gets of one example, or None."""
    if self.encoder is not None:
      image = jax.ShapeDtypeStruct((1, *self.known["shapes"]["image"]), jnp.uint8)
      params = jax.eval_shape(self.encoder.init, jax.random.PRNGKey(0))
      encode = lambda p, x: self.encoder.encode(p, x, layers=(self.encoder_settings["layer"],))  # noqa: E731
      encoded = jax.eval_shape(encode, params, image)
      if self.head_name in ON_TOKENS:
        return encoded.tokens
      return jax.ShapeDtypeStruct((1, encoded.pooled.shape[-1]), jnp.float32)
    field = "tokens" if self.head_name in ON_TOKENS else "features"
    shape = self.known.get("shapes", {}).get(field)
    checks.require(
      shape is not None or self.head_name not in ON_TOKENS,
      f"config.model.head.name: {self.head_name!r} reads image tokens, and the data holds none; "
      "train from images, or encode with tokens.",
    )
    return None if shape is None else jax.ShapeDtypeStruct((1, *shape), jnp.float32)

  def _set_encoder(self, settings):
    from vistraj_jax import encoders

    self.encoder_settings = settings
    dtype = checks.choice("config.model.encoder.dtype", settings["dtype"], ("float32", "bfloat16"))
    self.dtype = jnp.dtype(dtype)
    self.encoder = encoders.make(settings["name"], **dict(settings["fields"]))

  def _encoder_params(self):
    """Published or earlier trained parameters; random ones of the seed where no checkpoint is."""
    from vistraj_jax.encoders import weights

    settings = self.encoder_settings
    checkpoint = settings["checkpoint"] or f"{weights.RANDOM}{settings['seed']}"
    return weights.load(self.encoder, settings["name"], checkpoint, settings["sha256"] or None)[0]


def load(path):
  """Returns (network, params) of a weights file, or of a run's or phase's folder.

  Raises:
    InputError: no weights there, or weights that are not a waypoint network's.
  """
  params, model = trained.load(path)
  checks.require(
    "head" in params and "head" in model, f"{path}: holds no weights of a waypoint network."
  )
  return Network(model, trained.data_set(path)), params


def make_predict(network, params):
  """Returns predict(batch) -> Proposals in NumPy; a batch as `Network` takes it, of one size."""
  params = jax.device_put(params)
  fixed = jax.device_put(network.fixed())
  forward = jax.jit(lambda params, fixed, batch: network(params, fixed, batch))

  def predict(batch):
    out = forward(params, fixed, {name: jnp.asarray(value) for name, value in batch.items()})
    return inputs.Proposals(*map(np.asarray, out))

  return predict


def _head(name, fields, known):
  if fields.pop("standardize", False):
    checks.require(
      "past_mean" in known,
      "config.model.head.standardize: the data set does not say the statistics of its past.",
    )
    std = np.asarray(known["past_std"])
    fields["past_mean"] = _rows(known["past_mean"])
    fields["past_std"] = _rows(np.where(std > 1e-3, std, 1.0))  # the last position never varies
  kind = HEADS[name]
  allowed = {f.name for f in dataclasses.fields(kind)} - {"parent", "name"}
  for field in fields:
    checks.choice(f"config.model.head (name {name!r})", field, sorted(allowed))
  head = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
  checks.require(
    not (head.residual and name in SEVERAL),
    f"config.model.head.residual: head {name!r} does not answer with one future; set it to False.",
  )
  return head


def _rows(array):
  return tuple(tuple(float(x) for x in row) for row in np.asarray(array))
