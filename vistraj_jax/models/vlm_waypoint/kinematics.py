"""Accelerations and turn rates -> positions, by a kinematic model of a car."""

import jax
import jax.numpy as jnp

from vistraj_jax.models.vlm_waypoint import inputs


def roll_out(controls, past):
  """Drives the car from its state at t = 0; it never drives backwards.

  A step moves the position with the old speed and heading, then turns and accelerates.

  Args:
    controls: [B, K, T, 2], acceleration (m/s2) and turn rate (rad/s) of each step.
    past: [B, 16, 6]; the last row gives speed and heading.

  Returns:
    xy [B, K, T, 2] m, ego frame; the start is the origin.
  """
  velocity = past[:, -1, 2:4]
  # Inside the root: the gradient of a standing car's speed stays finite.
  speed = jnp.sqrt(jnp.sum(velocity**2, axis=-1) + 1e-6)
  heading = jnp.arctan2(velocity[:, 1], velocity[:, 0])
  start = [jnp.broadcast_to(x[:, None], controls.shape[:2]) for x in (speed, heading)]

  def step(state, control):
    xy, speed, heading = state
    direction = jnp.stack([jnp.cos(heading), jnp.sin(heading)], axis=-1)
    xy = xy + inputs.STEP_SECONDS * speed[..., None] * direction
    heading = heading + inputs.STEP_SECONDS * control[..., 1]
    speed = jnp.maximum(speed + inputs.STEP_SECONDS * control[..., 0], 0)
    return (xy, speed, heading), xy

  state = (jnp.zeros((*controls.shape[:2], 2)), *start)
  return jnp.moveaxis(jax.lax.scan(step, state, jnp.moveaxis(controls, 2, 0))[1], 0, 2)
