"""Identity metrics on scenes small enough for paper."""

import tracks

from vistraj_jax.metrics import identity, overlaps

FAR = (900.0, 0.0, 10.0, 10.0)


def _score(truth, prediction, length=10):
  return identity.score(overlaps.find(tracks.table(*truth), tracks.table(*prediction), length))


def test_perfect_tracker():
  result = _score(tracks.track(1, range(1, 6)), tracks.track(3, range(1, 6)))
  assert result == {"IDTP": 5, "IDFN": 0, "IDFP": 0, "IDF1": 1.0, "IDR": 1.0, "IDP": 1.0}


def test_only_the_longer_piece_of_a_broken_track_counts():
  result = _score(
    tracks.track(1, range(1, 11)), tracks.track(1, range(1, 7)) + tracks.track(2, range(7, 11))
  )
  assert (result["IDTP"], result["IDFN"], result["IDFP"]) == (6, 4, 4)
  assert result["IDF1"] == result["IDR"] == result["IDP"] == 0.6


def test_two_tracks_that_exchange_numbers_keep_one_half():
  truth = tracks.track(1, range(1, 11)) + tracks.track(2, range(1, 11), FAR)
  prediction = [
    *(tracks.track(1, range(1, 6)) + tracks.track(2, range(1, 6), FAR)),
    *(tracks.track(2, range(6, 11)) + tracks.track(1, range(6, 11), FAR)),
  ]
  assert _score(truth, prediction)["IDF1"] == 0.5


def test_an_exact_half_counts_and_less_does_not():
  box = (0.0, 0.0, 30.0, 30.0)
  assert _score([(1, 1, box)], [(1, 1, (10.0, 0.0, 30.0, 30.0))])["IDTP"] == 1
  assert _score([(1, 1, box)], [(1, 1, (10.001, 0.0, 30.0, 30.0))])["IDTP"] == 0


def test_empty_sides_and_pooling():
  rows = tracks.track(1, range(1, 4))
  missed, false, nothing = _score(rows, []), _score([], rows), _score([], [])
  assert (missed["IDFN"], missed["IDF1"]) == (3, 0.0)
  assert (false["IDFP"], false["IDF1"]) == (3, 0.0)
  assert nothing["IDTP"] == nothing["IDF1"] == 0
  perfect = _score(rows, rows)
  assert identity.combine([missed, perfect])["IDR"] == 0.5
  assert identity.average([missed, perfect, false])["IDF1"] == 1 / 3
