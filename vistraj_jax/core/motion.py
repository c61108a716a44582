"""How something moved lately, from positions at equal intervals of which some may be missing.

Takes any array type with the standard array interface.
"""


def last_step(past_xy, past_valid):
  """Mean displacement per interval since the latest earlier position.

  Args:
    past_xy: [..., T, 2], oldest first; the last one is known.
    past_valid: [..., T] of 0 and 1.

  Returns:
    [..., 2]; zeros where no earlier position is known.
  """
  xp = past_xy.__array_namespace__()
  count = past_xy.shape[-2]
  earlier = past_valid[..., :-1] > 0
  number = xp.arange(count - 1)
  latest = xp.max(xp.where(earlier, number, -1), axis=-1, initial=-1)
  chosen = (number == latest[..., None])[..., None]
  before = xp.sum(xp.where(chosen, past_xy[..., :-1, :], 0.0), axis=-2)
  step = (past_xy[..., -1, :] - before) / (count - 1 - latest)[..., None]
  return xp.where(latest[..., None] >= 0, step, 0.0).astype(past_xy.dtype)
