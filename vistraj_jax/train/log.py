"""Scalars of a run: JSON lines, TensorBoard events and a progress bar; process 0 writes.

`<workdir>/log.jsonl` has one object a line: step (over all phases), phase, epoch, time (Unix
seconds), then the scalars. A resumed run drops the lines that it will write again.
"""

import json
import math
import pathlib
import time

import tqdm

from vistraj_jax.core import files


class Log:
  """Writes scalars to all sinks.

  Args:
    workdir: folder of the run.
    is_writer: False on processes that should stay silent.
    resume_step: step over all phases from which the run goes on.
  """

  def __init__(self, workdir, is_writer=True, resume_step=0):
    self._file = self._board = None
    self._is_writer = is_writer
    if not is_writer:
      return
    import tensorboardX  # slow to import

    workdir = pathlib.Path(workdir)
    path = workdir / "log.jsonl"
    if path.exists():
      files.write_text(path, _lines_up_to(path, resume_step))
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = open(path, "a", encoding="utf-8")
    self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step)

  def scalars(self, step, phase, epoch, values):
    """Writes {name: number} at a step over all phases."""
    if not self._is_writer:
      return
    # JSON has no NaN: a missing value says the same.
    shown = {k: float(v) for k, v in values.items() if math.isfinite(v)}
    row = {"step": step, "phase": phase, "epoch": round(epoch, 4), "time": time.time(), **shown}
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()
    for name, value in shown.items():
      self._board.add_scalar(name, value, step)

  def say(self, sentence):
    """Prints a line without tearing the progress bar."""
    if self._is_writer:
      tqdm.tqdm.write(sentence)

  def bar(self, phase, total, done):
    """Returns a progress bar over steps, with rate and time left."""
    return tqdm.tqdm(
      total=total,
      initial=done,
      desc=f"phase {phase}",
      unit="step",
      disable=not self._is_writer,
      dynamic_ncols=True,
    )

  def close(self):
    """Flushes and closes the sinks."""
    if self._is_writer:
      self._file.close()
      self._board.close()


def _lines_up_to(path, step):
  """Returns the lines of earlier steps; a line cut by a kill is dropped too."""
  kept = []
  for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
    try:
      row = json.loads(line)
    except json.JSONDecodeError:
      continue
    if row["step"] <= step:
      kept.append(line)
  return "".join(kept)
