"""Classes by name, and tables (CSV, JSON lines) that say the class and the conditions of each picture."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ddim_jax.data.pictures import shown
from ddim_jax.places import local

_USUAL_NAMES = ("metadata.jsonl", "metadata.csv", "labels.csv")
_FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")


class Table(NamedTuple):
  """Rows of a table by the name of their picture.

  Attributes:
    path: Of the table.
    rows: Name relative to the folder, with slashes -> column -> value.
  """

  path: Path
  rows: Mapping[str, Mapping[str, Any]]


def as_classes(names: Iterable[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels ``i32[N]`` and the names of the classes, sorted (as numbers, if all are whole numbers)."""
  texts = [str(name) for name in names]
  numbers = all(text.removeprefix("-").isdecimal() for text in texts)
  classes = sorted(set(texts), key=(lambda text: (int(text), text)) if numbers else None)
  index = {name: number for number, name in enumerate(classes)}
  return np.array([index[text] for text in texts], np.int32), tuple(classes)


def folder_classes(root: Path, files: Sequence[Path]) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels and classes by the first part of each path; no classes if all lie directly in the folder.

  Raises:
    ValueError: If some lie in subfolders and some outside; names one.
  """
  loose = [file for file in files if len(file.parts) == 1]
  if len(loose) == len(files):
    return np.zeros(len(files), np.int32), ()
  if loose:
    name = shown(loose[0])
    raise ValueError(f"{shown(root)} has subfolders (classes) and images outside them, such as {name}")
  classes = tuple(sorted({file.parts[0] for file in files}))
  index = {name: number for number, name in enumerate(classes)}
  return np.array([index[file.parts[0]] for file in files], np.int32), classes


def read_table(root: Path, path: str | Path | None = None) -> Table:
  """The table of a folder of pictures.

  Args:
    root: The folder.
    path: The table, ``.csv`` or ``.jsonl``; by default the one of these that lies in the folder.

  Raises:
    ValueError: If there is none or no single one, or it cannot be read as such; names file and line.
  """
  if path is None:
    tables = [root / name for name in _USUAL_NAMES if (root / name).is_file()]
    tables = tables or sorted(p for p in root.iterdir() if p.suffix.lower() in (".csv", ".jsonl"))
    if len(tables) != 1:
      names = ", ".join(t.name for t in tables) or f"none, such as {_USUAL_NAMES[0]}"
      raise ValueError(f"table must be given: {root} holds {names}")
    path = tables[0]
  path = local(path, "table")
  try:
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".jsonl":
      lines: list[Any] = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
      lines = list(csv.DictReader(text.splitlines(keepends=True), strict=True, restval=""))
  except (OSError, ValueError, csv.Error) as error:
    raise ValueError(f"{path} cannot be read: {error}") from error
  rows: dict[str, Mapping[str, Any]] = {}
  for number, line in enumerate(lines, 1):
    if not isinstance(line, dict):
      raise ValueError(f"{path}, row {number}: must be an object, got {line!r}")  # noqa: TRY004
    column = next((c for c in _FILE_COLUMNS if c in line), None)
    if column is None:
      raise ValueError(
        f"{path}, row {number}: no column of file names ({', '.join(_FILE_COLUMNS)}), only {list(line)}"
      )
    name = PurePosixPath(str(line[column]).replace("\\", "/")).as_posix()
    if name in rows:
      raise ValueError(f"{path}, row {number}: {name} has a row already")
    rows[name] = line
  return Table(path, rows)


def sort_out(
  table: Table, files: Sequence[Path], skip_broken: bool
) -> tuple[tuple[Path, ...], tuple[tuple[str, str], ...]]:
  """The pictures that have a row, and name and reason of those that are left out.

  Raises:
    ValueError: If a picture has no row and ``skip_broken`` is false, or no picture has one.
  """
  with_row = tuple(file for file in files if file.as_posix() in table.rows)
  without = [file for file in files if file.as_posix() not in table.rows]
  if not with_row or (without and not skip_broken):
    raise ValueError(f"{table.path} has no row for {len(without):,} pictures, such as {without[0]}")
  return with_row, tuple((shown(file), f"no row in {table.path.name}") for file in without)


def column(table: Table, files: Sequence[Path], name: str) -> list[Any]:
  """The values of a column, of each picture.

  Raises:
    ValueError: If a picture has none; names it.
  """
  values = []
  for file in files:
    row = table.rows[file.as_posix()]
    if row.get(name) in (None, "", []):
      known = sorted(str(key) for key in row)
      raise ValueError(f"{table.path}: {file} has no value in column {name!r} (columns: {', '.join(known)})")
    values.append(row[name])
  return values


def numbers(table: Table, files: Sequence[Path], columns: Sequence[str]) -> np.ndarray:
  """The numbers in some columns, ``f32[N, K]``; a cell of JSON lines may hold a list of them.

  Raises:
    ValueError: If one is no finite number, or rows differ in length; names the picture.
  """
  cells = [column(table, files, name) for name in columns]
  vectors: list[list[float]] = []
  for file, row in zip(files, zip(*cells, strict=True), strict=True):
    try:
      vector = [float(x) for cell in row for x in (cell if isinstance(cell, list) else [cell])]
    except (TypeError, ValueError):
      vector = [math.nan]
    length = len(vectors[0]) if vectors else len(vector)
    if len(vector) != length or not all(map(math.isfinite, vector)):
      names = ", ".join(columns)
      raise ValueError(f"{table.path}: {file} must have {length} finite numbers in {names}, got {row}")
    vectors.append(vector)
  return np.array(vectors, np.float32)
