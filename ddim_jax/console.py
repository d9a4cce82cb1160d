"""What is said on the way: that nobody reads it, or nobody can, ends nothing."""

import contextlib
import sys
from typing import Any


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
