"""From a task to a page: one request after the other, with progress, and an error as a sentence."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from ddim_jax.app.tasks import Shown
from ddim_jax.app.turns import Turns

_PAUSE = 0.15
"""Seconds between two pictures on the way; more would keep the browser busy."""
MOST_KEPT = 64_000_000
"""Bytes of pictures that a visitor's trajectory may hold."""


def as_sentence(error: Exception) -> str:
  """What an error says, for people."""
  return f"{str(error)[:1].upper()}{str(error)[1:]}."


def followed(turns: Turns, visitor: str, task: Callable[[], Iterator[Shown]]) -> Iterator[Shown | str]:
  """What a task shows, from time to time and at its end, as long as its visitor asks for nothing newer.

  Yields:
    What to show, or a sentence that says why there is nothing.
  """
  wanted, last, shown = turns.begin(visitor), 0.0, None
  with turns.slot(wanted) as mine:
    if not mine:
      return
    try:
      for shown in task():
        if not wanted():
          return
        if time.monotonic() - last > _PAUSE or shown.done == shown.total:
          last = time.monotonic()
          yield shown
    except (ValueError, FloatingPointError) as error:
      yield as_sentence(error)
    except Exception:  # a fault of ours: its traceback goes to the terminal
      yield "This failed; the terminal where ddim play runs says why."
      raise


class Trajectory:
  """What was shown on the way, of one visitor; when it would be too much, every second moment goes."""

  def __init__(self) -> None:
    self.moments: list[Shown] = []
    self._every = 1

  def add(self, shown: Shown) -> None:
    """Keeps it, or not."""
    if (shown.done - 1) % self._every and shown.done < shown.total:
      return
    self.moments.append(shown)
    size = sum(row.images.nbytes for row in shown.rows)
    if size * len(self.moments) > MOST_KEPT and len(self.moments) > 2:
      self._every *= 2
      self.moments = [*self.moments[:-1:2], self.moments[-1]]

  def at(self, share: float) -> Shown | None:
    """The moment so far on the way, from 0 to 1."""
    if not self.moments:
      return None
    return self.moments[round(float(np.clip(share, 0, 1)) * (len(self.moments) - 1))]
