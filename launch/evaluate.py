"""Score tracking runs against the truth: HOTA, CLEAR and Identity, runs side by side.

Predicted futures: python -m launch.evaluate forecasts --help
Predicted videos: python -m launch.evaluate videos --help

examples:
  python -m launch.evaluate --truth data/nuscenes/test --out runs/scores \\
    --protocol nuscenes nuscenes_keyframes \\
    --predictions runs/identity runs/constant_velocity runs/kalman runs/trackssm:model
  python -m launch.evaluate --truth data/kitti/val --protocol kitti --out runs/scores \\
    --predictions runs/kalman

A run is a folder with data/{sequence}.txt, as `python -m launch.track` writes it, or a folder that
holds the files itself; its name in the tables is the folder's, or what follows the colon.
A missing file counts as a sequence without predictions: all its objects are misses.
Sequences called {scene}_CAM_* or {scene}-CAM_* are also pooled by camera.

protocols:
  nuscenes   the 7 classes car 0, truck 1, bus 2, trailer 3, pedestrian 4, motorcycle 5, bicycle 6
  nuscenes_keyframes  the same in the annotated frames, 2 a second, as a sequence of their own
  kitti      car, pedestrian, bicycle; vans, sitting people and DontCare regions cost nothing
  mot17      pedestrians (class 1) by the MOTChallenge rules; mot20 also ignores vehicles
  plain      every box, whatever its class

Writes to --out:
  scores.json  {"truth", "alphas": 19 thresholds, "protocols": {protocol: {
    "sequences": {name: scored frames},
    "runs": {label: {"predictions": folder, "missing": [sequences], "unknown": [sequences],
      "classes": {class: {"COMBINED": result, "sequences": {sequence: result}}},
      "over_classes": {"class_averaged", "class_averaged_nonempty", "detection_averaged": result,
        "sequences": {sequence: detection-averaged result}},
      "cameras": {camera: {"classes": {class: result}, "over_classes": the three averages}}}}}}}
    with result = {"HOTA": {"HOTA", "DetA", "AssA", ...: one value per threshold}, "CLEAR": {...},
    "Identity": {...}, "Count": {...}, "summary": {HOTA averaged over thresholds, MOTA, ...}};
    all ratios are fractions
  scores.md    the same numbers as tables, in percent: pooled, by camera, by camera and class, by
    sequence
"""

import dataclasses
import json
import pathlib
import sys

from launch import command_line
from vistraj_jax.core import checks, files

# As in metrics.protocols, which --help need not wait for.
PROTOCOLS = ("nuscenes", "nuscenes_keyframes", "kitti", "mot17", "mot20", "plain")
# Their class ids count from 0 whatever the files' classBase; the others keep the files' ids.
FROM_ZERO = ("nuscenes", "nuscenes_keyframes", "kitti")


def main(arguments=None):
  """Runs the command line; returns 0."""
  arguments = sys.argv[1:] if arguments is None else arguments
  if arguments[:1] == ["forecasts"]:
    from launch import evaluate_forecasts

    return evaluate_forecasts.main(arguments[1:])
  if arguments[:1] == ["videos"]:
    from launch import evaluate_videos

    return evaluate_videos.main(arguments[1:])
  args = _parser().parse_args(arguments)
  command_line.require_folder(args.out)

  from vistraj_jax.metrics import report
  from vistraj_jax.tracking import mot_files

  found = mot_files.find_sequences(args.truth)
  folders = {folder.name: folder for folder in found}
  checks.require(
    len(folders) == len(found),
    f"--truth: several splits of {args.truth} hold a sequence of the same name; name one split.",
  )
  sources = command_line.labelled("--predictions", args.predictions)
  found = {label: _find_files(folder, label, folders) for label, folder in sources.items()}
  names = list(dict.fromkeys(args.protocol))
  lengths, scores = _score(folders, found, names)

  notes = _notes(folders, found)
  details = {
    label: {
      "predictions": str(sources[label]),
      "missing": sorted(set(folders) - set(found[label])),
      "unknown": sorted(set(found[label]) - set(folders)),
    }
    for label in sources
  }
  cameras = {name: mot_files.scene_and_camera(name)[1] for name in folders}
  result = {"truth": str(args.truth), "alphas": _alphas(), "protocols": {}}
  markdown = [
    "# Tracking scores",
    "Ratios in percent, MOTA and IDF1 at overlap 0.5, HOTA over thresholds 0.05 to 0.95. The mean "
    "of classes leaves out classes without any box; - stands where there is no box to score.",
    *(f"- {note}" for note in notes),
  ]
  printed = []
  for name in names:
    runs = {label: report.arrange(own, cameras) for label, own in scores[name].items()}
    result["protocols"][name] = {
      "sequences": lengths[name],
      "runs": {label: details[label] | run for label, run in runs.items()},
    }
    frames = sum(lengths[name].values())
    head = f"protocol {name}, {len(folders)} sequences, {frames:,} frames"
    pooled, by_camera = report.class_table(runs), report.camera_table(runs)
    tables = {
      "By class": pooled,
      "By camera, all scored boxes": by_camera,
      "By camera and class": report.camera_table(runs, by_class=True),
      "By sequence, all scored boxes": report.sequence_table(runs),
    }
    markdown.append(f"## {head[0].upper()}{head[1:]}")
    for title, table in tables.items():
      markdown += [f"### {title}", report.as_markdown(table)] if table else []
    printed += [f"{head}; ratios in percent", report.as_text(pooled)]
    printed += [report.as_text(by_camera)] if by_camera else []
  out = pathlib.Path(args.out)
  files.write_text(out / "scores.json", json.dumps(report.plain(result)) + "\n")
  files.write_text(out / "scores.md", "\n\n".join(markdown) + "\n")
  for note in notes:
    print(f"warning: {note}", file=sys.stderr)
  print("\n".join(printed))
  print(f"written: {out / 'scores.json'}, {out / 'scores.md'}")
  return 0


