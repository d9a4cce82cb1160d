"""Several hosts, and being told to stop."""

import signal
from types import FrameType

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
  """Remembers SIGTERM and Ctrl-C; a second Ctrl-C interrupts at once.

  ``level`` is 0 (go on), 1 (SIGTERM) or 2 (Ctrl-C), so that the largest over all hosts counts.
  """

  STATUS = (0, 0, 130)

  def __init__(self) -> None:
    self.level = 0
    signal.signal(signal.SIGTERM, self._note)
    signal.signal(signal.SIGINT, self._note)

  def _note(self, number: int, frame: FrameType | None) -> None:
    self.level = max(self.level, 2 if number == signal.SIGINT else 1)
    if number == signal.SIGINT:
      signal.signal(signal.SIGINT, signal.default_int_handler)
