"""Files that are whole or not there, and folders in which one process works at a time."""

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

_SHOWN = 100


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A file to write that becomes ``path`` at the end, if nothing was raised; creates the folder.

  Its name is like no other, so that two programs or threads do not write into one file.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name[:_SHOWN]}.{uuid.uuid4().hex[:12]}.partial")
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(path: Path, doing: str) -> Iterator[None]:
  """Holds a folder, or a file to be written, against other processes of this machine and other threads.

  The lock dies with its process; a file system without locks has none.

  Args:
    path: The folder, which exists; or the file.
    doing: What is done there, for the message of the second: "is training there".

  Raises:
    ValueError: If another process holds it; names that.
  """
  lock = path / ".lock" if path.is_dir() else path.with_name(f".{path.name[:_SHOWN]}.lock")
  lock.parent.mkdir(parents=True, exist_ok=True)
  while True:
    with lock.open("a+") as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip()
        raise ValueError(f"{path} is in use: process {holder or 'unknown'} {doing}") from error
      except OSError:
        pass
      if not lock.exists() or os.fstat(file.fileno()).st_ino != lock.stat().st_ino:
        continue  # who held it before has just removed it
      file.truncate(0)
      file.write(str(os.getpid()))
      file.flush()
      try:
        yield
      finally:
        lock.unlink(missing_ok=True)
      return
