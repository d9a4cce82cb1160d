"""Where a user's files lie when nobody says."""

import os
import tempfile
from pathlib import Path


def user_folder(variable: str, *default: str) -> Path:
  """The folder that an environment variable names, or ``default`` below the home.

  An empty variable counts as none. Without a home (no HOME, no entry in passwd), it lies below the folder for
  temporary files.
  """
  if value := os.environ.get(variable):
    return Path(value).expanduser()
  try:
    home = Path.home() if os.environ.get("HOME", "~") else None
  except RuntimeError:
    home = None
  return (home or Path(tempfile.gettempdir()) / f"home-{os.getuid()}").joinpath(*default)
