"""Folders of pictures: what lies in them, and as a source."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Unpack

from ddim_jax.data import labels as tables
from ddim_jax.data.cache import file_identity
from ddim_jax.data.decoding import Pictures, Reading, decoded, pictures_form
from ddim_jax.data.forms import Size
from ddim_jax.data.pictures import SUFFIXES, decode, shown
from ddim_jax.data.sources import Source
from ddim_jax.places import local

_SYSTEMS = {
  "__MACOSX", "__pycache__", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found",
}  # fmt: skip
"""What archives and file systems leave beside pictures."""


class Listing(NamedTuple):
  """Pictures of a folder by their names.

  Attributes:
    files: Relative to the folder, sorted; links to folders are followed.
    skipped: Name and reason of what is not among them.
  """

  files: tuple[Path, ...]
  skipped: tuple[tuple[str, str], ...]


def list_pictures(folder: Path) -> Listing:
  """All files below a folder whose endings are those of pictures.

  Hidden names (with a leading dot, or a system's own) are skipped. Links to folders are followed; below one
  entry of the folder, each folder is visited once, so that links may form loops.
  """
  files: list[Path] = []
  skipped: list[tuple[str, str]] = []

  def walk(place: Path, seen: set[tuple[int, int]]) -> None:
    for entry in sorted(os.scandir(folder / place), key=lambda entry: entry.name):
      path = place / entry.name
      if entry.name.startswith(".") or entry.name in _SYSTEMS:
        skipped.append((shown(path), "hidden"))
      elif os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():  # links may lead to themselves
        status = entry.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
          skipped.append((shown(path), "a link to a folder that was visited already"))
        else:
          below = seen if place.parts else set(seen)
          below.add(identity)
          walk(path, below)
      elif path.suffix.lower() not in SUFFIXES:
        dead = entry.is_symlink() and not os.path.exists(entry)
        skipped.append((shown(path), "a dead link" if dead else "no picture by its name"))
      elif entry.is_symlink() or entry.is_file():
        files.append(path)  # a dead link is refused by its name when it is opened
      else:
        skipped.append((shown(path), "no file"))

  status = folder.stat()
  walk(Path(), {(status.st_dev, status.st_ino)})
  return Listing(tuple(files), tuple(skipped))


def load_folder(
  path: str | Path,
  image_size: Size | None = None,
  crop: Size | None = None,
  *,
  label_column: str | None = None,
  condition_columns: Sequence[str] = (),
  table: str | Path | None = None,
  **reading: Unpack[Reading],
) -> Source:
  """A folder of pictures; subfolders, and links to folders, are classes.

  Pictures directly inside the folder have no class. Hidden names are skipped.

  Args:
    path: The folder.
    image_size: Every picture is resized to this: the side of a square, or ``(height, width)``, in pixels.
      None takes pictures that have one size as they are.
    crop: Size of a central part cut out first, likewise, in pixels.
    label_column: Classes are not the subfolders but this column of a table beside the pictures.
    condition_columns: Columns whose numbers are the conditions of each picture.
    table: A CSV or JSON lines file with a column of file names; by default the one that lies in the folder.
    **reading: fit, channels, bits, values, skip_broken, cache and progress: see `decoding.Reading`.

  Raises:
    ValueError: If there is no picture, some lie inside subfolders and some outside, or one cannot be used;
      names it.
  """
  root = local(path)
  if not root.is_dir():
    raise ValueError(f"{shown(path)} is not a folder")
  form, skip_broken = pictures_form(image_size, crop, reading), bool(reading.get("skip_broken"))
  files, skipped = list_pictures(root)
  if not files:
    raise ValueError(f"{shown(root)} holds no images ({', '.join(sorted(SUFFIXES))})")
  conditions = None
  if label_column is not None or condition_columns:
    rows = tables.read_table(root, table)
    files, without = tables.sort_out(rows, files, skip_broken)
    skipped += without
    conditions = tables.numbers(rows, files, condition_columns) if condition_columns else None
  if label_column is None:
    labels, classes = tables.folder_classes(root, files)
  else:
    labels, classes = tables.as_classes(tables.column(rows, files, label_column))
  pictures = Pictures(
    name=shown(root),
    names=[shown(file) for file in files],
    decode=lambda index: decode(root / files[index], form),
    form=form,
    labels=labels,
    classes=classes,
    conditions=conditions,
    skipped=skipped,
    identity=reading.get("cache") and [str(root.resolve()), [file_identity(root, file) for file in files]],
  )
  return decoded(pictures, reading)
