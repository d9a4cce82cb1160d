"""What a person sees of a run that is training: loss, images/s and the time left."""

import sys
import time

from tqdm.auto import tqdm

from ddim_jax import console

FLUSH_SECONDS = 10.0
"""How often a run puts on the disk, or into a log file, what it has to say."""
_PACE_SECONDS = 1.0


class Progress:
  """A progress bar; in a log file, a line now and then.

  The time left is that until the last step, or until the deadline if that comes first.
  """

  def __init__(
    self, start: int, steps: int, batch_size: int, quiet: bool = False, deadline: float | None = None
  ) -> None:
    """Shows a run that is at ``start``; for the other arguments see `ddim_jax.runs.logs.open_log`."""
    self._batch_size, self._deadline = batch_size, deadline
    terminal = console.STDERR.isatty() or "ipykernel" in sys.modules  # a terminal, or a notebook
    self._bar = console.bar(
      total=steps,
      initial=start,
      unit="step",
      mininterval=0.5 if terminal else FLUSH_SECONDS,
      disable=quiet,
      ascii=None if terminal else True,
      bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
    )
    self._since, self._count, self._rate = time.monotonic(), 0, 0.0
    self._done = start
    self._loss: float | None = None

  def step(self, loss: float) -> float | None:
    """Advances by one step; about once a second, returns images/s since the last time."""
    self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
    self._count += 1
    self._done += 1
    measured = time.monotonic() - self._since > _PACE_SECONDS
    if measured:
      self._show()
    self._bar.update()
    return self._rate if measured else None

  def close(self) -> None:
    """Leaves the bar where it is, with the rate of a run too short to have shown one."""
    if self._count and not self._rate:
      self._show()
    self._bar.close()

  def _show(self) -> None:
    now = time.monotonic()
    self._rate = self._count * self._batch_size / (now - self._since)
    self._since, self._count = now, 0
    if not self._bar.disable:
      text = f"loss {self._loss:.4f}, {self._rate:.0f} images/s, {self._left(now)}"
      self._bar.set_postfix_str(text, refresh=False)

  def _left(self, now: float) -> str:
    pace = self._rate / self._batch_size
    seconds = (self._bar.total - self._done) / pace
    if self._deadline is None or now + seconds <= self._deadline:
      return f"{tqdm.format_interval(round(seconds))} left"
    seconds = max(0.0, self._deadline - now)
    last = self._done + round(seconds * pace)
    return f"{tqdm.format_interval(round(seconds))} left, time is up at about step {last:,}"
