"""What a training run leaves behind: metrics as JSON lines and TensorBoard events, a progress bar."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import tqdm

from experiments.presets import Run

_LOG_SECONDS = 10.0


def read_metrics(path: Path) -> Iterator[tuple[dict, str]]:
  """The complete lines of a metrics file, parsed and as they stand; a line cut short ends it."""
  if path.exists():
    with path.open() as file:
      for line in file:
        try:
          yield json.loads(line), line
        except json.JSONDecodeError:
          return


@contextlib.contextmanager
def open_log(run: Run, step: int, batch_size: int, chief: bool) -> Iterator["Log"]:
  """The log of a run that is at ``step``; it is flushed at the end, whatever happens."""
  log = Log(Metrics(run.workdir, step) if chief else None, Progress(step, run.steps, batch_size, not chief))
  try:
    yield log
  finally:
    log.close()


class Log:
  """Metrics and progress together; without metrics on hosts other than the first."""

  def __init__(self, metrics: "Metrics | None", progress: "Progress"):
    self._metrics, self._progress = metrics, progress

  def step(self, step: int, values: dict[str, float]) -> None:
    """Records a step's metrics."""
    if self._metrics is not None:
      self._metrics.write(step, values)
    self._progress.step(values["loss"])

  def flush(self) -> None:
    """Puts everything recorded so far on the disk."""
    if self._metrics is not None:
      self._metrics.flush()

  def close(self) -> None:
    """Flushes and closes."""
    if self._metrics is not None:
      self._metrics.close()
    self._progress.close()


class Metrics:
  """One line of JSON for every step, exactly once, across restarts; events for TensorBoard.

  The lines depend on the run alone, not on the clock, so that an interrupted run writes the same file.
  """

  def __init__(self, workdir: Path, step: int):
    """Opens the log of a run that is at ``step``: what was written beyond it is dropped."""
    from tensorboardX import SummaryWriter

    path = workdir / "metrics.jsonl"
    kept = [line for values, line in read_metrics(path) if values["step"] <= step]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.replace(path)
    self._file = path.open("a")
    self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=step)

  def write(self, step: int, values: dict[str, float]) -> None:
    """Adds the values of a step."""
    self._file.write(json.dumps({"step": step, **values}) + "\n")
    for name, value in values.items():
      self._events.add_scalar(name, value, step)

  def flush(self) -> None:
    """Puts everything written so far on the disk."""
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Flushes and closes."""
    self.flush()
    self._file.close()
    self._events.close()


class Progress:
  """A progress bar with loss, images/s and time left; in a log file, a line now and then."""

  def __init__(self, start: int, steps: int, batch_size: int, quiet: bool = False):
    self._batch_size = batch_size
    self._terminal = sys.stderr.isatty()
    interval = 0.5 if self._terminal else _LOG_SECONDS
    self._bar = tqdm.tqdm(
        total=steps, initial=start, unit="step", mininterval=interval, dynamic_ncols=True, disable=quiet,
        ascii=None if self._terminal else True,
    )  # fmt: skip
    self._since, self._count, self._rate = time.monotonic(), 0, 0.0
    self._loss: float | None = None

  def step(self, loss: float) -> None:
    """Advances by one step."""
    self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
    self._count += 1
    elapsed = time.monotonic() - self._since
    if elapsed > (1.0 if self._terminal else _LOG_SECONDS):
      self._rate = self._count * self._batch_size / elapsed
      self._since, self._count = time.monotonic(), 0
      self._bar.set_postfix_str(f"loss {self._loss:.4f}, {self._rate:.0f} images/s", refresh=False)
    self._bar.update()

  def close(self) -> None:
    """Leaves the bar where it is."""
    self._bar.close()
