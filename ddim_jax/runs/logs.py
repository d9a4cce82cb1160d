"""What a training run leaves behind: metrics as JSON lines, and events for TensorBoard."""

import contextlib
import io
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ddim_jax import plots
from ddim_jax.atomic import replacing, writing
from ddim_jax.runs.progress import FLUSH_SECONDS, Progress


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

  def __init__(self, metrics: "Metrics | None", progress: Progress) -> None:
    """Takes both."""
    self._metrics, self._progress = metrics, progress
    self._flushed = time.monotonic()

  def step(self, step: int, values: dict[str, float]) -> dict[str, float]:
    """Records a step's metrics; returns them with "images_per_second", measured about once a second."""
    rate = self._progress.step(values["loss"])
    timed = {} if rate is None else {"images_per_second": rate}
    if self._metrics is not None:
      self._metrics.write(step, values, timed)
    if time.monotonic() - self._flushed > FLUSH_SECONDS:
      self.flush()
    return values | timed

  def picture(self, step: int, pixels: np.ndarray) -> None:
    """Records a grid of samples, ``u8[H, W, C]``."""
    if self._metrics is not None:
      self._metrics.write_picture(step, pixels)

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

  The lines depend on the run alone, not on the clock, so that an interrupted run writes the same file; what
  was measured by the clock, and pictures, are events only. Nothing is written but in `flush`, where an error
  can be told.
  """

  def __init__(self, workdir: Path, step: int) -> None:
    """Opens the log of a run that is at ``step``: what was written beyond it is dropped."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    self._path = workdir / "metrics.jsonl"
    kept = [line for values, line in read_metrics(self._path) if values["step"] <= step]
    with replacing(self._path) as partial:
      partial.write_text("".join(kept))
    self._events_path = workdir / "tensorboard" / f"events.out.tfevents.{time.time_ns()}.ddim_jax"
    start = Event(step=step, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START))
    self._lines: list[str] = []
    self._events = [Event(wall_time=time.time(), file_version="brain.Event:2"), start]

  def write(self, step: int, values: dict[str, float], timed: dict[str, float] | None = None) -> None:
    """Adds the values of a step; those in ``timed`` depend on the clock."""
    self._lines.append(json.dumps({"step": step, **values}) + "\n")
    self._add(step, [{"tag": name, "simple_value": v} for name, v in (values | (timed or {})).items()])

  def write_picture(self, step: int, pixels: np.ndarray) -> None:
    """Adds a picture, ``u8[H, W, C]``, for TensorBoard alone."""
    height, width, channels = pixels.shape
    png = plots.encoded(plots.to_image(pixels), "PNG")
    image = {"height": height, "width": width, "colorspace": channels}
    self._add(step, [{"tag": "samples", "image": image | {"encoded_image_string": png}}])

  def flush(self) -> None:
    """Writes what was added.

    Raises:
      OSError: If it cannot be written; names the file.
    """
    _append(self._path, "".join(self._lines).encode())
    self._lines.clear()
    self._events_path.parent.mkdir(exist_ok=True)  # people clear it while a run goes on
    _append(self._events_path, _records(self._events))
    self._events.clear()

  def _add(self, step: int, values: list[dict[str, Any]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(**value) for value in values])
    self._events.append(Event(step=step, wall_time=time.time(), summary=summary))


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
