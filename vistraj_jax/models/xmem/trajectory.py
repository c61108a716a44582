"""Futures of an agent from a clip: sensors -> images -> XMem on its mask -> features -> head.

What is trained is one tree {"xmem", "head"}, and "pillars" and "adapter" (bird's-eye view) or
"fusion" (camera with depth). Images are what XMem reads; where they come from is the only
difference between the modes:
  bev           LiDAR points through PointPillars and an adapter, turned so that forward is up.
  camera        frames of one camera.
  camera_fused  the same with inverse depth, fused by a 1x1 convolution.
The first frames show the true masks; every other mask is read from memory. Per frame the target's
sensory memory, averaged with its mask as weight, is the feature of which the head makes futures.
"""

import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks, motion, trained
from vistraj_jax.encoders import pointpillars
from vistraj_jax.models.xmem import (
  adapters,
  clip,
  network,
  pooling,
  schedule,
  settings,
  trajectory_head,
)
from vistraj_jax.nn import initializers

MODES = ("bev", "camera", "camera_fused")
FUSIONS = {"concat": adapters.ConcatFusion, "project": adapters.ProjectionFusion}
HEADS = {"seed": trajectory_head.SeedHead, "scored": trajectory_head.ScoredHead}
T0_FEATURES = ("hidden", "key", "zero")
_HEIGHTS = (-5.0, 3.0)  # m, of the points that pillars hold


class Prediction(NamedTuple):
  """Attributes:
  futures: float32 [B, K, T_out, 2], m, in the frame of `last_xy`.
  logits: float32 [B, K]; their softmax are the modes' probabilities.
  """

  futures: Any
  logits: Any


