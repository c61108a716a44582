"""Runs the parts of a benchmark and of its PyTorch peer, each in a process of its own.

A part is timed on our side by a function of the benchmark, on the other by the script
`<benchmark>_torch.py`, which gets the part's name and its sizes as JSON and prints JSON. Both say
how many "parameters" their network has; the numbers must agree.
"""

import json
import platform
import sys
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from benchmarks import measure
from launch import command_line
from vistraj_jax.core import checks, files


class Part(NamedTuple):
  """One thing to measure.

  Attributes:
    measure: {name of size: number} -> {name of figure with its unit: number}, our side.
    sizes: what is measured; {"folder"}, a folder for both sides, is added.
    smoke: sizes that are smaller under --smoke.
    peers: {name of column: further sizes of the peer}; may be empty.
    needs_peer: the part says nothing without one.
  """

  measure: Callable
  sizes: dict
  smoke: dict
  peers: dict = {"torch": {}}
  needs_peer: bool = False


def main(name, description, parts, arguments=None):
  """Prints a table for each part; returns 0.

  Args:
    name: of the benchmark, a module of this folder.
    description: docstring of its command.
    parts: {name: `Part`}.
    arguments: of the command line.

  Raises:
    InputError: an unknown part, or networks of different size.
    subprocess.CalledProcessError: a part failed; its reason is on stderr.
  """
  parser = command_line.parser(description)
  parser.add_argument("--parts", nargs="+", default=[], help=f"some of {', '.join(parts)}")
  parser.add_argument("--smoke", action="store_true", help="sizes that only show that it runs")
  parser.add_argument("--torch_python", help="interpreter of an environment with torch")
  parser.add_argument("--out", help="JSON file for the figures")
  parser.add_argument("--ours", help="JSON of the sizes of one part: measure it in this process")
  args = parser.parse_args(arguments)
  if args.ours:
    print(json.dumps(parts[args.parts[0]].measure(json.loads(args.ours))))
    return 0
  for part in args.parts:
    checks.choice("--parts", part, parts)
    checks.require(
      args.torch_python or not parts[part].needs_peer,
      f"--parts {part}: compares with the peer; give its interpreter with --torch_python.",
    )
  wanted = args.parts or [p for p in parts if args.torch_python or not parts[p].needs_peer]
  found = {}
  for part in wanted:
    found[part] = _columns(name, part, parts[part], args.smoke, args.torch_python)
    _print(part, found[part])
  if args.out:
    machine = platform.processor() or platform.machine()
    report = {"processor": machine, "threads": measure.threads(), "parts": found}
    files.write_text(args.out, json.dumps(report, indent=2) + "\n")
  return 0


def share_of_product(flops):
  """Returns figures of our side on a GPU: `flops` a second against a large bfloat16 product's."""
  import jax
  import jax.numpy as jnp

  side = 8192
  x = jnp.ones((side, side), jnp.bfloat16)
  product = jax.jit(jnp.matmul)
  reached = 2 * side**3 / min(measure.times(lambda: product(x, x).block_until_ready(), 10))
  return {
    "tflop_per_s": flops / 1e12,
    "product_tflop_per_s": reached / 1e12,
    "share_of_product": flops / reached,
  }


def _columns(name, label, part, smoke, torch_python):
  """Returns {"sizes": ..., "vistraj_jax": figures, further columns: figures of the peer}."""
  sizes = part.sizes | (part.smoke if smoke else {})
  with tempfile.TemporaryDirectory() as folder:
    text = json.dumps({**sizes, "folder": folder})
    module = f"benchmarks.{name}"
    ours = measure.run(sys.executable, "-m", module, "--parts", label, "--ours", text)
    found = {"sizes": sizes, "vistraj_jax": ours}
    for column, further in part.peers.items() if torch_python else ():
      text = json.dumps({**sizes, "folder": folder, **further})
      found[column] = measure.run(torch_python, f"benchmarks/{name}_torch.py", label, text)
      theirs = found[column].get("parameters")
      checks.require(
        theirs == ours.get("parameters"),
        f"{name} {label}: our network has {ours.get('parameters')} parameters, that of {column} "
        f"{theirs}; they are not the same network.",
      )
  return found


def _print(part, found):
  """One row a figure, one column a side, and ours / theirs of times and memory."""
  sizes, columns = found["sizes"], {n: c for n, c in found.items() if n != "sizes"}
  print(f"\n{part} ({', '.join(f'{name} {value}' for name, value in sizes.items())})")
  print("".join([f"{'':28s}", *(f"{column:>22s}" for column in columns)]))
  ours, *theirs = columns.values()
  for name in dict.fromkeys(name for figures in columns.values() for name in figures):
    row = "".join(f"{_text(figures.get(name)):>22s}" for figures in columns.values())
    if name.endswith(("_ms", "_gb")) and name in ours:
      ratios = [f"{ours[name] / their[name]:.2f}" for their in theirs if name in their]
      row += f"   ours / theirs {', '.join(ratios)}" if ratios else ""
    print(f"{name:28s}{row}")


def _text(value):
  if isinstance(value, float):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
  return f"{value:,}" if isinstance(value, int) else value or "-"
