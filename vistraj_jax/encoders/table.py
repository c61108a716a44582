"""The image encoders by name."""

import importlib

from vistraj_jax.core import checks

# Name -> (module:class, fields that differ from the class's defaults).
ENCODERS = {
  "smolvlm_tower": ("vistraj_jax.encoders.siglip:Siglip", {"processor_edge": 1536}),
  "siglip_so400m": ("vistraj_jax.encoders.siglip:Siglip", {"position_rule": "interpolate"}),
  "smolvlm": ("vistraj_jax.encoders.smolvlm:Smolvlm", {"processor_edge": 1536}),
  "internvit_300m": ("vistraj_jax.encoders.internvit:InternVit", {}),
  "sam_vit_b": ("vistraj_jax.encoders.sam:SamVit", {}),
  "sam2_hiera_tiny": ("vistraj_jax.encoders.hiera:Hiera", {}),
}


def make(name, **fields):
  """Returns the encoder `name`; `fields` overwrite its published sizes and settings.

  Raises:
    InputError: an unknown encoder, an unknown field or a value the field does not allow.
  """
  checks.choice("encoder", name, ENCODERS)
  place, defaults = ENCODERS[name]
  module, _, kind = place.partition(":")
  kind = getattr(importlib.import_module(module), kind)
  for field in fields:
    checks.choice(f"field of encoder {name!r}", field, kind.__dataclass_fields__)
  fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
  return kind(**{**defaults, **fields})
