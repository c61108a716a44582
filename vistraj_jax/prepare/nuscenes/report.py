"""The closing report of a nuScenes preparation: what the annotations became, and what is missing.

Of a track annotated in n neighbouring keyframes with f frames from one to the next, n of
f n - (f - 1) boxes are keyframes. The share of keyframe boxes has to be what this predicts.
"""

from vistraj_jax.prepare import tracks

_COUNTS = ("annotations", "keyframe_boxes", "interpolated_boxes", "expected_boxes")
_COLUMNS = ("annotations", "keyframe box", "interpolated", "visible", "keyframes", "n/(fn-f+1)")


def summarize(results, skipped):
  """Adds up the results of `nuscenes.tracks.convert`.

  Args:
    results: [(unit, result)].
    skipped: {scene: sentence} that were left out.

  Returns:
    {"splits": {split: as `tracks.summarize`, and "annotations", "keyframe_boxes",
    "interpolated_boxes", "keyframe_share", "expected_keyframe_share", "visible_share", "rejected"
    {reason: count}; the same for each of its "classes" (annotations of the class only), "cameras"
    and "scenes"}, "skipped"}. The visible share is keyframe boxes / annotations, where the
    annotations of a scene count once for every camera.
  """
  statistics = tracks.summarize(results)
  for split, total in statistics["splits"].items():
    own = [result for unit, result in results if unit.split == split]
    total |= _shares(_add(own))
    total["rejected"] = {
      reason: sum(result["rejected"][reason] for result in own) for reason in own[0]["rejected"]
    }
    found = sorted({class_id for result in own for class_id in result["of_classes"]}, key=int)
    empty = dict.fromkeys(("boxes", "tracks", "windows", "short_tracks"), 0)
    total["classes"] = {
      class_id: {**total["classes"].get(class_id, empty), **_shares(_add_class(own, class_id))}
      for class_id in found
    }
    for key in ("camera", "scene"):
      names = dict.fromkeys(result[key] for result in own)
      total[f"{key}s"] = {
        name: {
          "tracks": sum(r["tracks"] + r["short_tracks"] for r in own if r[key] == name),
          **_shares(_add([r for r in own if r[key] == name])),
        }
        for name in names
      }
  return {**statistics, "skipped": skipped}


def text(statistics, class_names):
  """Returns the closing report; `class_names` {class id: name}."""
  interpolation = statistics["settings"]["interpolation"]
  lines = [tracks.report(statistics, class_names)]
  for split, total in statistics["splits"].items():
    lines += ["", f"{split:<17}" + "".join(f"{name:>13}" for name in _COLUMNS)]
    lines += [_line("all", total)]
    lines += [_line(class_names[int(i)], counts) for i, counts in total["classes"].items()]
    lines += [_line(name, counts) for name, counts in total["cameras"].items()]
    rejected = ", ".join(f"{name} {count:,}" for name, count in total["rejected"].items())
    lines += [f"  rejected: {rejected}"]
    expected = total["expected_keyframe_share"]
    if interpolation == "image2d" and abs(total["keyframe_share"] - expected) > 1e-9:
      lines += ["  warning: the keyframe share is not the expected one"]
  lines += [
    "",
    "annotations count once for every camera; visible: keyframe boxes / annotations; keyframes: "
    "keyframe boxes / all boxes; n/(fn-f+1): the same as lines between 2-D boxes make it, f frames "
    "per keyframe.",
  ]
  if statistics["skipped"]:
    lines += ["", f"skipped: {len(statistics['skipped'])}"]
    lines += [f"  {name}: {sentence}" for name, sentence in statistics["skipped"].items()]
  return "\n".join(lines)


def _add(results):
  counts = [counts for result in results for counts in result["of_classes"].values()]
  total = {name: sum(c[name] for c in counts) for name in _COUNTS}
  return {**total, "annotations": sum(result["annotations"] for result in results)}


def _add_class(results, class_id):
  counts = [r["of_classes"][class_id] for r in results if class_id in r["of_classes"]]
  return {name: sum(c[name] for c in counts) for name in _COUNTS}


def _shares(total):
  """Turns summed counts into those of the statistics; a share of nothing is 0."""
  keyframe = total["keyframe_boxes"]
  return {
    "annotations": total["annotations"],
    "keyframe_boxes": keyframe,
    "interpolated_boxes": total["interpolated_boxes"],
    "keyframe_share": keyframe / max(keyframe + total["interpolated_boxes"], 1),
    "expected_keyframe_share": keyframe / max(total["expected_boxes"], 1),
    "visible_share": keyframe / max(total["annotations"], 1),
  }


def _line(name, total):
  counts = (total[key] for key in ("annotations", "keyframe_boxes", "interpolated_boxes"))
  shares = (total[key] for key in ("visible_share", "keyframe_share", "expected_keyframe_share"))
  cells = [*(f"{count:,}" for count in counts), *(f"{100 * share:.2f} %" for share in shares)]
  return f"  {name:<15}" + "".join(f"{cell:>13}" for cell in cells)
