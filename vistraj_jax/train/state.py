"""Everything a training run carries from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class TrainState:
  """One training state; every field is a tree of arrays.

  Attributes:
    step: int32, optimizer steps done in this phase.
    params: parameter tree.
    collections: Linen collections other than params (batch statistics, ...), or {}.
    opt_state: optax state; frozen parameters hold none.
    ema: exponential moving average of params, or None.
    rng: key; step i uses fold_in(rng, i).
  """

  step: Any
  params: Any
  collections: Any
  opt_state: Any
  ema: Any
  rng: Any

  @property
  def variables(self):
    """Linen variables of the current parameters, with "ema" where there is one."""
    ema = {} if self.ema is None else {"ema": self.ema}
    return {"params": self.params, **self.collections, **ema}


def create(variables, tx, rng, ema_decay):
  """Returns the state before the first step."""
  collections = {name: tree for name, tree in variables.items() if name != "params"}
  params = variables["params"]
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    collections=collections,
    opt_state=tx.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema_decay else None,
    rng=rng,
  )
