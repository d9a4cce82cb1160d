"""Messages and progress bars: a stream that is closed, full or read by nobody does not end a program."""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

_NARROWEST, _WIDEST = 60, 200
"""Columns between which tables of options are laid out: in fewer it takes minutes, in a million gigabytes."""


class _Stderr:
  """The standard error stream of this moment, dead, closed or missing."""

  encoding = "utf-8"

  def write(self, text: str) -> int:
    """Writes what can be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
      sys.stderr.write(text)
    return len(text)

  def flush(self) -> None:
    """Likewise."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
      sys.stderr.flush()

  def isatty(self) -> bool:
    """Whether a person may be looking."""
    try:
      return sys.stderr.isatty()
    except (OSError, ValueError, AttributeError):
      return False

  def fileno(self) -> int:
    """Its number; OSError where it has none."""
    if sys.stderr is None:
      raise OSError("there is no standard error stream")
    return sys.stderr.fileno()


STDERR = _Stderr()


_PEERS = ("torch", "diffusers")
"""What only comparisons need: in the extra "test"."""


def missing(error: ModuleNotFoundError) -> str:
  """What to install where a module is not there, as a line.

  Raises:
    ModuleNotFoundError: If it is one of this project.
  """
  name = (error.name or "ddim_jax").partition(".")[0]
  if name in ("ddim_jax", "experiments"):
    raise error
  known = {"gradio": "app", "datasets": "hf", "huggingface_hub": "hf"} | dict.fromkeys(_PEERS, "test")
  extra = known.get(name, "train")
  return f"error: this needs {name}: pip install 'ddim_jax[{extra}]'\n"


def say(text: str) -> None:
  """Prints a line on standard output."""
  with contextlib.suppress(OSError, ValueError):
    print(text, flush=True)


def bar(**options: Any) -> Any:
  """A progress bar of tqdm on `STDERR`."""
  from tqdm.auto import tqdm

  return tqdm(file=STDERR, dynamic_ncols=STDERR.isatty(), **options)


class UnwritableError(OSError):
  """Standard output cannot be written; its cause says why."""


class _Stdout:
  """A stream whose errors say that they are of standard output."""

  def __init__(self, stream: Any):
    self._stream = stream

  def write(self, text: str) -> int:
    """Writes, or raises `UnwritableError`."""
    with self._named():
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Likewise."""
    with self._named():
      self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  @contextlib.contextmanager
  def _named(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise UnwritableError(error.errno, error.strerror) from error


@contextlib.contextmanager
def terminal() -> Iterator[None]:
  """Around a whole program: streams that can be written, help of a sensible width, and a quiet end.

  A reader that has gone, such as ``head``, ends the program with status 141, and output that cannot be
  written with a line and status 1; after the work is done. Within another one it does nothing.
  """
  if isinstance(sys.stdout, _Stdout):
    yield
    return
  _open_closed()
  stream = sys.stdout
  if isinstance(stream, io.TextIOWrapper):
    stream.reconfigure(errors="backslashreplace")  # of names that it cannot encode
  if not _NARROWEST <= (columns := shutil.get_terminal_size().columns) <= _WIDEST or "COLUMNS" in os.environ:
    os.environ["COLUMNS"] = str(min(max(columns, _NARROWEST), _WIDEST))  # not all read what it was as one
  if stream is not None:
    sys.stdout = _Stdout(stream)
  try:
    try:
      yield
    except SystemExit:
      _flush()
      raise
    _flush()
  except UnwritableError as error:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left of it would be tried again at the very end
    if isinstance(error.__cause__, BrokenPipeError):
      sys.exit(141)
    STDERR.write(f"error: standard output cannot be written: {error.strerror}\n")
    sys.exit(1)
  finally:
    sys.stdout = stream


def _flush() -> None:
  if sys.stdout is not None:
    sys.stdout.flush()


def _open_closed() -> None:
  """Opens the standard streams that are closed: the next file would have the number into which XLA warns."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