def _parser():
  parser = command_line.parser(__doc__)
  add = parser.add_argument
  add("--truth", required=True, help="folder of sequences, or of splits of sequences, MOT layout")
  add(
    "--predictions",
    required=True,
    nargs="+",
    metavar="RUN[:LABEL]",
    help="folders of runs; put the baselines first",
  )
  add(
    "--protocol",
    nargs="+",
    choices=PROTOCOLS,
    default=["nuscenes"],
    help="rules of scoring, see above; several give a table each",
  )
  add("--out", required=True, help="folder for scores.json and scores.md")
  return parser


def _alphas():
  from vistraj_jax.metrics import protocols

  return protocols.ALPHAS.tolist()


def _find_files(folder, label, sequences):
  """Returns {sequence: file} of the run in `folder`."""
  checks.require(
    folder.is_dir(), f"--predictions: {folder} is no folder; give the --out of launch.track."
  )
  place = folder / "data" if (folder / "data").is_dir() else folder
  found = {path.stem: path for path in sorted(place.glob("*.txt"))}
  checks.require(
    found.keys() & sequences.keys(),
    f"--predictions: {place} (run {label!r}) holds no file of a sequence of --truth; it holds "
    f"{list(found)[:5]}, the sequences are {list(sequences)[:5]}.",
  )
  return found


def _notes(sequences, found):
  notes = []
  for label, by_name in found.items():
    missing = [name for name in sequences if name not in by_name]
    unknown = [name for name in by_name if name not in sequences]
    if missing:
      notes.append(
        f"run {label!r} has no file for {len(missing)} of {len(sequences)} sequences, all their "
        f"objects count as misses: {', '.join(missing)}."
      )
    if unknown:
      notes.append(
        f"run {label!r} has files of sequences that --truth does not hold, they are not scored: "
        f"{', '.join(unknown)}."
      )
  return notes


def _score(folders, found, names):
  """Returns {protocol: {sequence: frames}} and {protocol: {run: {sequence: {class: result}}}}."""
  import tqdm

  from vistraj_jax.metrics import protocols
  from vistraj_jax.tracking import mot_files

  lengths = {protocol: {} for protocol in names}
  scores = {protocol: {label: {} for label in found} for protocol in names}
  with tqdm.tqdm(total=len(folders) * len(found), desc="scoring", unit="sequence") as bar:
    for name, folder in folders.items():
      info = mot_files.read_sequence_info(folder)
      for protocol in names:
        try:
          interval = protocols.keyframe_interval(protocol, info.frame_rate)
        except checks.InputError as error:
          raise checks.InputError(f"{folder / 'seqinfo.ini'}: {error}") from None
        lengths[protocol][name] = (info.length - 1) // interval + 1
      truth_file = folder / "gt" / "gt.txt"
      truth = mot_files.read_table(truth_file, "truth", info.length)
      for label, by_name in found.items():
        prediction = mot_files.Table.of()
        if name in by_name:
          prediction = mot_files.read_table(by_name[name], "prediction", info.length)
        for protocol in names:
          base = info.class_base if protocol in FROM_ZERO else 0
          try:
            scores[protocol][label][name] = protocols.score_classes(
              _from(truth, base), _from(prediction, base), info.length, protocol, info.frame_rate
            )
          except checks.InputError as error:
            pair = f"{truth_file} and {by_name.get(name, 'no predictions')}"
            raise checks.InputError(f"{pair}: {error}") from None
        bar.update()
  return lengths, scores


def _from(table, class_base):
  """Returns the table with its classes counted from `class_base`."""
  return dataclasses.replace(table, class_id=table.class_id - class_base)


if __name__ == "__main__":
  command_line.run(main)
