"""The data sets that configurations name."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ddim_jax import console, data
from ddim_jax.data.decoding import Progress, Reading
from ddim_jax.models.config import UNKNOWN, Data
from ddim_jax.models.model import Model
from ddim_jax.places import local

_LARGEST = 65_536
_BUILTIN = ("cifar10", "fashion_mnist", "digits")
_ARRAYS = (".npy", ".npz")
_PICTURES = (
  "image_size", "crop", "fit", "channels", "bits", "values", "label_column", "condition_columns",
  "skip_broken",
)  # fmt: skip
_USED = {
  "folder": (*_PICTURES, "table"),
  "hf": (*_PICTURES, "image_column", "split"),
  "tfds": ("image_size", "crop", "fit", "split", "data_dir"),
  "array": ("values",),
  "builtin": ("split", "data_dir"),
}
"""Fields of a configuration that a kind of data has a use for."""


def kind_of(name: str) -> tuple[str, str]:
  """``(kind, rest)`` of the name of a data set: folder, hf, tfds, array or builtin; and what it is called.

  Raises:
    ValueError: If it is empty.
  """
  if name == UNKNOWN:
    raise ValueError("the model's files do not say what it was trained on: give data")
  kind, _, rest = name.partition(":")
  if kind in ("folder", "hf", "tfds") and rest:
    return kind, rest
  if Path(name).suffix.lower() in _ARRAYS:
    return "array", name
  return ("folder", name) if local(name, "data").is_dir() else ("builtin", name)


def size(name: str, said: str | None) -> int | tuple[int, int] | None:
  """A side or ``(height, width)`` in pixels from text such as 64 or 64x96; None stays None.

  Raises:
    ValueError: If it is neither; names the argument.
  """
  if said is None:
    return None
  found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", said)
  numbers = [int(n) for n in found.groups() if n] if found else []
  if not numbers or not all(1 <= n <= _LARGEST for n in numbers):
    raise ValueError(
      f"{name} must be the side of a square in [1, {_LARGEST:,}], such as 64, or HEIGHTxWIDTH, such as 64x96,"
      f" got {said!r}"
    )
  return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def meaning(said: tuple[str, ...]) -> Any:
  """What numbers mean, see `ddim_jax.data.sources.Values`, from words; None for none.

  Raises:
    ValueError: If it is not LOW HIGH, minmax or standardise.
  """
  if not said or said in (("minmax",), ("standardise",)):
    return said[0] if said else None
  with contextlib.suppress(ValueError):
    low, high = map(float, said)
    return low, high
  raise ValueError(f"values must be LOW HIGH, minmax or standardise, got {' '.join(said)}")


def check(config: Data) -> None:
  """Raises ValueError if a size or a meaning is none, before anything is read; names it."""
  for name in ("image_size", "crop"):
    size(name, getattr(config, name))
  meaning(config.values)


def open_data(
  config: Data,
  split: str | None = None,
  *,
  scaling: data.Scaling | None = None,
  cache: Path | None = None,
  progress: Progress | None = None,
) -> data.Source:
  """The data set of a configuration, decoded or opened.

  Args:
    config: Which, and how it is read.
    split: Another split of it.
    scaling: What its numbers mean, where that is known already and they are no bytes.
    cache: As of `ddim_jax.data.load_folder`, for pictures.
    progress: Likewise.

  Raises:
    ValueError: If it does not say which data, or its options do not go together.
  """
  kind, name = kind_of(config.data)
  unchanged = Data(config.data, flip=config.flip)
  ignored = {"data_dir", "split"}  # other data sets have none, and presets may say them
  for field in dataclasses.fields(Data):
    asked, usual = getattr(config, field.name), getattr(unchanged, field.name)
    if asked != usual and field.name not in (*_USED[kind], *ignored):
      raise ValueError(f"{field.name} does not go with data {config.data}, which is no data of that kind")
  split, shape, crop = split or config.split, size("image_size", config.image_size), size("crop", config.crop)
  values = meaning(config.values) if scaling is None or scaling == data.BYTES else scaling
  reading: Reading = {
    "fit": config.fit, "channels": config.channels, "bits": config.bits, "values": values,
    "skip_broken": config.skip_broken, "cache": cache, "progress": progress,
  }  # fmt: skip
  columns: dict[str, Any] = {
    "label_column": config.label_column, "condition_columns": config.condition_columns
  }  # fmt: skip
  if kind == "folder":
    return data.load_folder(name, shape, crop, table=config.table, **columns, **reading)
  if kind == "hf":
    named = {"split": split, "image_column": config.image_column}
    return data.load_hf(name, shape, crop, **named, **columns, **reading)
  if kind == "array":
    return data.load_array(name, values=values)
  if kind == "tfds":
    return data.load_tfds(name, split, config.data_dir, shape, crop, fit=config.fit)
  if name not in _BUILTIN:
    known = ", ".join(_BUILTIN)
    raise ValueError(
      f"data set must be one of {known}, hf:NAME, tfds:NAME, or a folder or file that is there; got {name!r}"
    )
  return data.load_builtin(name, split, config.data_dir or data.default_data_dir())


@contextlib.contextmanager
def bar(shown: bool = True) -> Iterator[Progress | None]:
  """A progress bar of the pictures that are decoded, on the standard error stream once it takes a second."""
  if not shown:
    yield None
    return
  bars: list[Any] = []

  def progress(done: int, whole: int) -> None:
    if not bars:
      bars.append(console.bar(total=whole, unit="picture", desc="decoding", delay=1))
    bars[0].update(done - bars[0].n)

  yield progress
  for one in bars:
    one.close()


def test_data(model: Model) -> data.Source:
  """The data set that a model was trained on, its test split where it has one."""
  split = "test" if model.config.data.data in ("cifar10", "fashion_mnist") else None
  return open_data(model.config.data, split, scaling=model.scaling)


def real_images(model: Model, num: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Images of the data set that a model was trained on, from its test split where it has one.

  Returns:
    ``([num, *shape] as they are stored, labels: i32[num])``; fewer where the data set is smaller.
  """
  source = test_data(model)
  images, labels = source.read(np.arange(first, min(first + num, source.size)))
  return images, np.asarray(labels, np.int32)
