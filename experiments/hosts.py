"""Several hosts, and being told to stop."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
import numpy as np

from experiments.presets import Run

_HEARTBEAT_SECONDS = 20
_WATCHER = "import sys; sys.stdin.buffer.read() or sys.stderr.write(sys.argv[1])"


@contextlib.contextmanager
def connected(run: Run) -> Iterator[None]:
  """Joins the other processes of this run, if there are any.

  When one of them dies, the JAX runtime ends this process too, from a thread of its own: a small
  watcher then says what to do.

  Raises:
    ValueError: If only some of --coordinator, --num-processes and --process-id are given.
  """
  given = (run.coordinator, run.num_processes, run.process_id)
  if any(value is not None for value in given) and any(value is None for value in given):
    raise ValueError(
      "--coordinator, --num-processes and --process-id go together, got"
      f" {run.coordinator}, {run.num_processes} and {run.process_id}"
    )
  if not run.distributed and run.coordinator is None:
    yield
    return
  jax.distributed.initialize(
    run.coordinator, run.num_processes, run.process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
  )
  # On CPUs the first collective operation waits only 30 s for the other processes, and later ones wait as
  # long as it takes: so the first comes now, and not after a compilation that may last longer on one.
  jax.pmap(lambda x: jax.lax.psum(x, "devices"), axis_name="devices")(np.ones(jax.local_device_count()))
  process, count = jax.process_index(), jax.process_count()
  advice = (
    f"error: process {process} of {count} was ended by the error above; most likely another process of this"
    " run died or lost its connection. Start all of them again with the same commands: the run goes on from"
    f" its last checkpoint in {run.workdir.absolute()}.\n"
  )
  watcher = subprocess.Popen(
    [sys.executable, "-c", _WATCHER, advice], stdin=subprocess.PIPE, start_new_session=True
  )
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    # Leave at once: an orderly end would wait for the process that is gone.
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()
    watcher.communicate()
    os._exit(1)
  finally:
    watcher.communicate(b"ended by itself")


class StopRequest:
  """Remembers SIGTERM, Ctrl-C and the end of the allotted time; a second Ctrl-C interrupts at once.

  Its level is 0 (go on), 1 (SIGTERM or time) or 2 (Ctrl-C), so that the largest over all hosts counts.
  """

  STATUS = (0, 0, 130)
  """Exit status by level."""

  def __init__(self, max_minutes: float | None = None):
    """Starts the clock; ``max_minutes`` is None for no limit."""
    self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    self._level = 0
    self._before: dict[int, Any] = {}

  def level(self) -> int:
    """What has been asked for so far."""
    if self._deadline is not None and time.monotonic() > self._deadline:
      return max(self._level, 1)
    return self._level

  def __enter__(self) -> "StopRequest":
    self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *error) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: FrameType | None) -> None:
    self._level = max(self._level, 2 if number == signal.SIGINT else 1)
    os.write(2, b"\nstopping after this step, then saving\n")
    if number == signal.SIGINT:
      signal.signal(signal.SIGINT, signal.default_int_handler)
