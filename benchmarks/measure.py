"""What a benchmark and its PyTorch peer share: equal conditions, wall times, peak memory.

Needs the standard library only, for the interpreter of the peer has nothing of ours.
"""

import json
import os
import resource
import subprocess
import sys
import time

# Freed memory is kept. Given back and faulted in again after every use, it would cost more than
# what is measured.
ALLOCATOR = {
  "MALLOC_MMAP_THRESHOLD_": "1073741824",
  "MALLOC_TRIM_THRESHOLD_": "2147483647",
  "MALLOC_TOP_PAD_": "268435456",
}


def run(*command):
  """Runs a measuring process to its end and returns the JSON of its last line."""
  environment = {**os.environ, **ALLOCATOR}
  done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
  return json.loads(done.stdout.strip().splitlines()[-1])


def threads():
  """Returns the processor cores that this process may use; both sides use all of them."""
  return len(os.sched_getaffinity(0))


def times(function, repeats, warm=1):
  """Returns the wall times of `repeats` calls in s, after `warm` calls that do not count."""
  for _ in range(warm):
    function()
  found = []
  for _ in range(repeats):
    start = time.perf_counter()
    function()
    found.append(time.perf_counter() - start)
  return found


def peak_gb():
  """Returns the most memory that this process has held so far."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def exit_if_different(differences, tolerance):
  """Ends the process of a peer whose network is not ours; differences {what: number}."""
  wrong = {name: value for name, value in differences.items() if not value < tolerance}
  if wrong:
    sys.exit(f"our network and the peer's differ by {wrong}; allowed is {tolerance}")
