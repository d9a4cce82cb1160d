"""Data sets of the Hugging Face hub, and those on disk in its format. Needs the ``hf`` extra."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from ddim_jax.data import sources
from ddim_jax.data.cache import file_identity
from ddim_jax.data.decoding import Pictures, Reading, decoded, pictures_form
from ddim_jax.data.forms import Size
from ddim_jax.data.labels import as_classes
from ddim_jax.data.pictures import Held, decode, shown
from ddim_jax.data.sources import Source
from ddim_jax.places import local


def load_hf(
  name: str | Path,
  image_size: Size | None = None,
  crop: Size | None = None,
  *,
  split: str = "train",
  image_column: str = "image",
  label_column: str | None = None,
  condition_columns: Sequence[str] = (),
  **reading: Unpack[Reading],
) -> Source:
  """A data set of the hub by its name, or a folder that ``datasets`` has saved or can load.

  Args:
    name: NAME or OWNER/NAME on the hub, or a folder.
    image_size: As of `load_folder`.
    crop: Likewise.
    split: A split of the data set, in the library's notation, such as "train" or "train[:10%]".
    image_column: The column of images; or of arrays, of which ``values`` says what they mean.
    label_column: The column of classes; by default "label", if there is one.
    condition_columns: Columns of numbers, or of lists of them, that are the conditions.
    **reading: fit, channels, bits, values, skip_broken, cache and progress: see `decoding.Reading`.

  Raises:
    ValueError: If the extra is not installed, there is no such data set, split or column, or an image cannot
      be used.
  """
  try:
    import datasets
  except ImportError as error:
    raise ValueError("data sets of the Hugging Face hub need: pip install 'ddim_jax[hf]'") from error
  table = _open(datasets, name, split)
  wanted = [image_column, *condition_columns, *([label_column] if label_column else [])]
  if missing := [column for column in wanted if column not in table.column_names]:
    raise ValueError(f"{shown(name)} has columns {', '.join(table.column_names)}, not {', '.join(missing)}")
  title = f"{shown(name)}, {split}"
  labels, classes = _labels(table, label_column)
  conditions = [np.array(table[column][:], np.float32) for column in condition_columns]
  conditions = [x.reshape(table.num_rows, -1) for x in conditions]
  condition = np.concatenate(conditions, axis=1) if conditions else None
  if not isinstance(table.features[image_column], datasets.Image):
    arrays = np.stack(list(table.with_format("numpy")[image_column][:]))
    return sources.in_memory(
      title, arrays, labels, classes, values=reading.get("values"), conditions=condition
    )
  form = pictures_form(image_size, crop, reading)
  files = table.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))

  def decode_row(index: int) -> tuple[np.ndarray, Held]:
    cell = files[index][image_column]
    label = f"{title}, row {index}"
    if not cell or not (cell["bytes"] or cell["path"]):
      raise ValueError(f"{label} cannot be used: it holds no image")
    return decode(io.BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"], form, label)

  pictures = Pictures(
    name=title,
    names=[f"row {index}" for index in range(table.num_rows)],
    decode=decode_row,
    form=form,
    labels=sources.checked_labels(table.num_rows, labels, classes),
    classes=classes,
    conditions=sources.checked_conditions(table.num_rows, condition),
    skipped=(),
    identity=reading.get("cache")
    and [title, table._fingerprint, image_column, _outside(files, image_column)],
  )
  return decoded(pictures, reading)


def _outside(files: Any, column: str) -> list[Any]:
  """What changes with the pictures of a table that are no part of it, but files beside it."""
  import pyarrow.compute as pc

  outside: list[Any] = []
  for cells in files.data.column(column).chunks:
    alone = pc.and_(pc.is_null(pc.struct_field(cells, "bytes")), pc.is_valid(pc.struct_field(cells, "path")))
    paths = pc.filter(pc.struct_field(cells, "path"), alone)
    outside += [file_identity(Path(), Path(path)) for path in paths.to_pylist()]
  return outside


def _open(datasets: Any, name: str | Path, split: str) -> Any:
  place = local(name, "name")
  saved = any((place / file).is_file() for file in ("state.json", "dataset_dict.json"))
  if not place.exists() and not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(name)):
    raise ValueError(f"there is no folder {shown(name)}, and it is no NAME or OWNER/NAME of the hub")
  try:
    if not saved:
      return datasets.load_dataset(str(place if place.exists() else name), split=split)
    table = datasets.load_from_disk(str(place))
  except Exception as error:  # the library and what it downloads with raise many types
    reason = " ".join(str(error).split()) or type(error).__name__
    raise ValueError(f"{shown(name)}, {split} cannot be loaded: {shown(reason[:300])}") from error
  if isinstance(table, datasets.Dataset):
    return table
  if split not in table:
    raise ValueError(f"{shown(name)} has splits {sorted(table)}, got {split!r}")
  return table[split]


def _labels(table: Any, column: str | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
  column = column or "label"
  if column not in table.column_names:
    return None, ()
  cells, names = table[column][:], getattr(table.features[column], "names", None)
  if any(cell is None for cell in cells):
    raise ValueError(f"column {column!r} has no value in row {[cell is None for cell in cells].index(True)}")
  return (np.array(cells), tuple(names)) if names else as_classes(cells)
