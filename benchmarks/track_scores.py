"""Times reading and scoring of tracking results against TrackEval, on one core.

  python -m benchmarks.track_scores
  python -m benchmarks.track_scores --mot17 ../data/mot17

Makes 40 sequences of 480 frames with 60 objects in a temporary folder (1.15 million true boxes),
reads and scores them with this project and with TrackEval 1.3.0 (plain rules, no preprocessing),
checks that HOTA, MOTA, IDF1 and the counts agree, and writes benchmarks/results/track_scores.json
and .md. With --mot17, a folder with train/{sequence} and tracker_output/{sequence}.txt, the real
sequences are timed too (mot17 rules). Every measurement is a process of its own, pinned to one core
with one thread; the median of the repeats counts, and the peak memory of the whole process.
"""

import contextlib
import io
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from launch import command_line
from vistraj_jax.core import checks, files
from vistraj_jax.tracking import mot_files

SEQUENCES, FRAMES, OBJECTS = 40, 480, 60
WIDTH, HEIGHT = 1600, 900
RESULTS = pathlib.Path(__file__).parent / "results" / "track_scores.json"
CHECKED = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "Frag", "FP", "FN", "TP", "IDTP")


def main(arguments=None):
  """Runs all measurements, prints and writes the table; returns 0."""
  parser = command_line.parser(__doc__)
  parser.add_argument("--mot17", help="folder of the real sequences, see above; optional")
  parser.add_argument("--repeats", type=int, default=3, help="measurements of each kind")
  parser.add_argument("--measure", choices=tuple(MEASURES), help="one measurement; used inside")
  parser.add_argument("--data", help="folder to measure; used inside")
  parser.add_argument("--protocol", default="plain", help="used inside")
  args = parser.parse_args(arguments)
  if args.measure:
    print(json.dumps(_measured(MEASURES[args.measure], pathlib.Path(args.data), args.protocol)))
    return 0

  rows = []
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    print(f"making {SEQUENCES} sequences of {FRAMES} frames with {OBJECTS} objects ...")
    boxes = make_data(folder / "made")
    print(f"{boxes[0]:,} true boxes, {boxes[1]:,} predictions")
    name = f"{SEQUENCES} x {FRAMES} frames x {OBJECTS} objects"
    rows.append(_compare(name, folder / "made", "plain", args.repeats))
    if args.mot17:
      real, source = folder / "mot17", pathlib.Path(args.mot17).resolve()
      (real / "run").mkdir(parents=True)
      (real / "train").symlink_to(source / "train")
      (real / "run" / "data").symlink_to(source / "tracker_output")
      rows.append(_compare("MOT17 train, real tracker", real, "mot17", args.repeats))
  result = {
    "machine": f"{_processor()}, 1 of {os.cpu_count()} cores, Python {platform.python_version()}, "
    f"NumPy {np.__version__}",
    "load_before": os.getloadavg()[0],
    "repeats": args.repeats,
    "measurements": rows,
  }
  files.write_text(RESULTS, json.dumps(result, indent=1) + "\n")
  markdown = _markdown(result)
  files.write_text(RESULTS.with_suffix(".md"), markdown)
  print(markdown)
  return 0


def make_data(folder):
  """Writes train/ and run/data/ into `folder`; returns the numbers of true and predicted boxes."""
  total = np.zeros(2, np.int64)
  for number in range(SEQUENCES):
    name = f"made-{number:02d}"
    truth, prediction = _scene(np.random.default_rng(number))
    info = mot_files.SequenceInfo(name, 12.0, FRAMES, WIDTH, HEIGHT)
    mot_files.write_sequence_info(folder / "train" / name, info)
    mot_files.write_table(folder / "train" / name / "gt" / "gt.txt", truth)
    mot_files.write_table(folder / "run" / "data" / f"{name}.txt", prediction)
    total += len(truth), len(prediction)
  return total.tolist()


def _scene(rng):
  """Smooth tracks, and predictions with misses, jitter, switches, new numbers and false boxes."""
  frame = np.repeat(np.arange(1, FRAMES + 1), OBJECTS)
  time_ = np.arange(FRAMES)[:, None]
  size = rng.uniform(30, 160, OBJECTS) * np.exp(rng.uniform(-0.002, 0.002, OBJECTS) * time_)
  size = np.stack([size, size * rng.uniform(0.6, 2.5, OBJECTS)], -1)
  start = rng.uniform([0.1 * WIDTH, 0.3 * HEIGHT], [0.9 * WIDTH, 0.8 * HEIGHT], (OBJECTS, 2))
  speed = rng.uniform([-6, -1.2], [6, 1.2], (OBJECTS, 2))
  box = np.concatenate([start + speed * time_[..., None] - size / 2, size], -1)
  truth = mot_files.Table.of(
    frame, np.tile(np.arange(OBJECTS), FRAMES), box, class_id=1 + 0 * frame
  )

  renamed = np.cumsum(rng.random((FRAMES, OBJECTS)) < 0.01, 0)
  track_id = np.arange(OBJECTS) + OBJECTS * renamed
  seen = rng.random((FRAMES, OBJECTS)) >= 0.1
  side = np.concatenate([size, size], -1)
  guess = box + 0.06 * rng.standard_normal(box.shape) * side
  guess[..., 2:] = np.maximum(guess[..., 2:], 2.0)
  false = FRAMES * 2
  false_box = rng.uniform([0, 0, 20, 20], [WIDTH, HEIGHT, 150, 200], (false, 4))
  rows = [
    (frame.reshape(FRAMES, OBJECTS)[seen], track_id[seen], guess[seen]),
    (rng.integers(1, FRAMES + 1, false), 10**6 + np.arange(false), false_box),
  ]
  columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
  return truth, mot_files.Table.of(*columns, score=rng.uniform(0.3, 1, len(columns[0])))


