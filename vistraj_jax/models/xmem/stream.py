"""XMem on a video that arrives frame by frame, with numbered objects that come and go.

One program is compiled for a frame size and a number of object slots. The state stays on the device
and is donated from frame to frame, so memory use does not grow.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.models.xmem import clip, schedule


class Stream:
  """Segments the objects of one video.

  Attributes:
    objects: {number: slot} of the objects there are.
    memory_bytes: size of the state, the same from the first frame to the last.
  """

  def __init__(self, model, settings, params, size, num_objects, slots=None):
    """Makes room for a video.

    Args:
      model: `network.XMem`.
      settings: `MemorySettings`.
      params: its parameters.
      size: (height, width) of the frames.
      num_objects: most objects at once.
      slots: working frames of memory; needed without long-term memory, which says itself.

    Raises:
      InputError: see `clip.init_state`.
    """
    self.objects = {}
    self._size, self._num_slots = tuple(size), num_objects
    self._params = jax.device_put(params)
    self._planner = schedule.Planner(
      settings, schedule.num_slots(settings) if slots is None and settings.long_term else slots
    )
    self._state = clip.init_state(model, settings, size, num_objects, slots=slots)
    self._step = _compiled(model, settings)
    self.memory_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(self._state))

  def step(self, image, masks=None, *, update_memory=True, pin=False, end=False):
    """Goes one frame on.

    Args:
      image: uint8 [H, W, 3], red-green-blue.
      masks: {object number: bool or probability [H, W]} of objects annotated in this frame, new or
        known; the others are predicted.
      update_memory: False leaves the memory as it is.
      pin: this frame stays in memory for ever.
      end: no frame follows, so nothing needs to be remembered.

    Returns:
      `clip.Frame` with a batch of 1 on the device; channel 1 + slot is an object's.

    Raises:
      InputError: an image or mask of another size, more objects than slots, no object yet, or no
        room in memory.
    """
    checks.shape("step: image", image, (*self._size, 3))
    masks = masks or {}
    mask = np.zeros((1, *self._size, self._num_slots), np.float32)
    given = np.zeros((1, self._num_slots), bool)
    for number, one in masks.items():
      checks.shape(f"step: mask of object {number}", one, self._size)
      slot = self._slot(number)
      mask[0, ..., slot] = one
      given[0, slot] = True
    plan = self._planner.next(
      0 if masks else None, list(masks) or None, end=end, pin=pin, update=update_memory
    )
    image = np.asarray(image, np.uint8)[None]
    self._state, frame = self._step(self._params, self._state, image, mask, given, plan)
    return frame

  def labels(self, frame, size=None):
    """uint8 [H, W]: the number of the most probable object of each pixel, 0 for background.

    Args:
      frame: what `step` returned.
      size: (H, W), to which probabilities are resized first; None: the stream's.
    """
    table = np.zeros(1 + self._num_slots, np.uint8)
    for number, slot in self.objects.items():
      table[1 + slot] = number
    size = self._size if size is None else tuple(size)
    return table[np.asarray(_most_probable(frame.probability, size))[0]]

  def remove(self, *numbers):
    """Forgets objects; their slots are free for others.

    Raises:
      InputError: an object that is not there.
    """
    slots = np.zeros((1, self._num_slots), bool)
    for number in numbers:
      checks.choice("remove: object", number, self.objects)
      slots[0, self.objects.pop(number)] = True
    self._state = clip.remove_objects(self._state, slots)
    self._planner.remove(numbers)

  def _slot(self, number):
    if number not in self.objects:
      free = sorted(set(range(self._num_slots)) - set(self.objects.values()))
      checks.require(
        free,
        f"step: object {number} is one too many for {self._num_slots} slots; remove one first, or "
        "make the stream with more.",
      )
      self.objects[number] = free[0]
    return self.objects[number]


@functools.lru_cache(maxsize=8)
def _compiled(model, settings):
  """The program of `clip.step` on uint8 images, shared by all streams of a model."""

  def run(params, state, image, mask, given, plan):
    return clip.step(model, settings, params, state, clip.normalise(image), mask, given, plan)

  return jax.jit(run, donate_argnums=1)


@functools.partial(jax.jit, static_argnums=1)
def _most_probable(probability, size):
  if probability.shape[1:3] != size:
    shape = (probability.shape[0], *size, probability.shape[3])
    probability = jax.image.resize(probability, shape, "bilinear", antialias=False)
  return jnp.argmax(probability, -1).astype(jnp.uint8)
