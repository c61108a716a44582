"""Settings of the tracker and the two named sets: `byte` and `bot`.

`byte` is the loop of ByteTrack as published with TrackSSM (arXiv 2409.00487). `bot` is that of
BoT-SORT: overlaps weighted by score, three detections to confirm, and lost tracks that wait where
they would have been next.
"""

import dataclasses

from vistraj_jax.core import checks


@dataclasses.dataclass(frozen=True)
class TrackerSettings:
  """Settings of the tracker; the defaults are `byte`. A cost is 1 - overlap: 0 same, 1 apart.

  Attributes:
    high_score: detections above it are associated first.
    low_score: detections between it and high_score may continue a live track.
    new_score: a detection left over starts a track from this score on.
    first_cost: pairs of tracks and high detections cost less.
    second_cost: pairs of live tracks left over and low detections cost less.
    unconfirmed_cost: pairs of unconfirmed tracks and high detections left over cost less.
    duplicate_cost: of a live and a lost track closer than this, the younger one is deleted.
    fuse_score: multiply overlaps with the detection's score (not with low detections).
    proximity_cost: embeddings count only for pairs whose boxes cost at most this.
    appearance_cost: embeddings count only up to this half cosine distance.
    embedding_momentum: share of a track's old embedding in the new one.
    min_hits: detections that confirm a track. A new track is unconfirmed, except in frame 1, and
      is deleted if it finds no detection in the next frame. Only confirmed tracks are output, or
      all of them if this is 1.
    keep_refound_score: a lost track found again is output with its old score in that frame.
    lost_policy: "rollout" moves a lost track on by its own predictions; "freeze" predicts it from
      its last detections, so it waits one step behind them.
    class_gate: only equal classes match; off, a track has the class of most score.
    max_lost_s: seconds a lost track is kept.
    max_lost_frames: frames a lost track is kept; None takes max_lost_s times the frame rate.
    max_tracks: slots per sequence.
    max_detections: detections per frame and sequence.
  """

  high_score: float = 0.6
  low_score: float = 0.1
  new_score: float = 0.7
  first_cost: float = 0.8
  second_cost: float = 0.5
  unconfirmed_cost: float = 0.7
  duplicate_cost: float = 0.15
  fuse_score: bool = False
  proximity_cost: float = 0.5
  appearance_cost: float = 0.25
  embedding_momentum: float = 0.9
  min_hits: int = 2
  keep_refound_score: bool = True
  lost_policy: str = "rollout"
  class_gate: bool = True
  max_lost_s: float = 1.0
  max_lost_frames: int | None = None
  max_tracks: int = 256
  max_detections: int = 128

  def __post_init__(self):
    checks.choice("lost_policy", self.lost_policy, ("rollout", "freeze"))
    for name in _SHARES:
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


_SHARES = tuple(
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
