"""A seeded drive through a town: an ego car and agents of seven classes, as state over time.

Everyone follows a path (`town`); what is simulated is how far along it one is. Vehicles keep their
distance by the Intelligent Driver Model (Treiber et al. 2000) to whatever is in their way, slow
down for curves and stop at red signals; pedestrians wait at crossings. The state can be sampled
at any times within the drive. Global frame: x east, y north, z up from the flat ground; m, s, rad.
"""

import dataclasses

import numpy as np

from vistraj_jax.core import geometry
from vistraj_jax.prepare.world import town as town_lib

# Width, length, height in m: means; each agent differs by a few percent.
SIZES = {
  "car": (1.9, 4.6, 1.7),
  "truck": (2.5, 7.5, 3.1),
  "bus": (2.9, 11.0, 3.4),
  "trailer": (2.6, 9.5, 3.6),
  "pedestrian": (0.65, 0.7, 1.75),
  "motorcycle": (0.8, 2.1, 1.5),
  "bicycle": (0.6, 1.7, 1.4),
}
# Share of the moving agents. A trailer comes with a truck of its own.
_SHARES = {
  "car": 0.42,
  "truck": 0.05,
  "bus": 0.06,
  "trailer": 0.06,
  "pedestrian": 0.29,
  "motorcycle": 0.06,
  "bicycle": 0.06,
}
_TICK = 0.1  # s
_WARM_UP = 6.0  # s simulated before time 0, so that gaps and queues are settled
_HITCH = 0.8  # m between truck and trailer
_REAR_AXLE = 1.4  # m from the ego car's centre back to the origin of its frame
_PITCH = 0.005  # rad the ego car's nose rises per m/s^2
_ENDS = np.array([-1.0, 0.0, 1.0])  # rear, middle, front in half lengths
_SIGHT = np.arange(0.5, 46.0, 2.5)  # m ahead of the bumper at which a vehicle looks


@dataclasses.dataclass(frozen=True)
class State:
  """Where everyone is at T times.

  Attributes:
    center: [T, A, 3], m; yaw: [T, A], rad; speed: [T, A], m/s.
    ego_translation: [T, 3], the ego frame's origin: the rear axle, on the ground.
    ego_rotation: [T, 4], quaternion; the frame looks along +x.
  """

  center: np.ndarray
  yaw: np.ndarray
  speed: np.ndarray
  ego_translation: np.ndarray
  ego_rotation: np.ndarray


@dataclasses.dataclass(frozen=True)
class Drive:
  """One simulated drive; agent 0 is the ego car.

  Attributes:
    duration: s.
    class_names: one of `SIZES` for each of the A agents.
    size_wlh: [A, 3], m.
    buildings: [N, 4], x0, y0, x1, y1 in m.
    paths: [A, P, 2], points `town.STEP` apart.
    distance, speeds: [S, A], arc length (m) and speed (m/s) every `_TICK` from `-_WARM_UP` on.
    town: `town.Town`, where the drive takes place.
  """

  duration: float
  class_names: tuple
  size_wlh: np.ndarray
  buildings: np.ndarray
  paths: np.ndarray
  distance: np.ndarray
  speeds: np.ndarray
  town: town_lib.Town

  def green(self, junctions, axis, time):
    """Whether traffic along `axis` int [N] may go at `junctions` int [N, 2]: bool [N]."""
    return self.town.green(junctions, axis, time + _WARM_UP)

  def at(self, times):
    """Returns the `State` at `times` [T] in 0..duration, s."""
    times = np.asarray(times, np.float64)
    if times.min() < 0 or times.max() > self.duration:
      raise ValueError(f"times {times.min():g}..{times.max():g} are outside 0..{self.duration:g} s")
    distance, speed, acceleration = _interpolate(self.distance, self.speeds, times + _WARM_UP)
    center, yaw = _poses(self.paths, distance, self.size_wlh[:, 1])
    height = np.broadcast_to(self.size_wlh[:, 2] / 2, yaw.shape)
    forward = np.stack([np.cos(yaw[:, 0]), np.sin(yaw[:, 0])], -1)
    ego = center[:, 0] - _REAR_AXLE * forward
    pitch = -_PITCH * acceleration[:, 0] / 2  # half angle; nose up is a turn about -y
    zero = np.zeros_like(pitch)
    tilt = np.stack([np.cos(pitch), zero, np.sin(pitch), zero], -1)
    return State(
      center=np.concatenate([center, height[..., None]], -1),
      yaw=yaw,
      speed=speed,
      ego_translation=np.concatenate([ego, zero[:, None]], -1),
      ego_rotation=geometry.multiply_quaternions(geometry.yaw_quaternion(yaw[:, 0]), tilt),
    )


