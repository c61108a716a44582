"""Trains a system: all phases of a config, resumable by the same command.

  python -m launch.train --config=configs/trackssm.py:quick --workdir=runs/trackssm
  python -m launch.train --config=configs/trackssm.py --config.data.root=DATA \\
    --config.init.checkpoint=weights.safetensors --config.phases.full.lr.encoder=2e-5

Writes below --workdir: config.json (resolved), data_set.json, log.jsonl, tensorboard/,
<phase>/{latest,best}, and at the end resources.json (peak memory).
Ctrl-C or SIGTERM saves and stops; the same command goes on. Settings: the config file itself.
"""

import json
import pathlib
import runpy
import sys

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from launch import command_line, runtime
from vistraj_jax.core import checks, files

_CONFIG = config_flags.DEFINE_config_file("config", help_string="configs/NAME.py[:variant]")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<config.task>.")
_COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "HOST:PORT of process 0; starts JAX's multi-process runtime ('auto' on TPU)."
)
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes in all, with --coordinator.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Number of this process, with --coordinator.")

# Settings that may change between a run and its continuation.
_FREE = ("run", "parallel", "mesh", "partition", "data.root", "data.worker_count")


def train(config, workdir):
  """Trains `config` in `workdir`; returns the summary of `loop.run`."""
  import jax

  from vistraj_jax.data import pipeline
  from vistraj_jax.prepare import embedded
  from vistraj_jax.tasks import base
  from vistraj_jax.train import loop

  checks.require(
    config.data.root, "config.data.root: '' received; give a folder that launch.prepare wrote."
  )
  if config.data.root == "embedded":
    config.data.root = str(embedded.root(config.task, config.data.to_dict().get("world")))
  if config.data.get("features", "") == "embedded":
    config.data.features = str(_embedded_features(config.data.root))
  _save_config(config, workdir)
  # The best evaluation is chosen on "dev" where there is one, so that "val" stays unseen.
  splits = {"train": "train", "val": "dev" if config.data.get("dev_share", 0) else "val"}
  examples = {s: pipeline.load(config.data, name, config.model) for s, name in splits.items()}
  about = {split: _about(x) for split, x in examples.items()}
  if jax.process_index() == 0:
    files.write_text(pathlib.Path(workdir) / "data_set.json", json.dumps(about, indent=2) + "\n")

  task = base.make(config, about)
  resident, readers = {}, examples
  if config.data.get("resident", False):
    resident = {split: x.resident() for split, x in examples.items()}
    readers = {split: pipeline.Rows(len(x)) for split, x in examples.items()}

  def loader(split, batch_size, train):
    return pipeline.batches(
      readers[split],
      batch_size=batch_size // jax.process_count(),
      seed=config.seed,
      train=train,
      shard=jax.process_index(),
      num_shards=jax.process_count(),
      worker_count=config.data.worker_count if train else 0,
      where=f"config.data.root: split {split!r}",
    )

  data = loop.Data(num_examples=len(examples["train"]), loader=loader, resident=resident)
  summary = loop.run(config, workdir, task=task, data=data)
  if jax.process_index() == 0:
    runtime.record_memory(pathlib.Path(workdir) / "resources.json")
  return summary


def _embedded_features(root):
  """Returns the folder of features of a small encoder with random weights, made on first use."""
  from launch import encode
  from vistraj_jax.prepare import embedded

  sizes = ("hidden_size=192", "depth=4", "num_heads=4", "mlp_width=384", "image_size=168")
  arguments = ["--data", root, "--encoder", "smolvlm_tower", "--checkpoint", "random:0"]
  arguments += ["--set", *sizes, "processor_edge=0", "--layers", "all", "--dtype", "float32"]
  return embedded.made_once(
    "waymo-features", arguments, lambda out: encode.main([*arguments, "--out", str(out)])
  )


