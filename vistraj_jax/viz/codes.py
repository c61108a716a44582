"""How a tokenizer uses its codes: frequency by rank, and the share that the commonest cover."""

import json
import pathlib

import numpy as np

from vistraj_jax.core import checks
from vistraj_jax.viz import style


def read_counts(path):
  """Returns (times that codes occur int64 [K], falling, without zeros; number of codes; tokens).

  Args:
    path: .npy file of int counts [number of codes]; or a JSON report with "code_usage": "counts" of
      the commonest codes [code, times], "tokens" and "of", the number of codes.

  Raises:
    InputError: missing, another content, or no code that occurs.
  """
  path = pathlib.Path(path)
  checks.require(path.is_file(), f"{path}: there is no such file of code counts.")
  if path.suffix == ".npy":
    counts = np.load(path, allow_pickle=False)
    checks.require(
      counts.ndim == 1 and np.issubdtype(counts.dtype, np.integer),
      f"{path}: {counts.dtype} {counts.shape} received; give integer counts, one a code.",
    )
    number, tokens = len(counts), int(counts.sum())
  else:
    try:
      usage = json.loads(path.read_text())["code_usage"]
      counts = np.array([times for _, times in usage["counts"]], np.int64)
      number, tokens = usage["of"], usage["tokens"]
    except (ValueError, TypeError, KeyError) as error:
      raise checks.InputError(
        f"{path}: no .npy counts and no report with code_usage ({error!r})."
      ) from None
  checks.require(
    len(counts) and counts.min() >= 0 and counts.max() > 0,
    f"{path}: no code occurs, or counts are negative; count the codes of some videos.",
  )
  counts = np.sort(counts[counts > 0])[::-1].astype(np.int64)
  return counts, number, tokens


def draw_code_usage(runs, path):
  """Draws both panels to a PNG file.

  Args:
    runs: {label: as `read_counts` returns}.
    path: PNG file.

  Returns:
    the figure.
  """
  made, (ranks, covered) = style.figure(2, 1, height=3.6)
  for index, (label, (counts, number, tokens)) in enumerate(runs.items()):
    colour = style.PALETTE[index % len(style.PALETTE)]
    rank = 1 + np.arange(len(counts))
    ranks.step(
      rank,
      counts,
      where="mid",
      color=colour,
      label=f"{label} ({len(counts):,} of {number:,} codes)",
    )
    ranks.fill_between(rank, counts, 0.5, step="mid", color=colour, alpha=0.15)
    share = 100 * np.cumsum(counts) / tokens
    covered.plot(rank, share, color=colour, label=f"{label} ({tokens:,} tokens)")
  ranks.set_title("how often codes occur", fontsize=10)
  ranks.set_ylabel("times", fontsize=8)
  ranks.set_yscale("log")
  covered.set_title("tokens that the commonest codes cover", fontsize=10)
  covered.set_ylabel("%", fontsize=8)
  covered.set_ylim(0, 102)
  for ax in (ranks, covered):
    ax.set_xscale("log")
    ax.set_xlabel("rank of the code", fontsize=8)
    ax.legend(fontsize=7, frameon=True, framealpha=0.85, edgecolor="none", loc="best")
  style.save(made, path)
  return made
