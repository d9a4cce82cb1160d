"""Whose turn it is: of the requests of one visitor only the newest counts, and few compute at a time."""

import contextlib
import threading
from collections.abc import Callable, Iterator

_AT_A_TIME = 2


class Turns:
  """Requests of all visitors; safe among threads.

  Attributes:
    free: Slots for those that compute; the others wait.
  """

  def __init__(self, at_a_time: int = _AT_A_TIME):
    self.free = threading.BoundedSemaphore(at_a_time)
    self._lock = threading.Lock()
    self._newest: dict[str, int] = {}

  def begin(self, visitor: str) -> Callable[[], bool]:
    """Ends what the visitor asked for before; returns whether this is still wanted."""
    with self._lock:
      mine = self._newest[visitor] = self._newest.get(visitor, 0) + 1
    return lambda: self._newest.get(visitor) == mine

  def stop(self, visitor: str) -> None:
    """Ends what the visitor asked for."""
    self.begin(visitor)

  def leave(self, visitor: str) -> None:
    """Ends what the visitor asked for and forgets the visitor."""
    with self._lock:
      self._newest.pop(visitor, None)

  @contextlib.contextmanager
  def slot(self, wanted: Callable[[], bool], poll: float = 0.05) -> Iterator[bool]:
    """Waits for a slot as long as the request is wanted; gives whether there is one."""
    while wanted():
      if self.free.acquire(timeout=poll):
        try:
          yield True
        finally:
          self.free.release()
        return
    yield False
