"""Names of files and folders: one rule for all that a user gives, and where files lie when nobody says."""

import os
import re
import tempfile
from pathlib import Path


def local(path: str | Path, name: str = "path") -> Path:
  """A path on this machine, ``~`` and ``~USER`` expanded.

  Raises:
    ValueError: If it is empty, an address such as gs://, of an unknown home, or no path at all; names it.
  """
  text = os.fspath(path)
  if not text or "\0" in text:
    raise ValueError(f"{name} must be the name of a file or folder, got {text!r}")
  if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
    raise ValueError(f"{name} must be on this machine (or mounted on it), got the address {text}")
  try:
    return Path(text).expanduser()
  except RuntimeError as error:
    raise ValueError(f"{name} must have a home that is known, got {text}") from error


def check_writable(path: Path, name: str, *, folder: bool = False) -> None:
  """Whether a file, or a folder, could be written there as far as can be told: call it before the work.

  Raises:
    ValueError: If something of the other kind lies there or in the way, or its folder cannot be written.
    OSError: If the file system takes no such name.
  """
  if path.exists() and path.is_dir() != folder:
    raise ValueError(f"{name} must be a {'folder' if folder else 'file'} or none yet, got {path}")
  above = next(place for place in (path if folder else path.parent, *path.parents) if place.exists())
  if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
    raise ValueError(f"{name} must lie in a folder that can be written, got {path}: {above} is none")


def is_hub_name(text: str) -> bool:
  """Whether it could be OWNER/NAME on the Hugging Face hub."""
  return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text) is not None


def for_checkpoints(path: str | Path, name: str = "workdir") -> Path:
  r"""A `local` folder in which Orbax finds again what it writes: it takes ``* ? [ ] \`` for patterns.

  Raises:
    ValueError: If it is none, or has such a character or Orbax's mark of unfinished steps in its whole path.
  """
  found = local(path, name)
  if wrong := sorted(set(str(found.absolute())) & set("*?[]\\\n")):
    raise ValueError(f"{name} must be without {' '.join(map(repr, wrong))} in its path, got {found}")
  if ".orbax-checkpoint-tmp" in str(found.absolute()):
    raise ValueError(f"{name} must be without .orbax-checkpoint-tmp in its path, got {found}")
  return found


def user_folder(variable: str, *default: str) -> Path:
  """The folder that an environment variable names, or ``default`` below the home.

  An empty variable counts as none. Without a home (no HOME, no entry in passwd), it lies below the folder for
  temporary files.
  """
  if value := os.environ.get(variable):
    return local(value, variable)
  try:
    home = Path.home() if os.environ.get("HOME", "~") else None
  except RuntimeError:
    home = None
  return (home or Path(tempfile.gettempdir()) / f"home-{os.getuid()}").joinpath(*default)
