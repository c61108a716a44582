"""Image encoders behind one interface: `make(name, **fields)`, then `init` or weights, `encode`."""

from vistraj_jax.encoders.table import ENCODERS, make

__all__ = ["ENCODERS", "make"]
