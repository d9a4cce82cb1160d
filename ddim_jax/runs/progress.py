"""What a person sees of a run that is training: loss, images/s and the time left."""

import math
import sys
import time

from tqdm.auto import tqdm

from ddim_jax import console

FLUSH_SECONDS = 10.0
"""How often a run puts on the disk, or into a log file, what it has to say."""
_PACE_SECONDS = 1.0
_BAR = "{{l_bar}}{{bar}}| {{n_fmt}}/{{total_fmt}} [{}]"


class Progress:
  """A progress bar; in a log file, a line now and then.

  The time left is that until the last step, or until the deadline if that comes first.
  """

  def __init__(
    self, start: int, steps: int, batch_size: int, quiet: bool = False, deadline: float | None = None
  ) -> None:
    """Shows a run that is at ``start``; for the other arguments see `ddim_jax.runs.logs.open_log`."""
    self._batch_size, self._deadline = batch_size, deadline
    seen = console.STDERR.isatty() or "ipykernel" in sys.modules  # a terminal, or a notebook
    self._every = _PACE_SECONDS if seen else FLUSH_SECONDS
    self._bar = console.bar(
      total=steps,
      initial=start,
      mininterval=math.inf,  # tqdm would show nothing while the machine's clock has been put back
      disable=quiet,
      ascii=None if seen else True,
      bar_format=_BAR.format("00:00"),
    )
    self._began = self._since = self._shown = time.monotonic()
    self._done, self._count, self._rate = start, 0, 0.0
    self._loss: float | None = None

  def step(self, loss: float) -> float | None:
    """Advances by one step; about once a second, returns images/s since the last time."""
    self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
    self._count += 1
    self._done += 1
    self._bar.update()
    now = time.monotonic()
    if now - self._since <= _PACE_SECONDS:
      return None
    self._measure(now)
    if now - self._shown >= self._every:
      self._show(now)
    return self._rate

  def close(self) -> None:
    """Leaves the bar where it is, with the rate of a run too short to have shown one."""
    now = time.monotonic()
    if self._count and not self._rate:
      self._measure(now)
    if self._rate:
      self._show(now)
    self._bar.close()

  def _measure(self, now: float) -> None:
    self._rate = self._count * self._batch_size / (now - self._since)
    self._since, self._count = now, 0

  def _show(self, now: float) -> None:
    self._shown = now
    if not self._bar.disable:
      elapsed = tqdm.format_interval(now - self._began)
      text = f"{elapsed}, loss {self._loss:.4f}, {self._rate:.0f} images/s, {self._left(now)}"
      self._bar.bar_format = _BAR.format(text)
      self._bar.refresh()

  def _left(self, now: float) -> str:
    pace = self._rate / self._batch_size
    seconds = (self._bar.total - self._done) / pace
    if self._deadline is None or now + seconds <= self._deadline:
      return f"{tqdm.format_interval(round(seconds))} left"
    seconds = max(0.0, self._deadline - now)
    last = self._done + round(seconds * pace)
    return f"{tqdm.format_interval(round(seconds))} left, time is up at about step {last:,}"
