"""Runs units of work on Apache Beam: the same functions as locally, on any Beam runner.

Every unit leaves its part in the output folder, so that folder has to be one that all workers see
(a shared or mounted file system), and the result is what a local run writes, byte for byte.
"""

import contextlib
import threading

from vistraj_jax.core import checks, files

_POLL_SECONDS = 0.5
_STOPPED = "stopped.txt"  # in the folder of parts: why no more units are run; empty after Ctrl-C


def check(arguments):
  """Raises InputError if Beam is missing, or the runner or an argument is wrong."""
  _open(arguments)


def run_units(units, run_unit, parts, arguments, progress):
  """Runs `run_unit(unit)` for all units in one pipeline and waits for it.

  Args:
    units: picklable list.
    run_unit: picklable function of one unit; may be called again for the same unit.
    parts: folder that all workers see; sentences on bad input pass through it.
    arguments: list of pipeline arguments, ["--runner=DirectRunner", ...].
    progress: function without arguments, called now and then while the pipeline runs.

  Raises:
    InputError: as `check`; or a unit raised it.
  """
  beam, runner, options = _open(arguments)
  stopped = parts / _STOPPED
  stopped.unlink(missing_ok=True)
  pipeline = beam.Pipeline(runner=runner, options=options)
  (
    pipeline
    | "units" >> beam.Create(units)
    # Else a runner may take all units as one bundle, for one worker.
    | "spread" >> beam.Reshuffle()
    | "run" >> beam.Map(_run_one, run_unit=run_unit, parts=parts)
  )
  with _called_now_and_then(progress):
    pipeline.run().wait_until_finish()
  if stopped.is_file():
    sentence = stopped.read_text(encoding="utf-8")
    raise checks.InputError(sentence) if sentence else KeyboardInterrupt


def _open(arguments):
  """Returns (module, runner, options)."""
  try:
    import apache_beam as beam
    from apache_beam.options import pipeline_options
    from apache_beam.runners import runner as runners
    from apache_beam.runners.portability import fn_api_runner
  except ImportError as error:
    raise checks.InputError(
      f"Apache Beam cannot be imported ({error}); pip install vistraj-jax[prepare], or take "
      "--runner local."
    ) from error
  with _exit_is_input_error():
    options = pipeline_options.PipelineOptions(arguments)
    known = options.get_all_options(retain_unknown_options=False)
    unknown = options.get_all_options(retain_unknown_options=True).keys() - known.keys()
  checks.require(not unknown, f"--beam_options: {sorted(unknown)} are no options of Apache Beam.")
  checks.require(
    known["direct_running_mode"] != "multi_threading",
    "--beam_options: direct_running_mode=multi_threading loses records without a word; choose "
    "in_memory or multi_processing.",
  )
  name = known["runner"]
  if name == "DirectRunner":
    # By this name, Beam may fetch a runner of another language from the network.
    return beam, fn_api_runner.FnApiRunner(), options
  try:
    return beam, runners.create_runner(name), options
  except (ValueError, ImportError, AttributeError) as error:
    raise checks.InputError(f"--runner: {name!r} cannot be used ({error}).") from error


def _run_one(unit, run_unit, parts):
  if (parts / _STOPPED).is_file():
    return
  try:
    run_unit(unit)
  except (checks.InputError, KeyboardInterrupt) as error:
    # Raised, Beam would try the unit again, and print what Python's calls were.
    files.write_text(parts / _STOPPED, str(error))


@contextlib.contextmanager
def _exit_is_input_error():
  """Beam's argument parser ends the process on a wrong value, after printing its sentence."""
  try:
    yield
  except SystemExit as error:
    raise checks.InputError("--beam_options: not accepted by Apache Beam, see above.") from error


@contextlib.contextmanager
def _called_now_and_then(function):
  done = threading.Event()

  def call():
    while not done.wait(_POLL_SECONDS):
      function()

  thread = threading.Thread(target=call, daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
    function()
