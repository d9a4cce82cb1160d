"""Files that are whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
  """A file to write that becomes ``path`` at the end, if nothing was raised; creates the folder.

  Its name is that of this process alone, so that two of them do not write into one file.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
  try:
    yield partial
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)
