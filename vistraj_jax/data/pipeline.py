"""Batches for training and evaluation: shuffle, share among processes, pad and mask, resume.

A system plugs in a module with `load(cfg, split, model) -> examples`, where `len(examples)` is
their number, `examples.gather(indices)` returns {name: array [B, ...]} for int indices [B] and
`examples.about()` what a run records of its data.
One element of the grain data set is a whole batch, so that small examples are gathered by NumPy
at once; the order is a function of (seed, epoch), and the state of an iterator is one number.
Examples whose pairs, crops or the like are drawn anew in every epoch offer
`draw(indices, seed, epoch)`; training calls it in place of `gather`.
Examples that offer `resident() -> {name: array [N, ...]}` can lie whole on the devices instead:
`Rows` then takes their place, and the compiled step gathers what `gather` would return.
"""

import dataclasses
import importlib
from typing import Any

import numpy as np

from vistraj_jax.core import checks

# Name in config.data.pipeline -> module, imported on use.
PIPELINES = {
  "future_video": "vistraj_jax.data.future_video",
  "trackssm": "vistraj_jax.data.trackssm",
  "two_stream": "vistraj_jax.data.two_stream",
  "video_codes": "vistraj_jax.data.video_codes",
  "waymo_e2e": "vistraj_jax.data.waymo_e2e",
  "xmem": "vistraj_jax.data.xmem",
}


def load(cfg, split, model):
  """Returns the examples of one split by the module that `cfg.pipeline` names.

  `model` is config.model: what the network is decides what is read for it.
  """
  name = checks.choice("config.data.pipeline", cfg["pipeline"], PIPELINES)
  return importlib.import_module(PIPELINES[name]).load(cfg, split, model)


def num_examples(cfg, split, model):
  """Returns the number of examples of one split, over all processes."""
  return len(load(cfg, split, model))


def make_loader(
  cfg, split, model, *, batch_size, seed, train, shard=0, num_shards=1, worker_count=0
):
  """Returns a `grain.IterDataset` of the batches of this process.

  A batch is {name: array [batch_size, ...]} plus "mask" float32 [batch_size], 0 on padding. All
  processes yield the same number of batches, and the batches of all processes, joined in order of
  `shard`, are the same for every `num_shards` with the same global batch size.

  Args:
    cfg: config.data; `pipeline` names the system, the rest is read by its module.
    split: name of the split.
    model: config.model.
    batch_size: examples per batch of this process.
    seed: of the order in training.
    train: True: shuffled anew every epoch, without end, incomplete global batches dropped;
      False: one pass in file order, the last batches padded.
    shard, num_shards: this process and the number of processes.
    worker_count: worker processes; 0 gathers in a thread of this one.

  Raises:
    InputError: unknown pipeline, missing or damaged files, or too few examples for one batch.
  """
  examples = load(cfg, split, model)
  return batches(
    examples,
    batch_size=batch_size,
    seed=seed,
    train=train,
    shard=shard,
    num_shards=num_shards,
    worker_count=worker_count,
    where=f"config.data: split {split!r}",
  )


def batches(
  examples, *, batch_size, seed, train, shard=0, num_shards=1, worker_count=0, where="data"
):
  """As `make_loader`, for examples already loaded."""
  import grain

  global_size = batch_size * num_shards
  count = len(examples) // global_size if train else -(-len(examples) // global_size)
  checks.require(
    count > 0,
    f"{where} has {len(examples)} examples, fewer than one global batch of {global_size}; "
    "lower the batch size or prepare more data.",
  )
  make_batch = _Batch(examples, count, batch_size, seed, train, shard, num_shards)
  dataset = grain.MapDataset.range(count)
  if train:
    dataset = dataset.repeat()
  dataset = dataset.map_with_index(make_batch)
  # One thread gathers ahead; more only fight over the interpreter lock.
  dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8))
  if worker_count:
    _allow_multiprocessing()
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=worker_count))
  return dataset


@dataclasses.dataclass(frozen=True)
class Rows:
  """Stands for examples that lie on the devices: batches of their row numbers."""

  count: int

  def __len__(self):
    return self.count

  def gather(self, indices):
    """indices int [B] -> {"row": int32 [B]}."""
    return {"row": np.asarray(indices, np.int32)}


@dataclasses.dataclass
class _Batch:
  """Batch number -> arrays; a class so that worker processes can receive it."""

  examples: Any
  count: int
  batch_size: int
  seed: int
  train: bool
  shard: int
  num_shards: int

  def __post_init__(self):
    self._held = (None, None)  # epoch and its order; replaced as one, threads share this object

  def __call__(self, index, _):
    epoch, step = divmod(index, self.count)
    first = (step * self.num_shards + self.shard) * self.batch_size
    rows = np.arange(first, first + self.batch_size)
    mask = (rows < len(self.examples)).astype(np.float32)
    rows = np.minimum(rows, len(self.examples) - 1)  # padding repeats the last example
    if not self.train:
      return {**self.examples.gather(rows), "mask": mask}
    rows = self._permutation(epoch)[rows]
    if hasattr(self.examples, "draw"):
      return {**self.examples.draw(rows, self.seed, epoch), "mask": mask}
    return {**self.examples.gather(rows), "mask": mask}

  def _permutation(self, epoch):
    held = self._held
    if held[0] != epoch:
      held = (epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self.examples)))
      self._held = held
    return held[1]


def _allow_multiprocessing():
  """Grain reads an absl flag before it starts workers; outside app.run nobody has parsed flags."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