class Predictor:
  """The network as functions of its parameters.

  Args:
    model: mapping, config.model:
      `xmem`: fields of `network.XMem` without dtype.
      `memory`: fields of `MemorySettings`, top_k 0 for all elements; and "update_memory": whether
        frames after the first masks are written.
      `warmup_frames`: frames at the start that show the true masks, 1 or more.
      `head`: {"kind": of `HEADS`, "modes", "hidden", "dropout", "use_ego_motion": ego poses are
        inputs, "use_past_xy": so are the agent's past positions, "residual": futures are offsets
        from constant velocity, "t0_feature": of the frames that show the true masks: their sensory
        memory, their key, or zeros}.
      `pillars` (bev): {"reach": m, "points": most in a pillar, "checkpoint": weights file, "" for
        random ones, and widths of `PointPillars`}.
      `adapter` (bev): fields of `BevAdapter`.
      `fusion` (camera_fused): of `FUSIONS`.
      `checkpoint`: weights of XMem to start from, "" for random ones.
      `dtype`: compute dtype of convolutions.
      `remat`: compute frames again in the backward pass instead of storing their insides.
    data: mapping, config.data: "mode", "t_in", "t_out", "objects", "image_size".

  Raises:
    InputError: values that are not allowed or do not go together.
  """

  def __init__(self, model, data):
    self.mode = checks.choice("config.data.mode", data["mode"], MODES)
    self.t_in, self.objects = data["t_in"], data["objects"]
    self.image_size = tuple(data["image_size"])
    self.checkpoint, self.remat = model["checkpoint"], model["remat"]
    dtype = jnp.dtype(model["dtype"])
    fields = {n: tuple(v) if isinstance(v, list) else v for n, v in dict(model["xmem"]).items()}
    self.xmem = network.XMem(dtype=dtype, **fields)
    checks.require(
      self.xmem.hidden_dim > 0,
      "config.model.xmem.hidden_dim: 0 received; the sensory memory is what the head reads, choose "
      "1 or more.",
    )
    self._set_memory(dict(model["memory"]), model["warmup_frames"])
    self._set_head(dict(model["head"]), data["t_out"])
    if self.mode == "bev":
      self._set_pillars(dict(model["pillars"]), dtype)
      self.adapter = adapters.BevAdapter(**dict(model["adapter"]))
    if self.mode == "camera_fused":
      self.fusion = FUSIONS[checks.choice("config.model.fusion", model["fusion"], FUSIONS)]()

  def init(self, rng):
    """-> first parameters."""
    keys = dict(zip(("xmem", "head", "sensor", "adapter"), jax.random.split(rng, 4), strict=True))
    params = {"xmem": self._first_xmem(keys["xmem"])}
    if self.mode == "bev":
      points = jnp.zeros((1, 8, 5))
      if self.pillars_checkpoint:
        params["pillars"] = pointpillars.load(self.pillars_checkpoint, self.pillars)
      else:
        params["pillars"] = _init(self.pillars, keys["sensor"], points, points[..., 0] > 0)
      width = sum(self.pillars.neck_widths)
      params["adapter"] = _init(self.adapter, keys["adapter"], jnp.zeros((1, 8, 8, width)))
    if self.mode == "camera_fused":
      image = jnp.zeros((1, 8, 8, 3))
      params["fusion"] = _init(self.fusion, keys["sensor"], image, image[..., :2])
    inputs = (jnp.zeros((1, self.t_in, self.xmem.hidden_dim)),)
    if self.head_kind != "seed":
      inputs += (jnp.zeros((1, self.t_in, self._motion_width)), jnp.zeros((1, 2)))
    params["head"] = _init(self.head, keys["head"], *inputs)
    return params

  def check_reach(self, reach):
    """Raises InputError unless the data's masks from above reach as far (m) as the pillars do."""
    if self.mode == "bev":
      checks.require(
        abs(self.reach - reach) < 1e-6,
        f"config.model.pillars.reach: {self.reach} m received, but the masks of the data reach "
        f"{reach} m; set it to that, so that points and masks lie on each other.",
      )

  def images(self, params, batch):
    """What XMem sees: float32 [B, T, H, W, 3], with the masks' axes.

    Args:
      params: tree of `init`.
      batch: "points" [B, T, N, 5] and "num_points" int [B, T] (bev), or "frames" uint8
        [B, T, H, W, 3] and, for fusion, "depth" [B, T, H, W, 2].
    """
    if self.mode == "bev":
      number = jnp.arange(batch["points"].shape[2])
      valid = number < batch["num_points"][..., None]
      frames = (jnp.moveaxis(batch["points"], 1, 0), jnp.moveaxis(valid, 1, 0))

      def encode(frame):
        seen = self.pillars.apply({"params": params["pillars"]}, *frame)
        # y rises along its rows and x along its columns: turned so that forward is up.
        seen = jnp.swapaxes(seen, 1, 2)[:, ::-1, ::-1]
        return self.adapter.apply({"params": params["adapter"]}, seen)

      # One frame after the other: the pillars' maps are the largest arrays there are.
      encode = jax.checkpoint(encode) if self.remat else encode
      return jnp.moveaxis(jax.lax.map(encode, frames), 0, 1)
    images = clip.normalise(batch["frames"])
    if self.mode == "camera":
      return images
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    fused = self.fusion.apply({"params": params["fusion"]}, flat(images), flat(batch["depth"]))
    return fused.reshape(images.shape)

  def masks(self, params, batch):
    """Follows the objects of the first masks.

    Args:
      params: tree of `init`.
      batch: what `images` reads, and "masks" [B, T, K, H, W], "object_valid" [B, K], "mask_valid"
        [B, T, K]; of these, only the first `warmup_frames` frames are looked at.

    Returns:
      `clip.Frame` with arrays [B, T, ...].
    """
    first = slice(0, self.warmup_frames)
    given = (batch["object_valid"][:, None] > 0) & (batch["mask_valid"][:, first] > 0)
    masks = jnp.moveaxis(batch["masks"][:, first], 2, -1).astype(jnp.float32)
    images = self.images(params, batch)
    arguments = (self.xmem, self.memory, params["xmem"], images, masks, given, self.schedule)
    return clip.run_clip(*arguments, remat=self.remat)

  def futures(self, params, frames, batch, keys=None):
    """Predicts where the target goes.

    Args:
      params: tree of `init`.
      frames: `clip.Frame` of `masks`.
      batch: "last_xy" [B, 2]; "past_xy" [B, T, 2], "past_valid" [B, T] and "ego_delta" [B, T, 3]
        as far as the head reads them.
      keys: [B] of `dropout.row_keys`, or None to evaluate.

    Returns:
      `Prediction`.
    """
    features = self._features(frames)
    if self.head_kind == "seed":
      inputs = (features,)
    else:
      ahead = jnp.zeros_like(batch["last_xy"])
      if self.residual:
        ahead = motion.last_step(batch["past_xy"], batch["past_valid"])
      inputs = (features, self._motion(batch), ahead)
    offsets, logits = self.head.apply({"params": params["head"]}, *inputs, keys)
    return Prediction(batch["last_xy"][:, None, None] + offsets, logits)

  def _features(self, frames):
    """-> [B, T, C_h]."""
    target = frames.probability[..., 1]
    pool = pooling.over_target_sampled if self.head_kind == "seed" else pooling.over_target
    features = pool(frames.hidden[:, :, 0], target)
    first = slice(0, self.warmup_frames)
    if self.t0_feature == "key":
      keys = pool(frames.key[:, first], target[:, first])
      return features.at[:, first].set(keys)
    return features.at[:, first].set(0.0) if self.t0_feature == "zero" else features

  def _motion(self, batch):
    """What the settings let the head know of ego and agent: [B, T, M]."""
    known = []
    if self.use_ego_motion:
      delta = batch["ego_delta"]
      known += [delta[..., :2] / trajectory_head.METRES, delta[..., 2:]]
    if self.use_past_xy:
      valid = batch["past_valid"][..., None]
      behind = (batch["past_xy"] - batch["last_xy"][:, None]) / trajectory_head.METRES
      known += [jnp.where(valid > 0, behind, 0.0), valid]
    if known:
      return jnp.concatenate(known, -1)
    return jnp.zeros((*batch["masks"].shape[:2], 0))

  def predict(self, params, batch):
    """-> futures [B, K, T_out, 2] m, probabilities [B, K], the target's mask [B, T, H, W]."""
    frames = self.masks(params, batch)
    found = self.futures(params, frames, batch)
    return found.futures, jax.nn.softmax(found.logits, -1), frames.probability[..., 1]

  @property
  def _motion_width(self):
    return 3 * self.use_ego_motion + 3 * self.use_past_xy

  def _set_memory(self, fields, warmup):
    update, top_k = fields.pop("update_memory"), fields.pop("top_k")
    self.memory = settings.MemorySettings(top_k=top_k or None, **fields)
    checks.require(
      1 <= warmup < self.t_in,
      f"config.model.warmup_frames: {warmup} received, 1 to {self.t_in - 1} allowed (one less than "
      "config.data.t_in).",
    )
    checks.require(
      self.objects >= 1, f"config.data.objects: {self.objects} received, 1 or more wanted."
    )
    self.warmup_frames = warmup
    everyone = tuple(range(self.objects))
    self.schedule = schedule.plan_clip(
      self.memory,
      self.t_in,
      dict.fromkeys(range(warmup), everyone),
      frozen_from=None if update else warmup,
    )
    cells = int(np.prod([side // clip.STRIDE for side in clip.padded_size(self.image_size)]))
    if self.schedule.num_long:
      self.memory.check_cells(cells)
    most = self.schedule.num_slots * cells + self.schedule.num_long
    checks.require(
      top_k <= most,
      f"config.model.memory.top_k: {top_k} received; the memory of a clip of {self.t_in} frames "
      f"holds {most} elements, choose at most that, or 0 for all.",
    )

  def _set_head(self, fields, t_out):
    self.head_kind = checks.choice("config.model.head.kind", fields.pop("kind"), HEADS)
    names = ("use_ego_motion", "use_past_xy", "residual", "t0_feature")
    self.use_ego_motion, self.use_past_xy, self.residual, self.t0_feature = map(fields.pop, names)
    for name in names[:3]:
      checks.require(
        self.head_kind != "seed" or not getattr(self, name),
        f"config.model.head.{name}: True received, but the head 'seed' reads nothing but features; "
        "set it to False, or choose the head 'scored'.",
      )
    checks.choice("config.model.head.t0_feature", self.t0_feature, T0_FEATURES)
    checks.require(
      self.t0_feature != "key" or self.xmem.key_dim == self.xmem.hidden_dim,
      f"config.model.head.t0_feature: 'key' received, but keys have {self.xmem.key_dim} channels "
      f"and the sensory memory {self.xmem.hidden_dim}; choose 'hidden'.",
    )
    checks.require(
      fields["modes"] >= 1 and t_out >= 1,
      f"config.model.head.modes: {fields['modes']}, config.data.t_out: {t_out} received; both are "
      "1 or more.",
    )
    self.head = HEADS[self.head_kind](steps=t_out, **fields)

  def _set_pillars(self, fields, dtype):
    self.reach, points = fields.pop("reach"), fields.pop("points")
    self.pillars_checkpoint = fields.pop("checkpoint")
    height, width = self.image_size
    checks.require(
      height == width and height % clip.STRIDE == 0,
      f"config.data.image_size: {self.image_size} received; seen from above, images are square "
      f"with a side of a multiple of {clip.STRIDE}.",
    )
    low, high = _HEIGHTS
    grid = pointpillars.PillarGrid(
      (-self.reach, -self.reach, low), (self.reach, self.reach, high), self.reach / height, points
    )
    fields = {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}
    self.pillars = pointpillars.PointPillars(grid, dtype=dtype, **fields)

  def _first_xmem(self, rng):
    if not self.checkpoint:
      return network.init(self.xmem, rng)
    found, params = network.load(self.checkpoint)
    wanted = self.xmem.clone(dtype=found.dtype)
    checks.require(
      found == wanted,
      f"config.model.checkpoint: {self.checkpoint} holds {found}, config.model.xmem says {wanted}; "
      "make config.model.xmem the same.",
    )
    return params


def load(path):
  """Returns (predictor, params) of a trained run, or of one of its phases.

  Args:
    path: folder of launch.train, or a phase's folder in it.

  Raises:
    InputError: neither of them, or futures have not been trained there.
  """
  path = pathlib.Path(path)
  config = trained.run_config(path)
  phases = config["phases"]
  if (path / "config.json").is_file():
    with_futures = [n for n in phases if phases[n].get("objective") == "trajectory"]
    checks.require(with_futures, f"{path}: this run has no phase that trains futures.")
    path = path / with_futures[-1]
  checks.require(
    phases.get(path.name, {}).get("objective") == "trajectory",
    f"{path}: this phase trains no futures; name one with the objective 'trajectory'.",
  )
  return Predictor(config["model"], config["data"]), trained.load_best(path)


def _init(module, rng, *inputs):
  return initializers.init(module, rng, *inputs)["params"]