def _about(examples):
  """What a run records of a split: the number and form of its examples, and what they say."""
  first = examples.gather(np.zeros(1, int))
  shapes = {name: array.shape[1:] for name, array in first.items()}
  return {"examples": len(examples), "shapes": shapes, **examples.about()}


def _save_config(config, workdir):
  """Writes config.json, or checks that the one there is of the same experiment.

  Without a checkpoint there is nothing to mix up: a run that was refused may start again.
  """
  path = pathlib.Path(workdir) / "config.json"
  new = json.loads(config.to_json_best_effort())
  saved = (f for kind in ("best", "latest") for f in path.parent.glob(f"*/{kind}/*"))
  if path.exists() and any(saved):
    old, now = _flat(json.loads(path.read_text())), _flat(new)
    changed = [
      f"{k} was {old.get(k)!r}, is {now.get(k)!r}"
      for k in sorted(old.keys() | now.keys())
      if old.get(k) != now.get(k) and not k.startswith(_FREE)
    ]
    checks.require(
      not changed,
      f"{path}: this folder holds a run with other settings ({'; '.join(changed[:3])}); choose "
      "another --workdir, or delete this one.",
    )
  import jax

  if jax.process_index() == 0:
    files.write_text(path, json.dumps(new, indent=2) + "\n")


def _flat(tree, prefix=""):
  if not isinstance(tree, dict) or not tree:
    return {prefix: tree}
  out = {}
  for name, value in tree.items():
    out |= _flat(value, f"{prefix}.{name}" if prefix else name)
  return out


def _start_processes():
  import jax

  if _COORDINATOR.value == "auto":
    jax.distributed.initialize()
  elif _COORDINATOR.value:
    jax.distributed.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)


def _print_summary(summary, columns):
  """Prints a table of phases; `columns` is the SUMMARY of the task."""
  rows = [("phase", "steps", "best at", *(title for title, _ in columns))]
  for name, values in summary.items():
    shown = [f"{values[k]:.4f}" if k in values else "-" for _, k in columns]
    rows.append((name, str(values["step"]), str(values["best_step"]), *shown))
  widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
  for row in rows:
    print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _main(argv):
  if len(argv) > 1:
    raise checks.InputError(f"launch.train: {argv[1:]} received; settings begin with --config.")
  config = _CONFIG.value
  if config is None:
    raise checks.InputError("launch.train: no --config; try --config=configs/trackssm.py:quick")
  runtime.configure()
  _start_processes()
  import jax

  from vistraj_jax.tasks import base
  from vistraj_jax.train import loop

  workdir = pathlib.Path(_WORKDIR.value or f"runs/{config.task}")
  try:
    summary = train(config, workdir)
  except loop.Interrupted as interrupted:
    print(interrupted, file=sys.stderr)
    return
  if jax.process_index() == 0:
    _print_summary(summary, base.task_class(config.task).SUMMARY)


def _parse(argv):
  """Flags; a wrong one becomes one sentence, with the nearest settings for a misspelt one."""
  settings = [a for a in argv if a.startswith(("--config.", "-config."))]
  try:
    return flags.FLAGS(argv)
  except (AttributeError, KeyError) as error:
    known = [f"config.{name}" for name in _flat(_read_config(argv).to_dict())]
    for name in (a.lstrip("-").split("=")[0] for a in settings):
      if name not in known:
        raise checks.InputError(
          f"launch.train: there is no setting {name!r}; nearest: {checks.nearest(name, known)}."
        ) from error
    raise
  except flags.Error as error:
    last = str(error).strip().splitlines()[-1].strip()
    raise checks.InputError(f"launch.train: {last}") from error


def _read_config(argv):
  """Returns the config that --config names, without the settings that follow it."""
  path = next(a.split("=", 1)[1] for a in argv if a.lstrip("-").startswith("config="))
  file, _, variant = path.partition(":")
  return runpy.run_path(file)["get_config"](*([variant] if variant else []))


if __name__ == "__main__":
  command_line.run(lambda: app.run(_main, flags_parser=_parse))
