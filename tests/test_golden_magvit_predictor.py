"""The latent predictor against the original one: values, losses, gradients."""

import golden_cases
import jax
import numpy as np
import pytest

from vistraj_jax.convert import magvit_predictor as converter
from vistraj_jax.core import checks
from vistraj_jax.losses import bits
from vistraj_jax.models.magvit import predictor

INPUTS = {"full": "magvit_pf", "pooled": "magvit_pp", "base": "magvit_pb"}


def last(x):
  return np.moveaxis(np.asarray(x), 1, -1)


def first(x):
  return np.moveaxis(np.asarray(x), -1, 1)


def original(config, **more):
  """The network in the original's form."""
  transformer = {
    "width": config["embed_dim"],
    "num_heads": config["num_heads"],
    "num_layers": config["num_layers"],
    "hidden": config.get("ff_dim", 4 * config["embed_dim"]),
    "norm": "post",
    "positions": "table",
    "num_positions": config["pos_len"],
    "remat": "none",
  }
  return predictor.LatentPredictor(config["embed_dim"], transformer, **more)


def shapes(model, *inputs):
  return jax.eval_shape(model.init, jax.random.PRNGKey(0), *inputs)["params"]


@pytest.mark.parametrize("name", ["full", "pooled", "base"])
def test_latent_predictor(name):
  case = golden_cases.load("magvit", f"latent_predictor_{name}")
  config = case.config
  tokens = "all" if config["mode"] == "full" else "pooled"
  model = original(config, tokens=tokens)
  make = lambda kind: last(  # noqa: E731
    golden_cases.fill.tensor(f"input:{INPUTS[name]}_{kind}", case.manifest["inputs"][kind]["shape"])
  )
  past, target = make("past"), np.sign(make("target"))
  params = converter.from_torch(case.checkpoint(), shapes(model, past), name)
  found = converter.settings_of(case.checkpoint(), name)
  assert found["num_layers"] == config["num_layers"]
  assert (found["width"], found["hidden"]) == (config["embed_dim"], config["ff_dim"])
  assert found["num_positions"] == config["pos_len"]

  @jax.jit
  def run(params):
    predicted = model.apply({"params": params}, past)
    return bits.latent_mse(predicted, target).mean(), predicted

  (loss, predicted), gradients = jax.value_and_grad(run, has_aux=True)(params)
  case.check("pred_latents", first(predicted))
  case.check("loss", loss)
  gradients = converter.to_torch(jax.tree.map(np.asarray, gradients), name)
  norms = [np.linalg.norm(gradients[n].ravel()) for n in config["grad_names"]]
  case.check("grad_norms", norms, **case.manifest["tolerance"]["grad_norms"])
  case.check("grad_output_proj_bias", gradients["transformer.output_proj.bias"])
  case.check("grad_pos_encoding", gradients["transformer.pos_encoding"])

  one = original({**config, "num_layers": 1}, tokens=tokens)
  head = {"kernel": np.eye(config["embed_dim"]), "bias": np.zeros(config["embed_dim"])}
  trunk = params["transformer"]
  trunk = {**trunk, "layers": jax.tree.map(lambda x: x[:1], trunk["layers"])}
  layer0 = one.apply({"params": {"transformer": trunk, "output": head}}, past)
  layer0 = layer0[:, :, :1, :1] if tokens == "pooled" else layer0
  case.check("after_layer0", np.asarray(layer0).reshape(len(past), -1, config["embed_dim"]))


def test_a_missing_tensor_is_named():
  case = golden_cases.load("magvit", "latent_predictor_full")
  tensors = case.checkpoint()
  model = original(case.config)
  want = shapes(model, np.zeros((1, 3, 4, 5, 32), np.float32))
  back = converter.to_torch(converter.from_torch(tensors, want, "file"), "file")
  assert back.keys() == tensors.keys()
  np.testing.assert_array_equal(
    back["transformer.output_proj.weight"], tensors["transformer.output_proj.weight"]
  )
  del tensors["transformer.transformer.layers.1.linear2.bias"]
  with pytest.raises(checks.InputError, match=r"1 missing: .*layers.1.linear2.bias \(32,\)"):
    converter.from_torch(tensors, want, "file")
  with pytest.raises(checks.InputError, match="no latent predictor"):
    converter.settings_of({"a": np.zeros(3)}, "file")
