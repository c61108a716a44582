"""What a simulated nuScenes database calls things: tokens, categories, attributes, fixed tables."""

import hashlib

from vistraj_jax.prepare.world import cameras

LIDAR = "LIDAR_TOP"
_CATEGORIES = (
  "human.pedestrian.adult",
  "human.pedestrian.child",
  "human.pedestrian.wheelchair",
  "human.pedestrian.stroller",
  "human.pedestrian.personal_mobility",
  "human.pedestrian.police_officer",
  "human.pedestrian.construction_worker",
  "animal",
  "vehicle.car",
  "vehicle.motorcycle",
  "vehicle.bicycle",
  "vehicle.bus.bendy",
  "vehicle.bus.rigid",
  "vehicle.truck",
  "vehicle.construction",
  "vehicle.emergency.ambulance",
  "vehicle.emergency.police",
  "vehicle.trailer",
  "movable_object.barrier",
  "movable_object.trafficcone",
  "movable_object.pushable_pullable",
  "movable_object.debris",
  "static_object.bicycle_rack",
)
_ATTRIBUTES = (
  "vehicle.moving",
  "vehicle.stopped",
  "vehicle.parked",
  "cycle.with_rider",
  "cycle.without_rider",
  "pedestrian.sitting_lying_down",
  "pedestrian.standing",
  "pedestrian.moving",
)
_LEVELS = ((0, 40), (40, 60), (60, 80), (80, 100))  # %
_CHILD = 1.65  # m; shorter pedestrians are children
_STANDS = 0.2  # m/s


def token(*parts):
  """Returns the token, 32 hexadecimal digits, of what `parts` name: a kind, a scene, an index."""
  return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


def instance_token(scene, agent):
  """Returns the instance token of agent `agent` of `driving.Drive` in the scene of that name."""
  return token("instance", scene, agent)


def visibility_token(share):
  """Returns "1" to "4" for the visible share 0..1 of an object."""
  return str(1 + sum(100 * share >= high for _, high in _LEVELS[:-1]))


def category(class_name, height, agent):
  """Returns the nuScenes category of an agent of the world."""
  if class_name == "pedestrian":
    kind = "construction_worker" if agent % 17 == 0 else "adult"
    return f"human.pedestrian.{'child' if height < _CHILD else kind}"
  return "vehicle.bus.rigid" if class_name == "bus" else f"vehicle.{class_name}"


def attribute(class_name, speed, parked):
  """Returns the attribute name of an agent that moves at `speed` m/s."""
  if class_name == "pedestrian":
    return "pedestrian.moving" if speed > _STANDS else "pedestrian.standing"
  if class_name in ("motorcycle", "bicycle"):
    return "cycle.without_rider" if parked else "cycle.with_rider"
  if parked:
    return "vehicle.parked"
  return "vehicle.moving" if speed > _STANDS else "vehicle.stopped"


def fixed():
  """Returns the tables that no scene changes: {table: rows}."""
  channels = [camera.name for camera in cameras.RIG]
  return {
    "category": [
      {"token": token("category", name), "name": name, "description": "", "index": k}
      for k, name in enumerate(_CATEGORIES)
    ],
    "attribute": [
      {"token": token("attribute", name), "name": name, "description": ""} for name in _ATTRIBUTES
    ],
    "visibility": [
      {
        "token": str(k + 1),
        "level": f"v{low}-{high}",
        "description": f"visibility of whole object is between {low} and {high}%",
      }
      for k, (low, high) in enumerate(_LEVELS)
    ],
    "sensor": [
      {
        "token": token("sensor", channel),
        "channel": channel,
        "modality": "lidar" if channel == LIDAR else "camera",
      }
      for channel in [*channels, LIDAR]
    ],
  }
