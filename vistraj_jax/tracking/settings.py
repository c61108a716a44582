"""Settings of the tracker and the two named sets: `byte` and `bot`.

`byte` is the loop of ByteTrack as published with TrackSSM (arXiv 2409.00487). `bot` is that of
BoT-SORT: overlaps weighted by score, three detections to confirm, and lost tracks that wait where
they would have been next.
"""

import dataclasses

from vistraj_jax.core import checks


def _setting(default, about):
  return dataclasses.field(default=default, metadata={"about": about})


@dataclasses.dataclass(frozen=True)
class TrackerSettings:
  """Settings of the tracker; the defaults are `byte`. A cost is 1 - overlap: 0 same, 1 apart.

  A new track is unconfirmed, except in frame 1, and is deleted if the next frame has no detection
  for it. Only confirmed tracks are output, or all of them if `min_hits` is 1.

  Raises:
    InputError: a value out of range.
  """

  high_score: float = _setting(0.6, "detections above this score are associated first")
  low_score: float = _setting(
    0.1, "detections between this score and high_score may go on with a live track"
  )
  new_score: float = _setting(0.7, "detections left over start a track from this score on")
  first_cost: float = _setting(0.8, "tracks match high detections at a cost below this")
  second_cost: float = _setting(0.5, "live tracks left over match low detections below this cost")
  unconfirmed_cost: float = _setting(0.7, "unconfirmed tracks match below this cost")
  duplicate_cost: float = _setting(
    0.15, "of a live and a lost track closer than this, the younger one is deleted"
  )
  fuse_score: bool = _setting(False, "multiply overlaps with high detections by their score")
  proximity_cost: float = _setting(0.5, "embeddings count for pairs of boxes up to this cost")
  appearance_cost: float = _setting(0.25, "embeddings count up to this half cosine distance")
  embedding_momentum: float = _setting(0.9, "share of a track's old embedding in its new one")
  min_hits: int = _setting(2, "detections that confirm a track")
  keep_refound_score: bool = _setting(
    True, "output a lost track with its old score in the frame that finds it again"
  )
  lost_policy: str = _setting(
    "rollout",
    "rollout: lost tracks move on by their own predictions; freeze: they wait one step behind "
    "their last detection",
  )
  class_gate: bool = _setting(
    True, "only equal classes match; without, a track has its class of most score"
  )
  max_lost_s: float = _setting(1.0, "seconds a lost track is kept")
  max_lost_frames: int | None = _setting(
    None, "frames a lost track is kept, instead of max_lost_s times the frame rate"
  )
  max_tracks: int = _setting(256, "track slots per sequence")
  max_detections: int = _setting(128, "detections per frame and sequence")

  def __post_init__(self):
    checks.choice("lost_policy", self.lost_policy, ("rollout", "freeze"))
    for name in _FROM_0_TO_1:
      value = getattr(self, name)
      checks.require(0 <= value <= 1, f"{name}: {value!r} is not allowed; choose from 0 to 1.")
    for name in ("min_hits", "max_tracks", "max_detections"):
      value = getattr(self, name)
      checks.require(value >= 1, f"{name}: {value!r} is not allowed; choose 1 or more.")
    for name in ("max_lost_s", "max_lost_frames"):
      value = getattr(self, name)
      good = value is None or value >= 0
      checks.require(good, f"{name}: {value!r} is not allowed; choose 0 or more.")
    checks.require(
      self.low_score <= self.high_score,
      f"low_score: {self.low_score!r} is above high_score {self.high_score!r}; choose a lower one.",
    )


_FROM_0_TO_1 = tuple(
  field.name
  for field in dataclasses.fields(TrackerSettings)
  if field.name.endswith(("_score", "_cost", "_momentum")) and field.type is float
)

PRESETS = {
  "byte": TrackerSettings(),
  "bot": TrackerSettings(
    new_score=0.5, fuse_score=True, min_hits=3, keep_refound_score=False, lost_policy="freeze"
  ),
}
