"""What a training run leaves behind: metrics as JSON lines and TensorBoard events, a progress bar."""

import contextlib
import io
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ddim_jax import console
from ddim_jax.atomic import replacing, writing

_FLUSH_SECONDS = 10.0
_BAR = "{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} [{}]"


def read_metrics(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
  """The complete lines of a metrics file, parsed and as they stand; a line cut short ends it."""
  if path.exists():
    with path.open() as file:
      for line in file:
        try:
          yield json.loads(line), line
        except json.JSONDecodeError:
          return


@contextlib.contextmanager
def open_log(
  workdir: Path,
  step: int,
  steps: int,
  batch_size: int,
  *,
  chief: bool = True,
  progress: bool = True,
  deadline: float | None = None,
) -> Iterator["Log"]:
  """The log of a run that is at ``step``; what was recorded is written at the end, whatever happens.

  Args:
    workdir: Folder of the run.
    step: Updates done before.
    steps: Updates in the end.
    batch_size: Images an update.
    chief: Whether this process writes.
    progress: Whether it shows a progress bar.
    deadline: When the run stops at the latest, in seconds of `time.monotonic`; None is never.
  """
  bar = Progress(step, steps, batch_size, not (chief and progress), deadline)
  log = Log(Metrics(workdir, step) if chief else None, bar)
  try:
    yield log
    log.flush()
  except BaseException:
    with contextlib.suppress(OSError):  # the error on its way out says more
      log.flush()
    raise
  finally:
    log.close()


class Log:
  """Metrics and progress together; without metrics on hosts other than the first."""

  def __init__(self, metrics: "Metrics | None", progress: "Progress"):
    self._metrics, self._progress = metrics, progress
    self._flushed = time.monotonic()

  def step(self, step: int, values: dict[str, float]) -> None:
    """Records a step's metrics."""
    if self._metrics is not None:
      self._metrics.write(step, values)
    self._progress.step(values["loss"])
    if time.monotonic() - self._flushed > _FLUSH_SECONDS:
      self.flush()

  def flush(self) -> None:
    """Puts everything recorded so far on the disk."""
    self._flushed = time.monotonic()
    if self._metrics is not None:
      self._metrics.flush()

  def close(self) -> None:
    """Leaves the progress bar where it is."""
    self._progress.close()


class Metrics:
  """One line of JSON for every step, exactly once, across restarts; events for TensorBoard.

  The lines depend on the run alone, not on the clock, so that an interrupted run writes the same file.
  Nothing is written but in `flush`, where an error can be told.
  """

  def __init__(self, workdir: Path, step: int):
    """Opens the log of a run that is at ``step``: what was written beyond it is dropped."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    self._path = workdir / "metrics.jsonl"
    kept = [line for values, line in read_metrics(self._path) if values["step"] <= step]
    with replacing(self._path) as partial:
      partial.write_text("".join(kept))
    self._events_path = workdir / "tensorboard" / f"events.out.tfevents.{time.time_ns()}.ddim_jax"
    self._events_path.parent.mkdir(exist_ok=True)
    start = Event(step=step, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
    self._lines: list[str] = []
    self._events = [Event(wall_time=time.time(), file_version="brain.Event:2"), start]

  def write(self, step: int, values: dict[str, float]) -> None:
    """Adds the values of a step."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    self._lines.append(json.dumps({"step": step, **values}) + "\n")
    scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    self._events.append(Event(step=step, wall_time=time.time(), summary=Summary(value=scalars)))

  def flush(self) -> None:
    """Writes what was added.

    Raises:
      OSError: If it cannot be written; names the file.
    """
    _append(self._path, "".join(self._lines).encode())
    self._lines.clear()
    _append(self._events_path, _records(self._events))
    self._events.clear()


def _records(events: Iterable[Any]) -> bytes:
  """The events as TensorBoard's files hold them, each with its length and checksums."""
  from tensorboard.summary.writer.record_writer import RecordWriter

  buffer = io.BytesIO()
  for event in events:
    RecordWriter(buffer).write(event.SerializeToString())
  return buffer.getvalue()


def _append(path: Path, content: bytes) -> None:
  """Appends to a file and waits until that is on the disk; an error names the file."""
  with writing(path), path.open("ab", buffering=0) as file:
    while content:
      content = content[file.write(content) :]
    os.fsync(file.fileno())


class Progress:
  """A progress bar with loss, images/s and time left; in a log file, a line now and then.

  The time left is that until the last step, or until the deadline if that comes first.
  """

  def __init__(
    self, start: int, steps: int, batch_size: int, quiet: bool = False, deadline: float | None = None
  ):
    self._batch_size, self._deadline = batch_size, deadline
    self._terminal = console.STDERR.isatty()
    self._bar = console.bar(
      total=steps,
      initial=start,
      mininterval=math.inf,  # tqdm would show nothing while the machine's clock has been put back
      disable=quiet,
      ascii=None if self._terminal else True,
      bar_format=_BAR.format("00:00"),
    )
    self._began = self._since = time.monotonic()
    self._count, self._rate = 0, 0.0
    self._loss: float | None = None

  def step(self, loss: float) -> None:
    """Advances by one step."""
    self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
    self._count += 1
    self._bar.update()
    if time.monotonic() - self._since > (1.0 if self._terminal else _FLUSH_SECONDS):
      self._show()

  def close(self) -> None:
    """Leaves the bar where it is, with the rate of a run too short to have shown one."""
    if self._count and not self._rate:
      self._show()
    self._bar.close()

  def _show(self) -> None:
    now = time.monotonic()
    self._rate = self._count * self._batch_size / (now - self._since)
    self._since, self._count = now, 0
    elapsed = tqdm.format_interval(now - self._began)
    text = f"{elapsed}, loss {self._loss:.4f}, {self._rate:.0f} images/s, {self._left(now)}"
    self._bar.bar_format = _BAR.format(text)
    self._bar.refresh()

  def _left(self, now: float) -> str:
    pace = self._rate / self._batch_size
    seconds = (self._bar.total - self._bar.n) / pace
    if self._deadline is None or now + seconds <= self._deadline:
      return f"{tqdm.format_interval(round(seconds))} left"
    seconds = max(0.0, self._deadline - now)
    last = self._bar.n + round(seconds * pace)
    return f"{tqdm.format_interval(round(seconds))} left, time is up at about step {last:,}"