def _compare(name, folder, protocol, repeats):
  found = {tool: [_spawn(tool, folder, protocol) for _ in range(repeats)] for tool in MEASURES}
  ours, theirs = (found[tool][0]["summary"] for tool in MEASURES)
  for field in CHECKED:
    checks.require(
      abs(ours[field] - theirs[field]) < 1e-9,
      f"{name}: {field} is {ours[field]} here and {theirs[field]} by TrackEval.",
    )
  row = {"name": name, "protocol": protocol, "summary": ours}
  for tool, measured in found.items():
    for key in ("read_seconds", "seconds", "peak_megabytes"):
      if key in measured[0]:
        row[f"{tool}_{key}"] = statistics.median(one[key] for one in measured)
  return row


def _spawn(tool, folder, protocol):
  threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
  command = [sys.executable, "-m", "benchmarks.track_scores", "--measure", tool]
  command += ["--data", str(folder), "--protocol", protocol]
  ended = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, check=True)
  measured = json.loads(ended.stdout)
  print(f"  {folder.name} by {tool}: {measured['seconds']:.2f} s")
  return measured


def _measured(measure, folder, protocol):
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  result = measure(folder, protocol)
  result["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return result


def _ours(folder, protocol):
  from vistraj_jax.metrics import protocols

  start, reading, results = time.perf_counter(), 0.0, []
  for sequence in mot_files.find_sequences(folder / "train"):
    before = time.perf_counter()
    length = mot_files.read_sequence_info(sequence).length
    predicted = folder / "run" / "data" / f"{sequence.name}.txt"
    truth = mot_files.read_table(sequence / "gt" / "gt.txt", "truth", length)
    prediction = mot_files.read_table(predicted, "prediction", length)
    reading += time.perf_counter() - before
    results.append(protocols.score_sequence(truth, prediction, length, protocol))
  summary = protocols.combine(results)["summary"]
  return {
    "seconds": time.perf_counter() - start,
    "read_seconds": reading,
    "summary": {name: summary[name] for name in CHECKED},
  }


def _trackeval(folder, protocol):
  import trackeval

  lengths = {
    sequence.name: mot_files.read_sequence_info(sequence).length
    for sequence in mot_files.find_sequences(folder / "train")
  }
  with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as out:
    start = time.perf_counter()
    data = trackeval.datasets.MotChallenge2DBox(
      {
        "GT_FOLDER": str(folder / "train"),
        "TRACKERS_FOLDER": str(folder),
        "TRACKERS_TO_EVAL": ["run"],
        "OUTPUT_FOLDER": out,
        "SKIP_SPLIT_FOL": True,
        "SEQ_INFO": lengths,
        "DO_PREPROC": protocol == "mot17",
        "BENCHMARK": "MOT17",
        "PRINT_CONFIG": False,
      }
    )
    switches = ("PRINT_RESULTS", "PRINT_CONFIG", "TIME_PROGRESS", "PLOT_CURVES", "OUTPUT_SUMMARY")
    switches += ("OUTPUT_DETAILED", "OUTPUT_EMPTY_CLASSES", "DISPLAY_LESS_PROGRESS")
    evaluator = trackeval.Evaluator(dict.fromkeys(switches, False) | {"BREAK_ON_ERROR": True})
    quiet = {"PRINT_CONFIG": False}
    metrics = [
      trackeval.metrics.HOTA(),
      trackeval.metrics.CLEAR(quiet),
      trackeval.metrics.Identity(quiet),
    ]
    result = evaluator.evaluate([data], metrics)[0]["MotChallenge2DBox"]["run"]
    seconds = time.perf_counter() - start
  pooled = result["COMBINED_SEQ"]["pedestrian"]
  fields = {name: value for metric in pooled.values() for name, value in metric.items()}
  fields |= {name: fields[f"CLR_{name}"] for name in ("FP", "FN", "TP")}
  summary = {name: float(np.mean(fields[name])) for name in CHECKED}
  return {"seconds": seconds, "summary": summary}


MEASURES = {"ours": _ours, "trackeval": _trackeval}


def _processor():
  for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
    if line.startswith("model name"):
      return line.split(":", 1)[1].strip()
  return platform.processor()


def _markdown(result):
  lines = [
    "# Scoring tracks: time to read and score, one core",
    "",
    f"{result['machine']}; median of {result['repeats']}; load before {result['load_before']:.1f}.",
    "`python -m benchmarks.track_scores --mot17 ...` All scores equal TrackEval's within 1e-9.",
    "",
    "| data | here, read (s) | here, all (s) | TrackEval 1.3.0, all (s) | faster | here, peak MB |"
    " TrackEval, peak MB |",
    "|---|---:|---:|---:|---:|---:|---:|",
  ]
  for row in result["measurements"]:
    lines.append(
      f"| {row['name']} | {row['ours_read_seconds']:.2f} | {row['ours_seconds']:.2f} | "
      f"{row['trackeval_seconds']:.2f} | {row['trackeval_seconds'] / row['ours_seconds']:.1f} x | "
      f"{row['ours_peak_megabytes']:.0f} | {row['trackeval_peak_megabytes']:.0f} |"
    )
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  command_line.run(main)
