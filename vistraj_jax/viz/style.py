"""How line plots look: figure without global state, palette, clean axes, atomic saving."""

from vistraj_jax.core import files

# Distinguishable for most colour-blind readers (Okabe and Ito, 2008), darkest first.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
# Names of predictors that learn nothing: drawn dashed wherever they appear.
BASELINES = (
  *("identity", "kalman", "stand_still"),
  *("constant_velocity", "constant_acceleration", "constant_turn_rate"),
  *("black", "grey", "copy_last", "straight_line"),
)


def figure(columns, rows, width=4.6, height=3.2):
  """Returns (figure, flat list of rows x columns axes); sizes of one panel in inches."""
  from matplotlib.figure import Figure

  made = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=130)
  axes = list(made.subplots(rows, columns, squeeze=False).flat)
  for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=8)
  return made, axes


def line_style(name):
  """Returns matplotlib's line style of a series: dashed for baselines."""
  return "--" if name in BASELINES else "-"


def readable(name):
  """Returns a name as a reader writes it: blanks for underscores."""
  return name.replace("_", " ")


def save(made, path):
  """Writes the figure to `path` as PNG, atomically."""
  with files.atomic_path(path) as temporary:
    made.savefig(temporary, format="png")
