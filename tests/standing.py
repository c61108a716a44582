"""Hand-made moments of the simulated world: an ego car at the origin and agents that stand."""

import numpy as np

from vistraj_jax.prepare.world import driving, town


def scene(places, names=None, sizes=(2.0, 4.0, 1.6), yaws=0.0, buildings=(), parked=False):
  """Returns (drive, state) with the ego car at the origin, facing +x, and agents at `places`.

  Args:
    places: list of (x, y), m; yaws: of the agents, rad.
    names: classes of the agents; by default cars.
    sizes: (width, length, height) of all, m, or one of each agent.
    buildings: blocks x0, y0, x1, y1, m.
    parked: whether the agents count as parked.
  """
  count = len(places) + 1
  size = np.concatenate([[(2.0, 4.0, 1.6)], np.broadcast_to(sizes, (count - 1, 3))])
  center = np.column_stack([np.array([(0.0, 0.0), *places]), size[:, 2] / 2])
  state = driving.State(
    center=center[None],
    yaw=np.concatenate([[0.0], np.broadcast_to(yaws, count - 1)])[None],
    speed=np.zeros((1, count)),
    ego_translation=np.zeros((1, 3)),
    ego_rotation=np.array([[1.0, 0, 0, 0]]),
  )
  drive = driving.Drive(
    duration=1.0,
    class_names=("car", *(names or ("car",) * (count - 1))),
    size_wlh=size,
    buildings=np.array(buildings, np.float64).reshape(-1, 4),
    paths=np.zeros((count, 1, 2)),
    distance=np.zeros((2, count)),
    speeds=np.full((2, count), 0.0 if parked else 1.0),
    town=town.Town(block=100.0, seed=0),
  )
  return drive, state
