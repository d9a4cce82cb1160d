"""Files that are whole or not there, and folders in which one process works at a time."""

import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_SHOWN = 100
_REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


@contextlib.contextmanager
def writing(path: Path, partial: Path | None = None) -> Iterator[None]:
  """Errors of the disk become those of ``path``: libraries have their own, and many name no file.

  Args:
    path: What is being written.
    partial: The file that is written in its place.

  Raises:
    OSError: If it cannot be written; names ``path``.
  """
  try:
    yield
  except OSError as error:
    if str(error.filename) not in ("None", str(path), str(partial)):
      raise
    raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
  except Exception as error:
    reason = next((number for number in _REASONS if os.strerror(number) in str(error)), None)
    if reason is None:
      raise
    raise OSError(reason, os.strerror(reason), str(path)) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A file to write that becomes ``path`` at the end, if nothing was raised; creates the folder.

  Its name is like no other, so that two programs or threads do not write into one file. Errors are those of
  `writing`.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name[:_SHOWN]}.{uuid.uuid4().hex[:12]}.partial")
  try:
    with writing(path, partial):
      yield partial
      partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)


def kept(
  path: Path, read: Callable[[Path], T], make: Callable[[], T], write: Callable[[Path, T], Any] | None
) -> T:
  """What lies in a cache, or is made and put there. What is damaged is made again.

  Args:
    path: The file, whose name says what decides its content.
    read: Raises anything if it is not there, or damaged.
    make: Makes what is not there.
    write: Writes it, whole or not at all; None leaves it out.
  """
  with contextlib.suppress(Exception):  # damage surfaces as nearly any type
    return read(path)
  found = make()
  if write is not None:
    write(path, found)
  return found


def reserve(path: Path) -> None:
  """Takes the room of a sparse file from the disk: writing through a map into a full one ends the program."""
  with path.open("r+b") as file:
    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


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
    with lock.open("ab+", buffering=0) as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        file.seek(0)
        holder = file.read().decode().strip()
        raise ValueError(f"{path} is in use: process {holder or 'unknown'} {doing}") from error
      except OSError:
        pass
      if not _is_at(file.fileno(), lock):
        continue  # who held it before has just removed it
      with contextlib.suppress(OSError):  # on a full disk it has no name
        file.truncate(0)
        file.write(str(os.getpid()).encode())
      try:
        yield
      finally:
        lock.unlink(missing_ok=True)
      return


def _is_at(descriptor: int, path: Path) -> bool:
  """Whether an open file is the one at this path."""
  try:
    return os.path.samestat(os.fstat(descriptor), path.stat())
  except FileNotFoundError:
    return False
