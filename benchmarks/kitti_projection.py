"""How well KITTI's 3-D labels, projected with P2, agree with its 2-D labels: a Markdown table.

  python -m benchmarks.kitti_projection --source kitti_tracking

--source holds label_02 and calib. The projected box is the bound of the 8 corners' convex hull, cut
to the image. Quantiles over boxes of the overlap, and of the distance of the farther one of the
left and right edges, and of the top and bottom edges.
"""

import pathlib

import numpy as np

from launch import command_line
from vistraj_jax.core import checks
from vistraj_jax.prepare import kitti, kitti_boxes

TRUNCATED = ("not truncated", "partly truncated", "largely truncated")
OCCLUDED = ("fully visible", "partly occluded", "largely occluded", "occlusion unknown")


def main(arguments=None):
  """Prints the table; returns 0."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--source", required=True, help="folder that holds label_02 and calib")
  print(table(measure(parser.parse_args(arguments).source)))
  return 0


def measure(source):
  """Compares all labels of all sequences.

  Args:
    source: folder that holds label_02 and calib.

  Returns:
    {"kind" [N] str, "truncated", "occluded" [N] int, "behind" [N] bool (a corner lies behind the
    camera), "iou" [N], "across", "upright" [N]: distances in px, see `kitti_boxes.compare`}.
  """
  source = pathlib.Path(source)
  found = sorted((source / "label_02").glob("*.txt"))
  checks.require(found, f"{source / 'label_02'}: holds no label file (0000.txt, ...).")
  columns = {}
  for path in found:
    info = kitti.sequence_info(path)
    labels = kitti_boxes.read(path)
    projection = kitti_boxes.read_projection(source / "calib" / path.name)
    size = info.width, info.height
    projected, behind = kitti_boxes.project(labels.corners, projection, size)
    iou, across, upright = kitti_boxes.compare(labels.box_xyxy, projected)
    for name, values in (
      *(("kind", labels.kind), ("truncated", labels.truncated), ("occluded", labels.occluded)),
      *(("behind", behind), ("iou", iou), ("across", across), ("upright", upright)),
    ):
      columns.setdefault(name, []).append(values)
  return {name: np.concatenate(values) for name, values in columns.items()}


def table(columns):
  """Returns the Markdown table of what `measure` returns."""
  front, people = ~columns["behind"], columns["kind"] == "Pedestrian"
  groups = {"all": np.ones(len(front), bool), "all but pedestrians": ~people}
  groups |= {str(kind): columns["kind"] == kind for kind in np.unique(columns["kind"])}
  rest = "but pedestrians, "
  for name, words in (("truncated", TRUNCATED), ("occluded", OCCLUDED)):
    for level, word in enumerate(words):
      groups[rest + word] = ~people & front & (columns[name] == level)
  groups["a corner behind the camera"] = ~front
  rows = [
    "| boxes | number | not in the image | IoU 1 % | 5 % | 50 % | left/right edge 50 % (px) | 95 % "
    "| top/bottom edge 50 % (px) | 95 % |",
    "| --- |" + " ---: |" * 9,
  ]
  for name, rows_of in groups.items():
    seen = rows_of & np.isfinite(columns["across"])
    if not seen.any():
      continue
    iou = np.quantile(columns["iou"][rows_of], (0.01, 0.05, 0.5))
    edges = [q for e in ("across", "upright") for q in np.quantile(columns[e][seen], (0.5, 0.95))]
    cells = [f"{rows_of.sum():,}", str(rows_of.sum() - seen.sum()), *(f"{v:.3f}" for v in iou)]
    rows.append(f"| {name} | " + " | ".join([*cells, *(f"{v:.1f}" for v in edges)]) + " |")
  return "\n".join(rows)


if __name__ == "__main__":
  command_line.run(main)
