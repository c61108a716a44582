"""Which of many named things are set aside: decided by each name alone, so it never changes."""

import hashlib


def is_in_share(name, share):
  """Returns whether the hash of a name falls into the first `share` (0..1) of all hashes."""
  number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
  return number < share * 2**64
