"""Several hosts, and being told to stop."""

import signal
import time
from types import FrameType
from typing import Any

import jax

from experiments.presets import Run

_HEARTBEAT_SECONDS = 20


def connect(run: Run) -> None:
  """Joins the other processes of this run, if there are any.

  Raises:
    ValueError: If only some of --coordinator, --num-processes and --process-id are given.
  """
  given = (run.coordinator, run.num_processes, run.process_id)
  if any(value is not None for value in given) and any(value is None for value in given):
    raise ValueError(
      "--coordinator, --num-processes and --process-id go together, got"
      f" {run.coordinator}, {run.num_processes} and {run.process_id}"
    )
  if run.distributed or run.coordinator is not None:
    jax.distributed.initialize(
      run.coordinator, run.num_processes, run.process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
    )


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
    if number == signal.SIGINT:
      signal.signal(signal.SIGINT, signal.default_int_handler)
