"""Several hosts, and being told to stop."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

from ddim_jax.console import STDERR

_HEARTBEAT_SECONDS = 20
_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
"""What batch systems send before a job's time is up; by default they end a process."""
_WATCHER = "import sys; sys.stdin.buffer.read() or sys.stderr.write(sys.argv[1])"


@contextlib.contextmanager
def connected(
  workdir: str | Path,
  *,
  distributed: bool = True,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> Iterator[None]:
  """Joins the other processes of a run; call `fit` inside, with the same arguments in all of them.

  When one of them dies, the JAX runtime ends this process too, from a thread of its own: a small
  watcher then says what to do.

  Args:
    workdir: Folder of the run, for that message.
    distributed: Whether there are others, found by themselves on TPU pods and Slurm.
    coordinator: ADDRESS:PORT of process 0, where they are not found; implies ``distributed``.
    num_processes: Number of processes, with ``coordinator``.
    process_id: Number of this process, from 0, with ``coordinator``.

  Raises:
    ValueError: If only some of the last three are given.
  """
  given = (coordinator, num_processes, process_id)
  if any(value is not None for value in given) and any(value is None for value in given):
    raise ValueError(
      f"coordinator, num_processes and process_id go together, got {coordinator}, {num_processes} and"
      f" {process_id}"
    )
  if not distributed and coordinator is None:
    yield
    return
  jax.distributed.initialize(
    coordinator, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
  )
  # On CPUs the first collective operation waits only 30 s for the other processes, and later ones wait as
  # long as it takes: so the first comes now, and not after a compilation that may last longer on one.
  jax.pmap(lambda x: jax.lax.psum(x, "devices"), axis_name="devices")(np.ones(jax.local_device_count()))
  process, count = jax.process_index(), jax.process_count()
  advice = (
    f"error: process {process} of {count} was ended by the error above; most likely another process of this"
    " run died or lost its connection. Start all of them again with the same commands: the run goes on from"
    f" its last checkpoint in {Path(workdir).absolute()}.\n"
  )
  watcher = subprocess.Popen(
    [sys.executable, "-c", _WATCHER, advice], stdin=subprocess.PIPE, start_new_session=True
  )
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    # Leave at once: an orderly end would wait for the process that is gone.
    STDERR.write(f"{error}\n")
    STDERR.flush()
    watcher.communicate()
    os._exit(1)
  finally:
    watcher.communicate(b"ended by itself")


class StopRequest:
  """Remembers SIGTERM, SIGHUP, Ctrl-C and the end of the allotted time; a second Ctrl-C interrupts at once.

  Also SIGUSR1, SIGUSR2 and SIGXCPU, by which batch systems warn of the end, where nobody else hears them.

  Its urgency is 0 (go on), 1 (the former or time) or 2 (Ctrl-C), so that the largest over all hosts counts.
  Signals are handled in the main thread only: elsewhere the time alone counts.
  """

  def __init__(self, max_minutes: float | None = None) -> None:
    """Starts the clock; ``max_minutes`` is None for no limit."""
    self.deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    self._urgency = 0
    self._before: dict[int, Any] = {}

  def urgency(self) -> int:
    """What has been asked for so far."""
    if self.deadline is not None and time.monotonic() > self.deadline:
      return max(self._urgency, 1)
    return self._urgency

  def __enter__(self) -> "StopRequest":
    if threading.current_thread() is threading.main_thread():
      wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
      heard = [n for n in wanted if signal.getsignal(n) is not signal.SIG_IGN]  # nohup ignores SIGHUP
      heard += [n for n in _WARNINGS if signal.getsignal(n) is signal.SIG_DFL]
      self._before = {number: signal.signal(number, self._note) for number in heard}
    return self

  def __exit__(self, *error: object) -> None:
    for number, handler in self._before.items():
      if handler is not None:  # of a library in C, which Python cannot give back
        signal.signal(number, handler)

  def _note(self, number: int, frame: FrameType | None) -> None:
    self._urgency = max(self._urgency, 2 if number == signal.SIGINT else 1)
    with contextlib.suppress(OSError, ValueError):
      # Not through the stream, which may be in the middle of a write, nor to 2, which may be another file.
      os.write(STDERR.fileno(), b"\nstopping after this step, then saving\n")
    if number == signal.SIGINT:
      signal.signal(signal.SIGINT, signal.default_int_handler)
