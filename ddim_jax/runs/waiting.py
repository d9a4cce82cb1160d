"""What a person sees while nothing seems to happen."""

import contextlib
import threading
import time
from collections.abc import Iterator

from ddim_jax.console import STDERR, say

_WORTH_SAYING = 2.0


@contextlib.contextmanager
def waiting(what: str, show: bool = True) -> Iterator[None]:
  """Says what is being waited for: on a terminal with the seconds so far, elsewhere when it begins and ends.

  Args:
    what: Such as "compiling"; nothing is said of waits under two seconds but in a log that they began.
    show: False says nothing.
  """
  if not show:
    yield
    return
  terminal, began, done = STDERR.isatty(), time.monotonic(), threading.Event()

  def count() -> None:
    while not done.wait(1.0):
      _write(f"\r{what} ... {time.monotonic() - began:.0f} s")

  counter = threading.Thread(target=count, daemon=True)
  if terminal:
    counter.start()
  else:
    say(f"{what} ...")
  try:
    yield
  finally:
    done.set()
    seconds = time.monotonic() - began
    if terminal:
      counter.join()
      _write("\r\x1b[K")
    if seconds > _WORTH_SAYING:
      say(f"{what} took {seconds:.0f} s")


def _write(text: str) -> None:
  STDERR.write(text)
  STDERR.flush()