def simulate(seed, duration=20.0, moving=70, parked=25, ego_lane=town_lib.LANES[0]):
  """Simulates one drive.

  Args:
    seed: int; the drive is a function of the arguments.
    duration: s.
    moving: number of moving agents near the ego car's way.
    parked: number of parked vehicles there.
    ego_lane: the ego car's, of `town.LANES`: from the inner one it turns left at times, from the
      outer one right.

  Returns:
    `Drive`.
  """
  rng = np.random.default_rng(seed)
  town = town_lib.Town(block=rng.uniform(75, 115), seed=seed)
  agents = _Agents(town, rng, duration + _WARM_UP)
  agents.add_ego(ego_lane)
  names = rng.choice(list(_SHARES), size=moving, p=list(_SHARES.values()))
  for name in names:
    agents.add_moving(str(name))
  for _ in range(parked):
    agents.add_parked()
  return agents.run(duration)


class _Agents:
  """Collects agents, then moves them."""

  def __init__(self, town, rng, seconds):
    self.town, self.rng, self.seconds = town, rng, seconds
    self.names, self.sizes, self.paths = [], [], []
    self.start, self.wish, self.behind = [], [], []  # m, m/s, index of the truck or -1

  def add_ego(self, lane):
    self._add("car", self._drive((0, 0), lane, 11.0), 5.0, 11.0, scale=1.0)

  def add_moving(self, name):
    """Adds one agent near the ego's way where there is room; a full street stays as it is."""
    for _ in range(20):
      junction, direction = self._near_ego()
      if name == "pedestrian":
        speed = 0.0 if self.rng.random() < 0.1 else self.rng.normal(1.35, 0.2)
        side = self.rng.choice([-1, 1], 2)
        path = town_lib.walk(self.town, self.rng, junction, side, speed * self.seconds + 150)
        shift = self.rng.uniform(-1.2, 1.2, 2)
        points = town_lib.round_corners(path.points + shift)
        path = dataclasses.replace(path, points=points)
      else:
        low, high = {"bicycle": (3.5, 6.5), "bus": (8, 12)}.get(name, (9, 15))
        speed = self.rng.uniform(low, high)
        lane = town_lib.BICYCLE_LANE if name == "bicycle" else self.rng.choice(town_lib.LANES)
        path = self._drive(junction, lane, speed, direction)
      start = self.rng.uniform(15, self.town.block)
      if name == "trailer":
        if self._free(path, start, 20.0) and self._free(path, start - 11, 20.0):
          truck = self._add("truck", path, start, speed)
          lengths = self.sizes[truck][1] + SIZES["trailer"][1]
          self._add("trailer", path, start - lengths / 2 - _HITCH, speed, truck, scale=1.0)
          return
      elif self._free(path, start, 3.0 if name == "pedestrian" else 9.0 + SIZES[name][1] / 2):
        self._add(name, path, start, speed)
        return

  def add_parked(self):
    name = str(self.rng.choice(["car", "car", "car", "car", "truck", "motorcycle"]))
    for _ in range(20):
      junction, direction = self._near_ego()
      path = self._drive(junction, town_lib.PARKING, 0.0, direction)
      start = self.rng.uniform(12, self.town.block - 2 * town_lib.JUNCTION - 8)
      if self._free(path, start, 1.0 + SIZES[name][1]):
        self._add(name, path, start, 0.0)
        return

  def _drive(self, junction, lane, speed, direction=(1, 0)):
    length = speed * self.seconds + self.town.block + 120
    return town_lib.drive(self.town, self.rng, junction, direction, lane, length)

  def _near_ego(self):
    """A junction within two blocks of a point of the ego's way, and a direction."""
    ego = self.paths[0].points
    point = ego[self.rng.integers(len(ego) * 2 // 3)] + self.rng.normal(0, 35, 2)
    direction = [(1, 0), (0, 1), (-1, 0), (0, -1)][self.rng.integers(4)]
    return np.round(point / self.town.block - np.array(direction) / 2).astype(int), direction

  def _free(self, path, start, room):
    where = path.points[int(start / town_lib.STEP)]
    others = [p.points[int(s / town_lib.STEP)] for p, s in zip(self.paths, self.start, strict=True)]
    return np.linalg.norm(np.array(others) - where, axis=1).min() > room

  def _add(self, name, path, start, speed, behind=-1, scale=None):
    scale = self.rng.normal(1, 0.05, 3).clip(0.85, 1.15) if scale is None else scale
    self.names.append(name)
    self.sizes.append(np.array(SIZES[name]) * scale)
    self.paths.append(path)
    self.start.append(start)
    self.wish.append(max(speed, 0.0))
    self.behind.append(behind)
    return len(self.names) - 1

  def run(self, duration):
    sizes, behind = np.array(self.sizes), np.array(self.behind)
    count = max(len(path.points) for path in self.paths)
    paths = np.stack(
      [np.pad(p.points, ((0, count - len(p.points)), (0, 0)), "edge") for p in self.paths]
    )
    ticks = int(np.ceil((duration + _WARM_UP) / _TICK)) + 2
    distance = np.zeros((ticks, len(sizes)))
    speeds = np.zeros_like(distance)
    drivers = _Drivers(self, paths, sizes, behind)
    s, v = np.array(self.start), np.minimum(self.wish, 6.0)
    follows = behind >= 0
    hitch = np.where(follows, (sizes[behind, 1] + sizes[:, 1]) / 2 + _HITCH, 0.0)
    for tick in range(ticks):
      s = np.where(follows, s[behind] - hitch, s)
      v = np.where(follows, v[behind], v)
      distance[tick], speeds[tick] = s, v
      faster = np.maximum(v + drivers.accelerations(s, v, tick * _TICK) * _TICK, 0.0)
      s, v = s + (v + faster) / 2 * _TICK, faster
    center = np.concatenate(paths)
    low = np.floor(center.min(0) / self.town.block).astype(int) - 1
    high = np.ceil(center.max(0) / self.town.block).astype(int) + 1
    return Drive(
      duration=duration,
      class_names=tuple(self.names),
      size_wlh=sizes,
      buildings=self.town.buildings(low, high),
      paths=paths,
      distance=distance,
      speeds=speeds,
      town=self.town,
    )


class _Drivers:
  """Accelerations of all agents: free speed, curves, signals and what is in the way."""

  def __init__(self, agents, paths, sizes, behind):
    self.town, self.paths, self.sizes, self.behind = agents.town, paths, sizes, behind
    self.wish = np.array(agents.wish)
    self.moving = np.flatnonzero((self.wish > 0) & (behind < 0))
    walkers = np.array(agents.names) == "pedestrian"
    self.vehicles = self.moving[~walkers[self.moving]]
    self.obstacles = np.flatnonzero((self.wish > 0) | walkers)
    # Who gives way where ways cross: pedestrians never, others to lower numbers.
    self.rank = np.where(walkers, -1, np.where(behind >= 0, behind, np.arange(len(sizes))))
    self.half = sizes[:, 1] / 2
    self.swing = agents.rng.uniform(0, 2 * np.pi, len(sizes))
    self.limit = _curve_speeds(paths)
    most = max(len(path.stops) for path in agents.paths)
    self.stops = np.full((len(sizes), most), np.inf)
    self.junctions = np.zeros((len(sizes), most, 2), int)
    self.axis = np.zeros((len(sizes), most), int)
    for i, path in enumerate(agents.paths):
      k = len(path.stops)
      self.stops[i, :k], self.junctions[i, :k] = path.stops, path.junctions
      self.axis[i, :k] = path.axis

  def accelerations(self, s, v, time):
    """Returns [A] m/s^2 for arc lengths `s` [A] and speeds `v` [A]."""
    acceleration = np.zeros_like(v)
    who = self.moving
    row = np.minimum((s[who] / town_lib.STEP).astype(int), self.paths.shape[1] - 1)
    calm = 1 + 0.06 * np.sin(0.5 * time + self.swing[who])
    wish = np.minimum(self.wish[who] * calm, self.limit[who, row])
    gap, closing = self._obstacle_gaps(s, v)
    gap, closing = gap[who], closing[who]
    stop = self._signal_gap(s, v, time)[who]
    nearer = stop < gap
    gap, closing = np.where(nearer, stop, gap), np.where(nearer, v[who], closing)
    walker = self.wish[who] < 2.5
    most, brake = np.where(walker, 1.0, 1.8), np.where(walker, 1.0, 2.2)
    room = np.where(walker, 0.3, 2.0)
    wanted = room + np.maximum(
      0, v[who] * np.where(walker, 0.3, 1.1) + v[who] * closing / (2 * np.sqrt(most * brake))
    )
    free = (v[who] / np.maximum(wish, 0.1)) ** 4
    value = most * (1 - free - (wanted / np.maximum(gap, 0.1)) ** 2)
    acceleration[who] = np.clip(value, np.where(free > 1, -2.5, -7.0), most)
    hard = gap < wanted
    acceleration[who] = np.where(hard, np.clip(value, -7.0, most), acceleration[who])
    return acceleration

  def _signal_gap(self, s, v, time):
    """Distance [A] from the front to the next stop line with red; inf without one."""
    front = s + self.half
    ahead = self.stops - front[:, None]
    ahead = np.where(ahead > 0, ahead, np.inf)
    upcoming = np.argmin(ahead, 1)
    rows = np.arange(len(s))
    gap = ahead[rows, upcoming]
    green = self.town.green(self.junctions[rows, upcoming], self.axis[rows, upcoming], time)
    too_late = gap < v * v / (2 * 4.0)  # cannot stop at 4 m/s^2: drives on
    return np.where(green | too_late | (gap > 60), np.inf, gap)

  def _obstacle_gaps(self, s, v):
    """Gap [A] to the first obstacle on each vehicle's way and the closing speed [A]."""
    gaps, closings = np.full(len(s), np.inf), np.zeros(len(s))
    center, yaw = _poses(self.paths, s[None], self.sizes[:, 1])
    center, yaw = center[0], yaw[0]
    forward = np.stack([np.cos(yaw), np.sin(yaw)], -1)
    apart = center[self.obstacles] - center[self.vehicles][:, None]  # [V, O, 2]
    facing = np.einsum("vod,vd->vo", apart, forward[self.vehicles])
    near = (np.square(apart).sum(-1) < (_SIGHT[-1] + 10) ** 2) & (facing > -5)
    crossing = np.cos(yaw[self.vehicles][:, None] - yaw[self.obstacles]) < 0.7
    mine, theirs = self.rank[self.vehicles][:, None], self.rank[self.obstacles]
    near &= np.where(crossing, theirs < mine, theirs != mine)
    pair_vehicle, pair_obstacle = np.nonzero(near)
    who, other = self.vehicles[pair_vehicle], self.obstacles[pair_obstacle]  # [N] pairs
    look = s[self.vehicles][:, None] + self.half[self.vehicles][:, None] + _SIGHT
    way = _points(self.paths[self.vehicles], look)
    ahead = _points(self.paths[self.vehicles], look + 1.0) - way
    ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-6)
    # Rear, middle and front of each obstacle against each point of the way: [N, K, 3, 2].
    solid = center[:, None] + (_ENDS * self.half[:, None])[..., None] * forward[:, None]
    offset = solid[other][:, None] - way[pair_vehicle][:, :, None]
    reach = (self.sizes[who, 0] + self.sizes[other, 0]) / 2 + 0.3
    hit = np.square(offset).sum(-1) < reach[:, None, None] ** 2
    along = _SIGHT[:, None] + np.einsum("nked,nkd->nke", offset, ahead[pair_vehicle])
    gap = np.where(hit, along, np.inf).reshape(len(who), len(_SIGHT) * len(_ENDS))
    nearest = np.argmin(gap, 1)
    gap = gap[np.arange(len(who)), nearest]
    # Speed of the obstacle along the way, where it is hit.
    toward = ahead[pair_vehicle, nearest // len(_ENDS)]
    lead = np.maximum(v[other] * (forward[other] * toward).sum(-1), 0)
    order = np.argsort(gap)[::-1]  # the nearest of a vehicle's obstacles is written last
    gaps[who[order]] = gap[order]
    closings[who[order]] = (v[who] - lead)[order]
    return gaps, closings


def _points(paths, distance):
  """Points [A, K, 2] of paths [A, P, 2] at arc lengths [A, K]."""
  place = np.clip(distance / town_lib.STEP, 0, paths.shape[1] - 1.001)
  row = place.astype(int)
  part = (place - row)[..., None]
  agent = np.arange(len(paths))[:, None]
  return paths[agent, row] * (1 - part) + paths[agent, row + 1] * part


def _poses(paths, distance, length):
  """Centres [T, A, 2] and yaw [T, A] of agents whose axles stand on their paths.

  Distances are [T, A]; axles are 60 % of the length apart.
  """
  axle = np.maximum(0.3 * length, 0.3)
  front = np.swapaxes(_points(paths, (distance + axle).T), 0, 1)
  rear = np.swapaxes(_points(paths, (distance - axle).T), 0, 1)
  toward = front - rear
  return (front + rear) / 2, np.arctan2(toward[..., 1], toward[..., 0])


def _curve_speeds(paths):
  """Speed [A, P] at which a path can be followed: 2 m/s^2 sideways, 1.5 m/s^2 braking before."""
  toward = np.diff(paths, axis=1)
  yaw = np.unwrap(np.arctan2(toward[..., 1], toward[..., 0]), axis=1)
  lag = 4
  bend = np.zeros(paths.shape[:2])
  bend[:, lag : yaw.shape[1]] = np.abs(yaw[:, lag:] - yaw[:, :-lag]) / (lag * town_lib.STEP)
  speed = np.sqrt(2.0 / np.maximum(bend, 1e-3))
  for i in range(speed.shape[1] - 2, -1, -1):
    speed[:, i] = np.minimum(speed[:, i], np.sqrt(speed[:, i + 1] ** 2 + 2 * 1.5 * town_lib.STEP))
  return speed


def _interpolate(distance, speeds, times):
  """Cubic Hermite interpolation of [S, A] rows `_TICK` apart: distance, speed, acceleration."""
  row = np.minimum((times / _TICK).astype(int), len(distance) - 2)
  t = (times / _TICK - row)[:, None]
  p0, p1 = distance[row], distance[row + 1]
  m0, m1 = speeds[row] * _TICK, speeds[row + 1] * _TICK
  value = (
    (2 * t**3 - 3 * t**2 + 1) * p0
    + (t**3 - 2 * t**2 + t) * m0
    + (3 * t**2 - 2 * t**3) * p1
    + (t**3 - t**2) * m1
  )
  # A window of a second, so that the body does not jerk with every tick.
  around = np.clip(row[:, None] + np.arange(-5, 6), 0, len(speeds) - 1)
  change = (speeds[around[:, -1]] - speeds[around[:, 0]]) / (10 * _TICK)
  return value, speeds[row] * (1 - t) + speeds[row + 1] * t, change
