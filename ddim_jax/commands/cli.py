"""What all programs share: a device a core, memory that stays, the compilation cache, errors as one line."""

import gc
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ddim_jax import tuning
from ddim_jax.console import STDERR, UnwritableError, missing, terminal
from ddim_jax.cpu import devices, heap
from ddim_jax.places import user_folder

_OURS = Path(__file__).parent.parent
_PROGRAMS = _OURS.parent / "experiments"


def use_compilation_cache() -> None:
  """Keeps compiled programs in ``$JAX_COMPILATION_CACHE_DIR`` or ``~/.cache/ddim_jax``."""
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = user_folder("XDG_CACHE_HOME", ".cache") / "ddim_jax"
    jax.config.update("jax_compilation_cache_dir", str(cache))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def look_for_garbage_seldom() -> None:
  """Lets tracing make objects without Python stopping for those that are left in cycles.

  Tracing makes millions that stay, and by Python's own thresholds they are gone through again and again: a
  sixth of the time from ``ddim train`` to its first step, compiled programs being at hand.
  """
  gc.freeze()
  gc.set_threshold(50_000, 20, 20)


def prepare(batch_size: int = 0) -> None:
  """Sets devices, memory, tuning and compilation cache; before the first use of JAX.

  For ``batch_size`` see `devices.use_every_core`.
  """
  look_for_garbage_seldom()
  tuning.use_libraries()
  devices.use_every_core(batch_size)
  heap.keep_memory()
  use_compilation_cache()


def _quieten() -> None:
  """Keeps what Orbax and TFDS say to themselves off the terminal.

  When one of Orbax's reads or writes fails, it closes its event loop while others still report to it:
  the failure itself is raised, the rest is noise in the middle of the message.
  """
  logging.getLogger("absl").setLevel(logging.CRITICAL)
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)
  usual = sys.unraisablehook

  def hook(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      usual(unraisable)

  sys.unraisablehook = hook


def in_words_of_the_command(message: str, options: frozenset[str]) -> str:
  """A message that begins with names of arguments, with the options of these names instead."""
  begin = re.match(r"(\w+(?:(?:, | and )\w+)*) (?=must|needs|goes|does not go|go together)", message)
  if begin is None:
    return message
  typed = {"size": "image_size"} if "image_size" in options else {}
  if any(word.startswith("--class") for word in sys.argv):
    typed["label"] = "class"
  as_option = lambda match: (
    "--" + typed.get(match[0], match[0]).replace("_", "-") if match[0] in options | set(typed) else match[0]
  )
  return re.sub(r"\w+", as_option, begin[0]) + message[begin.end() :]


def run(
  program: Callable[[], int | None], batch_size: int = 0, options: frozenset[str] = frozenset()
) -> None:
  """Runs a program and exits with its status; bad input is one line and status 2.

  An error is bad input if this project raised it to say so, or if a file could not be read or written.
  Anything else is a fault and keeps its traceback.

  Args:
    program: Returns its status, None for 0.
    batch_size: See `devices.use_every_core`.
    options: Names of arguments that are options of the command.
  """
  with terminal():
    prepare(batch_size)
    _quieten()
    sys.exit(_status(program, options))


def _status(program: Callable[[], int | None], options: frozenset[str]) -> int:
  """Runs a program; returns the status to exit with, after a line that says what was wrong."""
  try:
    return program() or 0
  except UnwritableError:  # `terminal` says so
    raise
  except (ValueError, OSError) as error:
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    ours = any(raised_in.is_relative_to(folder) for folder in (_OURS, _PROGRAMS))
    if not ours and (not isinstance(error, OSError) or error.filename is None):
      raise
    STDERR.write(f"error: {in_words_of_the_command(str(error), options)}\n")
  except ModuleNotFoundError as error:
    STDERR.write(missing(error))
  except FloatingPointError as error:
    STDERR.write(f"error: {error}\n")
    return 1
  except KeyboardInterrupt:
    STDERR.write("\ninterrupted\n")
    return 130
  return 2
