"""XMem over time: one frame after the other, as a stream or as a whole clip in one `lax.scan`.

Shapes never change: K object slots of which some may be empty, a memory of fixed size. A `Plan`
(module `schedule`) tells each frame what to do; it is the same for all clips of a batch.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from vistraj_jax.core import checks
from vistraj_jax.models.xmem import memory as memories
from vistraj_jax.models.xmem import network, schedule
from vistraj_jax.models.xmem.aggregate import aggregate
from vistraj_jax.nn import image_layers

STRIDE = 16


@flax.struct.dataclass
class State:
  """What goes from frame to frame.

  Attributes:
    memory: `memory.Memory`.
    birth: int32 [B, K], frame of each object's first mask; `memory.NEVER` where there is none.
    hidden: float32 [B, K, h, w, C_h], sensory memory.
  """

  memory: Any
  birth: Any
  hidden: Any


class Frame(NamedTuple):
  """What one frame gives; in a clip with a time axis after the batch.

  Attributes:
    probability: float32 [B, H, W, 1 + K], background first, sum 1.
    logits: float32 [B, H, W, 1 + K], its logarithm up to a constant.
    quarter: float32 [B, K, H/4, W/4] of the padded frame: each object's own mask logits before
      enlarging; zeros where nothing was segmented.
    hidden: float32 [B, K, h, w, C_h], sensory memory after the frame.
    key: float32 [B, h, w, C_k] of the image.
  """

  probability: Any
  logits: Any
  quarter: Any
  hidden: Any
  key: Any


def normalise(images):
  """uint8 [..., 3], red-green-blue -> float32 as the networks want it."""
  scaled = images.astype(jnp.float32) / 255
  return (scaled - jnp.array(network.IMAGE_MEAN)) / jnp.array(network.IMAGE_STD)


def padded_size(size):
  """(height, width) -> the next multiples of 16."""
  return tuple(-(-side // STRIDE) * STRIDE for side in size)


def pad(x):
  """[..., H, W, C] -> multiples of 16, zeros around."""
  return jnp.pad(x, [*[(0, 0)] * (x.ndim - 3), *_margins(x.shape[-3:-1]), (0, 0)])


def init_state(model, settings, size, num_objects, batch=1, slots=None, num_long=None):
  """Returns the state before the first frame.

  Args:
    model: `network.XMem`.
    settings: `MemorySettings`.
    size: (height, width) of the frames.
    num_objects: K.
    batch: B.
    slots: working slots; default: what long-term memory needs.
    num_long: long-term elements; default: the settings'.

  Raises:
    InputError: no slots given without long-term memory, or too few cells for a consolidation.
  """
  checks.require(
    settings.long_term or slots is not None,
    "memory.long_term is off, so the memory grows: say for how many frames there must be room.",
  )
  h, w = (side // STRIDE for side in padded_size(size))
  slots = schedule.num_slots(settings) if slots is None else slots
  if num_long is None:
    num_long = settings.max_long if settings.long_term else 0
  if num_long:
    settings.check_cells(h * w)
  made = memories.empty(
    batch, num_objects, num_long, slots * h * w, model.key_dim, model.value_dim, model.dtype
  )
  hidden = jnp.zeros((batch, num_objects, h, w, model.hidden_dim))
  birth = jnp.full((batch, num_objects), memories.NEVER, jnp.int32)
  return State(made, birth, hidden)


def step(model, settings, params, state, image, mask, given, plan):
  """One frame of a stream; wrap it in `jax.jit` with the state donated, or use `Stream`.

  Args:
    model: `network.XMem`.
    settings: `MemorySettings`.
    params: its parameters.
    state: `State`.
    image: float32 [B, H, W, 3], normalised.
    mask: [B, H, W, K], probabilities in [0, 1]; not read unless the plan says so.
    given: bool [B, K], objects that `mask` shows; others are predicted.
    plan: `Plan` of this frame.

  Returns:
    `State`, `Frame`.
  """
  size = image.shape[1:3]
  image, mask = pad(image), pad(mask)
  features = model.apply({"params": params}, image, method="encode_image")
  state, frame = _advance(model, settings, params, state, image, features, mask, given, plan)
  return state, _crop(frame, size)


def run_clip(model, settings, params, images, masks, given, clip, *, remat=False, last_state=False):
  """A whole clip as one scan, differentiable; images are encoded all at once, before it.

  Args:
    model: `network.XMem`.
    settings: `MemorySettings`.
    params: its parameters.
    images: float32 [B, T, H, W, 3], normalised.
    masks: [B, M, H, W, K], the masks given, in the order of `clip`.
    given: bool [B, M, K], objects that each mask shows. An object that no mask shows stays absent.
    clip: `schedule.Schedule`.
    remat: compute each frame again in the backward pass instead of storing its insides.
    last_state: whether to return the `State` after the last frame as well.

  Returns:
    `Frame` with arrays [B, T, ...].

  Raises:
    InputError: shapes that do not fit each other or the schedule.
  """
  B, T, H, W, _ = images.shape
  K = masks.shape[-1]
  num_masks = int(clip.plan.mask.max()) + 1
  checks.require(
    len(clip.plan.time) == T,
    f"run_clip: {T} frames received, planned are {len(clip.plan.time)}; plan the clip again.",
  )
  checks.shape("run_clip: masks", masks, (B, num_masks, H, W, K))
  checks.shape("run_clip: given", given, (B, num_masks, K))
  state = init_state(model, settings, (H, W), K, B, clip.num_slots, clip.num_long)
  images, masks = pad(images), pad(masks)

  def encode(images):
    return model.apply({"params": params}, images, method="encode_image")

  encode = jax.checkpoint(encode) if remat else encode
  features = encode(images.reshape(B * T, *images.shape[2:]))
  features = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(B, T, *x.shape[1:]), 1, 0), features)

  def body(state, frame):
    image, features, plan = frame
    number = jnp.maximum(plan.mask, 0)
    mask, shown = (
      jax.lax.dynamic_index_in_dim(x, number, 1, keepdims=False) for x in (masks, given)
    )
    return _advance(model, settings, params, state, image, features, mask, shown, plan)

  body = jax.checkpoint(body) if remat else body
  plan = jax.tree.map(jnp.asarray, clip.plan)
  state, frames = jax.lax.scan(body, state, (jnp.moveaxis(images, 1, 0), features, plan))
  frames = _crop(jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), frames), (H, W))
  return (frames, state) if last_state else frames


def remove_objects(state, objects):
  """Empties object slots; a later mask may fill them anew.

  Args:
    state: `State`.
    objects: bool [B, K].
  """
  return state.replace(
    birth=jnp.where(objects, memories.NEVER, state.birth),
    hidden=jnp.where(objects[..., None, None, None], 0.0, state.hidden),
  )


def _advance(model, settings, params, state, image, features, mask, given, plan):
  """One padded frame whose features are known."""
  memory, birth = state.memory, state.birth
  B, K = birth.shape
  h, w = features.key.shape[1:3]

  def flat(x):
    return x.reshape(B, h * w, *x.shape[3:])

  def predict(hidden):
    readout, usage = memories.read(
      memory, birth, flat(features.key), flat(features.selection), settings.top_k, settings.read
    )
    readout = readout.reshape(B, K, h, w, -1)
    arguments = (features, readout, hidden)
    quarter, hidden = model.apply({"params": params}, *arguments, method="segment")
    return quarter, hidden, usage

  def nothing(hidden):
    quarter = jnp.zeros((B, K, 4 * h, 4 * w))
    return quarter, hidden, jnp.zeros(memory.use.shape)

  quarter, decoded, usage = jax.lax.cond(plan.segment, predict, nothing, state.hidden)
  memory = memories.count(memory, usage, plan.segment)
  hidden = jnp.where(plan.hidden, decoded, state.hidden)

  there = (birth != memories.NEVER) & plan.segment
  own = jax.nn.sigmoid(image_layers.enlarge(jnp.moveaxis(quarter, 1, -1), 4)) * there[:, None, None]
  predicted = aggregate(own)
  logits = jax.lax.cond(
    plan.mask >= 0, lambda: aggregate(_insert(predicted, mask, given)), lambda: predicted
  )
  new = given & (plan.mask >= 0) & (birth == memories.NEVER)
  birth = jnp.where(new, plan.time, birth)
  hidden = jnp.where(new[..., None, None, None], 0.0, hidden)
  probability = jax.nn.softmax(logits, -1)

  written = probability[..., 1:]
  if settings.detach_written_mask:
    written = jax.lax.stop_gradient(written)

  def encode(hidden):
    arguments = (image, features.f16, written, hidden)
    value, deep = model.apply({"params": params}, *arguments, method="encode_value")
    return value, jnp.where(plan.deep, deep, hidden)

  def keep(hidden):
    return jnp.zeros((B, K, h, w, model.value_dim), model.dtype), hidden

  value, hidden = jax.lax.cond(plan.write, encode, keep, hidden)
  mass = image_layers.average_pool(probability[..., 1:2], STRIDE)
  row = (
    flat(features.key),
    flat(features.shrinkage),
    flat(features.selection),
    flat(jnp.moveaxis(value, 1, 3)),
    flat(mass[..., 0]),
  )
  if settings.detach_memory:
    row = jax.lax.stop_gradient(row)
  memory = memories.write(memory, plan.slot, plan.time, *row, plan.write)
  if memory.num_long:
    memory = memories.consolidate(
      memory, birth, plan.candidates, h * w, plan.time, settings, plan.consolidate
    )
  frame = Frame(probability, logits, quarter, hidden, features.key)
  return State(memory, birth, hidden), frame


def _insert(logits, mask, given):
  """Probabilities [B, H, W, K] of objects: the mask's where given, elsewhere what was predicted.

  Where any given object is, no other can be.
  """
  given = given[:, None, None]
  mask = jnp.where(given, mask, 0.0).astype(jnp.float32)
  taken = mask.sum(-1, keepdims=True) > 0.5
  predicted = jnp.where(taken, 0.0, jax.nn.softmax(logits, -1)[..., 1:])
  return jnp.where(given, mask, predicted)


def _margins(size):
  """Zeros before and after each side; the odd one comes after."""
  return [
    ((p - s) // 2, p - s - (p - s) // 2) for s, p in zip(size, padded_size(size), strict=True)
  ]


def _crop(frame, size):
  (top, _), (left, _) = _margins(size)
  H, W = size
  inside = (..., slice(top, top + H), slice(left, left + W), slice(None))
  return frame._replace(probability=frame.probability[inside], logits=frame.logits[inside])
